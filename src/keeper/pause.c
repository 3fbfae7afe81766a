/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/pause.h"

#include "core/reconcile.h"
#include "keeper/copy.h"
#include "keeper/keeper.h"
#include "keeper/lease.h"
#include "keeper/monitor.h"
#include "keeper/ownership.h"
#include "keeper/report.h"
#include "util/checkpoint.h"
#include "util/log.h"

static void pause_failed(struct keeper *keeper, const char *why)
{
	keeper->pausing = false;
	if (keeper->copy)
		keeper->copy->paused = false;
	report_event(keeper, "pause-failed", NULL, "%s", why);
	keeper_failed(keeper, 0, why);
	keeper_look(keeper);
}

static void on_paused(void *ctx, int r, json_t *value, const struct error *err)
{
	struct keeper *keeper = ctx;

	if (r < 0) {
		pause_failed(keeper, err->text);
		return;
	}
	keeper->pausing = false;
	keeper->failure[0] = '\0';
	copy_note(keeper, &keeper->copy->held);
	monitor_outdated(keeper->monitor);
}

/* Noted before it is done: a keeper that dies in between leaves a guest whose pause is ours. */
void pause_begin(struct keeper *keeper)
{
	struct error err = { 0 };
	int r;

	keeper->copy->paused = true;
	r = copy_save(keeper, keeper->copy, &err);
	checkpoint("keeper.pause");
	if (r == 0)
		r = monitor_call(keeper->monitor, "stop", NULL, on_paused, keeper, &err);
	if (r < 0)
		pause_failed(keeper, err.text);
	else
		keeper->pausing = true;
}

static void resume_failed(struct keeper *keeper, const char *why)
{
	keeper->resuming = keeper->letting_run = false;
	report_event(keeper, "resume-failed", NULL, "%s", why);
	keeper_failed(keeper, 0, why);
	keeper_look(keeper);
}

static void on_resumed(void *ctx, int r, json_t *value, const struct error *err)
{
	struct keeper *keeper = ctx;

	monitor_outdated(keeper->monitor);
	if (r < 0) {
		resume_failed(keeper, err->text);
		return;
	}
	keeper->resuming = keeper->letting_run = false;
	keeper->failure[0] = '\0';
	if (keeper->copy) {
		keeper->copy->paused = keeper->copy->lease_paused = false;
		(void)copy_save(keeper, keeper->copy, NULL);
	}
}

/* The write may have taken its time: does the wish still want these vcpus to run? */
static bool still_wanted(const struct keeper *keeper)
{
	struct facts facts;

	keeper_facts(keeper, &facts);
	facts.busy = BUSY_NOTHING;
	facts.retry_due |= keeper->want.wish == WISH_RUN;
	return facts.situation != SITUATIONS &&
	       reconcile(keeper->want.wish, &facts).action == ACTION_RESUME;
}

/* From here on nobody may take it for paused by what is written. */
static int let_go(struct keeper *keeper, struct error *err)
{
	keeper->copy->held = false;
	return copy_save(keeper, keeper->copy, err);
}

static void on_renewed(struct keeper *keeper, int r, const struct error *err)
{
	struct error why = { 0 };

	if (r < 0)
		why = *err;
	checkpoint("keeper.resume");
	/* R2.  Without it this ends, and is begun anew when there is a lease. */
	if (r == 0 && (!still_wanted(keeper) || lease_check(keeper, 0, &why) < 0)) {
		keeper->resuming = false;
		keeper_look(keeper);
		return;
	}
	if (r == 0)
		r = let_go(keeper, &why);
	if (r == 0)
		r = monitor_call(keeper->monitor, "cont", NULL, on_resumed, keeper, &why);
	keeper->letting_run = r == 0;
	if (r < 0)
		resume_failed(keeper, why.text);
}

/* A stopped copy runs again only after an answered write (R1), which changes no policy: that has
 * a write of its own. */
void resume_begin(struct keeper *keeper)
{
	struct error err = { 0 };
	int r;

	keeper->resuming = true;
	if (ownership_held_here(keeper))
		r = ownership_renew(keeper, keeper->ownership->record.lease, on_renewed, &err);
	else
		r = ownership_acquire(keeper, keeper->want.definition, NULL, on_renewed, &err);
	if (r < 0)
		resume_failed(keeper, err.text);
}
