/* SPDX-License-Identifier: Apache-2.0 */
/* The decision table.  Rows are what there is, columns what is wanted; the cell names the action.
 * What depends on more than these two (back-off, policies, orders) is a named refinement below the
 * table, never a hidden special case elsewhere. */
#include "core/reconcile.h"

#include <assert.h>
#include <string.h>

#include "core/wish.h"
#include "util/cleanup.h"

static const char *const situation_names[] = {
	[SITUATION_ABSENT] = "absent",
	[SITUATION_REMAINS] = "remains",
	[SITUATION_UNPROVEN] = "unproven",
	[SITUATION_PRELAUNCH] = "prelaunch",
	[SITUATION_RUNNING] = "running",
	[SITUATION_PAUSED] = "paused",
	[SITUATION_SUSPENDED] = "suspended",
	[SITUATION_POWERED_OFF] = "powered-off",
	[SITUATION_PANICKED] = "panicked",
	[SITUATION_IO_ERROR] = "io-error",
	[SITUATION_INTERNAL_ERROR] = "internal-error",
	[SITUATION_MUTE] = "mute",
};

const char *situation_name(enum situation situation)
{
	return situation_names[situation];
}

static const struct {
	const char *run_state;
	enum situation situation;
} run_states[] = {
	{ "running", SITUATION_RUNNING },
	{ "debug", SITUATION_PAUSED },
	{ "paused", SITUATION_PAUSED },
	{ "save-vm", SITUATION_PAUSED },
	{ "restore-vm", SITUATION_PAUSED },
	{ "watchdog", SITUATION_PAUSED },
	{ "finish-migrate", SITUATION_PAUSED },
	{ "postmigrate", SITUATION_PAUSED },
	{ "inmigrate", SITUATION_PRELAUNCH },
	{ "prelaunch", SITUATION_PRELAUNCH },
	{ "suspended", SITUATION_SUSPENDED },
	{ "shutdown", SITUATION_POWERED_OFF },
	{ "guest-panicked", SITUATION_PANICKED },
	{ "io-error", SITUATION_IO_ERROR },
	{ "internal-error", SITUATION_INTERNAL_ERROR },
};

enum situation situation_of_run_state(const char *run_state)
{
	for (size_t i = 0; i < ARRAY_SIZE(run_states); i++)
		if (strcmp(run_states[i].run_state, run_state) == 0)
			return run_states[i].situation;
	return SITUATION_PAUSED;
}

static const char *const action_names[] = {
	[ACTION_NONE] = "nothing",
	[ACTION_START] = "start",
	[ACTION_RECEIVE] = "receive",
	[ACTION_SHUTDOWN] = "shutdown",
	[ACTION_DESTROY] = "destroy",
	[ACTION_CLEANUP] = "cleanup",
	[ACTION_PAUSE] = "pause",
	[ACTION_RESUME] = "resume",
	[ACTION_ORDER_STOP] = "order-stop",
	[ACTION_GIVE_UP_STOP] = "give-up-stop",
	[ACTION_GIVE_UP_START] = "give-up-start",
};

const char *action_name(enum action action)
{
	return action_names[action];
}

/* clang-format off */
/* Short names, so that a row stays one line. */
#define NONE		ACTION_NONE
#define START		ACTION_START
#define SHUTDOWN	ACTION_SHUTDOWN
#define DESTROY		ACTION_DESTROY
#define CLEAN		ACTION_CLEANUP
#define PAUSE		ACTION_PAUSE
#define RESUME		ACTION_RESUME

/* The columns WISH_STOP, WISH_OFF and WISH_NODE_STOPPED differ in why, not in what: "down". */
static const struct {
	enum action run, pause, down, hands_off, elsewhere;
	const char *why;
} table[SITUATIONS] = {
				   /* run	pause		down		hands_off	elsewhere */
	[SITUATION_ABSENT]	  = { START,	NONE,		NONE,		NONE,		NONE,
				      "nothing runs" },
	[SITUATION_REMAINS]	  = { CLEAN,	CLEAN,	CLEAN,	CLEAN,	CLEAN,
				      "QEMU is gone and left things behind" },
	[SITUATION_UNPROVEN]	  = { NONE,	NONE,		NONE,		NONE,		NONE,
				      "the identity of a process is not proven" },
	[SITUATION_PRELAUNCH]	  = { DESTROY,	DESTROY,	DESTROY,	DESTROY,	DESTROY,
				      "a QEMU was loaded but never ran" },
	[SITUATION_RUNNING]	  = { NONE,	PAUSE,		SHUTDOWN,	NONE,		NONE,
				      "the guest runs" },
	[SITUATION_PAUSED]	  = { NONE,	NONE,		DESTROY,	NONE,		NONE,
				      "the guest is paused" },
	[SITUATION_SUSPENDED]	  = { NONE,	NONE,		SHUTDOWN,	NONE,		NONE,
				      "the guest sleeps" },
	[SITUATION_POWERED_OFF]	  = { DESTROY,	DESTROY,	DESTROY,	DESTROY,	DESTROY,
				      "the guest has powered off" },
	[SITUATION_PANICKED]	  = { NONE,	NONE,		DESTROY,	NONE,		NONE,
				      "the guest has panicked" },
	[SITUATION_IO_ERROR]	  = { NONE,	NONE,		DESTROY,	NONE,		NONE,
				      "the guest was stopped by a disk error" },
	[SITUATION_INTERNAL_ERROR] = { NONE,	NONE,		DESTROY,	NONE,		NONE,
				      "the guest was stopped by an internal error of QEMU or KVM" },
	[SITUATION_MUTE]	  = { NONE,	NONE,		SHUTDOWN,	NONE,		NONE,
				      "the monitor does not answer" },
};
/* clang-format on */

static enum action table_action(enum vm_wish wish, enum situation situation)
{
	switch (wish) {
	case WISH_RUN:
		return table[situation].run;
	case WISH_PAUSE:
		return table[situation].pause;
	case WISH_HANDS_OFF:
		return table[situation].hands_off;
	case WISH_ELSEWHERE:
		return table[situation].elsewhere;
	default:
		return table[situation].down;
	}
}

/* A paused guest that is to be shut down must run to hear of it, if it was us who paused it: then
 * the order to stop takes the pause back first.  One that somebody else stopped is not let loose.
 */
static enum action refine_paused(enum vm_wish wish, const struct facts *facts)
{
	bool ours = facts->paused_by_us || facts->paused_by_lease;
	bool may_resume = facts->retry_due || (ours && !facts->waiting);

	if (wish == WISH_RUN && may_resume)
		return RESUME;
	if (wish_is_down(wish) && ours && !facts->waiting && !facts->kill)
		return RESUME;
	/* The order to pause it has ended; it goes on here before it goes elsewhere. */
	if (wish == WISH_ELSEWHERE && facts->paused_by_us && !facts->waiting)
		return RESUME;
	/* No wish paused it, so none has to let it go on. */
	if ((wish == WISH_HANDS_OFF || wish == WISH_ELSEWHERE) && facts->paused_by_lease &&
	    !facts->waiting)
		return RESUME;
	return table_action(wish, SITUATION_PAUSED);
}

static enum action refine_panicked(enum vm_wish wish, const struct facts *facts)
{
	/* PANIC_OFF becomes an administrative stop before anything else is done: else what starts
	 * VMs that should run would start it again. */
	if (wish == WISH_RUN && facts->on_panic == PANIC_OFF)
		return ACTION_ORDER_STOP;
	if (wish == WISH_RUN && facts->on_panic == PANIC_RESTART)
		return DESTROY;
	return table_action(wish, SITUATION_PANICKED);
}

static enum action refine_absent(enum vm_wish wish, const struct facts *facts)
{
	enum action action = table_action(wish, SITUATION_ABSENT);

	if (action == START && facts->waiting && !facts->retry_due)
		return NONE;
	if (action == START && facts->held_elsewhere)
		return facts->may_receive ? ACTION_RECEIVE : NONE;
	/* What does not run and is not to run gives the record back, so that others may have it. */
	if (action == NONE && facts->claims_held)
		return CLEAN;
	return action;
}

/* Order of the user: this copy is to make room for a new one, as if it were to be stopped. */
static enum action restart_action(const struct facts *facts)
{
	if (facts->situation == SITUATION_PAUSED)
		return refine_paused(WISH_STOP, facts);
	return table[facts->situation].down;
}

static enum action refine(enum vm_wish wish, const struct facts *facts)
{
	if (wish == WISH_RUN && facts->restart_due && facts->situation > SITUATION_PRELAUNCH)
		return restart_action(facts);
	switch (facts->situation) {
	case SITUATION_ABSENT:
		return refine_absent(wish, facts);
	case SITUATION_RUNNING:
		if (wish == WISH_ELSEWHERE && facts->move_cold)
			return SHUTDOWN;
		/* A pause that just failed is tried again after a while. */
		if (wish == WISH_PAUSE && facts->waiting && !facts->retry_due)
			return NONE;
		return table_action(wish, facts->situation);
	case SITUATION_PAUSED:
		return refine_paused(wish, facts);
	case SITUATION_PANICKED:
		return refine_panicked(wish, facts);
	case SITUATION_IO_ERROR:
		if (wish == WISH_RUN && facts->retry_due)
			return RESUME;
		return table_action(wish, facts->situation);
	default:
		return table_action(wish, facts->situation);
	}
}

/* Is there a QEMU whose guest has begun and not ended?  Only an order to stop may end that one. */
static bool guest_lives(enum situation situation)
{
	return situation > SITUATION_PRELAUNCH && situation != SITUATION_POWERED_OFF;
}

/* Once vcpus were let run there is a guest, be the last step answered or not. */
static bool start_may_be_given_up(const struct facts *facts)
{
	bool heard = guest_lives(facts->situation) && facts->situation != SITUATION_MUTE;

	return !facts->ran && !heard;
}

/* A stop on behalf of a restart is wanted as long as the VM is to run, one on behalf of a move as
 * long as it is to run elsewhere. */
static bool stop_is_wanted(enum vm_wish wish, const struct facts *facts)
{
	return wish_is_down(wish) || (wish == WISH_RUN && facts->restart_due) ||
	       (wish == WISH_ELSEWHERE && facts->move_cold);
}

/* What is under way goes on unless the wish has turned against it. */
static struct decision while_busy(enum vm_wish wish, const struct facts *facts)
{
	if (facts->busy == BUSY_STARTING && wish != WISH_RUN && start_may_be_given_up(facts))
		return (struct decision){ ACTION_GIVE_UP_START, "the wish changed while starting" };
	if (facts->busy == BUSY_STOPPING && facts->situation == SITUATION_POWERED_OFF)
		return (struct decision){ ACTION_DESTROY, "the guest has shut down as asked" };
	if (facts->busy == BUSY_STOPPING && facts->kill && wish_is_down(wish))
		return (struct decision){ ACTION_DESTROY, "ordered to be killed" };
	if (facts->busy == BUSY_STOPPING && !stop_is_wanted(wish, facts) &&
	    guest_lives(facts->situation))
		return (struct decision){ ACTION_GIVE_UP_STOP, "the wish changed while stopping" };
	return (struct decision){ ACTION_NONE, "an action is under way" };
}

struct decision reconcile(enum vm_wish wish, const struct facts *facts)
{
	struct decision decision = { ACTION_NONE, NULL };

	assert(wish < VM_WISHES && facts->situation < SITUATIONS);
	decision.why = table[facts->situation].why;
	if (facts->busy != BUSY_NOTHING)
		return while_busy(wish, facts);
	decision.action = refine(wish, facts);
	if (facts->lease_over &&
	    (decision.action == ACTION_START || decision.action == ACTION_RESUME))
		return (struct decision){ ACTION_NONE, "the lease of this node is over" };
	if (decision.action == ACTION_SHUTDOWN && facts->kill)
		decision.action = ACTION_DESTROY;
	return decision;
}
