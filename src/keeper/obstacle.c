/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/obstacle.h"

#include <stdio.h>
#include <string.h>

#include "keeper/keeper.h"
#include "keeper/migration.h"
#include "keeper/ownership.h"
#include "keeper/timeline.h"
#include "model/config.h"
#include "util/error.h"
#include "wire/json.h"

#define TRIES_MAX 3 /* of what may be otherwise the next time */

void obstacle_met(struct keeper *keeper, uint64_t epoch, const struct error *err)
{
	struct obstacle *obstacle = &keeper->migration->obstacle;

	/* Every try says the same for hours, perhaps: that is one line. */
	if (strcmp(obstacle->why, err->text) != 0)
		(void)timeline_end(timeline_new(keeper, "target", keeper->ownership->record.node,
						keeper->config->node, epoch),
				   "failed", err->text);
	(void)snprintf(obstacle->why, sizeof(obstacle->why), "%s", err->text);
	obstacle->tries++;
	obstacle->final = err->class != ERROR_TRY_AGAIN || obstacle->tries >= TRIES_MAX;
}

void obstacle_forget(struct keeper *keeper)
{
	keeper->migration->obstacle = (struct obstacle){ 0 };
}

json_t *obstacle_json(const struct keeper *keeper)
{
	const struct obstacle *obstacle = &keeper->migration->obstacle;

	if (!*obstacle->why || keeper->want.wish != WISH_RUN || !ownership_held_elsewhere(keeper))
		return json_null();
	return json_pack("{s:I, s:o, s:b}", "number", (json_int_t)keeper->want.move.number, "why",
			 json_text(obstacle->why, strlen(obstacle->why)), "final",
			 (int)obstacle->final);
}
