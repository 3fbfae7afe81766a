/* SPDX-License-Identifier: Apache-2.0 */
/* The writes of the owner record that belong to a migration: each from each record, by hand from
 * the table in the ownership protocol's section 3; and what an agent lets a node write (R4). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/ownership.h"
#include "util/cleanup.h"
#include "util/error.h"

#define EPOCH 7

static const struct writer alpha = { "alpha", "boot-a", "alpha/k/1" };

static const struct owner off = { .epoch = EPOCH, .phase = OWNER_OFF, .lease = "stop" };
static const struct owner held = {
	.epoch = EPOCH, .phase = OWNER_HELD, .node = "alpha", .boot = "boot-a", .lease = "stop"
};
static const struct owner held_there = {
	.epoch = EPOCH, .phase = OWNER_HELD, .node = "beta", .boot = "boot-b", .lease = "stop"
};
static const struct owner taken = { .epoch = EPOCH,
				    .phase = OWNER_HELD,
				    .node = "alpha",
				    .boot = "boot-a",
				    .try_epoch = 6,
				    .lease = "stop" };
static const struct owner taken_post = { .epoch = EPOCH,
					 .phase = OWNER_HELD,
					 .node = "alpha",
					 .boot = "boot-a",
					 .try_epoch = 6,
					 .feeder = "beta",
					 .lease = "stop" };
static const struct owner away = { .epoch = EPOCH,
				   .phase = OWNER_MOVING,
				   .node = "alpha",
				   .boot = "boot-a",
				   .to = "beta",
				   .mode = "pre",
				   .lease = "stop" };
static const struct owner here = { .epoch = EPOCH,
				   .phase = OWNER_MOVING,
				   .node = "beta",
				   .boot = "boot-b",
				   .to = "alpha",
				   .mode = "pre",
				   .lease = "stop" };
static const struct owner elsewhere = { .epoch = EPOCH,
					.phase = OWNER_MOVING,
					.node = "beta",
					.boot = "boot-b",
					.to = "gamma",
					.mode = "pre",
					.lease = "stop" };

static const struct owner *const all[] = { &off,	&held, &held_there, &taken,
					   &taken_post, &away, &here,	    &elsewhere };

enum write { MOVE, TAKE, BACK, DECLINE, GIVE, SETTLE, WRITES };
static const char *const write_names[WRITES] = {
	"move", "take", "back", "decline", "give", "settle"
};

static int write_record(enum write write, const struct owner *before, struct owner *ret,
			struct error *err)
{
	switch (write) {
	case MOVE:
		return owner_move(before, &alpha, "beta", "pre", ret, err);
	case TAKE:
		return owner_take(before, &alpha, ret, err);
	case BACK:
		return owner_back(before, &alpha, ret, err);
	case DECLINE:
		return owner_decline(before, &alpha, ret, err);
	case GIVE:
		return owner_give(before, &alpha, "beta", "boot-b", ret, err);
	default:
		return owner_settle(before, &alpha, ret, err);
	}
}

static void each_write_is_possible_from_its_row_and_no_other(void **state)
{
	/* clang-format off */
	static const bool possible[ARRAY_SIZE(all)][WRITES] = {
		/*		move   take   back   decline give  settle */
		/* off */	{ false, false, false, false, false, false },
		/* held */	{ true,  false, false, false, false, false },
		/* held there */ { false, false, false, false, false, false },
		/* taken */	{ true,  false, false, false, true,  false },
		/* taken post */ { false, false, false, false, false, true },
		/* away */	{ false, false, true,  false, false, false },
		/* here */	{ false, true,  false, true,  false, false },
		/* elsewhere */	{ false, false, false, false, false, false },
	};
	/* clang-format on */

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		for (int write = 0; write < WRITES; write++) {
			CLEANUP(owner_done) struct owner next = { 0 };
			struct error err = { 0 };
			int r = write_record((enum write)write, all[i], &next, &err);

			if ((r == 0) != possible[i][write])
				fail_msg("%s from record %zu: %d", write_names[write], i, r);
			if (r == 0) {
				assert_int_equal(next.epoch, EPOCH + 1);
				assert_string_equal(next.by, "alpha/k/1");
				assert_string_equal(next.lease, "stop");
				assert_int_equal(owner_check_write(all[i], &next, "alpha", &err),
						 0);
			} else {
				assert_int_equal(r, -EPERM);
			}
		}
}

static void what_a_row_does_not_name_becomes_null(void **state)
{
	static const struct {
		enum write write;
		const struct owner *before;
		enum owner_phase phase;
		const char *node, *boot, *to, *mode, *feeder;
		uint64_t try_epoch;
	} rows[] = {
		{ MOVE, &held, OWNER_MOVING, "alpha", "boot-a", "beta", "pre", "", 0 },
		{ MOVE, &taken, OWNER_MOVING, "alpha", "boot-a", "beta", "pre", "", 0 },
		{ TAKE, &here, OWNER_HELD, "alpha", "boot-a", "", "", "", EPOCH },
		{ BACK, &away, OWNER_HELD, "alpha", "boot-a", "", "", "", 0 },
		{ DECLINE, &here, OWNER_HELD, "beta", "boot-b", "", "", "", 0 },
		{ GIVE, &taken, OWNER_HELD, "beta", "boot-b", "", "", "", 6 },
		{ SETTLE, &taken_post, OWNER_HELD, "alpha", "boot-a", "", "", "", 6 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		CLEANUP(owner_done) struct owner next = { 0 };

		assert_int_equal(write_record(rows[i].write, rows[i].before, &next, NULL), 0);
		assert_int_equal(next.phase, rows[i].phase);
		assert_string_equal(next.node, rows[i].node);
		assert_string_equal(next.boot, rows[i].boot);
		assert_string_equal(next.to, rows[i].to);
		assert_string_equal(next.mode, rows[i].mode);
		assert_string_equal(next.feeder, rows[i].feeder);
		assert_int_equal(next.try_epoch, rows[i].try_epoch);
	}
}

static void postcopy_names_the_feeder_until_all_pages_are_here(void **state)
{
	CLEANUP(owner_done) struct owner took = { 0 };
	CLEANUP(owner_done) struct owner renewed = { 0 };
	CLEANUP(owner_done) struct owner settled = { 0 };
	struct owner post = here;

	strcpy(post.mode, "post");
	assert_int_equal(owner_take(&post, &alpha, &took, NULL), 0);
	assert_string_equal(took.feeder, "beta");
	assert_int_equal(owner_renew(&took, &alpha, "stop", &renewed, NULL), 0);
	assert_string_equal(renewed.feeder, "beta");
	assert_int_equal(renewed.try_epoch, EPOCH);
	assert_int_equal(owner_settle(&renewed, &alpha, &settled, NULL), 0);
	assert_string_equal(settled.feeder, "");
}

/* Section 10: where the disks are changes with the node, in the same write. */
static void home_goes_with_the_guest(void **state)
{
	static const struct {
		enum write write;
		const struct owner *before;
		const char *from, *to;
	} rows[] = {
		{ MOVE, &held, "alpha", "alpha" }, { TAKE, &here, "beta", "alpha" },
		{ BACK, &away, "alpha", "alpha" }, { DECLINE, &here, "beta", "beta" },
		{ GIVE, &taken, "alpha", "beta" }, { MOVE, &held, "", "" },
		{ TAKE, &here, "", "" },	   { GIVE, &taken, "", "" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		CLEANUP(owner_done) struct owner next = { 0 };
		struct owner before = *rows[i].before;

		strcpy(before.home, rows[i].from);
		assert_int_equal(write_record(rows[i].write, &before, &next, NULL), 0);
		assert_string_equal(next.home, rows[i].to);
	}
}

static void nothing_is_moved_to_where_it_is(void **state)
{
	CLEANUP(owner_done) struct owner next = { 0 };
	struct error err = { 0 };

	assert_int_equal(owner_move(&held, &alpha, "alpha", "pre", &next, &err), -EPERM);
	assert_non_null(strstr(err.text, "already"));
}

static void keys_of_a_newer_program_are_kept(void **state)
{
	CLEANUP(owner_done) struct owner next = { 0 };
	struct owner before = here;

	before.rest = json_pack("{s:i}", "later", 1);
	assert_int_equal(owner_take(&before, &alpha, &next, NULL), 0);
	assert_int_equal(json_integer_value(json_object_get(next.rest, "later")), 1);
	json_decref(before.rest);
}

/* R4: what the agent of alpha carries for its keepers. */
static void R4_a_node_writes_what_is_its_own_to_write(void **state)
{
	/* clang-format off */
	static const struct owner to_me = { .epoch = EPOCH + 1, .phase = OWNER_HELD, .node = "alpha" };
	static const struct owner to_beta = { .epoch = EPOCH + 1, .phase = OWNER_HELD, .node = "beta" };
	static const struct owner to_gamma = { .epoch = EPOCH + 1, .phase = OWNER_HELD, .node = "gamma" };
	static const struct owner to_off = { .epoch = EPOCH + 1, .phase = OWNER_OFF };
	static const struct owner move = { .epoch = EPOCH + 1, .phase = OWNER_MOVING, .node = "alpha", .to = "beta" };
	static const struct owner move_of_beta = { .epoch = EPOCH + 1, .phase = OWNER_MOVING, .node = "beta", .to = "alpha" };
	static const struct owner *const after[] = { &to_me, &to_beta, &to_gamma, &to_off, &move, &move_of_beta };
	static const bool may[ARRAY_SIZE(all)][ARRAY_SIZE(after)] = {
		/*		 me     beta   gamma  off    move   beta's move */
		/* off */	{ true,  false, false, false, false, false },
		/* held */	{ true,  false, false, true,  true,  false },
		/* held there */ { false, false, false, false, false, false },
		/* taken */	{ true,  true,  true,  true,  true,  false },
		/* taken post */ { true, true,  true,  true,  true,  false },
		/* away */	{ true,  false, false, false, false, false },
		/* here */	{ true,  true,  false, false, false, false },
		/* elsewhere */	{ false, false, false, false, false, false },
	};
	/* clang-format on */

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		for (size_t j = 0; j < ARRAY_SIZE(after); j++) {
			struct error err = { 0 };
			bool ok = owner_check_write(all[i], after[j], "alpha", &err) == 0;

			if (ok != may[i][j])
				fail_msg("record %zu to %zu: %s", i, j, ok ? "allowed" : "refused");
		}
}

static void R3_epochs_are_gapless(void **state)
{
	static const uint64_t epochs[] = { 0, EPOCH - 1, EPOCH, EPOCH + 2, UINT64_MAX };

	for (size_t i = 0; i < ARRAY_SIZE(epochs); i++) {
		struct owner after = held;
		struct error err = { 0 };

		after.epoch = epochs[i];
		assert_int_equal(owner_check_write(&held, &after, "alpha", &err), -EPERM);
	}
	struct owner first = held;

	first.epoch = 1;
	assert_int_equal(owner_check_write(NULL, &first, "alpha", NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_write_is_possible_from_its_row_and_no_other),
		cmocka_unit_test(what_a_row_does_not_name_becomes_null),
		cmocka_unit_test(postcopy_names_the_feeder_until_all_pages_are_here),
		cmocka_unit_test(home_goes_with_the_guest),
		cmocka_unit_test(nothing_is_moved_to_where_it_is),
		cmocka_unit_test(keys_of_a_newer_program_are_kept),
		cmocka_unit_test(R4_a_node_writes_what_is_its_own_to_write),
		cmocka_unit_test(R3_epochs_are_gapless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
