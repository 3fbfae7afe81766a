/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/proof.h"

#include <errno.h>
#include <stdio.h>

#include "keeper/booking.h"
#include "keeper/copy.h"
#include "keeper/disks.h"
#include "keeper/keeper.h"
#include "keeper/monitor.h"
#include "keeper/report.h"
#include "qemu/hardware.h"
#include "util/log.h"

#define LOOK_AGAIN (5 * USEC_PER_SEC)

static void adopted(struct keeper *keeper)
{
	struct error err = { 0 };

	if (booking_move(keeper, &err) < 0)
		log_warning("memory booking: %s", err.text);
	monitor_open(keeper);
}

static void unproven(struct keeper *keeper, const struct error *err)
{
	if (!keeper->unproven)
		report_event(keeper, "unproven", NULL, "%s", err->text);
	keeper->unproven = true;
	(void)snprintf(keeper->failure, sizeof(keeper->failure), "what runs cannot be told: %s",
		       err->text);
	keeper_look_in(keeper, LOOK_AGAIN);
}

void proof_begin(struct keeper *keeper)
{
	struct error err = { 0 };
	int r = copy_adopt(keeper, &err);

	if (r < 0)
		unproven(keeper, &err);
	else if (r > 0)
		adopted(keeper);
}

/* -EBADMSG is a file that says nothing; everything else is an answer, or none. */
static int ask_file(struct keeper *keeper, struct error *err)
{
	int r = keeper->unproven ? copy_adopt(keeper, err) : 0;

	if (r != -EBADMSG)
		return r;
	(void)copy_set_aside(keeper);
	keeper->remains = true;
	return 0;
}

void proof_look(struct keeper *keeper)
{
	struct error err = { 0 };
	int r;

	/* What carries our name is ours, whatever the file says.  A VM without a hardware record
	 * was never started. */
	r = keeper->hardware ? copy_search(keeper, &err) : 0;
	if (r == 0)
		r = ask_file(keeper, &err);
	if (r < 0) {
		unproven(keeper, &err);
		return;
	}
	keeper->scanned = true;
	if (keeper->unproven)
		keeper->failure[0] = '\0';
	keeper->unproven = false;
	if (r > 0)
		adopted(keeper);
	else if (disks_left(keeper))
		keeper->remains = true;
}
