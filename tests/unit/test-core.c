/* SPDX-License-Identifier: Apache-2.0 */
/* What the core decides, against tables written from the specification and not from the code: each
 * cell of situation x wish, of command x state x wish, and each refinement by its name.  fc-...
 * names are defects and lessons of fc-qemu.md. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/admission.h"
#include "core/backoff.h"
#include "core/command.h"
#include "core/ownership.h"
#include "core/reconcile.h"
#include "core/wish.h"
#include "util/cleanup.h"
#include "util/error.h"

/* ---- wish ---- */

#define HOST_ABSENT NULL
#define HERE "alpha"
#define OTHER "beta"

struct wish_case {
	bool online;
	const char *host; /* NULL: the key is absent */
	enum node_mode mode;
	enum order_kind order;
	bool gone;
	enum vm_wish wish;
};

static void assert_wish(const struct wish_case *c)
{
	const struct wish_input input = {
		.online = c->online,
		.hands_off = c->host && !*c->host,
		.here = !c->host || strcmp(c->host, HERE) == 0,
		.mode = c->mode,
		.order = c->order,
		.source_gone = c->gone,
	};
	enum vm_wish wish = wish_of(&input);

	if (wish != c->wish)
		fail_msg("online %d, kvm_host '%s', mode %s, order %s, gone %d: is %s, not %s",
			 c->online, c->host ? c->host : "(absent)", node_mode_name(c->mode),
			 order_kind_name(c->order), c->gone, vm_wish_name(wish),
			 vm_wish_name(c->wish));
}

static void the_first_that_has_a_say_makes_the_wish(void **state)
{
	static const struct wish_case cases[] = {
		{ true, HOST_ABSENT, NODE_READY, ORDER_NONE, false, WISH_RUN },
		{ true, HERE, NODE_READY, ORDER_NONE, false, WISH_RUN },
		{ true, OTHER, NODE_READY, ORDER_NONE, false, WISH_ELSEWHERE },
		{ true, "", NODE_READY, ORDER_NONE, false, WISH_HANDS_OFF },
		{ true, HOST_ABSENT, NODE_READY, ORDER_NONE, true, WISH_HANDS_OFF },
		{ true, OTHER, NODE_READY, ORDER_NONE, true, WISH_HANDS_OFF },

		{ true, HOST_ABSENT, NODE_READY, ORDER_PAUSE, false, WISH_PAUSE },
		{ true, HERE, NODE_READY, ORDER_PAUSE, false, WISH_PAUSE },
		{ true, OTHER, NODE_READY, ORDER_PAUSE, false, WISH_PAUSE },
		{ true, "", NODE_READY, ORDER_PAUSE, false, WISH_PAUSE },
		{ true, HERE, NODE_READY, ORDER_PAUSE, true, WISH_PAUSE },

		{ true, HOST_ABSENT, NODE_STOPPED, ORDER_NONE, false, WISH_NODE_STOPPED },
		{ true, HERE, NODE_STOPPED, ORDER_PAUSE, false, WISH_NODE_STOPPED },
		{ true, OTHER, NODE_STOPPED, ORDER_NONE, false, WISH_NODE_STOPPED },
		{ true, "", NODE_STOPPED, ORDER_NONE, false, WISH_NODE_STOPPED },
		{ true, HERE, NODE_STOPPED, ORDER_NONE, true, WISH_NODE_STOPPED },

		{ true, HERE, NODE_READY, ORDER_STOP, false, WISH_STOP },
		{ true, HERE, NODE_READY, ORDER_KILL, false, WISH_STOP },
		{ true, OTHER, NODE_READY, ORDER_STOP, false, WISH_STOP },
		{ true, "", NODE_READY, ORDER_STOP, false, WISH_STOP },
		{ true, "", NODE_READY, ORDER_KILL, true, WISH_STOP },
		{ true, HERE, NODE_STOPPED, ORDER_STOP, false, WISH_STOP },
		{ true, HERE, NODE_STOPPED, ORDER_KILL, false, WISH_STOP },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_wish(&cases[i]);
}

/* Nor is the one fetched home that is paused elsewhere. */
static void a_pause_concerns_who_has_the_vm_or_should(void **state)
{
	struct wish_input input = { .online = true, .order = ORDER_PAUSE, .bystander = true };

	assert_int_equal(wish_of(&input), WISH_ELSEWHERE);
	input.here = true;
	assert_int_equal(wish_of(&input), WISH_ELSEWHERE);
	input.order = ORDER_STOP;
	assert_int_equal(wish_of(&input), WISH_STOP);
	input.order = ORDER_NONE;
	assert_int_equal(wish_of(&input), WISH_RUN);
}

static void a_definition_that_says_offline_goes_before_all(void **state)
{
	static const char *const hosts[] = { HOST_ABSENT, HERE, OTHER, "" };

	for (size_t host = 0; host < ARRAY_SIZE(hosts); host++)
		for (int mode = NODE_READY; mode <= NODE_STOPPED; mode++)
			for (int order = ORDER_NONE; order <= ORDER_PAUSE; order++)
				assert_wish(&(struct wish_case){ false, hosts[host], mode, order,
								 false, WISH_OFF });
}

/* What a file said is no word any more once the file is gone. */
static void a_deleted_file_that_said_offline_is_hands_off(void **state)
{
	assert_wish(
		&(struct wish_case){ false, HERE, NODE_READY, ORDER_NONE, true, WISH_HANDS_OFF });
	assert_wish(&(struct wish_case){ false, HERE, NODE_READY, ORDER_STOP, true, WISH_STOP });
}

static void stop_off_and_a_stopped_node_mean_down_and_nothing_else_does(void **state)
{
	for (int wish = 0; wish < VM_WISHES; wish++)
		assert_int_equal(wish_is_down(wish), wish == WISH_STOP || wish == WISH_OFF ||
							     wish == WISH_NODE_STOPPED);
}

/* ---- reconcile ---- */

/* clang-format off */
#define SITUATION(row) [SITUATION_##row]
#define NONE	 ACTION_NONE
#define START	 ACTION_START
#define SHUTDOWN ACTION_SHUTDOWN
#define DESTROY	 ACTION_DESTROY
#define CLEAN	 ACTION_CLEANUP
#define PAUSE	 ACTION_PAUSE
#define RESUME	 ACTION_RESUME

/* With nothing else true: no order, no policy, nothing waited for. */
static const enum action expected[SITUATIONS][VM_WISHES] = {
		/* run	pause	stop	off	hands-off elsewhere node-stopped */
	SITUATION(ABSENT) =
		{ START, NONE,	NONE,	NONE,	NONE,	NONE,	NONE },
	SITUATION(REMAINS) =
		{ CLEAN, CLEAN,	CLEAN,	CLEAN,	CLEAN,	CLEAN,	CLEAN },
	SITUATION(UNPROVEN) =
		{ NONE,	NONE,	NONE,	NONE,	NONE,	NONE,	NONE },
	SITUATION(PRELAUNCH) =
		{ DESTROY, DESTROY, DESTROY, DESTROY, DESTROY, DESTROY, DESTROY },
	SITUATION(RUNNING) =
		{ NONE,	PAUSE,	SHUTDOWN, SHUTDOWN, NONE, NONE,	SHUTDOWN },
	SITUATION(PAUSED) =
		{ NONE,	NONE,	DESTROY, DESTROY, NONE,	NONE,	DESTROY },
	SITUATION(SUSPENDED) =
		{ NONE,	NONE,	SHUTDOWN, SHUTDOWN, NONE, NONE,	SHUTDOWN },
	SITUATION(POWERED_OFF) =
		{ DESTROY, DESTROY, DESTROY, DESTROY, DESTROY, DESTROY, DESTROY },
	SITUATION(PANICKED) =
		{ NONE,	NONE,	DESTROY, DESTROY, NONE,	NONE,	DESTROY },
	SITUATION(IO_ERROR) =
		{ NONE,	NONE,	DESTROY, DESTROY, NONE,	NONE,	DESTROY },
	SITUATION(INTERNAL_ERROR) =
		{ NONE,	NONE,	DESTROY, DESTROY, NONE,	NONE,	DESTROY },
	SITUATION(MUTE) =
		{ NONE,	NONE,	SHUTDOWN, SHUTDOWN, NONE, NONE,	SHUTDOWN },
};
/* clang-format on */

static void assert_action(enum vm_wish wish, const struct facts *facts, enum action action)
{
	struct decision decision = reconcile(wish, facts);

	assert_non_null(decision.why);
	assert_true(*decision.why);
	if (decision.action != action)
		fail_msg("%s, wish %s: is %s, not %s", situation_name(facts->situation),
			 vm_wish_name(wish), action_name(decision.action), action_name(action));
}

/* `facts` in one situation. */
static struct facts in(enum situation situation, struct facts facts)
{
	facts.situation = situation;
	return facts;
}
#define IN(situation_, ...) (&(struct facts){ .situation = SITUATION_##situation_, __VA_ARGS__ })

static const enum vm_wish downs[] = { WISH_STOP, WISH_OFF, WISH_NODE_STOPPED };
static const enum vm_wish ups[] = { WISH_RUN, WISH_PAUSE, WISH_HANDS_OFF, WISH_ELSEWHERE };

static void each_cell_of_situation_and_wish_is_as_written(void **state)
{
	for (int situation = 0; situation < SITUATIONS; situation++)
		for (int wish = 0; wish < VM_WISHES; wish++)
			assert_action(wish, &(struct facts){ .situation = situation },
				      expected[situation][wish]);
}

/* I3, and the rule behind W1 and W2: with every combination of the other facts. */
static void a_guest_ends_only_by_an_order_or_its_own_doing(void **state)
{
	static const enum situation alive[] = {
		SITUATION_RUNNING,	  SITUATION_PAUSED, SITUATION_SUSPENDED, SITUATION_IO_ERROR,
		SITUATION_INTERNAL_ERROR, SITUATION_MUTE,   SITUATION_PANICKED,	 SITUATION_UNPROVEN,
	};
	static const enum busy busy[] = { BUSY_NOTHING, BUSY_STOPPING, BUSY_ENDING, BUSY_OTHER };

	for (unsigned i = 0; i < ARRAY_SIZE(alive) * ARRAY_SIZE(busy) * ARRAY_SIZE(ups) * 128;
	     i++) {
		unsigned bits = i / (ARRAY_SIZE(alive) * ARRAY_SIZE(busy) * ARRAY_SIZE(ups));
		enum vm_wish wish = ups[i / ARRAY_SIZE(alive) / ARRAY_SIZE(busy) % 4];
		const struct facts facts = {
			.situation = alive[i % ARRAY_SIZE(alive)],
			.busy = busy[i / ARRAY_SIZE(alive) % ARRAY_SIZE(busy)],
			.retry_due = bits & 1,
			.paused_by_us = bits & 2,
			.waiting = bits & 4,
			.held_elsewhere = bits & 8,
			.claims_held = bits & 16,
			.paused_by_lease = bits & 32,
			.lease_over = bits & 64,
		};
		enum action action = reconcile(wish, &facts).action;

		if (action == SHUTDOWN || action == DESTROY || action == ACTION_GIVE_UP_START)
			fail_msg("%s, wish %s, bits %u: %s", situation_name(facts.situation),
				 vm_wish_name(wish), bits, action_name(action));
	}
}

static void nothing_is_started_beside_what_may_live(void **state)
{
	for (int situation = SITUATION_REMAINS; situation < SITUATIONS; situation++)
		for (int wish = 0; wish < VM_WISHES; wish++)
			for (unsigned bits = 0; bits < 64; bits++) {
				const struct facts facts = {
					.situation = situation,
					.restart_due = bits & 1,
					.retry_due = bits & 2,
					.kill = bits & 4,
					.paused_by_us = bits & 8,
					.claims_held = bits & 16,
					.on_panic = bits & 32 ? PANIC_RESTART : PANIC_REPORT,
				};

				assert_int_not_equal(reconcile(wish, &facts).action, START);
			}
}

static void fc_W1_an_empty_kvm_host_never_ends_a_vm(void **state)
{
	const struct wish_input input = { .online = true, .hands_off = true, .here = true };
	enum vm_wish wish = wish_of(&input);

	assert_action(wish, IN(RUNNING), NONE);
	assert_action(wish, IN(RUNNING, .held_elsewhere = true), NONE);
	assert_action(wish, IN(RUNNING, .claims_held = false), NONE);
	assert_action(wish, IN(PAUSED), NONE);
	assert_action(wish, IN(MUTE), NONE);
	assert_action(wish, IN(ABSENT), NONE);
}

static void fc_K16_ensure_without_a_host_changes_nothing(void **state)
{
	assert_action(WISH_HANDS_OFF, IN(RUNNING, .retry_due = true), NONE);
	assert_action(WISH_HANDS_OFF, IN(PAUSED, .retry_due = true), NONE);
	assert_action(WISH_HANDS_OFF, IN(IO_ERROR, .retry_due = true), NONE);
	assert_action(WISH_HANDS_OFF, IN(ABSENT, .retry_due = true), NONE);
}

static void fc_W2_a_guest_that_does_not_run_is_reported_not_destroyed(void **state)
{
	static const char *const run_states[] = { "paused",	    "debug",	  "watchdog",
						  "save-vm",	    "restore-vm", "finish-migrate",
						  "postmigrate",    "suspended",  "io-error",
						  "guest-panicked", "colo",	  "internal-error",
						  "state-of-2040" };

	for (size_t i = 0; i < ARRAY_SIZE(run_states); i++)
		assert_action(WISH_RUN,
			      &(struct facts){ .situation = situation_of_run_state(run_states[i]) },
			      NONE);
}

static void fc_W31_an_administrative_stop_is_not_undone(void **state)
{
	const struct wish_input input = { .online = true, .here = true, .order = ORDER_STOP };
	enum vm_wish wish = wish_of(&input);

	assert_int_equal(wish, WISH_STOP);
	assert_action(wish, IN(ABSENT), NONE);
	assert_action(wish, IN(ABSENT, .retry_due = true), NONE);
	assert_action(wish, IN(REMAINS), CLEAN);
	assert_action(wish, IN(POWERED_OFF), DESTROY);
}

/* Process, monitor, status of the vcpus.  No process is never "the monitor of another one answers":
 * such a thing is not proven to be ours. */
static void fc_P4_running_is_process_and_monitor_and_status(void **state)
{
	static const struct {
		bool process, monitor, runs;
		enum situation situation;
		enum action run, stop;
	} cases[] = {
		{ false, false, false, SITUATION_ABSENT, START, NONE },
		{ false, false, true, SITUATION_REMAINS, CLEAN, CLEAN },
		{ false, true, false, SITUATION_UNPROVEN, NONE, NONE },
		{ false, true, true, SITUATION_UNPROVEN, NONE, NONE },
		{ true, false, false, SITUATION_MUTE, NONE, SHUTDOWN },
		{ true, false, true, SITUATION_MUTE, NONE, SHUTDOWN },
		{ true, true, false, SITUATION_PAUSED, NONE, DESTROY },
		{ true, true, true, SITUATION_RUNNING, NONE, SHUTDOWN },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct facts facts = { .situation = cases[i].situation };

		assert_action(WISH_RUN, &facts, cases[i].run);
		assert_action(WISH_STOP, &facts, cases[i].stop);
	}
}

static void the_run_states_of_qemu_have_their_situations(void **state)
{
	static const struct {
		const char *run_state;
		enum situation situation;
	} cases[] = {
		{ "running", SITUATION_RUNNING },
		{ "paused", SITUATION_PAUSED },
		{ "suspended", SITUATION_SUSPENDED },
		{ "shutdown", SITUATION_POWERED_OFF },
		{ "guest-panicked", SITUATION_PANICKED },
		{ "io-error", SITUATION_IO_ERROR },
		{ "internal-error", SITUATION_INTERNAL_ERROR },
		{ "prelaunch", SITUATION_PRELAUNCH },
		{ "inmigrate", SITUATION_PRELAUNCH },
		{ "", SITUATION_PAUSED },
		{ "Running", SITUATION_PAUSED },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(situation_of_run_state(cases[i].run_state), cases[i].situation);
}

static void a_kill_asks_nobody(void **state)
{
	static const enum situation alive[] = {
		SITUATION_RUNNING,  SITUATION_PAUSED,	SITUATION_SUSPENDED,	  SITUATION_MUTE,
		SITUATION_IO_ERROR, SITUATION_PANICKED, SITUATION_INTERNAL_ERROR,
	};

	for (size_t i = 0; i < ARRAY_SIZE(alive); i++)
		for (size_t down = 0; down < ARRAY_SIZE(downs); down++) {
			struct facts facts = in(alive[i], (struct facts){ .kill = true });

			assert_action(downs[down], &facts, DESTROY);
			facts.paused_by_us = true;
			assert_action(downs[down], &facts, DESTROY);
		}
	assert_action(WISH_STOP, IN(ABSENT, .kill = true), NONE);
	assert_action(WISH_STOP, IN(UNPROVEN, .kill = true), NONE);
}

static void a_restart_ends_the_copy_as_a_stop_would(void **state)
{
	static const enum action actions[SITUATIONS] = {
		SITUATION(ABSENT) = START,	     SITUATION(REMAINS) = CLEAN,
		SITUATION(UNPROVEN) = NONE,	     SITUATION(PRELAUNCH) = DESTROY,
		SITUATION(RUNNING) = SHUTDOWN,	     SITUATION(PAUSED) = DESTROY,
		SITUATION(SUSPENDED) = SHUTDOWN,     SITUATION(POWERED_OFF) = DESTROY,
		SITUATION(PANICKED) = DESTROY,	     SITUATION(IO_ERROR) = DESTROY,
		SITUATION(INTERNAL_ERROR) = DESTROY, SITUATION(MUTE) = SHUTDOWN,
	};

	for (int situation = 0; situation < SITUATIONS; situation++)
		assert_action(WISH_RUN,
			      &(struct facts){ .situation = situation, .restart_due = true },
			      actions[situation]);
}

static void a_move_without_migration_shuts_the_guest_down_here(void **state)
{
	assert_action(WISH_ELSEWHERE, IN(RUNNING, .move_cold = true), SHUTDOWN);
	assert_action(WISH_ELSEWHERE, IN(RUNNING, .move_cold = true, .busy = BUSY_STOPPING), NONE);
	assert_action(WISH_ELSEWHERE, IN(RUNNING, .busy = BUSY_STOPPING), ACTION_GIVE_UP_STOP);
	assert_action(WISH_ELSEWHERE, IN(PAUSED, .move_cold = true), NONE);
	assert_action(WISH_ELSEWHERE, IN(ABSENT, .move_cold = true, .claims_held = true), CLEAN);
	assert_action(WISH_RUN, IN(RUNNING, .move_cold = true), NONE);
}

static void a_paused_guest_goes_on_before_it_goes_elsewhere(void **state)
{
	assert_action(WISH_ELSEWHERE, IN(PAUSED, .paused_by_us = true), RESUME);
	assert_action(WISH_ELSEWHERE, IN(PAUSED, .paused_by_us = true, .waiting = true), NONE);
	assert_action(WISH_ELSEWHERE, IN(PAUSED, .retry_due = true), NONE);
	assert_action(WISH_PAUSE, IN(PAUSED, .paused_by_us = true), NONE);
}

static void a_restart_means_nothing_to_a_vm_that_is_not_to_run(void **state)
{
	for (int situation = 0; situation < SITUATIONS; situation++)
		for (int wish = WISH_RUN + 1; wish < VM_WISHES; wish++)
			assert_action(
				wish,
				&(struct facts){ .situation = situation, .restart_due = true },
				expected[situation][wish]);
}

/* Its memory is in order, and only a guest that runs can write it to its disks. */
static void a_guest_that_we_paused_is_let_run_to_be_shut_down(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(downs); i++) {
		assert_action(downs[i], IN(PAUSED, .paused_by_us = true), RESUME);
		/* That was tried, and QEMU would not. */
		assert_action(downs[i], IN(PAUSED, .paused_by_us = true, .waiting = true), DESTROY);
		/* Who stopped it had a reason that we do not know. */
		assert_action(downs[i], IN(PAUSED), DESTROY);
	}
	assert_action(WISH_RUN, IN(PAUSED, .paused_by_us = true, .restart_due = true), RESUME);
	assert_action(WISH_RUN,
		      IN(PAUSED, .paused_by_us = true, .restart_due = true, .waiting = true),
		      DESTROY);
}

static void a_pause_of_ours_is_taken_back_and_no_other(void **state)
{
	assert_action(WISH_RUN, IN(PAUSED), NONE);
	assert_action(WISH_RUN, IN(PAUSED, .paused_by_us = true), RESUME);
	assert_action(WISH_RUN, IN(PAUSED, .paused_by_us = true, .waiting = true), NONE);
	assert_action(WISH_RUN, IN(PAUSED, .retry_due = true), RESUME);
	assert_action(WISH_RUN, IN(PAUSED, .retry_due = true, .waiting = true), RESUME);
	assert_action(WISH_PAUSE, IN(PAUSED, .paused_by_us = true), NONE);
	assert_action(WISH_PAUSE, IN(PAUSED, .retry_due = true), NONE);
}

/* The guest goes on whatever is wanted of it, unless that is a pause. */
static void a_pause_by_the_lease_is_taken_back_once_there_is_a_lease(void **state)
{
	static const enum vm_wish awake[] = { WISH_RUN, WISH_HANDS_OFF, WISH_ELSEWHERE };

	for (size_t i = 0; i < ARRAY_SIZE(awake); i++) {
		assert_action(awake[i], IN(PAUSED, .paused_by_lease = true), RESUME);
		assert_action(awake[i], IN(PAUSED, .paused_by_lease = true, .lease_over = true),
			      NONE);
		assert_action(awake[i], IN(PAUSED, .paused_by_lease = true, .waiting = true), NONE);
		assert_action(awake[i], IN(RUNNING, .paused_by_lease = true), NONE);
	}
	assert_action(WISH_PAUSE, IN(PAUSED, .paused_by_lease = true), NONE);
	assert_action(WISH_PAUSE, IN(PAUSED, .paused_by_lease = true, .lease_over = true), NONE);
}

/* It must run to hear of it, and cannot before there is a lease; a kill asks for neither. */
static void a_guest_that_the_lease_paused_is_let_run_to_be_shut_down(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(downs); i++) {
		assert_action(downs[i], IN(PAUSED, .paused_by_lease = true), RESUME);
		assert_action(downs[i], IN(PAUSED, .paused_by_lease = true, .lease_over = true),
			      NONE);
		assert_action(downs[i],
			      IN(PAUSED, .paused_by_lease = true, .lease_over = true, .kill = true),
			      DESTROY);
		/* That one would not have run in any case. */
		assert_action(downs[i], IN(PAUSED, .lease_over = true), DESTROY);
	}
}

static void without_a_lease_nothing_is_let_run_and_nothing_else_changes(void **state)
{
	assert_action(WISH_RUN, IN(ABSENT, .lease_over = true), NONE);
	assert_action(WISH_RUN, IN(ABSENT, .lease_over = true, .retry_due = true), NONE);
	/* What it waits for is the lease of the holder. */
	assert_action(WISH_RUN, IN(ABSENT, .lease_over = true, .claims_held = true), NONE);
	assert_action(WISH_RUN, IN(PAUSED, .lease_over = true, .paused_by_us = true), NONE);
	assert_action(WISH_RUN, IN(IO_ERROR, .lease_over = true, .retry_due = true), NONE);
	for (int situation = 0; situation < SITUATIONS; situation++)
		for (int wish = 0; wish < VM_WISHES; wish++) {
			struct facts facts = { .situation = (enum situation)situation };
			enum action action = reconcile((enum vm_wish)wish, &facts).action;

			facts.lease_over = true;
			assert_action((enum vm_wish)wish, &facts,
				      action == START || action == RESUME ? NONE : action);
		}
}

static void resume_tries_a_disk_error_again_and_nobody_else_does(void **state)
{
	assert_action(WISH_RUN, IN(IO_ERROR), NONE);
	assert_action(WISH_RUN, IN(IO_ERROR, .retry_due = true), RESUME);
	assert_action(WISH_RUN, IN(IO_ERROR, .waiting = true), NONE);
	assert_action(WISH_PAUSE, IN(IO_ERROR, .retry_due = true), NONE);
	assert_action(WISH_RUN, IN(INTERNAL_ERROR, .retry_due = true), NONE);
	assert_action(WISH_RUN, IN(SUSPENDED, .retry_due = true), NONE);
	assert_action(WISH_RUN, IN(MUTE, .retry_due = true), NONE);
}

static void a_failed_start_waits_unless_somebody_asks(void **state)
{
	assert_action(WISH_RUN, IN(ABSENT, .waiting = true), NONE);
	assert_action(WISH_RUN, IN(ABSENT, .waiting = true, .claims_held = true), NONE);
	assert_action(WISH_RUN, IN(ABSENT, .waiting = true, .retry_due = true), START);
	/* Left-overs of the failure do not wait. */
	assert_action(WISH_RUN, IN(REMAINS, .waiting = true), CLEAN);
	assert_action(WISH_RUN, IN(POWERED_OFF, .waiting = true), DESTROY);
}

static void what_another_node_holds_is_not_started_here(void **state)
{
	assert_action(WISH_RUN, IN(ABSENT, .held_elsewhere = true), NONE);
	assert_action(WISH_RUN, IN(ABSENT, .held_elsewhere = true, .retry_due = true), NONE);
	assert_action(WISH_RUN, IN(ABSENT, .held_elsewhere = true, .restart_due = true), NONE);
	/* Nor is a copy that runs here ended for it: the record is arbiter at the next start. */
	assert_action(WISH_RUN, IN(RUNNING, .held_elsewhere = true), NONE);
	assert_action(WISH_RUN, IN(ABSENT, .held_elsewhere = true, .may_receive = true),
		      ACTION_RECEIVE);
	assert_action(WISH_RUN,
		      IN(ABSENT, .held_elsewhere = true, .may_receive = true, .waiting = true),
		      NONE);
	assert_action(WISH_RUN, IN(ABSENT, .may_receive = true), START);
	assert_action(WISH_ELSEWHERE, IN(ABSENT, .held_elsewhere = true, .may_receive = true),
		      NONE);
}

static void the_record_is_given_back_once_nothing_is_to_run(void **state)
{
	for (int wish = 0; wish < VM_WISHES; wish++) {
		assert_action(wish, IN(ABSENT, .claims_held = true),
			      wish == WISH_RUN ? START : CLEAN);
		assert_action(wish, IN(UNPROVEN, .claims_held = true), NONE);
	}
}

static void a_panic_ends_by_its_policy(void **state)
{
	static const enum panic_policy policies[] = { PANIC_REPORT, PANIC_RESTART, PANIC_OFF };

	for (size_t i = 0; i < ARRAY_SIZE(policies); i++)
		for (int wish = 0; wish < VM_WISHES; wish++) {
			enum action action = expected[SITUATION_PANICKED][wish];

			if (wish == WISH_RUN && policies[i] == PANIC_RESTART)
				action = DESTROY;
			/* Nothing is done before the stop is an order that stands. */
			if (wish == WISH_RUN && policies[i] == PANIC_OFF)
				action = ACTION_ORDER_STOP;
			assert_action(wish, IN(PANICKED, .on_panic = policies[i]), action);
		}
}

static void a_policy_for_panics_touches_no_other_state(void **state)
{
	for (int situation = 0; situation < SITUATIONS; situation++)
		for (int wish = 0; wish < VM_WISHES; wish++)
			if (situation != SITUATION_PANICKED)
				assert_action(wish,
					      &(struct facts){ .situation = situation,
							       .on_panic = PANIC_RESTART },
					      expected[situation][wish]);
}

/* ---- reconcile, in the middle of something ---- */

static void an_end_a_write_or_a_cleanup_is_waited_for(void **state)
{
	for (int situation = 0; situation < SITUATIONS; situation++)
		for (int wish = 0; wish < VM_WISHES; wish++)
			for (int all = 0; all < 2; all++) {
				struct facts facts = { .situation = situation,
						       .busy = BUSY_ENDING,
						       .kill = all,
						       .restart_due = all,
						       .retry_due = all };

				assert_action(wish, &facts, NONE);
				facts.busy = BUSY_OTHER;
				assert_action(wish, &facts, NONE);
			}
}

static void a_start_is_given_up_by_any_other_wish(void **state)
{
	static const enum situation begun[] = { SITUATION_ABSENT, SITUATION_REMAINS,
						SITUATION_PRELAUNCH, SITUATION_MUTE };

	for (size_t i = 0; i < ARRAY_SIZE(begun); i++)
		for (int wish = 0; wish < VM_WISHES; wish++)
			assert_action(
				wish,
				&(struct facts){ .situation = begun[i], .busy = BUSY_STARTING },
				wish == WISH_RUN ? NONE : ACTION_GIVE_UP_START);
}

/* Its last step may still be unanswered; giving it up would kill a guest that nobody ordered to be
 * stopped.  What is wanted then follows as soon as the start is over. */
static void a_start_whose_guest_runs_is_not_given_up(void **state)
{
	static const enum situation begun[] = { SITUATION_RUNNING,   SITUATION_PAUSED,
						SITUATION_SUSPENDED, SITUATION_PANICKED,
						SITUATION_IO_ERROR,  SITUATION_INTERNAL_ERROR };

	for (size_t i = 0; i < ARRAY_SIZE(begun); i++)
		for (int wish = 0; wish < VM_WISHES; wish++)
			assert_action(
				wish,
				&(struct facts){ .situation = begun[i], .busy = BUSY_STARTING },
				NONE);
}

static void a_start_goes_on_whatever_is_ordered_of_its_copy(void **state)
{
	assert_action(WISH_RUN, IN(PRELAUNCH, .busy = BUSY_STARTING, .restart_due = true), NONE);
	assert_action(WISH_RUN, IN(PRELAUNCH, .busy = BUSY_STARTING, .retry_due = true), NONE);
	assert_action(WISH_RUN, IN(ABSENT, .busy = BUSY_STARTING, .held_elsewhere = true), NONE);
}

static void a_guest_that_shut_down_as_asked_is_ended(void **state)
{
	for (int wish = 0; wish < VM_WISHES; wish++)
		assert_action(wish, IN(POWERED_OFF, .busy = BUSY_STOPPING), DESTROY);
}

static void a_stop_under_way_goes_on_while_it_is_wanted(void **state)
{
	static const enum situation alive[] = { SITUATION_RUNNING,	 SITUATION_SUSPENDED,
						SITUATION_MUTE,		 SITUATION_PAUSED,
						SITUATION_PANICKED,	 SITUATION_IO_ERROR,
						SITUATION_INTERNAL_ERROR };

	for (size_t i = 0; i < ARRAY_SIZE(alive); i++) {
		struct facts facts = in(alive[i], (struct facts){ .busy = BUSY_STOPPING });

		for (size_t down = 0; down < ARRAY_SIZE(downs); down++)
			assert_action(downs[down], &facts, NONE);
		facts.restart_due = true;
		assert_action(WISH_RUN, &facts, NONE);
	}
}

static void a_stop_is_given_up_by_a_newer_wish(void **state)
{
	static const enum situation alive[] = { SITUATION_RUNNING,	 SITUATION_SUSPENDED,
						SITUATION_MUTE,		 SITUATION_PAUSED,
						SITUATION_PANICKED,	 SITUATION_IO_ERROR,
						SITUATION_INTERNAL_ERROR };

	for (size_t i = 0; i < ARRAY_SIZE(alive); i++)
		for (size_t up = 0; up < ARRAY_SIZE(ups); up++)
			assert_action(
				ups[up],
				&(struct facts){ .situation = alive[i], .busy = BUSY_STOPPING },
				ACTION_GIVE_UP_STOP);
	/* Restart, and then `pause` or hands off: the newest wish counts. */
	assert_action(WISH_PAUSE, IN(RUNNING, .busy = BUSY_STOPPING, .restart_due = true),
		      ACTION_GIVE_UP_STOP);
	assert_action(WISH_HANDS_OFF, IN(RUNNING, .busy = BUSY_STOPPING, .restart_due = true),
		      ACTION_GIVE_UP_STOP);
	/* Nothing is left that could run on. */
	assert_action(WISH_RUN, IN(REMAINS, .busy = BUSY_STOPPING), NONE);
	assert_action(WISH_RUN, IN(ABSENT, .busy = BUSY_STOPPING), NONE);
}

static void a_kill_cuts_a_graceful_stop_short(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(downs); i++) {
		assert_action(downs[i], IN(RUNNING, .busy = BUSY_STOPPING, .kill = true), DESTROY);
		assert_action(downs[i], IN(MUTE, .busy = BUSY_STOPPING, .kill = true), DESTROY);
	}
}

static void situations_and_actions_have_names_of_their_own(void **state)
{
	for (int i = 0; i < SITUATIONS; i++)
		for (int j = 0; j < i; j++)
			assert_string_not_equal(situation_name(i), situation_name(j));
	for (int i = 0; i < ACTIONS; i++)
		for (int j = 0; j < i; j++)
			assert_string_not_equal(action_name(i), action_name(j));
}

/* ---- commands ---- */

#define BIT(wish) (1U << (wish))
#define ANY_WISH (BIT(VM_WISHES) - 1)
#define WISHES_DOWN (BIT(WISH_STOP) | BIT(WISH_OFF) | BIT(WISH_NODE_STOPPED))
#define WISHES_VETO (BIT(WISH_OFF) | BIT(WISH_NODE_STOPPED))
#define WISHES_NEITHER (BIT(WISH_PAUSE) | BIT(WISH_HANDS_OFF) | BIT(WISH_ELSEWHERE))

/* One letter per state: off, starting, running, paused, suspended, stopping, panicked, io-error,
 * internal-error, unresponsive, failed, unknown. */
struct command_row {
	enum command command;
	unsigned wishes;
	const char *states;
};

static const struct command_row *row_of(const struct command_row *rows, size_t count,
					enum command command, enum vm_wish wish)
{
	const struct command_row *found = NULL;

	for (size_t i = 0; i < count; i++)
		if (rows[i].command == command && (rows[i].wishes & BIT(wish))) {
			if (found)
				fail_msg("two rows for %s", command_name(command));
			found = &rows[i];
		}
	if (!found)
		fail_msg("no row for %s, wish %s", command_name(command), vm_wish_name(wish));
	assert_int_equal(strlen(found->states), VM_STATES);
	return found;
}

/* + it may be done, R refused (exit 69), T try again (exit 75). */
static char verdict(const struct command_facts *facts, enum command command, struct error *err)
{
	int r = command_check(command, facts, err);

	if (r == 0)
		return '+';
	assert_true(r < 0);
	assert_non_null(strstr(err->text, facts->vm));
	return err->class == ERROR_REFUSED ? 'R' : err->class == ERROR_TRY_AGAIN ? 'T' : '?';
}

static void fc_P11_each_command_fits_its_states_and_no_other(void **state)
{
	/*	  ,- off	    ,- stopping	    ,- failed */
	/*	  |,- starting	    |,- panicked    |,- unknown */
	/*	  ||,- running	    ||,- io-error   || */
	/*	  |||,- paused	    |||,- internal-error */
	/*	  ||||,- suspended  ||||,- unresponsive */
	static const struct command_row rows[] = {
		{ COMMAND_START, ANY_WISH & ~WISHES_VETO, "++RRR+RRRR+T" },
		{ COMMAND_START, WISHES_VETO, "RRRRRRRRRRRR" },
		{ COMMAND_STOP, BIT(WISH_RUN), "+++++++++++T" },
		{ COMMAND_STOP, WISHES_NEITHER, "R++++++++++T" },
		{ COMMAND_STOP, WISHES_DOWN, "R+++++++++RT" },
		{ COMMAND_RESTART, ANY_WISH & ~WISHES_VETO, "R++++R++++RT" },
		{ COMMAND_RESTART, WISHES_VETO, "RRRRRRRRRRRR" },
		{ COMMAND_KILL, BIT(WISH_RUN), "+++++++++++T" },
		{ COMMAND_KILL, WISHES_NEITHER, "R++++++++++T" },
		{ COMMAND_KILL, WISHES_DOWN, "R+++++++++RT" },
		{ COMMAND_PAUSE, ANY_WISH, "RR++RRRRRTRT" },
		{ COMMAND_RESUME, ANY_WISH & ~WISHES_VETO, "RRR+RRR+RTRT" },
		{ COMMAND_RESUME, WISHES_VETO, "RRRRRRRRRRRR" },
		{ COMMAND_ENSURE, ANY_WISH, "+++++++++++T" },
		{ COMMAND_MIGRATE, ANY_WISH & ~BIT(WISH_HANDS_OFF), "++++++RRRT+T" },
		{ COMMAND_MIGRATE, BIT(WISH_HANDS_OFF), "RRRRRRRRRRRR" },
		{ COMMAND_MOVE, ANY_WISH & ~BIT(WISH_HANDS_OFF), "++++++RRRT+T" },
		{ COMMAND_MOVE, BIT(WISH_HANDS_OFF), "RRRRRRRRRRRR" },
		{ COMMAND_UNMIGRATE, ANY_WISH & ~BIT(WISH_HANDS_OFF), "++++++RRRT+T" },
		{ COMMAND_UNMIGRATE, BIT(WISH_HANDS_OFF), "RRRRRRRRRRRR" },
		{ COMMAND_RM, ANY_WISH, "+RRRRRRRRR+T" },
		{ COMMAND_EXEC, ANY_WISH, "TT+RR+RRRTTT" },
		{ COMMAND_MONITOR, ANY_WISH, "TT+++++++TTT" },
		{ COMMAND_CONSOLE, ANY_WISH, "T+++++++++TT" },
	};

	for (int command = 0; command < COMMANDS; command++)
		for (int wish = 0; wish < VM_WISHES; wish++)
			for (int vm = 0; vm < VM_STATES; vm++) {
				const struct command_facts facts = {
					.state = vm, .wish = wish, .vm = "web01", .source = "apply"
				};
				struct error err = { 0 };
				char wanted =
					row_of(rows, ARRAY_SIZE(rows), command, wish)->states[vm];
				char is;

				/* A stopped node is named, not the VM. */
				if (wish == WISH_NODE_STOPPED && wanted == 'R' &&
				    row_of(rows, ARRAY_SIZE(rows), command, wish)->wishes ==
					    WISHES_VETO) {
					assert_true(command_check(command, &facts, &err) < 0);
					assert_int_equal(err.class, ERROR_REFUSED);
					assert_non_null(strstr(err.text, "drover node ready"));
					continue;
				}
				is = verdict(&facts, command, &err);
				if (is != wanted)
					fail_msg("%s, state %s, wish %s: is %c, not %c: %s",
						 command_name(command), vm_state_name(vm),
						 vm_wish_name(wish), is, wanted, err.text);
			}
}

static void a_start_against_the_definition_names_its_source(void **state)
{
	const struct command_facts facts = { .state = VM_OFF,
					     .wish = WISH_OFF,
					     .vm = "web01",
					     .source = "file alpha:/etc/drover/vms/web01.yaml",
					     .source_is_file = true };
	struct error err = { 0 };

	assert_int_equal(command_check(COMMAND_START, &facts, &err), -EPERM);
	assert_int_equal(error_exit_code(err.class), 69);
	assert_non_null(strstr(err.text, "/etc/drover/vms/web01.yaml"));
	assert_non_null(strstr(err.text, "online: false"));
}

static void rm_of_a_vm_whose_file_is_there_names_the_file(void **state)
{
	struct command_facts facts = { .state = VM_OFF,
				       .wish = WISH_OFF,
				       .vm = "web01",
				       .source = "file alpha:/etc/drover/vms/web01.yaml",
				       .source_is_file = true };
	struct error err = { 0 };

	assert_int_equal(command_check(COMMAND_RM, &facts, &err), -EPERM);
	assert_int_equal(err.class, ERROR_REFUSED);
	assert_non_null(strstr(err.text, "/etc/drover/vms/web01.yaml"));
	facts.source_is_file = false;
	assert_int_equal(command_check(COMMAND_RM, &facts, &err), 0);
	facts.state = VM_RUNNING;
	assert_int_equal(command_check(COMMAND_RM, &facts, &err), -EPERM);
	assert_non_null(strstr(err.text, "drover stop web01"));
}

static void a_refusal_tells_why_the_state_is_what_it_is(void **state)
{
	const struct command_facts facts = { .state = VM_UNKNOWN,
					     .wish = WISH_RUN,
					     .vm = "web01",
					     .source = "apply",
					     .reason = "its keeper does not answer" };
	struct error err = { 0 };

	assert_int_equal(command_check(COMMAND_STOP, &facts, &err), -EAGAIN);
	assert_int_equal(error_exit_code(err.class), 75);
	assert_non_null(strstr(err.text, "its keeper does not answer"));
}

static void commands_are_found_by_their_names(void **state)
{
	for (int command = 0; command < COMMANDS; command++)
		assert_int_equal(command_of(command_name(command)), command);
	assert_int_equal(command_of("stop "), -1);
	assert_int_equal(command_of(""), -1);
}

/* 1 done, . not yet, x it cannot come to that any more. */
static void a_waiting_command_ends_when_its_state_is_reached_or_lost(void **state)
{
	/*	  ,- off	    ,- stopping	    ,- failed */
	/*	  |,- starting	    |,- panicked    |,- unknown */
	/*	  ||,- running	    ||,- io-error   || */
	/*	  |||,- paused	    |||,- internal-error */
	/*	  ||||,- suspended  ||||,- unresponsive */
	static const struct command_row rows[] = {
		{ COMMAND_START, BIT(WISH_RUN), "..1...x.x.x." },
		{ COMMAND_START, ANY_WISH & ~BIT(WISH_RUN), "xx1xxxxxxxxx" },
		{ COMMAND_RESTART, BIT(WISH_RUN), "..1...x.x.x." },
		{ COMMAND_RESTART, ANY_WISH & ~BIT(WISH_RUN), "xx1xxxxxxxxx" },
		{ COMMAND_RESUME, BIT(WISH_RUN), "..1...x.x.x." },
		{ COMMAND_RESUME, ANY_WISH & ~BIT(WISH_RUN), "xx1xxxxxxxxx" },
		{ COMMAND_STOP, WISHES_DOWN, "1..........." },
		{ COMMAND_STOP, ANY_WISH & ~WISHES_DOWN, "1xxxxxxxxxxx" },
		{ COMMAND_KILL, WISHES_DOWN, "1..........." },
		{ COMMAND_KILL, ANY_WISH & ~WISHES_DOWN, "1xxxxxxxxxxx" },
		{ COMMAND_PAUSE, BIT(WISH_PAUSE), "xx.1xxxxx.x." },
		{ COMMAND_PAUSE, ANY_WISH & ~BIT(WISH_PAUSE), "xxx1xxxxxxxx" },
		{ COMMAND_ENSURE, BIT(WISH_RUN), "..1.1.x.x.x." },
		{ COMMAND_ENSURE, BIT(WISH_PAUSE), "1..11.111.1." },
		{ COMMAND_ENSURE, WISHES_DOWN, "1..........." },
		{ COMMAND_ENSURE, BIT(WISH_HANDS_OFF) | BIT(WISH_ELSEWHERE), "111111111111" },
		{ COMMAND_MIGRATE, ANY_WISH, "111111111111" },
		{ COMMAND_MOVE, ANY_WISH, "111111111111" },
		{ COMMAND_UNMIGRATE, ANY_WISH, "111111111111" },
		{ COMMAND_RM, ANY_WISH, "111111111111" },
		{ COMMAND_EXEC, ANY_WISH, "111111111111" },
		{ COMMAND_MONITOR, ANY_WISH, "111111111111" },
		{ COMMAND_CONSOLE, ANY_WISH, "111111111111" },
	};

	for (int command = 0; command < COMMANDS; command++)
		for (int wish = 0; wish < VM_WISHES; wish++)
			for (int vm = 0; vm < VM_STATES; vm++) {
				const struct command_facts facts = { .state = vm,
								     .wish = wish,
								     .vm = "web01",
								     .reason = "no room",
								     .source = "apply" };
				struct error err = { 0 };
				char wanted =
					row_of(rows, ARRAY_SIZE(rows), command, wish)->states[vm];
				int r = command_finished(command, &facts, &err);
				char is = r > 0 ? '1' : r == 0 ? '.' : 'x';

				if (is != wanted)
					fail_msg("%s, state %s, wish %s: is %c, not %c",
						 command_name(command), vm_state_name(vm),
						 vm_wish_name(wish), is, wanted);
				if (r < 0) {
					assert_int_equal(r, -ECANCELED);
					assert_non_null(strstr(err.text, "web01"));
				}
			}
}

static void a_start_that_failed_says_why(void **state)
{
	struct command_facts facts = {
		.state = VM_FAILED, .wish = WISH_RUN, .vm = "web01", .reason = "no room"
	};
	struct error err = { 0 };

	assert_int_equal(command_finished(COMMAND_START, &facts, &err), -ECANCELED);
	assert_int_equal(error_exit_code(err.class), 1);
	assert_non_null(strstr(err.text, "no room"));
	facts.wish = WISH_STOP;
	assert_int_equal(command_finished(COMMAND_START, &facts, &err), -ECANCELED);
	assert_int_equal(error_exit_code(err.class), 69);
}

/* ---- ownership ---- */

static const struct writer alpha = { .node = "alpha", .boot = "boot-a", .by = "alpha/1/7" };
static const struct writer beta = { .node = "beta", .boot = "boot-b", .by = "beta/2/9" };

static struct owner owner_of(enum owner_phase phase, const char *node, const char *home)
{
	struct owner owner = { .epoch = 41, .phase = phase, .lease = "keep", .by = "old/1/1" };

	(void)snprintf(owner.node, sizeof(owner.node), "%s", node);
	(void)snprintf(owner.boot, sizeof(owner.boot), "%s", *node ? "boot-old" : "");
	(void)snprintf(owner.home, sizeof(owner.home), "%s", home);
	return owner;
}

static void assert_owner(const struct owner *is, const struct owner *wanted)
{
	assert_int_equal(is->epoch, wanted->epoch);
	assert_int_equal(is->phase, wanted->phase);
	assert_string_equal(is->node, wanted->node);
	assert_string_equal(is->boot, wanted->boot);
	assert_string_equal(is->to, wanted->to);
	assert_string_equal(is->mode, wanted->mode);
	assert_string_equal(is->feeder, wanted->feeder);
	assert_int_equal(is->try_epoch, wanted->try_epoch);
	assert_string_equal(is->home, wanted->home);
	assert_string_equal(is->lease, wanted->lease);
	assert_string_equal(is->by, wanted->by);
}

/* All that a migration left behind, and a key of a later version. */
static void add_traces(struct owner *owner)
{
	(void)snprintf(owner->to, sizeof(owner->to), "gamma");
	(void)snprintf(owner->mode, sizeof(owner->mode), "post");
	(void)snprintf(owner->feeder, sizeof(owner->feeder), "delta");
	owner->try_epoch = 40;
	owner->rest = json_pack("{s:i}", "later", 5);
}

static void the_first_claim_makes_the_record(void **state)
{
	const struct owner wanted = { .epoch = 1,
				      .phase = OWNER_HELD,
				      .node = "alpha",
				      .boot = "boot-a",
				      .home = "alpha",
				      .lease = "keep",
				      .by = "alpha/1/7" };
	struct owner next;

	assert_int_equal(owner_claim(NULL, &alpha, true, NULL, &next, NULL), 0);
	assert_owner(&next, &wanted);
	assert_null(next.rest);
	assert_int_equal(owner_acquire(NULL, &alpha, true, NULL, &next, NULL), 0);
	assert_owner(&next, &wanted);
}

static void a_claim_of_what_is_off_raises_the_epoch_and_clears_traces(void **state)
{
	CLEANUP(owner_done) struct owner before = owner_of(OWNER_OFF, "", "");
	CLEANUP(owner_done) struct owner next = { 0 };

	add_traces(&before);
	assert_int_equal(owner_claim(&before, &alpha, false, "stop", &next, NULL), 0);
	assert_owner(&next, &(struct owner){ .epoch = 42,
					     .phase = OWNER_HELD,
					     .node = "alpha",
					     .boot = "boot-a",
					     .lease = "stop",
					     .by = "alpha/1/7" });
	assert_int_equal(json_integer_value(json_object_get(next.rest, "later")), 5);
}

static void only_the_home_may_claim_local_disks(void **state)
{
	const struct owner before = owner_of(OWNER_OFF, "", "alpha");
	struct error err = { 0 };
	struct owner next;

	assert_int_equal(owner_claim(&before, &alpha, true, NULL, &next, NULL), 0);
	assert_string_equal(next.home, "alpha");
	assert_int_equal(owner_claim(&before, &beta, true, NULL, &next, &err), -EPERM);
	assert_int_equal(err.class, ERROR_REFUSED);
	assert_non_null(strstr(err.text, "alpha"));
	assert_int_equal(owner_acquire(&before, &beta, false, NULL, &next, &err), -EPERM);
}

static void nobody_claims_what_is_held_or_moving(void **state)
{
	const struct owner held = owner_of(OWNER_HELD, "alpha", "");
	const struct owner moving = owner_of(OWNER_MOVING, "alpha", "");
	struct error err = { 0 };
	struct owner next = { .epoch = 7 };

	assert_int_equal(owner_claim(&held, &beta, false, NULL, &next, &err), -EPERM);
	assert_int_equal(owner_claim(&held, &alpha, false, NULL, &next, &err), -EPERM);
	assert_int_equal(owner_claim(&moving, &beta, false, NULL, &next, &err), -EPERM);
	assert_int_equal(owner_acquire(&held, &beta, false, NULL, &next, &err), -EPERM);
	assert_non_null(strstr(err.text, "alpha"));
	assert_int_equal(owner_acquire(&moving, &alpha, false, NULL, &next, &err), -EPERM);
	assert_int_equal(owner_acquire(&moving, &beta, false, NULL, &next, &err), -EPERM);
	/* A refusal makes no record. */
	assert_int_equal(next.epoch, 7);
}

/* `to` and `mode` go, `feeder` and `try` stay: the pages of a postcopy may still be elsewhere. */
static void the_holder_renews_with_the_boot_that_it_has_now(void **state)
{
	CLEANUP(owner_done) struct owner before = owner_of(OWNER_HELD, "alpha", "alpha");
	CLEANUP(owner_done) struct owner next = { 0 };

	add_traces(&before);
	assert_int_equal(owner_renew(&before, &alpha, "pause", &next, NULL), 0);
	assert_owner(&next, &(struct owner){ .epoch = 42,
					     .phase = OWNER_HELD,
					     .node = "alpha",
					     .boot = "boot-a",
					     .feeder = "delta",
					     .try_epoch = 40,
					     .home = "alpha",
					     .lease = "pause",
					     .by = "alpha/1/7" });
	assert_int_equal(json_integer_value(json_object_get(next.rest, "later")), 5);
}

static void the_holder_releases_and_the_home_stays(void **state)
{
	CLEANUP(owner_done) struct owner before = owner_of(OWNER_HELD, "alpha", "alpha");
	CLEANUP(owner_done) struct owner next = { 0 };

	add_traces(&before);
	assert_int_equal(owner_release(&before, &alpha, &next, NULL), 0);
	assert_owner(&next, &(struct owner){ .epoch = 42,
					     .phase = OWNER_OFF,
					     .home = "alpha",
					     .lease = "keep",
					     .by = "alpha/1/7" });
	assert_int_equal(json_integer_value(json_object_get(next.rest, "later")), 5);
}

static void only_the_holder_renews_and_releases(void **state)
{
	const struct owner records[] = {
		owner_of(OWNER_OFF, "", "alpha"),    owner_of(OWNER_HELD, "beta", ""),
		owner_of(OWNER_MOVING, "alpha", ""), owner_of(OWNER_HELD, "alp", ""),
		owner_of(OWNER_HELD, "alpha2", ""),
	};
	struct error err;
	struct owner next;

	for (size_t i = 0; i < ARRAY_SIZE(records); i++) {
		err = (struct error){ 0 };
		assert_int_equal(owner_renew(&records[i], &alpha, NULL, &next, &err), -EPERM);
		assert_int_equal(err.class, ERROR_REFUSED);
		assert_non_null(strstr(err.text, "41"));
		assert_int_equal(owner_release(&records[i], &alpha, &next, &err), -EPERM);
	}
}

static void what_comes_before_a_cold_start_is_renew_or_claim(void **state)
{
	const struct owner held = owner_of(OWNER_HELD, "alpha", "");
	const struct owner off = owner_of(OWNER_OFF, "", "");
	struct owner next;

	assert_int_equal(owner_acquire(&held, &alpha, true, NULL, &next, NULL), 0);
	assert_int_equal(next.epoch, 42);
	assert_string_equal(next.home, "alpha");
	assert_string_equal(next.boot, "boot-a");
	assert_int_equal(owner_acquire(&off, &beta, false, NULL, &next, NULL), 0);
	assert_int_equal(next.epoch, 42);
	assert_string_equal(next.node, "beta");
	assert_string_equal(next.home, "");
}

/* The record is at epoch 41; a claim was written under an answered write of it. */
static void a_claim_that_the_record_has_not_come_to_refuses(void **state)
{
	static const struct {
		enum owner_phase phase;
		const char *node, *claimed_by;
		uint64_t epoch;
		bool refused;
	} cases[] = {
		{ OWNER_OFF, "", "alpha", 40, false },
		{ OWNER_OFF, "", "alpha", 41, true }, /* nobody claims under what is off */
		{ OWNER_OFF, "", "alpha", 42, true },
		{ OWNER_HELD, "alpha", "alpha", 41, false },
		{ OWNER_HELD, "alpha", "alpha", 42, true },
		{ OWNER_HELD, "beta", "alpha", 40, false },
		{ OWNER_HELD, "beta", "alpha", 41, true },
		{ OWNER_HELD, "beta", "alpha", 90, true },
		{ OWNER_MOVING, "alpha", "alpha", 40, false },
		{ OWNER_MOVING, "alpha", "alpha", 41, true },
	};
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct owner record = owner_of(cases[i].phase, cases[i].node, "");

		err = (struct error){ 0 };
		assert_int_equal(
			owner_check_claim(&record, cases[i].claimed_by, cases[i].epoch, &err) < 0,
			cases[i].refused);
		if (cases[i].refused) {
			assert_int_equal(err.class, ERROR_REFUSED);
			assert_non_null(strstr(err.text, "set back to an older state"));
		}
	}
	assert_int_equal(owner_check_claim(NULL, "alpha", 1, NULL), -EPERM);
}

static void a_conflict_is_won_only_by_the_very_write_that_was_asked(void **state)
{
	static const struct {
		enum owner_phase phase;
		const char *node, *by;
		uint64_t epoch;
		bool won;
	} cases[] = {
		{ OWNER_HELD, "alpha", "alpha/1/7", 42, true },
		{ OWNER_HELD, "alpha", "alpha/1/7", 43, false },
		{ OWNER_HELD, "alpha", "alpha/1/7", 41, false },
		/* A former life of this keeper, which nobody answered. */
		{ OWNER_HELD, "alpha", "alpha/0/7", 42, false },
		{ OWNER_HELD, "alpha", "alpha/1/6", 42, false },
		{ OWNER_HELD, "beta", "beta/1/7", 42, false },
		{ OWNER_OFF, "", "alpha/1/7", 42, false },
		{ OWNER_MOVING, "alpha", "alpha/1/7", 42, false },
		{ OWNER_HELD, "alpha2", "alpha/1/7", 42, false },
	};
	const struct owner before = owner_of(OWNER_OFF, "", "");
	struct owner asked = { 0 };

	assert_return_code(owner_claim(&before, &alpha, false, NULL, &asked, NULL), 0);
	assert_int_equal(asked.epoch, 42);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct owner now = owner_of(cases[i].phase, cases[i].node, "");

		now.epoch = cases[i].epoch;
		(void)snprintf(now.by, sizeof(now.by), "%s", cases[i].by);
		assert_int_equal(owner_won(&now, &asked), cases[i].won);
	}
	owner_done(&asked);
}

static void why_a_node_may_not_have_the_vm_is_a_sentence(void **state)
{
	struct owner moving = owner_of(OWNER_MOVING, "alpha", "");
	const struct owner held = owner_of(OWNER_HELD, "alpha", "");
	const struct owner off = owner_of(OWNER_OFF, "", "alpha");
	struct error err = { 0 };

	(void)snprintf(moving.to, sizeof(moving.to), "beta");
	assert_int_equal(owner_check_here(&held, "alpha", NULL), 0);
	assert_int_equal(owner_check_here(&off, "alpha", NULL), 0);
	assert_int_equal(owner_check_here(&held, "beta", &err), -EPERM);
	assert_non_null(strstr(err.text, "node 'alpha' holds it"));
	assert_int_equal(owner_check_here(&off, "beta", &err), -EPERM);
	assert_string_equal(err.text, "its disks are on node 'alpha'");
	assert_int_equal(owner_check_here(&moving, "alpha", &err), -EPERM);
	assert_non_null(strstr(err.text, "'alpha' to 'beta'"));
}

/* ---- admission and back-off ---- */

static int admit(uint64_t need, uint64_t limit, uint64_t booked, uint64_t available,
		 struct error *err)
{
	return admission_check(&(struct admission){ .need = need,
						    .overhead = 128,
						    .limit = limit,
						    .booked = booked,
						    .available = available },
			       err);
}

static void fc_K19_what_others_have_booked_counts_before_they_use_it(void **state)
{
	struct error err = { 0 };

	assert_int_equal(admit(512, 1280, 640, 100000, NULL), 0);
	assert_int_equal(admit(512, 1280, 641, 100000, &err), -EAGAIN);
	assert_int_equal(error_exit_code(err.class), 75);
	assert_non_null(strstr(err.text, "640 MiB"));
	assert_non_null(strstr(err.text, "641 of 1280 MiB"));
	/* More is booked than there is, after the limit was lowered: nothing wraps around. */
	assert_int_equal(admit(1, 1280, 1280, 100000, NULL), -EAGAIN);
	assert_int_equal(admit(1, 1280, 5000, 100000, NULL), -EAGAIN);
	assert_int_equal(admit(512, 639, 0, 100000, NULL), -EAGAIN);
	assert_int_equal(admit(512, 640, 0, 100000, NULL), 0);
	assert_int_equal(admit(512, 0, 1000000, 100000, NULL), 0);
}

static void fc_K20_what_is_really_free_counts_with_the_overhead(void **state)
{
	struct error err = { 0 };

	assert_int_equal(admit(512, 0, 0, 640, NULL), 0);
	assert_int_equal(admit(512, 0, 0, 639, &err), -EAGAIN);
	assert_int_equal(err.class, ERROR_TRY_AGAIN);
	assert_non_null(strstr(err.text, "640 MiB (512 + 128 overhead)"));
	assert_non_null(strstr(err.text, "639 MiB are available"));
	assert_int_equal(admit(512, 100000, 0, 0, NULL), -EAGAIN);
}

static void a_vm_that_keeps_failing_waits_twice_as_long_each_time(void **state)
{
	static const uint64_t waits[] = { 2, 4, 8, 16, 30, 30, 30 };
	struct backoff backoff = { .first = 2, .max = 30, .forget = 600 };

	for (size_t i = 0; i < ARRAY_SIZE(waits); i++)
		assert_int_equal(backoff_failed(&backoff, 0), waits[i]);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(backoff_failed(&backoff, 599), 30);
}

static void a_good_while_of_running_makes_failures_forgotten(void **state)
{
	struct backoff backoff = { .first = 2, .max = 30, .forget = 600 };

	for (int i = 0; i < 10; i++)
		(void)backoff_failed(&backoff, 0);
	assert_int_equal(backoff_failed(&backoff, 600), 2);
	assert_int_equal(backoff_failed(&backoff, 10), 4);
	backoff_reset(&backoff);
	assert_int_equal(backoff_failed(&backoff, 10), 2);
}

static void a_first_wait_above_the_limit_is_the_limit(void **state)
{
	struct backoff backoff = { .first = 60, .max = 30, .forget = 600 };

	assert_int_equal(backoff_failed(&backoff, 0), 30);
	assert_int_equal(backoff_failed(&backoff, 0), 30);
}

static void fc_M14_those_who_failed_together_do_not_try_again_together(void **state)
{
	static const uint64_t waits[] = { 1, 2, 3, 1000000, 20000000 };
	unsigned eighths[8] = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(waits); i++)
		for (uint64_t n = 0; n < 1000; n++) {
			uint64_t wait = backoff_spread(waits[i], n * 0x9e3779b97f4a7c15u);

			assert_true(wait >= waits[i] / 2 && wait <= waits[i]);
		}
	for (uint64_t n = 0; n < 8000; n++)
		eighths[(backoff_spread(16000, n * 0x9e3779b97f4a7c15u) - 8000) / 1001]++;
	for (size_t i = 0; i < ARRAY_SIZE(eighths); i++)
		assert_in_range(eighths[i], 900, 1100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_that_has_a_say_makes_the_wish),
		cmocka_unit_test(a_pause_concerns_who_has_the_vm_or_should),
		cmocka_unit_test(a_definition_that_says_offline_goes_before_all),
		cmocka_unit_test(a_deleted_file_that_said_offline_is_hands_off),
		cmocka_unit_test(stop_off_and_a_stopped_node_mean_down_and_nothing_else_does),

		cmocka_unit_test(each_cell_of_situation_and_wish_is_as_written),
		cmocka_unit_test(a_guest_ends_only_by_an_order_or_its_own_doing),
		cmocka_unit_test(nothing_is_started_beside_what_may_live),
		cmocka_unit_test(fc_W1_an_empty_kvm_host_never_ends_a_vm),
		cmocka_unit_test(fc_K16_ensure_without_a_host_changes_nothing),
		cmocka_unit_test(fc_W2_a_guest_that_does_not_run_is_reported_not_destroyed),
		cmocka_unit_test(fc_W31_an_administrative_stop_is_not_undone),
		cmocka_unit_test(fc_P4_running_is_process_and_monitor_and_status),
		cmocka_unit_test(the_run_states_of_qemu_have_their_situations),
		cmocka_unit_test(a_kill_asks_nobody),
		cmocka_unit_test(a_restart_ends_the_copy_as_a_stop_would),
		cmocka_unit_test(a_move_without_migration_shuts_the_guest_down_here),
		cmocka_unit_test(a_paused_guest_goes_on_before_it_goes_elsewhere),
		cmocka_unit_test(a_restart_means_nothing_to_a_vm_that_is_not_to_run),
		cmocka_unit_test(a_guest_that_we_paused_is_let_run_to_be_shut_down),
		cmocka_unit_test(a_pause_of_ours_is_taken_back_and_no_other),
		cmocka_unit_test(a_pause_by_the_lease_is_taken_back_once_there_is_a_lease),
		cmocka_unit_test(a_guest_that_the_lease_paused_is_let_run_to_be_shut_down),
		cmocka_unit_test(without_a_lease_nothing_is_let_run_and_nothing_else_changes),
		cmocka_unit_test(resume_tries_a_disk_error_again_and_nobody_else_does),
		cmocka_unit_test(a_failed_start_waits_unless_somebody_asks),
		cmocka_unit_test(what_another_node_holds_is_not_started_here),
		cmocka_unit_test(the_record_is_given_back_once_nothing_is_to_run),
		cmocka_unit_test(a_panic_ends_by_its_policy),
		cmocka_unit_test(a_policy_for_panics_touches_no_other_state),

		cmocka_unit_test(an_end_a_write_or_a_cleanup_is_waited_for),
		cmocka_unit_test(a_start_is_given_up_by_any_other_wish),
		cmocka_unit_test(a_start_whose_guest_runs_is_not_given_up),
		cmocka_unit_test(a_start_goes_on_whatever_is_ordered_of_its_copy),
		cmocka_unit_test(a_guest_that_shut_down_as_asked_is_ended),
		cmocka_unit_test(a_stop_under_way_goes_on_while_it_is_wanted),
		cmocka_unit_test(a_stop_is_given_up_by_a_newer_wish),
		cmocka_unit_test(a_kill_cuts_a_graceful_stop_short),
		cmocka_unit_test(situations_and_actions_have_names_of_their_own),

		cmocka_unit_test(fc_P11_each_command_fits_its_states_and_no_other),
		cmocka_unit_test(a_start_against_the_definition_names_its_source),
		cmocka_unit_test(rm_of_a_vm_whose_file_is_there_names_the_file),
		cmocka_unit_test(a_refusal_tells_why_the_state_is_what_it_is),
		cmocka_unit_test(commands_are_found_by_their_names),
		cmocka_unit_test(a_waiting_command_ends_when_its_state_is_reached_or_lost),
		cmocka_unit_test(a_start_that_failed_says_why),

		cmocka_unit_test(the_first_claim_makes_the_record),
		cmocka_unit_test(a_claim_of_what_is_off_raises_the_epoch_and_clears_traces),
		cmocka_unit_test(only_the_home_may_claim_local_disks),
		cmocka_unit_test(nobody_claims_what_is_held_or_moving),
		cmocka_unit_test(the_holder_renews_with_the_boot_that_it_has_now),
		cmocka_unit_test(the_holder_releases_and_the_home_stays),
		cmocka_unit_test(only_the_holder_renews_and_releases),
		cmocka_unit_test(what_comes_before_a_cold_start_is_renew_or_claim),
		cmocka_unit_test(a_claim_that_the_record_has_not_come_to_refuses),
		cmocka_unit_test(a_conflict_is_won_only_by_the_very_write_that_was_asked),
		cmocka_unit_test(why_a_node_may_not_have_the_vm_is_a_sentence),

		cmocka_unit_test(fc_K19_what_others_have_booked_counts_before_they_use_it),
		cmocka_unit_test(fc_K20_what_is_really_free_counts_with_the_overhead),
		cmocka_unit_test(a_vm_that_keeps_failing_waits_twice_as_long_each_time),
		cmocka_unit_test(a_good_while_of_running_makes_failures_forgotten),
		cmocka_unit_test(a_first_wait_above_the_limit_is_the_limit),
		cmocka_unit_test(fc_M14_those_who_failed_together_do_not_try_again_together),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
