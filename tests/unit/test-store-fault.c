/* SPDX-License-Identifier: Apache-2.0 */
/* The store that goes wrong on order: each fault does what store/fault.h says, so that tests of
 * other rooms can rely on it. */
#include "store/fault.h"

#include "store-harness.h"

/* Reads beside the faults. */
static struct store *beside;

static int setup(void **state)
{
	struct scene *scene = xcalloc(1, sizeof(*scene));

	scene_init(scene, "fault:local:");
	scene->store = scene_open(scene);
	scene->scheme = "local:";
	beside = scene_open(scene);
	*state = scene;
	return 0;
}

static int teardown(void **state)
{
	beside = store_close(beside);
	scene_done(*state);
	free(*state);
	return 0;
}

static void order(struct scene *s, enum fault_kind kind, enum fault_calls calls, unsigned skip,
		  unsigned count)
{
	const struct fault fault = { kind, calls, skip, count, -EIO };

	fault_order(s->store, &fault);
}

static void a_dropped_request_is_unknown_and_not_done(void **state)
{
	struct scene *s = *state;
	ANSWER answer = { 0 };

	order(s, FAULT_DROP_REQUEST, FAULT_WRITES, 0, 1);
	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ABSENT, 1, &answer), -EAGAIN);
	assert_int_equal(answer.err.class, ERROR_TRY_AGAIN);
	assert_int_equal(ask_number(s->loop, beside, "/k"), -1);
	assert_int_equal(fault_pending(s->store), 0);
	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ABSENT, 1, &answer), 0);
}

static void a_dropped_answer_is_unknown_and_done(void **state)
{
	struct scene *s = *state;
	ANSWER answer = { 0 };

	order(s, FAULT_DROP_ANSWER, FAULT_WRITES, 0, 1);
	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ABSENT, 1, &answer), -EAGAIN);
	assert_int_equal(ask_number(s->loop, beside, "/k"), 1);
	/* the very same request again: a conflict, which proves that it landed */
	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ABSENT, 1, &answer), -ESTALE);
}

static void a_late_write_lands_when_the_test_says_so(void **state)
{
	struct scene *s = *state;
	ANSWER answer = { 0 };

	order(s, FAULT_LATE, FAULT_WRITES, 0, 2);
	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ABSENT, 1, &answer), -EAGAIN);
	assert_int_equal(ask_put(s->loop, s->store, "/l", STORE_ABSENT, 2, &answer), -EAGAIN);
	assert_int_equal(ask_number(s->loop, beside, "/k"), -1);
	assert_int_equal(ask_put(s->loop, s->store, "/l", STORE_ABSENT, 3, &answer), 0);
	fault_land(s->store);
	assert_int_equal(ask_number(s->loop, s->store, "/k"), 1); /* asked behind them */
	assert_int_equal(ask_number(s->loop, s->store, "/l"), 3); /* it conflicted */
}

static void a_doubled_write_arrives_twice_and_is_answered_once(void **state)
{
	struct scene *s = *state;
	ANSWER answer = { 0 }, got = { 0 };

	order(s, FAULT_TWICE, FAULT_WRITES, 0, 2);
	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ABSENT, 1, &answer), 0);
	assert_int_equal(ask_get(s->loop, s->store, "/k", &got), 0);
	assert_true(got.entry.version == answer.versions[0]);
	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ANY, 2, &answer), 0);
	assert_int_equal(ask_get(s->loop, s->store, "/k", &got), 0);
	assert_true(got.entry.version > answer.versions[0]); /* why blind writes are forbidden */
}

static void a_failed_call_is_not_done(void **state)
{
	struct scene *s = *state;
	ANSWER answer = { 0 };

	order(s, FAULT_FAIL, FAULT_CALLS, 0, 2);
	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ANY, 1, &answer), -EIO);
	assert_true(answer.err.text[0] != '\0');
	assert_int_equal(ask_list(s->loop, s->store, "/", &answer), -EIO);
	assert_int_equal(ask_number(s->loop, s->store, "/k"), -1);
}

static void held_answers_come_on_release_in_the_order_of_the_calls(void **state)
{
	struct scene *s = *state;
	json_auto_t *value = json_pack("{s:i}", "n", 1);
	const struct store_op op = { STORE_PUT, "/k", STORE_ANY, value, false };
	ANSWER held = { .ops = 1 };
	ANSWER behind = { 0 };

	order(s, FAULT_HOLD, FAULT_WRITES, 0, 1);
	assert_int_equal(store_write(s->store, &op, 1, on_write, &held, NULL), 0);
	assert_int_equal(store_get(s->store, "/k", on_get, &behind, NULL), 0);
	assert_int_equal(ask_number(s->loop, beside, "/k"), 1); /* done, only not answered */
	loop_drain(s->loop);
	assert_false(held.done);
	assert_false(behind.done);
	fault_release(s->store);
	assert_true(loop_until(s->loop, &held.done));
	assert_false(behind.done);
	assert_true(loop_until(s->loop, &behind.done));
	assert_int_equal(held.r, 0);
	assert_true(behind.entry.version == held.versions[0]);
}

static void an_order_can_begin_later_and_mean_one_sort(void **state)
{
	struct scene *s = *state;
	ANSWER answer = { 0 };

	order(s, FAULT_DROP_REQUEST, FAULT_WRITES, 1, 1);
	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ANY, 1, &answer), 0);
	assert_int_equal(ask_number(s->loop, s->store, "/k"), 1);
	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ANY, 2, &answer), -EAGAIN);
	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ANY, 3, &answer), 0);
}

static void a_cut_link_suspends_the_session_and_a_mended_one_makes_watches_look(void **state)
{
	struct scene *s = *state;
	struct session session = { 0 };
	struct looks looks = { 0 };
	struct store_watch *watch;
	ANSWER answer = { 0 };

	assert_int_equal(
		store_session_open(s->store, NULL, 3600 * USEC_PER_SEC, on_session, &session, NULL),
		0);
	session_await(s->loop, &session, STORE_CONNECTED);
	assert_int_equal(store_watch(s->store, "/a/", on_look, &looks, &watch, NULL), 0);
	assert_true(loop_until(s->loop, &looks.any));
	looks.any = false;

	fault_cut(s->store);
	session_await(s->loop, &session, STORE_SUSPENDED);
	assert_int_equal(ask_put(s->loop, s->store, "/a/k", STORE_ANY, 1, &answer), -EAGAIN);
	assert_int_equal(ask_get(s->loop, s->store, "/a/k", &answer), -EAGAIN);
	assert_int_equal(ask_put(s->loop, beside, "/a/k", STORE_ANY, 2, &answer), 0);
	loop_drain(s->loop);
	assert_false(looks.any);

	fault_mend(s->store);
	session_await(s->loop, &session, STORE_CONNECTED);
	assert_true(loop_until(s->loop, &looks.any));
	assert_int_equal(ask_number(s->loop, s->store, "/a/k"), 2);
}

static void a_client_that_is_cut_off_is_not_told_that_it_expired(void **state)
{
	struct scene *s = *state;
	struct session session = { 0 };

	assert_int_equal(
		store_session_open(s->store, NULL, 3600 * USEC_PER_SEC, on_session, &session, NULL),
		0);
	session_await(s->loop, &session, STORE_CONNECTED);
	assert_int_equal(put_ephemeral(s, s->store, "/s/me"), 0);
	fault_cut(s->store);
	session_await(s->loop, &session, STORE_SUSPENDED);
	fault_expire(s->store);
	gone_await(s, beside, "/s/", "/s/me");
	loop_drain(s->loop);
	assert_false(session.any);
	fault_mend(s->store);
	session_await(s->loop, &session, STORE_LOST);

	assert_int_equal(
		store_session_open(s->store, NULL, 3600 * USEC_PER_SEC, on_session, &session, NULL),
		0);
	session_await(s->loop, &session, STORE_CONNECTED);
	fault_expire(s->store);
	session_await(s->loop, &session, STORE_LOST);
}

static void closing_drops_what_is_held_or_late(void **state)
{
	struct scene *s = *state;
	json_auto_t *value = json_pack("{s:i}", "n", 1);
	const struct store_op op = { STORE_PUT, "/k", STORE_ANY, value, false };
	ANSWER held = { .ops = 1 };
	ANSWER open = { .ops = 1 };

	order(s, FAULT_LATE, FAULT_WRITES, 0, 1);
	assert_int_equal(ask_put(s->loop, s->store, "/late", STORE_ANY, 1, &held), -EAGAIN);
	order(s, FAULT_HOLD, FAULT_WRITES, 0, 1);
	answer_done(&held);
	held.ops = 1;
	assert_int_equal(store_write(s->store, &op, 1, on_write, &held, NULL), 0);
	loop_drain(s->loop);
	assert_int_equal(store_write(s->store, &op, 1, on_write, &open, NULL), 0);
	s->store = store_close(s->store);
	loop_drain(s->loop);
	assert_false(held.done);
	assert_false(open.done);
	assert_int_equal(ask_number(s->loop, beside, "/late"), -1);
}

#define CASE(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(a_dropped_request_is_unknown_and_not_done),
		CASE(a_dropped_answer_is_unknown_and_done),
		CASE(a_late_write_lands_when_the_test_says_so),
		CASE(a_doubled_write_arrives_twice_and_is_answered_once),
		CASE(a_failed_call_is_not_done),
		CASE(held_answers_come_on_release_in_the_order_of_the_calls),
		CASE(an_order_can_begin_later_and_mean_one_sort),
		CASE(a_cut_link_suspends_the_session_and_a_mended_one_makes_watches_look),
		CASE(a_client_that_is_cut_off_is_not_told_that_it_expired),
		CASE(closing_drops_what_is_held_or_late),
	};

	return cmocka_run_group_tests_name("store-fault", tests, NULL, NULL);
}
