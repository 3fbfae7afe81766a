/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/pending.h"

#include <stdlib.h>

#include "keeper/copy.h"
#include "keeper/keeper.h"
#include "keeper/launch.h"
#include "util/cleanup.h"
#include "util/mem.h"

void pending_look(struct keeper *keeper)
{
	CLEANUP(text_done) struct text changes = { 0 };
	struct error err = { 0 };

	free(keeper->pending);
	keeper->pending = NULL;
	if (!keeper->copy || !keeper->hardware ||
	    keeper->copy->generation == keeper->want.generation)
		return;
	if (launch_changes(keeper, &changes, &err) < 0)
		keeper->pending = xasprintf("restart, which would fail: %s", err.text);
	else if (changes.length)
		keeper->pending = xasprintf("restart: %s", changes.text);
}
