/* SPDX-License-Identifier: Apache-2.0 */
/* What a keeper does next in a live migration: each kind of record with each kind of copy, written
 * by hand from the ownership protocol's sections 3 to 6 and 8; then what turns a cell. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/migration.h"
#include "util/cleanup.h"

/* This node is alpha.  Records are at epoch 7; a copy that fits was part of the attempt named. */
#define EPOCH 7

enum kind {
	NO_RECORD,
	OFF,
	HELD_HERE,	  /* never taken by a migration, or given up again */
	TAKEN_HERE,	  /* by this node, attempt 6 */
	TAKEN_POST,	  /* the same in postcopy, beta feeds */
	HELD_THERE,	  /* by beta, at its leisure */
	TAKEN_THERE,	  /* from this node, attempt 6 */
	TAKEN_POST_THERE, /* the same in postcopy, this node feeds */
	MOVING_AWAY,	  /* attempt 7, from here */
	MOVING_HERE,	  /* attempt 7, to here */
	MOVING_HERE_POST,
	MOVING_ELSEWHERE, /* from beta to gamma */
	KINDS,
};

static const char *const kind_names[KINDS] = {
	"no record",
	"off",
	"held here",
	"taken here",
	"taken here, postcopy",
	"held there",
	"taken there",
	"taken there, postcopy",
	"moving away",
	"moving here",
	"moving here, postcopy",
	"moving elsewhere",
};

static const struct owner records[KINDS] = {
	[OFF] = { .epoch = EPOCH, .phase = OWNER_OFF },
	[HELD_HERE] = { .epoch = EPOCH, .phase = OWNER_HELD, .node = "alpha" },
	[TAKEN_HERE] = { .epoch = EPOCH, .phase = OWNER_HELD, .node = "alpha", .try_epoch = 6 },
	[TAKEN_POST] = { .epoch = EPOCH,
			 .phase = OWNER_HELD,
			 .node = "alpha",
			 .try_epoch = 6,
			 .feeder = "beta" },
	[HELD_THERE] = { .epoch = EPOCH, .phase = OWNER_HELD, .node = "beta" },
	[TAKEN_THERE] = { .epoch = EPOCH, .phase = OWNER_HELD, .node = "beta", .try_epoch = 6 },
	[TAKEN_POST_THERE] = { .epoch = EPOCH,
			       .phase = OWNER_HELD,
			       .node = "beta",
			       .try_epoch = 6,
			       .feeder = "alpha" },
	[MOVING_AWAY] = { .epoch = EPOCH,
			  .phase = OWNER_MOVING,
			  .node = "alpha",
			  .to = "beta",
			  .mode = "pre" },
	[MOVING_HERE] = { .epoch = EPOCH,
			  .phase = OWNER_MOVING,
			  .node = "beta",
			  .to = "alpha",
			  .mode = "pre" },
	[MOVING_HERE_POST] = { .epoch = EPOCH,
			       .phase = OWNER_MOVING,
			       .node = "beta",
			       .to = "alpha",
			       .mode = "post" },
	[MOVING_ELSEWHERE] = { .epoch = EPOCH,
			       .phase = OWNER_MOVING,
			       .node = "beta",
			       .to = "gamma",
			       .mode = "pre" },
};

/* The keeper won the record and has a lease; nothing was heard and nothing is wanted. */
static struct migration_facts facts_of(enum kind kind, enum migration_copy copy)
{
	bool moving = kind >= MOVING_AWAY;

	return (struct migration_facts){ .node = "alpha",
					 .record = kind == NO_RECORD ? NULL : &records[kind],
					 .permitted = true,
					 .lease = true,
					 .copy = copy,
					 .attempt = moving ? EPOCH : EPOCH - 1,
					 .target = "beta",
					 .postcopy = kind == MOVING_HERE_POST };
}

static void expect(const struct migration_facts *facts, enum migration_action action,
		   const char *what)
{
	struct migration_decision decision = migration_decide(facts);

	if (decision.action != action)
		fail_msg("%s, copy %s: %s instead of %s", what, migration_copy_name(facts->copy),
			 migration_action_name(decision.action), migration_action_name(action));
	assert_non_null(decision.why);
}

/* clang-format off */
#define NONE	MIGRATION_NONE
#define WAIT	MIGRATION_WAIT
#define CANCEL	MIGRATION_CANCEL
#define SAY	MIGRATION_SAY_STOPPED
#define BACK	MIGRATION_WRITE_BACK
#define DECLINE	MIGRATION_WRITE_DECLINE
#define SETTLE	MIGRATION_WRITE_SETTLE
#define CONT	MIGRATION_CONT
#define FINISH	MIGRATION_FINISH
#define DESTROY	MIGRATION_DESTROY

static const enum migration_action table[KINDS][COPIES] = {
/*		      none     cold   running stopped sending switching completed feeding  incoming loaded   faulting */
[NO_RECORD]	  = { NONE,    NONE,  NONE,   NONE,   NONE,   NONE,   FINISH, FINISH,  DESTROY, DESTROY, NONE },
[OFF]		  = { NONE,    NONE,  NONE,   NONE,   NONE,   NONE,   WAIT,   FINISH,  DESTROY, DESTROY, NONE },
[HELD_HERE]	  = { NONE,    NONE,  NONE,   NONE,   CANCEL, CANCEL, CONT,   DESTROY, DESTROY, DESTROY, WAIT },
[TAKEN_HERE]	  = { NONE,    NONE,  NONE,   NONE,   CANCEL, CANCEL, CONT,   DESTROY, DESTROY, CONT,    WAIT },
[TAKEN_POST]	  = { NONE,    NONE,  SETTLE, NONE,   CANCEL, CANCEL, CONT,   DESTROY, DESTROY, CONT,    WAIT },
[HELD_THERE]	  = { NONE,    NONE,  NONE,   NONE,   NONE,   NONE,   WAIT,   FINISH,  DESTROY, DESTROY, NONE },
[TAKEN_THERE]	  = { NONE,    NONE,  NONE,   NONE,   NONE,   NONE,   WAIT,   FINISH,  DESTROY, DESTROY, NONE },
[TAKEN_POST_THERE] = { NONE,   NONE,  NONE,   NONE,   NONE,   NONE,   WAIT,   WAIT,    DESTROY, DESTROY, NONE },
[MOVING_AWAY]	  = { BACK,    BACK,  BACK,   BACK,   CANCEL, CANCEL, SAY,    SAY,     DESTROY, DESTROY, DESTROY },
[MOVING_HERE]	  = { DECLINE, NONE,  NONE,   NONE,   NONE,   NONE,   NONE,   NONE,    WAIT,    WAIT,    NONE },
[MOVING_HERE_POST] = { DECLINE, NONE, NONE,   NONE,   NONE,   NONE,   NONE,   NONE,    WAIT,    WAIT,    NONE },
[MOVING_ELSEWHERE] = { NONE,   NONE,  NONE,   NONE,   NONE,   NONE,   WAIT,   FINISH,  DESTROY, DESTROY, NONE },
};
/* clang-format on */

static void each_record_with_each_copy(void **state)
{
	for (int kind = 0; kind < KINDS; kind++)
		for (int copy = 0; copy < COPIES; copy++) {
			struct migration_facts facts =
				facts_of((enum kind)kind, (enum migration_copy)copy);

			expect(&facts, table[kind][copy], kind_names[kind]);
		}
}

static void R9_an_unanswered_write_stops_everything(void **state)
{
	for (int kind = 0; kind < KINDS; kind++)
		for (int copy = 0; copy < COPIES; copy++) {
			struct migration_facts facts =
				facts_of((enum kind)kind, (enum migration_copy)copy);

			facts.write_open = true;
			expect(&facts, MIGRATION_WAIT, kind_names[kind]);
		}
}

/* R1: a stopped copy first wins the record by a write of its own. */
static void R1_without_a_write_of_its_own_nothing_continues(void **state)
{
	static const enum migration_copy stopped[] = { COPY_COMPLETED, COPY_LOADED };

	for (size_t i = 0; i < ARRAY_SIZE(stopped); i++) {
		struct migration_facts facts = facts_of(TAKEN_HERE, stopped[i]);

		facts.permitted = false;
		expect(&facts, MIGRATION_WRITE_RENEW, "not permitted");
	}
	struct migration_facts feeder = facts_of(HELD_HERE, COPY_FEEDING);

	feeder.permitted = false;
	expect(&feeder, MIGRATION_WRITE_RENEW, "the target declined");
	for (int kind = 0; kind < KINDS; kind++)
		for (int copy = 0; copy < COPIES; copy++) {
			struct migration_facts facts =
				facts_of((enum kind)kind, (enum migration_copy)copy);

			facts.permitted = false;
			assert_int_not_equal(migration_decide(&facts).action, MIGRATION_CONT);
		}
}

static void R2_without_a_lease_nothing_continues_and_nothing_is_moved(void **state)
{
	for (int kind = 0; kind < KINDS; kind++)
		for (int copy = 0; copy < COPIES; copy++) {
			struct migration_facts facts =
				facts_of((enum kind)kind, (enum migration_copy)copy);

			facts.lease = false;
			facts.wanted = true;
			facts.offered = EPOCH + 1;
			assert_int_not_equal(migration_decide(&facts).action, MIGRATION_CONT);
			assert_int_not_equal(migration_decide(&facts).action, MIGRATION_WRITE_MOVE);
		}
}

/* R7: a receiver is bound to the epoch after the record that it saw. */
static void R7_a_move_names_a_receiver_of_exactly_the_next_epoch(void **state)
{
	static const struct {
		uint64_t offered;
		enum migration_action action;
	} cases[] = {
		{ 0, MIGRATION_NONE },
		{ EPOCH, MIGRATION_NONE },
		{ EPOCH + 1, MIGRATION_WRITE_MOVE },
		{ EPOCH + 2, MIGRATION_NONE },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct migration_facts facts = facts_of(HELD_HERE, COPY_RUNNING);

		facts.offered = cases[i].offered;
		expect(&facts, MIGRATION_NONE, "not wanted");
		facts.wanted = true;
		expect(&facts, cases[i].action, "wanted");
		facts.target = NULL;
		expect(&facts, MIGRATION_NONE, "no target");
	}
	struct migration_facts feeder = facts_of(TAKEN_POST, COPY_RUNNING);

	feeder.wanted = true;
	feeder.offered = EPOCH + 1;
	expect(&feeder, MIGRATION_WRITE_SETTLE, "a feeder is told first");
}

static void R7_a_receiver_of_another_epoch_is_never_used(void **state)
{
	static const enum migration_copy copies[] = { COPY_INCOMING, COPY_LOADED };

	for (size_t i = 0; i < ARRAY_SIZE(copies); i++) {
		struct migration_facts facts = facts_of(MOVING_HERE, copies[i]);

		facts.stopped_heard = true;
		facts.attempt = EPOCH - 2;
		expect(&facts, MIGRATION_DESTROY, "of an older move");
		facts = facts_of(TAKEN_HERE, copies[i]);
		facts.attempt = EPOCH - 2;
		expect(&facts, MIGRATION_DESTROY, "of an older move, and held");
	}
}

/* In postcopy a second receiver would wait for a stream that went to the first. */
static void R7_in_postcopy_a_receiver_that_agreed_to_nothing_declines(void **state)
{
	struct migration_facts facts = facts_of(MOVING_HERE_POST, COPY_INCOMING);

	facts.stopped_heard = true;
	expect(&facts, MIGRATION_WAIT, "agreed upon");
	facts.postcopy = false;
	expect(&facts, MIGRATION_WRITE_DECLINE, "another one was agreed upon");
	facts.copy = COPY_LOADED;
	expect(&facts, MIGRATION_WRITE_TAKE, "it has the guest, whatever was forgotten");
	facts = facts_of(MOVING_HERE, COPY_INCOMING);
	expect(&facts, MIGRATION_WAIT, "precopy needs no agreement");
}

/* It waits while the record is before the epoch that it is for: the move may be written, and the
 * stream be read to its end, before this side is told. */
static void a_receiver_waits_for_its_epoch_and_no_longer(void **state)
{
	static const enum migration_copy copies[] = { COPY_INCOMING, COPY_LOADED };

	for (size_t i = 0; i < ARRAY_SIZE(copies); i++) {
		struct migration_facts facts = facts_of(HELD_THERE, copies[i]);

		facts.attempt = EPOCH + 1;
		expect(&facts, MIGRATION_WAIT, "its turn comes");
		facts.unwanted = true;
		expect(&facts, MIGRATION_DESTROY, "given up");
		facts.postcopy = true;
		expect(&facts, MIGRATION_WAIT, "in postcopy it may have the guest already");
		facts.attempt = EPOCH;
		expect(&facts, MIGRATION_DESTROY, "passed on");
		facts.unwanted = false;
		expect(&facts, MIGRATION_DESTROY, "passed on");
	}
}

static void R6_the_target_takes_when_it_has_all_and_the_source_said_stopped(void **state)
{
	static const struct {
		enum kind kind;
		enum migration_copy copy;
		bool heard, unwanted;
		enum migration_action action;
	} cases[] = {
		{ MOVING_HERE, COPY_INCOMING, true, false, MIGRATION_WAIT },
		{ MOVING_HERE, COPY_LOADED, false, false, MIGRATION_WAIT },
		{ MOVING_HERE, COPY_LOADED, true, false, MIGRATION_WRITE_TAKE },
		{ MOVING_HERE, COPY_LOADED, true, true, MIGRATION_WRITE_TAKE },
		{ MOVING_HERE, COPY_LOADED, false, true, MIGRATION_WRITE_DECLINE },
		{ MOVING_HERE, COPY_INCOMING, false, true, MIGRATION_WRITE_DECLINE },
		{ MOVING_HERE_POST, COPY_LOADED, true, false, MIGRATION_WRITE_TAKE },
		{ MOVING_HERE_POST, COPY_LOADED, false, true, MIGRATION_WAIT },
		{ MOVING_HERE_POST, COPY_INCOMING, false, true, MIGRATION_WAIT },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct migration_facts facts = facts_of(cases[i].kind, cases[i].copy);

		facts.permitted = false;
		facts.stopped_heard = cases[i].heard;
		facts.unwanted = cases[i].unwanted;
		expect(&facts, cases[i].action, kind_names[cases[i].kind]);
	}
}

static void the_source_goes_on_only_while_all_of_it_holds(void **state)
{
	static const struct {
		enum migration_copy copy;
		bool wanted, ready;
		uint64_t attempt;
		enum migration_action action;
	} cases[] = {
		{ COPY_RUNNING, true, true, EPOCH, MIGRATION_SEND },
		{ COPY_RUNNING, false, true, EPOCH, MIGRATION_WRITE_BACK },
		{ COPY_RUNNING, true, false, EPOCH, MIGRATION_WRITE_BACK },
		{ COPY_RUNNING, true, true, EPOCH - 2, MIGRATION_WRITE_BACK },
		{ COPY_SENDING, true, true, EPOCH, MIGRATION_WAIT },
		{ COPY_SENDING, false, true, EPOCH, MIGRATION_CANCEL },
		{ COPY_SENDING, true, false, EPOCH, MIGRATION_CANCEL },
		{ COPY_SWITCHING, true, true, EPOCH, MIGRATION_WAIT },
		/* The link may be gone: QEMU itself knows whether all was written. */
		{ COPY_SWITCHING, true, false, EPOCH, MIGRATION_WAIT },
		{ COPY_SWITCHING, false, true, EPOCH, MIGRATION_CANCEL },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct migration_facts facts = facts_of(MOVING_AWAY, cases[i].copy);

		facts.wanted = cases[i].wanted;
		facts.ready = cases[i].ready;
		facts.attempt = cases[i].attempt;
		expect(&facts, cases[i].action, "moving away");
	}
}

static void the_store_decides_when_the_target_is_silent(void **state)
{
	struct migration_facts facts = facts_of(MOVING_AWAY, COPY_COMPLETED);

	facts.permitted = false;
	expect(&facts, MIGRATION_SAY_STOPPED, "just completed");
	facts.told_long = true;
	expect(&facts, MIGRATION_WRITE_BACK, "told for long");
}

/* Section 8: no take-back on a time-out; silence is not proof. */
static void postcopy_takes_back_only_when_the_other_copy_is_proven_gone(void **state)
{
	struct migration_facts source = facts_of(MOVING_AWAY, COPY_FEEDING);
	struct migration_facts target = facts_of(TAKEN_POST, COPY_FAULTING);
	struct migration_facts feeder = facts_of(TAKEN_POST_THERE, COPY_FEEDING);

	source.told_long = true;
	expect(&source, MIGRATION_SAY_STOPPED, "silence");
	source.other_copy_gone = true;
	expect(&source, MIGRATION_WRITE_BACK, "proof");
	expect(&target, MIGRATION_WAIT, "silence");
	target.other_copy_gone = true;
	expect(&target, MIGRATION_DESTROY, "proof");
	target.ended = true;
	expect(&target, MIGRATION_NONE, "a user ends it: core/reconcile does");
	expect(&feeder, MIGRATION_WAIT, "still feeding");
	feeder.released = true;
	expect(&feeder, MIGRATION_WAIT, "that the target runs is not that it has all pages");
	feeder.other_copy_gone = true;
	expect(&feeder, MIGRATION_FINISH, "nobody fetches any more");
	feeder = facts_of(TAKEN_POST_THERE, COPY_FEEDING);
	feeder.attempt = EPOCH - 3;
	expect(&feeder, MIGRATION_FINISH, "of another move");
}

static void the_source_keeps_its_copy_until_the_target_surely_runs(void **state)
{
	struct migration_facts facts = facts_of(TAKEN_THERE, COPY_COMPLETED);
	const struct owner *taken = facts.record;
	struct owner renewed = *taken, moved = *taken;

	expect(&facts, MIGRATION_WAIT, "taken a moment ago");
	renewed.epoch++;
	facts.record = &renewed;
	expect(&facts, MIGRATION_WAIT, "renewed by the target's next keeper, before its cont");
	moved.epoch++;
	moved.phase = OWNER_MOVING;
	moved.try_epoch = 0;
	facts.record = &moved;
	expect(&facts, MIGRATION_FINISH, "the record has passed on: it is moved again");
	facts.record = taken;
	facts.released = true;
	expect(&facts, MIGRATION_FINISH, "it runs there");
	facts.released = false;
	facts.attempt = EPOCH - 2;
	expect(&facts, MIGRATION_FINISH, "the record has passed on");
}

static void what_cannot_be_continued_is_ended_before_it_is_given_back(void **state)
{
	struct migration_facts facts = facts_of(TAKEN_HERE, COPY_LOADED);

	facts.cont_refused = true;
	facts.source_known = true;
	expect(&facts, MIGRATION_DESTROY, "the copy first");
	facts.copy = COPY_NONE;
	expect(&facts, MIGRATION_WRITE_GIVE, "then the record");
	facts.source_known = false;
	expect(&facts, MIGRATION_NONE, "nobody to give it to");
	facts = facts_of(TAKEN_POST, COPY_NONE);
	facts.cont_refused = true;
	facts.source_known = true;
	expect(&facts, MIGRATION_NONE, "postcopy has no way back");
	facts = facts_of(HELD_HERE, COPY_NONE);
	facts.cont_refused = true;
	facts.source_known = true;
	expect(&facts, MIGRATION_NONE, "was not taken");
}

static void a_running_guest_is_never_ended_by_a_migration(void **state)
{
	for (int kind = 0; kind < KINDS; kind++)
		for (unsigned bits = 0; bits < 256; bits++) {
			struct migration_facts facts = facts_of((enum kind)kind, COPY_RUNNING);
			enum migration_action action;

			facts.permitted = bits & 1;
			facts.lease = bits & 2;
			facts.wanted = bits & 4;
			facts.ready = bits & 8;
			facts.offered = bits & 16 ? EPOCH + 1 : 0;
			facts.told_long = facts.released = bits & 32;
			facts.other_copy_gone = facts.unwanted = bits & 64;
			facts.stopped_heard = facts.cont_refused = bits & 128;
			action = migration_decide(&facts).action;
			assert_int_not_equal(action, MIGRATION_DESTROY);
			assert_int_not_equal(action, MIGRATION_FINISH);
			assert_int_not_equal(action, MIGRATION_CONT);
		}
}

static void everything_has_a_name(void **state)
{
	for (int i = 0; i < COPIES; i++)
		assert_non_null(migration_copy_name((enum migration_copy)i));
	for (int i = 0; i < MIGRATION_ACTIONS; i++)
		assert_non_null(migration_action_name((enum migration_action)i));
}

/* Every value of MigrationStatus from QEMU 5.2 to 11.1, and some that nobody knows yet. */
static void fc_M3_only_the_words_for_an_end_are_an_end(void **state)
{
	static const char *const ends[] = { "none", "completed", "cancelled", "failed" };
	static const char *const on_the_way[] = {
		"setup", "active",  "cancelling", "pre-switchover", "device", "wait-unplug",
		"colo",	 "failing", "draining",	  "none-yet",	    "x",
	};
	static const char *const postcopy[] = { "postcopy-active",  "postcopy-paused",
						"postcopy-recover", "postcopy-recover-setup",
						"postcopy-device",  "postcopy-of-tomorrow" };

	for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
		assert_false(migration_status_sends(ends[i]));
	for (size_t i = 0; i < ARRAY_SIZE(on_the_way); i++)
		assert_true(migration_status_sends(on_the_way[i]));
	for (size_t i = 0; i < ARRAY_SIZE(postcopy); i++)
		assert_false(migration_status_sends(postcopy[i]));
	assert_false(migration_status_sends("")); /* it was not heard yet */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_record_with_each_copy),
		cmocka_unit_test(R9_an_unanswered_write_stops_everything),
		cmocka_unit_test(R1_without_a_write_of_its_own_nothing_continues),
		cmocka_unit_test(R2_without_a_lease_nothing_continues_and_nothing_is_moved),
		cmocka_unit_test(R7_a_move_names_a_receiver_of_exactly_the_next_epoch),
		cmocka_unit_test(R7_a_receiver_of_another_epoch_is_never_used),
		cmocka_unit_test(R7_in_postcopy_a_receiver_that_agreed_to_nothing_declines),
		cmocka_unit_test(a_receiver_waits_for_its_epoch_and_no_longer),
		cmocka_unit_test(R6_the_target_takes_when_it_has_all_and_the_source_said_stopped),
		cmocka_unit_test(the_source_goes_on_only_while_all_of_it_holds),
		cmocka_unit_test(the_store_decides_when_the_target_is_silent),
		cmocka_unit_test(postcopy_takes_back_only_when_the_other_copy_is_proven_gone),
		cmocka_unit_test(the_source_keeps_its_copy_until_the_target_surely_runs),
		cmocka_unit_test(what_cannot_be_continued_is_ended_before_it_is_given_back),
		cmocka_unit_test(a_running_guest_is_never_ended_by_a_migration),
		cmocka_unit_test(everything_has_a_name),
		cmocka_unit_test(fc_M3_only_the_words_for_an_end_are_an_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
