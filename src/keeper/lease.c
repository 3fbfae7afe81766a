/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/lease.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "core/wish.h"
#include "keeper/copy.h"
#include "keeper/keeper.h"
#include "keeper/migration.h"
#include "keeper/monitor.h"
#include "keeper/ownership.h"
#include "keeper/report.h"
#include "keeper/stop.h"
#include "keeper/transfer.h"
#include "model/config.h"
#include "qmp/qmp.h"
#include "util/checkpoint.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

/* How soon a refused change of the policy is tried again. */
#define CHANGE_AGAIN (1 * USEC_PER_SEC)

struct lease_guard {
	struct lease seen; /* while there was a page */
	sd_event_source *end;
	bool pausing;	   /* QMP `stop` is on its way */
	uint64_t deadline; /* by which no vcpu may run any more; 0: the lease is not over */
};

static struct lease_guard *guard_of(struct keeper *keeper)
{
	if (!keeper->guard)
		keeper->guard = xcalloc(1, sizeof(*keeper->guard));
	return keeper->guard;
}

struct lease_guard *lease_guard_free(struct lease_guard *guard)
{
	if (!guard)
		return NULL;
	sd_event_source_disable_unref(guard->end);
	free(guard);
	return NULL;
}

/* Without a page there is no lease that a permission could be won under; see lease_look() for one
 * that was removed. */
static struct lease lease_now(const struct keeper *keeper)
{
	struct lease lease;

	(void)lease_page_read(keeper->config->paths.run, keeper->boot_id, &lease, NULL);
	return lease;
}

/* What the next `cont` is under: the copy's, or that of the definition it would be started by. */
static enum lease_policy policy_of_next(const struct keeper *keeper)
{
	const struct definition *def = keeper->want.definition;

	if (keeper->copy)
		return keeper->copy->lease;
	return lease_policy_of(def ? def->lease : NULL);
}

int lease_check(const struct keeper *keeper, uint64_t left_usec, struct error *err)
{
	struct lease lease = lease_now(keeper);

	switch (lease_use(policy_of_next(keeper), &lease, keeper->ownership->won, left_usec,
			  clock_now())) {
	case LEASE_USABLE:
		return 0;
	case LEASE_LAPSED:
		return error_set_class(err, ERROR_TRY_AGAIN, -ESTALE,
				       "the lease of this node was over for a while since the "
				       "owner record was won");
	default:
		return error_try_again(err, "the lease of this node is over: droverd has had no "
					    "answer from the store in time");
	}
}

bool lease_over(const struct keeper *keeper)
{
	struct lease lease = lease_now(keeper);

	return lease_use(policy_of_next(keeper), &lease, 0, 0, clock_now()) == LEASE_OVER;
}

/* ---- the policy ---- */

static enum lease_policy stricter(enum lease_policy a, enum lease_policy b)
{
	return a > b ? a : b;
}

/* While a write that changes it is not answered, both may be in the record: also a write of the
 * keeper before this one, until one of our own was answered. */
static void obey_record(struct keeper *keeper)
{
	const struct ownership *own = keeper->ownership;
	enum lease_policy policy;
	struct error err = { 0 };

	if (!ownership_held_here(keeper))
		return;
	policy = lease_policy_of(own->record.lease);
	if (own->write)
		policy = stricter(policy, ownership_asked_policy(keeper));
	if (policy == keeper->copy->lease || (policy < keeper->copy->lease && own->won == 0))
		return;
	keeper->copy->lease = policy;
	if (copy_save(keeper, keeper->copy, &err) < 0)
		log_warning("%s; the next keeper would not know the lease policy", err.text);
}

void lease_begin(struct keeper *keeper)
{
	obey_record(keeper);
}

static void on_changed(struct keeper *keeper, int r, const struct error *err)
{
	if (r < 0) {
		log_warning("lease policy: %s; trying again", err->text);
		keeper_look_in(keeper, CHANGE_AGAIN);
		return;
	}
	report_event(keeper, "lease-policy", NULL, "'%s' from now on",
		     keeper->ownership->record.lease);
	keeper_look(keeper);
}

bool lease_change_policy(struct keeper *keeper)
{
	enum lease_policy policy = lease_policy_of(keeper->want.definition->lease);
	enum vm_wish wish = keeper->want.wish;
	struct error err = { 0 };

	if (!keeper->copy || !ownership_held_here(keeper) || wish == WISH_HANDS_OFF ||
	    wish_is_down(wish) ||
	    (policy == lease_policy_of(keeper->ownership->record.lease) &&
	     policy == keeper->copy->lease))
		return false;
	/* First this keeper obeys it, then the record says so. */
	if (policy > keeper->copy->lease) {
		keeper->copy->lease = policy;
		if (copy_save(keeper, keeper->copy, &err) < 0) {
			log_warning("lease policy: %s", err.text);
			return false;
		}
	}
	checkpoint("keeper.lease.policy");
	if (ownership_renew(keeper, lease_policy_name(policy), on_changed, &err) < 0) {
		log_warning("lease policy: %s", err.text);
		return false;
	}
	return true;
}

/* ---- the end ---- */

static void kill_copy(struct keeper *keeper, const char *why)
{
	keeper->guard->pausing = false;
	keeper->guard->deadline = 0;
	checkpoint("keeper.lease.kill");
	/* Not written down: a keeper that comes after this one looks at the lease for itself. */
	keeper->copy->end_ordered = true;
	stop_kill(keeper, why);
}

/* `stop` is answered in the device phase of a migration too, and holds nothing there. */
static void on_pause_seen(void *ctx, int r, json_t *value, const struct error *err)
{
	struct keeper *keeper = ctx;
	const char *status = json_string_or(value, "status", "");

	if (!keeper->guard->pausing || !keeper->copy)
		return;
	if (r < 0 || lease_copy_of(status, true, false) != LEASE_COPY_STOPPED) {
		log_warning("after stop: %s", r < 0 ? err->text : status);
		kill_copy(keeper, "the lease of this node is over and QEMU does not stay paused");
		return;
	}
	keeper->guard->pausing = false;
	copy_note(keeper, &keeper->copy->held);
	monitor_outdated(keeper->monitor);
}

static void on_paused(void *ctx, int r, json_t *value, const struct error *err)
{
	struct keeper *keeper = ctx;
	uint64_t deadline = keeper->guard->deadline, now = clock_now();
	struct error why = { 0 };

	if (!keeper->guard->pausing || !keeper->copy)
		return;
	if (r < 0)
		why = *err;
	else
		r = qmp_call(monitor_qmp(keeper->monitor), "query-status", NULL,
			     deadline > now ? deadline - now : 1, on_pause_seen, keeper, &why);
	if (r < 0) {
		log_warning("stop: %s", why.text);
		kill_copy(keeper, "the lease of this node is over and QEMU did not pause in time");
	}
}

/* Noted before it is done: a keeper that dies in between leaves a guest whose pause is ours.  An
 * end that was asked for politely is asked for again once the guest runs. */
static void pause_copy(struct keeper *keeper)
{
	struct lease_guard *guard = keeper->guard;
	struct qmp *qmp = monitor_qmp(keeper->monitor);
	struct error err = { 0 };
	uint64_t now;

	if (stop_is_graceful(keeper->stop))
		keeper->stop = stop_cancel(keeper->stop);
	copy_note(keeper, &keeper->copy->lease_paused);
	checkpoint("keeper.lease.pause");
	now = clock_now();
	if (!qmp || now >= guard->deadline ||
	    qmp_call(qmp, "stop", NULL, guard->deadline - now, on_paused, keeper, &err) < 0) {
		kill_copy(keeper, "the lease of this node is over and QEMU's monitor is away");
		return;
	}
	guard->pausing = true;
	/* Only now: the log's disk may hang. */
	report_event(keeper, "lease-over", NULL,
		     "the guest is paused until the store answers again");
}

static int on_end(sd_event_source *source, uint64_t usec, void *ctx)
{
	lease_look(ctx);
	return 0;
}

static void arm(struct keeper *keeper, uint64_t end)
{
	struct lease_guard *guard = guard_of(keeper);
	int r;

	if (!guard->end) {
		r = sd_event_add_time(keeper->loop, &guard->end, CLOCK_BOOTTIME, end, 1000, on_end,
				      keeper);
	} else {
		r = sd_event_source_set_time(guard->end, end);
		if (r >= 0)
			r = sd_event_source_set_enabled(guard->end, SD_EVENT_ONESHOT);
	}
	if (r < 0)
		log_error("cannot set a timer: %s", strerror(-r));
}

static void disarm(struct keeper *keeper)
{
	if (keeper->guard && keeper->guard->end)
		(void)sd_event_source_set_enabled(keeper->guard->end, SD_EVENT_OFF);
}

/* Stopped for good as far as QEMU goes; it has the only full state of the guest, or half of it. */
static bool is_given(const struct keeper *keeper)
{
	enum migration_copy kind = transfer_copy(keeper);

	return kind == COPY_COMPLETED || kind == COPY_FEEDING || kind == COPY_LOADED ||
	       strcmp(keeper->ownership->record.feeder, keeper->config->node) == 0;
}

/* What QEMU last said, unless we have asked for something else since. */
static enum lease_copy copy_kind(const struct keeper *keeper)
{
	const struct copy *copy = keeper->copy;

	if (keeper->letting_run)
		return LEASE_COPY_RUNS;
	return lease_copy_of(monitor_run_state(keeper->monitor), copy->ran && !copy->held,
			     is_given(keeper));
}

/* The lease came back before QEMU was told, or its pause was taken back by other hands. */
static void forget_pause(struct keeper *keeper)
{
	const char *run_state = monitor_run_state(keeper->monitor);

	if (!keeper->copy->lease_paused || keeper->guard->pausing || !run_state ||
	    strcmp(run_state, "running") != 0)
		return;
	keeper->copy->lease_paused = false;
	(void)copy_save(keeper, keeper->copy, NULL);
}

/* A keeper that has just come has not heard from QEMU yet: it listens for as long as QEMU may take
 * to stop. */
static bool listens_still(struct keeper *keeper)
{
	bool heard = keeper->letting_run || monitor_run_state(keeper->monitor);

	if (heard || clock_now() >= keeper->guard->deadline)
		return false;
	arm(keeper, keeper->guard->deadline);
	return true;
}

/* Not twice, and not what is being killed already. */
static void obey(struct keeper *keeper, enum lease_act act)
{
	struct lease_guard *guard = keeper->guard;

	if (guard->pausing || stop_is_kill(keeper->stop))
		return;
	if (guard->deadline == 0)
		guard->deadline = clock_now() + keeper->config->timers.lease_stop;
	if (listens_still(keeper))
		return;
	if (act == LEASE_ACT_PAUSE && (!keeper->stop || stop_is_graceful(keeper->stop)))
		pause_copy(keeper);
	else
		kill_copy(keeper, "the lease of this node is over");
}

void lease_look(struct keeper *keeper)
{
	struct lease lease;
	enum lease_act act;

	if (keeper->copy)
		obey_record(keeper);
	act = keeper->copy ? lease_act(keeper->copy->lease, copy_kind(keeper)) : LEASE_ACT_NONE;
	if (act == LEASE_ACT_NONE) {
		disarm(keeper);
		if (keeper->guard && !keeper->guard->pausing)
			keeper->guard->deadline = 0;
		return;
	}
	/* A page that was removed takes back nothing of what it said; and one that never said
	 * anything is no reason to end a guest. */
	lease = lease_now(keeper);
	if (lease.end > guard_of(keeper)->seen.end)
		keeper->guard->seen = lease;
	if (keeper->guard->seen.end == 0)
		return;
	if (keeper->guard->seen.end > clock_now()) {
		keeper->guard->deadline = 0;
		forget_pause(keeper);
		arm(keeper, keeper->guard->seen.end);
		return;
	}
	obey(keeper, act);
}

void lease_copy_ended(struct keeper *keeper)
{
	keeper->letting_run = false;
	if (keeper->guard) {
		keeper->guard->pausing = false;
		keeper->guard->deadline = 0;
	}
	disarm(keeper);
}
