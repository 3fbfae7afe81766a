/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/keeper.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/wish.h"
#include "keeper/copy.h"
#include "keeper/link.h"
#include "keeper/monitor.h"
#include "keeper/ownership.h"
#include "keeper/report.h"
#include "keeper/start.h"
#include "keeper/stop.h"
#include "model/config.h"
#include "qemu/hardware.h"
#include "util/checkpoint.h"
#include "util/log.h"

enum situation keeper_situation(const struct keeper *keeper)
{
	const char *run_state = monitor_run_state(keeper->monitor);

	if (keeper->unproven)
		return SITUATION_UNPROVEN;
	if (!keeper->copy)
		return keeper->remains ? SITUATION_REMAINS : SITUATION_ABSENT;
	if (!keeper->monitor || monitor_mute(keeper->monitor))
		return SITUATION_MUTE;
	/* Not yet asked, as directly after adoption: nothing is decided before the answer. */
	if (!run_state)
		return SITUATIONS;
	return situation_of_run_state(run_state);
}

static enum busy keeper_busy(const struct keeper *keeper)
{
	if (keeper->start)
		return BUSY_STARTING;
	if (keeper->stop)
		return stop_is_graceful(keeper->stop) ? BUSY_STOPPING : BUSY_ENDING;
	if (keeper->cleanup || keeper->resuming || keeper->pausing || keeper->ownership->write)
		return BUSY_OTHER;
	return BUSY_NOTHING;
}

void keeper_facts(const struct keeper *keeper, struct facts *ret)
{
	const struct want *want = &keeper->want;
	bool restart_due = keeper->copy && keeper->copy->restarts < want->restarts;

	*ret = (struct facts){
		.situation = keeper_situation(keeper),
		.busy = keeper_busy(keeper),
		.restart_due = restart_due,
		.retry_due = keeper->retry_done < want->retry,
		.kill = want->kill,
		.paused_by_us = keeper->copy && keeper->copy->paused,
		.waiting = clock_now() < keeper->not_before,
		.held_elsewhere = ownership_held_elsewhere(keeper),
		.claims_held = !keeper->copy && ownership_held_here(keeper),
		.on_panic = want->definition->on_panic,
	};
}

static int on_backoff(sd_event_source *source, uint64_t usec, void *ctx)
{
	keeper_look(ctx);
	return 0;
}

void keeper_failed(struct keeper *keeper, uint64_t ran_usec, const char *why)
{
	uint64_t wait = backoff_failed(&keeper->backoff, ran_usec);
	int r;

	(void)snprintf(keeper->failure, sizeof(keeper->failure), "%s", why);
	keeper->not_before = clock_now() + wait;
	keeper->backoff_timer = sd_event_source_disable_unref(keeper->backoff_timer);
	/* Not relative: that would count from the begin of this turn of the loop, which may be long
	 * ago, and a look before its time sees that it still has to wait, and is the last one. */
	r = sd_event_add_time(keeper->loop, &keeper->backoff_timer, CLOCK_BOOTTIME,
			      keeper->not_before, 0, on_backoff, keeper);
	if (r < 0)
		log_error("cannot set a timer: %s", strerror(-r));
}

/* A paused guest could not be let run: said, and tried again after a while. */
static void resume_failed(struct keeper *keeper, const char *why)
{
	keeper->resuming = false;
	report_event(keeper, "resume-failed", NULL, "%s", why);
	keeper_failed(keeper, 0, why);
	keeper_look(keeper);
}

static void on_paused(void *ctx, int r, json_t *value, const struct error *err)
{
	struct keeper *keeper = ctx;

	keeper->pausing = false;
	if (r < 0)
		log_error("pause: %s", err->text);
	monitor_outdated(keeper->monitor);
}

/* Noted before it is done: a keeper that dies in between leaves a guest whose pause is ours. */
static void do_pause(struct keeper *keeper)
{
	struct error err = { 0 };
	int r;

	keeper->copy->paused = true;
	r = copy_save(keeper, keeper->copy, &err);
	checkpoint("keeper.pause");
	if (r == 0)
		r = monitor_call(keeper->monitor, "stop", NULL, on_paused, keeper, &err);
	if (r < 0)
		log_error("pause: %s", err.text);
	else
		keeper->pausing = true;
}

static void on_resumed(void *ctx, int r, json_t *value, const struct error *err)
{
	struct keeper *keeper = ctx;

	if (r < 0) {
		resume_failed(keeper, err->text);
		return;
	}
	keeper->resuming = false;
	keeper->failure[0] = '\0';
	if (keeper->copy) {
		keeper->copy->paused = false;
		(void)copy_save(keeper, keeper->copy, NULL);
	}
	monitor_outdated(keeper->monitor);
}

static void on_renewed(struct keeper *keeper, int r, const struct error *err)
{
	struct error why = { 0 };

	if (r < 0)
		why = *err;
	checkpoint("keeper.resume");
	if (r == 0)
		r = monitor_call(keeper->monitor, "cont", NULL, on_resumed, keeper, &why);
	if (r < 0)
		resume_failed(keeper, why.text);
}

/* A stopped copy runs again only after an answered write (R1). */
static void do_resume(struct keeper *keeper)
{
	struct error err = { 0 };

	keeper->resuming = true;
	if (ownership_acquire(keeper, NULL, on_renewed, &err) < 0)
		resume_failed(keeper, err.text);
}

static void give_up_start(struct keeper *keeper)
{
	report_event(keeper, "start-given-up", NULL, "the wish changed");
	keeper->start = start_cancel(keeper->start);
	keeper->remains = true;
	if (!keeper->copy)
		return;
	copy_note(keeper, &keeper->copy->end_ordered);
	stop_destroy(keeper, "its start was given up");
}

/* on_panic: off. The wish itself becomes an administrative stop; the agent writes it. */
static void order_stop(struct keeper *keeper)
{
	json_auto_t *args = json_pack("{s:s}", "why", "the guest panicked and on_panic is 'off'");
	struct error err = { 0 };

	if (link_up(keeper->link) &&
	    link_call(keeper->link, "order-stop", args, 5 * USEC_PER_SEC, NULL, NULL, &err) < 0)
		log_warning("order-stop: %s", err.text);
}

/* An end that was ordered is no failure, and nobody waits before the next start. */
static void note_order(struct keeper *keeper, const struct facts *facts)
{
	if (wish_is_down(keeper->want.wish) || facts->restart_due ||
	    facts->situation == SITUATION_PRELAUNCH)
		copy_note(keeper, &keeper->copy->end_ordered);
}

static void begin(struct keeper *keeper, const struct facts *facts, const struct decision *decision)
{
	switch (decision->action) {
	case ACTION_NONE:
		break;
	case ACTION_START:
		start_begin(keeper);
		break;
	case ACTION_SHUTDOWN:
		note_order(keeper, facts);
		stop_shutdown(keeper);
		break;
	case ACTION_DESTROY:
		note_order(keeper, facts);
		if (facts->situation == SITUATION_PANICKED && keeper->want.wish == WISH_RUN &&
		    facts->on_panic == PANIC_OFF && !facts->restart_due)
			order_stop(keeper);
		stop_destroy(keeper, decision->why);
		break;
	case ACTION_CLEANUP:
		cleanup_begin(keeper);
		break;
	case ACTION_PAUSE:
		do_pause(keeper);
		break;
	case ACTION_RESUME:
		do_resume(keeper);
		break;
	case ACTION_GIVE_UP_STOP:
		stop_give_up(keeper);
		break;
	case ACTION_GIVE_UP_START:
		give_up_start(keeper);
		break;
	default:
		assert(!"an action that nobody carries out");
	}
}

/* copy.json could not be read: the process table tells, once the VM's uuid is known.  A VM without
 * a hardware record was never started. */
static void prove(struct keeper *keeper)
{
	struct error err = { 0 };
	int r = keeper->hardware ? copy_search(keeper, keeper->hardware->uuid, &err) : 0;

	if (r < 0) {
		(void)snprintf(keeper->failure, sizeof(keeper->failure), "%s", err.text);
		return;
	}
	keeper->unproven = false;
	keeper->remains = true;
	keeper->failure[0] = '\0';
	if (r == 0) {
		(void)renameat(keeper->run_fd, "copy.json", keeper->run_fd, "copy.json.damaged");
		report_event(keeper, "proven", NULL, "no process of this VM runs");
	} else if (monitor_open(keeper, &err) < 0) {
		log_warning("monitor: %s; retrying", err.text);
	}
}

static int look(sd_event_source *source, void *ctx)
{
	struct keeper *keeper = ctx;
	struct decision decision = { ACTION_NONE, "the agent has not said what is wanted" };
	struct facts facts = { .situation = SITUATIONS };
	bool settled = false;

	if (keeper->dismissed)
		return sd_event_exit(keeper->loop, 0);
	if (keeper->unproven && keeper->want.known)
		prove(keeper);
	if (keeper->want.known && keeper->want.definition && keeper->ownership->known)
		keeper_facts(keeper, &facts);
	if (facts.situation != SITUATIONS) {
		decision = reconcile(keeper->want.wish, &facts);
		settled = decision.action == ACTION_NONE && facts.busy == BUSY_NOTHING;
		if (facts.busy == BUSY_NOTHING)
			keeper->retry_done = keeper->want.retry;
	}
	if (decision.action != ACTION_NONE) {
		log_info("wish %s, %s: %s (%s)", vm_wish_name(keeper->want.wish),
			 situation_name(facts.situation), action_name(decision.action),
			 decision.why);
		begin(keeper, &facts, &decision);
	}
	report_update(keeper, settled);
	return 0;
}

void keeper_look(struct keeper *keeper)
{
	int r = 0;

	if (!keeper->look)
		r = sd_event_add_defer(keeper->loop, &keeper->look, look, keeper);
	if (r >= 0)
		r = sd_event_source_set_enabled(keeper->look, SD_EVENT_ONESHOT);
	if (r < 0)
		log_error("cannot look after the VM: %s", strerror(-r));
}
