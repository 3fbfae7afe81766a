/* SPDX-License-Identifier: Apache-2.0 */
/* What only the ZooKeeper store promises, against a real server that is stopped, killed and started
 * again.  The contract that it shares with the others is in test-store.c. */
#include "store-harness.h"
#include "store-zookeeper.h"
#include "store/zookeeper.h"

static struct store_server server;

static struct store *open_with(struct scene *s, const char *options)
{
	CLEANUP_FREE char *address =
		xasprintf("zookeeper:127.0.0.1:%d%s%s", server.port, s->dir, options);
	struct store *store = NULL;
	struct error err = { 0 };

	if (store_open(address, NULL, s->loop, &store, &err) < 0)
		fail_msg("%s", err.text);
	return store;
}

static int setup(void **state)
{
	struct scene *scene = xcalloc(1, sizeof(*scene));

	scene_init(scene, "");
	scene->store = open_with(scene, "?tick=500");
	*state = scene;
	return 0;
}

static int teardown(void **state)
{
	scene_done(*state);
	free(*state);
	return 0;
}

static void session_begin(struct scene *s, struct store *store, uint64_t usec,
			  struct session *session)
{
	assert_int_equal(store_session_open(store, NULL, usec, on_session, session, NULL), 0);
	session_await(s->loop, session, STORE_CONNECTED);
}

static void addresses_are_read(void **state)
{
	static const struct {
		const char *text, *servers, *chroot;
		uint64_t tick_ms;
	} good[] = {
		{ "10.0.0.1:2181", "10.0.0.1:2181", "", 2000 },
		{ "10.0.0.1:1,[fd00::1]:2/a/b?tick=500", "10.0.0.1:1,fd00::1:2", "/a/b", 500 },
	};
	static const char *const bad[] = { "",
					   "10.0.0.1",
					   "10.0.0.1:",
					   "10.0.0.1:0",
					   "10.0.0.1:70000",
					   "10.0.0.1:2181x",
					   ":2181",
					   "fd00::1:2181",
					   "10.0.0.1:1/a/",
					   "10.0.0.1:1/",
					   "10.0.0.1:1//a",
					   "10.0.0.1:1/a/../b",
					   "10.0.0.1:1/a b",
					   "10.0.0.1:1?tick=0",
					   "10.0.0.1:1?tick=",
					   "10.0.0.1:1?tack=1" };
	struct error err = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		CLEANUP(zk_address_done) struct zk_address address = { 0 };

		assert_int_equal(zk_address_parse(good[i].text, &address, &err), 0);
		assert_string_equal(address.servers, good[i].servers);
		assert_string_equal(address.chroot, good[i].chroot);
		assert_true(address.tick_usec == good[i].tick_ms * USEC_PER_MSEC);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct zk_address address = { 0 };

		if (zk_address_parse(bad[i], &address, &err) != -EINVAL)
			fail_msg("'%s' was taken", bad[i]);
	}
}

static void names_are_not_looked_up(void **state)
{
	struct zk_address address = { 0 };
	struct error err = { 0 };

	assert_int_equal(zk_address_parse("zoo1.example:2181", &address, &err), -EINVAL);
	assert_non_null(strstr(err.text, "names are not looked up"));
}

static void times_are_those_that_the_servers_made_of_it(void **state)
{
	struct scene *s = *state;
	struct session session = { 0 };
	struct store_timing timing;

	session_begin(s, s->store, 50 * USEC_PER_MSEC, &session); /* they take 2 ticks at least */
	assert_int_equal(store_session_timing(s->store, &timing), 0);
	assert_true(timing.earliest_usec == 500 * USEC_PER_MSEC);
	assert_true(timing.latest_usec == 1500 * USEC_PER_MSEC);
}

/* ZooKeeper's own version is the same again: 0. */
static void a_key_made_again_in_between_is_not_taken_for_the_old_one(void **state)
{
	struct scene *s = *state;
	struct store *other = open_with(s, "");
	ANSWER put = { 0 }, answer = { 0 };
	uint64_t seen;

	assert_int_equal(ask_put(s->loop, s->store, "/a/k", STORE_ABSENT, 1, &put), 0);
	seen = put.versions[0];
	assert_int_equal(ask_delete(s->loop, other, "/a/k", seen, &answer), 0);
	assert_int_equal(ask_put(s->loop, other, "/a/k", STORE_ABSENT, 2, &answer), 0);

	const struct store_op check = { STORE_CHECK, "/a/k", seen, NULL, false };
	assert_int_equal(ask_put(s->loop, s->store, "/a/k", seen, 3, &answer), -ESTALE);
	assert_int_equal(ask_delete(s->loop, s->store, "/a/k", seen, &answer), -ESTALE);
	assert_int_equal(ask_write(s->loop, s->store, &check, 1, &answer), -ESTALE);
	assert_int_equal(ask_number(s->loop, s->store, "/a/k"), 2);
	(void)store_close(other);
}

static void a_guess_that_is_wrong_costs_nothing_but_time(void **state)
{
	struct scene *s = *state;
	struct store *other = open_with(s, "");
	ANSWER answer = { 0 };

	assert_int_equal(ask_put(s->loop, s->store, "/a/k", STORE_ANY, 1, &answer), 0);
	assert_int_equal(ask_put(s->loop, other, "/a/k", STORE_ANY, 2, &answer), 0);
	assert_int_equal(ask_put(s->loop, s->store, "/a/k", STORE_ANY, 3, &answer), 0);
	assert_int_equal(ask_delete(s->loop, other, "/a/k", STORE_ANY, &answer), 0);
	assert_int_equal(ask_put(s->loop, s->store, "/a/k", STORE_ANY, 4, &answer), 0);
	assert_int_equal(ask_delete(s->loop, other, "/a/k", STORE_ANY, &answer), 0);
	assert_int_equal(ask_delete(s->loop, s->store, "/a/k", STORE_ANY, &answer), 0);
	assert_int_equal(ask_put(s->loop, other, "/a/k", STORE_ANY, 5, &answer), 0);
	assert_int_equal(ask_delete(s->loop, s->store, "/a/k", STORE_ANY, &answer), 0);
	assert_int_equal(ask_number(s->loop, other, "/a/k"), -1);
	(void)store_close(other);
}

static void parts_that_look_like_ours_are_parts_like_others(void **state)
{
	static const char *const keys[] = { "/#s/#a", "/%25/%", "/=/=/=",
					    "/a",     "/a/a",	"/zookeeper/config" };
	struct scene *s = *state;
	ANSWER answer = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		assert_int_equal(ask_put(s->loop, s->store, keys[i], STORE_ABSENT, 1, &answer), 0);
	assert_int_equal(ask_list(s->loop, s->store, "/", &answer), 0);
	assert_int_equal(json_array_size(answer.list), ARRAY_SIZE(keys));
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		assert_string_equal(json_string_value(json_array_get(answer.list, i)), keys[i]);
}

static void what_is_too_much_for_one_request_is_refused_before_it_is_sent(void **state)
{
	enum { OPS = 3, BYTES = 400 * 1024 };
	struct scene *s = *state;
	CLEANUP_FREE char *text = xcalloc(1, BYTES);
	json_auto_t *value = NULL;
	struct store_op ops[OPS];
	ANSWER answer = { 0 };

	memset(text, 'x', BYTES - 1);
	value = json_pack("{s:s}", "t", text);
	ops[0] = (struct store_op){ STORE_PUT, "/a", STORE_ANY, value, false };
	ops[1] = (struct store_op){ STORE_PUT, "/b", STORE_ANY, value, false };
	ops[2] = (struct store_op){ STORE_PUT, "/c", STORE_ANY, value, false };
	assert_int_equal(ask_write(s->loop, s->store, ops, OPS, &answer), -E2BIG);
	assert_int_equal(answer.err.class, ERROR_REFUSED);
	assert_int_equal(ask_number(s->loop, s->store, "/a"), -1);
	assert_int_equal(ask_write(s->loop, s->store, ops, OPS - 1, &answer), 0);
}

static void number_check(const json_t *list, const char *key, int number)
{
	size_t index;
	json_t *at;

	json_array_foreach(list, index, at)
	{
		if (strcmp(json_string_value(json_array_get(at, 0)), key) == 0) {
			assert_int_equal(json_integer_value(json_array_get(at, 1)), number);
			return;
		}
	}
	assert_int_equal(number, -1);
}

static void on_numbers(void *ctx, int r, const struct store_entry *entries, size_t count,
		       const struct error *err)
{
	struct answer *answer = ctx;

	assert_int_equal(r, 0);
	answer->done = true;
	answer->list = json_array();
	for (size_t i = 0; i < count; i++)
		json_array_append_new(answer->list,
				      json_pack("[s, I]", entries[i].key,
						json_int_or(entries[i].value, "n", -2)));
}

static void ask_numbers(struct scene *s, struct answer *answer)
{
	answer_done(answer);
	assert_int_equal(store_list(s->store, "/d/", on_numbers, answer, NULL), 0);
	assert_true(loop_until(s->loop, &answer->done));
}

static int requests_received(void)
{
	char answer[4096];
	const char *at;

	assert_true(server_asks(server.port, "srvr", answer, sizeof(answer)));
	at = strstr(answer, "Received: ");
	assert_non_null(at);
	return atoi(at + strlen("Received: "));
}

static void what_is_watched_is_listed_again_without_reading_what_did_not_change(void **state)
{
	enum { DIRS = 5, KEYS = 40 };
	struct scene *s = *state;
	struct store *other = open_with(s, "");
	struct session session = { 0 };
	struct store_watch *watch;
	struct looks looks = { 0 };
	ANSWER answer = { 0 }, numbers = { 0 };
	char key[32];
	int before;

	for (int i = 0; i < DIRS * KEYS; i++) {
		(void)snprintf(key, sizeof(key), "/d/x%d/k%d", i / KEYS, i % KEYS);
		assert_int_equal(ask_put(s->loop, other, key, STORE_ABSENT, i, &answer), 0);
	}
	session_begin(s, other, 60 * USEC_PER_SEC, &session);
	assert_int_equal(put_ephemeral(s, other, "/d/x0/me"), 0);
	assert_int_equal(store_watch(s->store, "/d/", on_look, &looks, &watch, NULL), 0);
	ask_numbers(s, &numbers);
	assert_int_equal(json_array_size(numbers.list), DIRS * KEYS + 1);

	before = requests_received();
	assert_int_equal(ask_put(s->loop, other, "/d/x1/k0", STORE_ANY, 1000, &answer), 0);
	assert_int_equal(ask_delete(s->loop, other, "/d/x1/k1", STORE_ANY, &answer), 0);
	assert_int_equal(ask_delete(s->loop, other, "/d/x1/k2", STORE_ANY, &answer), 0);
	assert_int_equal(ask_put(s->loop, other, "/d/x1/k2", STORE_ABSENT, 2000, &answer), 0);
	assert_int_equal(ask_put(s->loop, other, "/d/y/z", STORE_ABSENT, 3000, &answer), 0);
	assert_int_equal(store_session_close(other, NULL), 0);
	session_await(s->loop, &session, STORE_LOST);
	ask_numbers(s, &numbers);
	assert_true(requests_received() - before < DIRS * KEYS);
	assert_int_equal(json_array_size(numbers.list), DIRS * KEYS);
	number_check(numbers.list, "/d/x0/k0", 0);
	number_check(numbers.list, "/d/x0/me", -1);
	number_check(numbers.list, "/d/x1/k0", 1000);
	number_check(numbers.list, "/d/x1/k1", -1);
	number_check(numbers.list, "/d/x1/k2", 2000);
	number_check(numbers.list, "/d/x1/k3", KEYS + 3);
	number_check(numbers.list, "/d/y/z", 3000);
	(void)store_close(other);
}

/* Nobody writes anything then. */
static void a_watch_far_above_hears_of_the_end_of_a_session(void **state)
{
	struct scene *s = *state;
	struct store *other = open_with(s, "");
	struct session session = { 0 };

	session_begin(s, other, 60 * USEC_PER_SEC, &session);
	assert_int_equal(put_ephemeral(s, other, "/d/nodes/n1/session"), 0);
	assert_int_equal(store_session_close(other, NULL), 0);
	gone_await(s, s->store, "/d/", "/d/nodes/n1/session");
	session_await(s->loop, &session, STORE_LOST);
	(void)store_close(other);
}

static void an_ephemeral_key_becomes_ours_by_putting_it(void **state)
{
	struct scene *s = *state;
	struct store *other = open_with(s, "");
	struct session theirs = { 0 }, ours = { 0 };

	session_begin(s, other, 60 * USEC_PER_SEC, &theirs);
	session_begin(s, s->store, 60 * USEC_PER_SEC, &ours);
	assert_int_equal(put_ephemeral(s, other, "/d/me"), 0);
	assert_int_equal(put_ephemeral(s, s->store, "/d/me"), 0);
	assert_int_equal(store_session_close(other, NULL), 0);
	session_await(s->loop, &theirs, STORE_LOST);
	assert_int_equal(ask_number(s->loop, s->store, "/d/me"), 1);
	assert_int_equal(store_session_close(s->store, NULL), 0);
	session_await(s->loop, &ours, STORE_LOST);
	gone_await(s, other, "/d/", "/d/me");
	(void)store_close(other);
}

struct history {
	bool suspended, lost;
};

static void on_change(void *ctx, enum store_session_state state)
{
	struct history *history = ctx;

	if (state == STORE_SUSPENDED)
		history->suspended = true;
	if (state == STORE_LOST)
		history->lost = true;
}

/* Returns when it has stopped: until then one of its threads may still answer. */
static void server_stop(void)
{
	int status;

	assert_int_equal(kill(server.pid, SIGSTOP), 0);
	assert_int_equal(waitpid(server.pid, &status, WUNTRACED), server.pid);
	assert_true(WIFSTOPPED(status));
}

static void a_client_that_hears_nothing_ends_its_session_by_its_own_clock(void **state)
{
	struct scene *s = *state;
	json_auto_t *value = json_pack("{s:i}", "n", 1);
	const struct store_op op = { STORE_PUT, "/k", STORE_ANY, value, false };
	struct history history = { 0 };
	struct session session = { 0 };
	struct answer write = { .ops = 1 };
	ANSWER answer = { 0 };

	assert_int_equal(
		store_session_open(s->store, NULL, 3 * USEC_PER_SEC, on_change, &history, NULL), 0);
	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ANY, 0, &answer), 0);
	server_stop();
	assert_int_equal(store_write(s->store, &op, 1, on_write, &write, NULL), 0);
	assert_true(loop_until(s->loop, &history.suspended));
	assert_true(loop_until(s->loop, &history.lost));
	assert_null(store_session_id(s->store));
	assert_true(loop_until(s->loop, &write.done));
	assert_int_equal(write.r, -EAGAIN); /* nobody knows */
	assert_int_equal(write.err.class, ERROR_TRY_AGAIN);
	assert_int_equal(kill(server.pid, SIGCONT), 0);

	session_begin(s, s->store, 60 * USEC_PER_SEC, &session);
	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ANY, 2, &answer), 0);
}

static void a_server_that_was_killed_and_comes_back_finds_us_with_all_that_we_had(void **state)
{
	struct scene *s = *state;
	struct session session = { 0 };
	struct looks looks = { 0 };
	struct store_watch *watch;
	ANSWER answer = { 0 };
	char id[ZK_ID_SIZE];

	session_begin(s, s->store, 60 * USEC_PER_SEC, &session);
	assert_int_equal(put_ephemeral(s, s->store, "/d/me"), 0);
	(void)snprintf(id, sizeof(id), "%s", store_session_id(s->store));
	assert_int_equal(store_watch(s->store, "/d/", on_look, &looks, &watch, NULL), 0);
	assert_true(loop_until(s->loop, &looks.any));
	loop_drain(s->loop);
	looks.any = false;
	assert_int_equal(kill(server.pid, SIGKILL), 0);
	assert_int_equal(waitpid(server.pid, NULL, 0), server.pid);
	assert_true(zookeeper_run(&server));

	assert_true(loop_until(s->loop, &looks.any)); /* once after each new connection */
	assert_int_equal(ask_number(s->loop, s->store, "/d/me"), 1);
	assert_string_equal(store_session_id(s->store), id);
	assert_int_equal(ask_put(s->loop, s->store, "/d/k", STORE_ANY, 1, &answer), 0);
}

static void a_call_without_a_server_is_answered_too(void **state)
{
	struct scene *s = *state;
	int port;

	server_ports(&port, 1);
	CLEANUP_FREE char *address = xasprintf("zookeeper:127.0.0.1:%d", port);
	struct store *store = NULL;
	struct session session = { 0 };
	ANSWER answer = { 0 };

	assert_int_equal(store_open(address, NULL, s->loop, &store, NULL), 0);
	assert_int_equal(
		store_session_open(store, NULL, 100 * USEC_PER_MSEC, on_session, &session, NULL),
		0);
	assert_int_equal(ask_get(s->loop, store, "/k", &answer), -EAGAIN);
	session_await(s->loop, &session, STORE_LOST);
	(void)store_close(store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_are_read),
		cmocka_unit_test(names_are_not_looked_up),
		cmocka_unit_test_setup_teardown(times_are_those_that_the_servers_made_of_it, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			a_key_made_again_in_between_is_not_taken_for_the_old_one, setup, teardown),
		cmocka_unit_test_setup_teardown(a_guess_that_is_wrong_costs_nothing_but_time, setup,
						teardown),
		cmocka_unit_test_setup_teardown(parts_that_look_like_ours_are_parts_like_others,
						setup, teardown),
		cmocka_unit_test_setup_teardown(
			what_is_too_much_for_one_request_is_refused_before_it_is_sent, setup,
			teardown),
		cmocka_unit_test_setup_teardown(
			what_is_watched_is_listed_again_without_reading_what_did_not_change, setup,
			teardown),
		cmocka_unit_test_setup_teardown(a_watch_far_above_hears_of_the_end_of_a_session,
						setup, teardown),
		cmocka_unit_test_setup_teardown(an_ephemeral_key_becomes_ours_by_putting_it, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			a_client_that_hears_nothing_ends_its_session_by_its_own_clock, setup,
			teardown),
		cmocka_unit_test_setup_teardown(
			a_server_that_was_killed_and_comes_back_finds_us_with_all_that_we_had,
			setup, teardown),
		cmocka_unit_test_setup_teardown(a_call_without_a_server_is_answered_too, setup,
						teardown),
	};
	int failed;

	(void)zookeeper_start(&server);
	failed = cmocka_run_group_tests_name("store-zookeeper", tests, NULL, NULL);
	server_end(&server);
	return failed;
}
