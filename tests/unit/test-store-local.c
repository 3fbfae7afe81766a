/* SPDX-License-Identifier: Apache-2.0 */
/* What only the embedded store promises: several processes on one file, their sessions, and kill
 * -9. The file itself has a program of its own, test-store-file.c. */
#include "store-harness.h"

static int setup(void **state)
{
	struct scene *scene = xcalloc(1, sizeof(*scene));

	scene_init(scene, "local:");
	scene->store = scene_open(scene);
	*state = scene;
	return 0;
}

static int teardown(void **state)
{
	scene_done(*state);
	free(*state);
	return 0;
}

static void write_numbers(struct scene *s, int out)
{
	struct store *store = scene_open(s);

	for (int i = 0;; i++) {
		ANSWER answer = { 0 };
		char key[32];

		(void)snprintf(key, sizeof(key), "/n/%d", i);
		if (ask_put(s->loop, store, key, STORE_ABSENT, i, &answer) != 0)
			_exit(1);
		if (write(out, &i, sizeof(i)) != sizeof(i))
			_exit(2);
	}
}

static void what_was_acknowledged_survives_a_kill(void **state)
{
	struct scene *s = *state;

	for (int round = 0; round < 3; round++) {
		struct child child;
		int last = -1, number;
		ANSWER list = { 0 };

		child = child_start(write_numbers, s);
		for (int i = 0; i < 40; i++) {
			assert_int_equal(read(child.out, &number, sizeof(number)), sizeof(number));
			last = number;
		}
		(void)kill(child.pid, SIGKILL);
		while (read(child.out, &number, sizeof(number)) == sizeof(number))
			last = number;
		(void)child_end(&child, 0);
		for (int i = 0; i <= last; i++) {
			char key[32];

			(void)snprintf(key, sizeof(key), "/n/%d", i);
			assert_int_equal(ask_number(s->loop, s->store, key), i);
		}
		/* at most the one in flight is there unacknowledged */
		assert_int_equal(ask_list(s->loop, s->store, "/n/", &list), 0);
		assert_in_range(json_array_size(list.list), last + 1, last + 2);
		for (size_t i = 0; i < json_array_size(list.list); i++) {
			ANSWER gone = { 0 };

			assert_int_equal(ask_delete(s->loop, s->store,
						    json_string_value(json_array_get(list.list, i)),
						    STORE_ANY, &gone),
					 0);
		}
		if (round == 1) { /* once with nobody else left to keep the log */
			s->store = store_close(s->store);
			s->store = scene_open(s);
		}
	}
}

static int increment(struct scene *s, struct store *store)
{
	for (;;) {
		ANSWER got = { 0 }, put = { 0 };
		int r = ask_get(s->loop, store, "/count", &got);
		int n = r == 0 ? (int)json_int_or(got.entry.value, "n", -1) : 0;

		if (r != 0 && r != -ENOENT)
			return r;
		r = ask_put(s->loop, store, "/count", got.entry.version, n + 1, &put);
		if (r != -ESTALE)
			return r;
	}
}

static void increment_much(struct scene *s, int out)
{
	struct store *store = scene_open(s);

	for (int i = 0; i < 200; i++)
		if (increment(s, store) != 0)
			_exit(1);
	(void)store_close(store);
}

static void no_update_of_two_processes_is_lost(void **state)
{
	struct scene *s = *state;
	struct child one = child_start(increment_much, s), two = child_start(increment_much, s);

	assert_int_equal(child_end(&one, 0), 0);
	assert_int_equal(child_end(&two, 0), 0);
	assert_int_equal(ask_number(s->loop, s->store, "/count"), 400);
}

static void two_processes_may_make_the_store_at_once(void **state)
{
	struct scene *s = *state;
	struct child children[4];

	s->store = store_close(s->store);
	(void)file_remove_tree(AT_FDCWD, s->dir, NULL);
	assert_return_code(mkdir(s->dir, 0700), 0);
	for (size_t i = 0; i < ARRAY_SIZE(children); i++)
		children[i] = child_start(increment_much, s);
	for (size_t i = 0; i < ARRAY_SIZE(children); i++)
		assert_int_equal(child_end(&children[i], 0), 0);
	s->store = scene_open(s);
	assert_int_equal(ask_number(s->loop, s->store, "/count"), 800);
}

static void put_on_word(struct scene *s, int out)
{
	struct store *store = scene_open(s);
	ANSWER answer = { 0 };

	if (ask_put(s->loop, store, "/a/k", STORE_ANY, 1, &answer) != 0)
		_exit(1);
	(void)!write(out, "x", 1);
	pause();
}

static void a_watch_looks_after_a_write_by_another_process(void **state)
{
	struct scene *s = *state;
	struct looks looks = { 0 };
	struct store_watch *watch;
	struct child child;

	assert_int_equal(store_watch(s->store, "/a/", on_look, &looks, &watch, NULL), 0);
	assert_true(loop_until(s->loop, &looks.any));
	loop_drain(s->loop);
	looks.any = false;
	child = child_start(put_on_word, s);
	assert_true(loop_until(s->loop, &looks.any));
	assert_int_equal(ask_number(s->loop, s->store, "/a/k"), 1);
	(void)child_end(&child, SIGKILL);
}

/* A writer that was killed before it could touch the bell: the kernel closes the bell for it. */
static void write_without_ringing(struct scene *s, int out)
{
	CLEANUP_FREE char *bell = store_path(s, ".sessions/bell");
	int fd = open(bell, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		_exit(1);
	raw_run(s, "INSERT INTO keys (key, version, value) VALUES ('/a/k', 77, '{\"n\":7}')");
	(void)raise(SIGKILL);
}

static void a_watch_looks_after_a_writer_was_killed(void **state)
{
	struct scene *s = *state;
	struct looks looks = { 0 };
	struct store_watch *watch;
	struct child child;

	assert_int_equal(store_watch(s->store, "/a/", on_look, &looks, &watch, NULL), 0);
	assert_true(loop_until(s->loop, &looks.any));
	loop_drain(s->loop);
	looks.any = false;
	child = child_start(write_without_ringing, s);
	assert_true(loop_until(s->loop, &looks.any));
	assert_int_equal(ask_number(s->loop, s->store, "/a/k"), 7);
	(void)child_end(&child, 0);
}

static void hold_session(struct scene *s, int out)
{
	struct store *store = scene_open(s);
	struct session session = { 0 };

	if (store_session_open(store, NULL, 200 * USEC_PER_MSEC, on_session, &session, NULL) < 0 ||
	    !loop_until(s->loop, &session.any) || put_ephemeral(s, store, "/s/child") != 0)
		_exit(1);
	(void)!write(out, store_session_id(store), 32);
	pause();
}

static void the_session_of_a_killed_process_ends_but_not_that_of_a_stopped_one(void **state)
{
	struct scene *s = *state;
	struct child dies = child_start(hold_session, s), stops;
	char id[33] = { 0 };
	struct stat status;
	CLEANUP_FREE char *path = NULL;

	assert_int_equal(read(dies.out, id, 32), 32);
	path = xasprintf("%s/store.db.sessions/%s", s->dir, id);
	assert_int_equal(ask_number(s->loop, s->store, "/s/child"), 1);
	(void)child_end(&dies, SIGKILL);
	gone_await(s, s->store, "/s/", "/s/child");
	assert_int_equal(stat(path, &status), -1);

	stops = child_start(hold_session, s);
	assert_int_equal(read(stops.out, id, 32), 32);
	(void)kill(stops.pid, SIGSTOP);
	for (int i = 0; i < 50; i++) { /* long past its time-out */
		sd_event_run(s->loop, 20 * USEC_PER_MSEC);
		assert_int_equal(ask_number(s->loop, s->store, "/s/child"), 1);
	}
	(void)child_end(&stops, SIGKILL);
	gone_await(s, s->store, "/s/", "/s/child");
}

static void a_session_in_use_is_not_resumed_by_another(void **state)
{
	struct scene *s = *state;
	struct child child = child_start(hold_session, s);
	struct session session = { 0 };
	char id[33] = { 0 };

	assert_int_equal(read(child.out, id, 32), 32);
	assert_int_equal(
		store_session_open(s->store, id, 50 * USEC_PER_MSEC, on_session, &session, NULL),
		0);
	session_await(s->loop, &session, STORE_LOST);
	assert_int_equal(ask_number(s->loop, s->store, "/s/child"), 1);
	assert_int_equal(
		store_session_open(s->store, id, 3600 * USEC_PER_SEC, on_session, &session, NULL),
		0);
	(void)child_end(&child, SIGKILL); /* now it is free, within the time-out */
	session_await(s->loop, &session, STORE_CONNECTED);
	assert_int_equal(ask_number(s->loop, s->store, "/s/child"), 1);
}

static void the_sessions_of_a_former_boot_are_over(void **state)
{
	struct scene *s = *state;

	raw_run(s, "INSERT INTO sessions VALUES ('0123456789abcdef0123456789abcdef',"
		   " 'another boot', 3600000000);"
		   "INSERT INTO keys (key, version, session, value) VALUES ('/s/old', 5,"
		   " '0123456789abcdef0123456789abcdef', '{}')");
	s->store = store_close(s->store);
	s->store = scene_open(s);
	gone_await(s, s->store, "/s/", "/s/old");
}

static void a_session_whose_row_was_removed_is_lost(void **state)
{
	struct scene *s = *state;
	struct store *other = scene_open(s);
	struct session session = { 0 };
	ANSWER answer = { 0 };

	assert_int_equal(
		store_session_open(s->store, NULL, 3600 * USEC_PER_SEC, on_session, &session, NULL),
		0);
	session_await(s->loop, &session, STORE_CONNECTED);
	raw_run(s, "DELETE FROM sessions");
	assert_int_equal(put_ephemeral(s, s->store, "/s/me"), -ENOTCONN);
	assert_int_equal(ask_put(s->loop, other, "/k", STORE_ANY, 1, &answer), 0);
	session_await(s->loop, &session, STORE_LOST);
	(void)store_close(other);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	*(bool *)userdata = true;
	return 0;
}

static void a_busy_file_is_waited_for_without_holding_up_the_loop(void **state)
{
	struct scene *s = *state;
	json_auto_t *value = json_pack("{s:i}", "n", 1);
	const struct store_op op = { STORE_PUT, "/k", STORE_ANY, value, false };
	sqlite3 *sqlite = raw_open(s);
	sd_event_source *timer = NULL;
	ANSWER put = { .ops = 1 };
	ANSWER got = { 0 };
	bool fired = false;

	assert_int_equal(sqlite3_exec(sqlite, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(store_write(s->store, &op, 1, on_write, &put, NULL), 0);
	assert_int_equal(store_get(s->store, "/k", on_get, &got, NULL), 0);
	assert_return_code(sd_event_add_time_relative(s->loop, &timer, CLOCK_BOOTTIME,
						      100 * USEC_PER_MSEC, 1, on_timer, &fired),
			   0);
	assert_true(loop_until(s->loop, &fired));
	assert_false(put.done);
	assert_false(got.done);
	assert_int_equal(sqlite3_exec(sqlite, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
	assert_true(loop_until(s->loop, &got.done));
	assert_true(put.done);
	assert_int_equal(put.r, 0);
	assert_int_equal(got.r, 0);
	(void)sd_event_source_disable_unref(timer);
	(void)sqlite3_close(sqlite);
}

static void a_file_that_stays_busy_is_said_to_be_so(void **state)
{
	struct scene *s = *state;
	sqlite3 *sqlite = raw_open(s);
	ANSWER put = { 0 };

	assert_int_equal(sqlite3_exec(sqlite, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ANY, 1, &put), -EAGAIN);
	assert_int_equal(put.err.class, ERROR_TRY_AGAIN);
	assert_int_equal(sqlite3_exec(sqlite, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
	(void)sqlite3_close(sqlite);
	assert_int_equal(ask_number(s->loop, s->store, "/k"), -1);
}

#define CASE(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(what_was_acknowledged_survives_a_kill),
		CASE(no_update_of_two_processes_is_lost),
		CASE(two_processes_may_make_the_store_at_once),
		CASE(a_watch_looks_after_a_write_by_another_process),
		CASE(a_watch_looks_after_a_writer_was_killed),
		CASE(the_session_of_a_killed_process_ends_but_not_that_of_a_stopped_one),
		CASE(a_session_in_use_is_not_resumed_by_another),
		CASE(the_sessions_of_a_former_boot_are_over),
		CASE(a_session_whose_row_was_removed_is_lost),
		CASE(a_busy_file_is_waited_for_without_holding_up_the_loop),
		CASE(a_file_that_stays_busy_is_said_to_be_so),
	};

	return cmocka_run_group_tests_name("store-local", tests, NULL, NULL);
}
