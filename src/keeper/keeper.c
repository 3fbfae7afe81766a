/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/keeper.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/wish.h"
#include "keeper/cleanup.h"
#include "keeper/copy.h"
#include "keeper/lease.h"
#include "keeper/link.h"
#include "keeper/migration.h"
#include "keeper/monitor.h"
#include "keeper/ownership.h"
#include "keeper/pause.h"
#include "keeper/proof.h"
#include "keeper/report.h"
#include "keeper/start.h"
#include "keeper/stop.h"
#include "model/config.h"
#include "util/log.h"

/* The agent may be restarting. */
#define ORDER_AGAIN (1 * USEC_PER_SEC)

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
	/* A migration that was called off lets QEMU forget how a guest that did not run any more
	 * had ended (docs/QEMU.md). */
	if (strcmp(run_state, "postmigrate") == 0 && keeper->copy->powered_off)
		return SITUATION_POWERED_OFF;
	if (strcmp(run_state, "postmigrate") == 0 && keeper->copy->panicked)
		return SITUATION_PANICKED;
	return situation_of_run_state(run_state);
}

static enum busy keeper_busy(const struct keeper *keeper)
{
	if (keeper->start)
		return BUSY_STARTING;
	if (keeper->stop)
		return stop_is_graceful(keeper->stop) ? BUSY_STOPPING : BUSY_ENDING;
	if (keeper->cleanup || keeper->resuming || keeper->pausing || keeper->ordering ||
	    keeper->ownership->write)
		return BUSY_OTHER;
	return BUSY_NOTHING;
}

/* Only what may become a start or a resume needs one. */
static bool lease_missing(const struct keeper *keeper, enum situation situation)
{
	return (situation == SITUATION_ABSENT || situation == SITUATION_PAUSED ||
		situation == SITUATION_IO_ERROR) &&
	       lease_over(keeper);
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
		.paused_by_lease = keeper->copy && keeper->copy->lease_paused,
		.waiting = clock_now() < keeper->not_before,
		.held_elsewhere = ownership_held_elsewhere(keeper),
		.ran = keeper->copy && keeper->copy->ran,
		.claims_held = !keeper->copy && ownership_held_here(keeper),
		.may_receive = migration_may_receive(keeper),
		.move_cold = migration_is_cold(keeper),
		.on_panic = want->definition->on_panic,
	};
	ret->lease_over = lease_missing(keeper, ret->situation);
}

void keeper_failed(struct keeper *keeper, uint64_t ran_usec, const char *why)
{
	uint64_t wait = backoff_failed(&keeper->backoff, ran_usec);

	(void)snprintf(keeper->failure, sizeof(keeper->failure), "%s", why);
	keeper->not_before = clock_now() + wait;
	keeper_look_in(keeper, wait);
}

static void give_up_start(struct keeper *keeper)
{
	report_event(keeper, "start-given-up", NULL, "the wish changed");
	keeper->start = start_cancel(keeper->start);
	keeper->remains = true;
	keeper_look(keeper); /* what follows from that is decided in the next turn */
	if (!keeper->copy)
		return;
	copy_note(keeper, &keeper->copy->end_ordered);
	stop_destroy(keeper, "its start was given up");
}

static void on_stop_ordered(void *ctx, int r, json_t *value, const struct error *err)
{
	struct keeper *keeper = ctx;

	keeper->ordering = false;
	if (r < 0) {
		log_warning("order-stop: %s; asking again", err->text);
		keeper_look_in(keeper, ORDER_AGAIN);
	}
}

/* on_panic: off.  The wish itself becomes an administrative stop; the agent writes it, and what is
 * to be done comes with that wish.  Until then nothing is. */
static void order_stop(struct keeper *keeper)
{
	json_auto_t *args = json_pack("{s:s}", "why", "the guest panicked and on_panic is 'off'");
	struct error err = { 0 };

	if (!link_up(keeper->link))
		return; /* a new link is a reason to look */
	if (link_call(keeper->link, "order-stop", args, 5 * USEC_PER_SEC, on_stop_ordered, keeper,
		      &err) < 0)
		keeper_look_in(keeper, ORDER_AGAIN);
	else
		keeper->ordering = true;
}

/* An end that was ordered is no failure, and nobody waits before the next start. */
static void note_order(struct keeper *keeper, const struct facts *facts)
{
	if (wish_is_down(keeper->want.wish) || facts->restart_due || facts->move_cold ||
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
	case ACTION_RECEIVE:
		start_receive(keeper);
		break;
	case ACTION_SHUTDOWN:
		note_order(keeper, facts);
		stop_shutdown(keeper);
		break;
	case ACTION_DESTROY:
		note_order(keeper, facts);
		stop_destroy(keeper, decision->why);
		break;
	case ACTION_CLEANUP:
		cleanup_begin(keeper);
		break;
	case ACTION_PAUSE:
		pause_begin(keeper);
		break;
	case ACTION_RESUME:
		resume_begin(keeper);
		break;
	case ACTION_ORDER_STOP:
		order_stop(keeper);
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

/* What was decided against: by whom and why, for the log. */
static void log_decision(const struct keeper *keeper, const struct facts *facts,
			 const struct decision *decision)
{
	log_info("wish %s, %s: %s (%s)", vm_wish_name(keeper->want.wish),
		 situation_name(facts->situation), action_name(decision->action), decision->why);
}

/* True when nothing more is wanted. */
static bool decide(struct keeper *keeper)
{
	struct decision decision;
	struct facts facts;

	keeper_facts(keeper, &facts);
	if (facts.situation == SITUATIONS)
		return false;
	if (facts.lease_over)
		keeper_look_in(keeper, LEASE_AGAIN);
	decision = reconcile(keeper->want.wish, &facts);
	if (facts.busy == BUSY_NOTHING)
		keeper->retry_done = keeper->want.retry;
	if (decision.action == ACTION_NONE)
		return facts.busy == BUSY_NOTHING && !lease_change_policy(keeper);
	log_decision(keeper, &facts, &decision);
	begin(keeper, &facts, &decision);
	return false;
}

static int look(sd_event_source *source, void *ctx)
{
	struct keeper *keeper = ctx;
	bool settled = false;

	if (keeper->dismissed)
		return sd_event_exit(keeper->loop, 0);
	lease_look(keeper);
	if (keeper->start)
		start_look(keeper);
	if (keeper->want.known && !keeper->scanned && !keeper->copy)
		proof_look(keeper);
	if (keeper->want.known && keeper->want.definition && keeper->ownership->known &&
	    !migration_look(keeper))
		settled = decide(keeper);
	report_update(keeper, settled);
	if (clock_now() < keeper->not_before)
		keeper_look_in(keeper, keeper->not_before - clock_now());
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

static int on_later(sd_event_source *source, uint64_t usec, void *ctx)
{
	keeper_look(ctx);
	return 0;
}

/* Not relative: that would count from the begin of this turn of the loop, which may be long ago,
 * and a look before its time sees that it still has to wait. */
void keeper_look_in(struct keeper *keeper, uint64_t usec)
{
	uint64_t due = clock_now() + usec, armed = 0;
	int enabled = SD_EVENT_OFF, r;

	if (!keeper->later) {
		r = sd_event_add_time(keeper->loop, &keeper->later, CLOCK_BOOTTIME, due, 1000,
				      on_later, keeper);
	} else {
		(void)sd_event_source_get_enabled(keeper->later, &enabled);
		(void)sd_event_source_get_time(keeper->later, &armed);
		if (enabled != SD_EVENT_OFF && armed <= due)
			return;
		r = sd_event_source_set_time(keeper->later, due);
		if (r >= 0)
			r = sd_event_source_set_enabled(keeper->later, SD_EVENT_ONESHOT);
	}
	if (r < 0)
		log_error("cannot set a timer: %s", strerror(-r));
}
