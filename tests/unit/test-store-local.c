/* SPDX-License-Identifier: Apache-2.0 */
/* What only the embedded store promises: several processes on one file, kill -9, full and read-only
 * disks, and files that are not what they should be. */
#include "store-harness.h"

#include <grp.h>
#include <sched.h>
#include <sqlite3.h>
#include <sys/mount.h>

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

static char *store_path(const struct scene *s, const char *suffix)
{
	return xasprintf("%s/store.db%s", s->dir, suffix);
}

/* Another hand on the file. */
static sqlite3 *raw_open(const struct scene *s)
{
	CLEANUP_FREE char *path = store_path(s, "");
	sqlite3 *sqlite = NULL;

	assert_int_equal(sqlite3_open(path, &sqlite), SQLITE_OK);
	return sqlite;
}

static void raw_run(const struct scene *s, const char *sql)
{
	sqlite3 *sqlite = raw_open(s);

	assert_int_equal(sqlite3_exec(sqlite, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(sqlite), SQLITE_OK);
}

/* Opening says `code`, the sentence holds `words`, and the file is untouched. */
static void refused(struct scene *s, int code, const char *words)
{
	CLEANUP_FREE char *path = store_path(s, "");
	CLEANUP_FREE char *before = NULL, *after = NULL;
	size_t length_before = 0, length_after = 0;
	struct store *store = NULL;
	struct error err = { 0 };

	(void)file_read(AT_FDCWD, path, 1 << 24, &before, &length_before, NULL);
	assert_int_equal(store_open("local:store.db", s->dir, s->loop, &store, &err), code);
	assert_null(store);
	if (!strstr(err.text, words))
		fail_msg("'%s' is not in '%s'", words, err.text);
	(void)file_read(AT_FDCWD, path, 1 << 24, &after, &length_after, NULL);
	assert_int_equal(length_before, length_after);
	if (before)
		assert_memory_equal(before, after, length_before);
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

static void the_files_are_for_their_owner_only(void **state)
{
	static const char *const names[] = { "", "-wal", "-shm", ".sessions/bell" };
	struct scene *s = *state;
	ANSWER put = { 0 };
	struct stat status;

	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ANY, 1, &put), 0);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		CLEANUP_FREE char *path = store_path(s, names[i]);

		assert_return_code(stat(path, &status), 0);
		assert_int_equal(status.st_mode & 07777, 0600);
	}
}

static void overwrite(const struct scene *s, off_t offset, size_t length)
{
	CLEANUP_FREE char *path = store_path(s, "");
	CLEANUP_FREE char *junk = xcalloc(1, length);
	CLEANUP_FD int fd = open(path, O_RDWR | O_CLOEXEC);

	memset(junk, 0xa5, length);
	assert_return_code(fd, 0);
	assert_int_equal(pwrite(fd, junk, length, offset), length);
}

static void damaged_files_are_refused_and_left_alone(void **state)
{
	struct scene *s = *state;
	CLEANUP_FREE char *path = store_path(s, "");
	ANSWER put = { 0 };

	for (int i = 0; i < 300; i++) {
		char key[32];

		(void)snprintf(key, sizeof(key), "/drover/some/longer/key%d", i);
		assert_int_equal(ask_put(s->loop, s->store, key, STORE_ANY, i, &put), 0);
	}
	s->store = store_close(s->store);

	overwrite(s, 3 * 4096, 4096); /* a page in the middle */
	refused(s, -EUCLEAN, "restore a backup");
	overwrite(s, 0, 16); /* the head */
	refused(s, -EUCLEAN, "move it away");
	assert_return_code(truncate(path, 10), 0);
	refused(s, -EUCLEAN, "move it away");
	assert_return_code(truncate(path, 0), 0);
	refused(s, -EUCLEAN, "empty");
	assert_return_code(unlink(path), 0);
	refused(s, -EUCLEAN, "is gone");
	assert_return_code(mkdir(path, 0700), 0);
	refused(s, -EUCLEAN, "not a regular file");
	assert_return_code(rmdir(path), 0);
}

static void files_of_others_and_newer_ones_are_refused(void **state)
{
	struct scene *s = *state;
	CLEANUP_FREE char *path = store_path(s, "");

	s->store = store_close(s->store);
	raw_run(s, "PRAGMA user_version = 2");
	refused(s, -EUCLEAN, "newer Drover");
	raw_run(s, "PRAGMA user_version = 0");
	refused(s, -EUCLEAN, "not known");
	raw_run(s, "PRAGMA user_version = 1; PRAGMA application_id = 1");
	refused(s, -EUCLEAN, "another program");
	raw_run(s, "PRAGMA application_id = 1148350326; DROP TABLE keys");
	refused(s, -EUCLEAN, "no such table");
	assert_return_code(unlink(path), 0);
	assert_int_equal(file_write(AT_FDCWD, path,
				    "vms:\n - web01, the list of my machines, and "
				    "much more text than a header needs ..................\n",
				    99, 0600, NULL),
			 0);
	refused(s, -EUCLEAN, "not a database");
}

static void a_damaged_value_is_told_with_its_key(void **state)
{
	struct scene *s = *state;
	ANSWER answer = { 0 };

	raw_run(s, "INSERT INTO keys (key, version, value) VALUES ('/a/bad', 1, '{\"n\":')");
	assert_int_equal(ask_get(s->loop, s->store, "/a/bad", &answer), -EUCLEAN);
	assert_non_null(strstr(answer.err.text, "/a/bad"));
	assert_int_equal(ask_list(s->loop, s->store, "/a/", &answer), -EUCLEAN);
	assert_int_equal(ask_delete(s->loop, s->store, "/a/bad", 1, &answer), 0);
	assert_int_equal(ask_list(s->loop, s->store, "/a/", &answer), 0);
}

static void a_file_replaced_while_in_use_takes_no_more_writes(void **state)
{
	struct scene *s = *state;
	CLEANUP_FREE char *path = store_path(s, ""), *aside = store_path(s, ".aside");
	ANSWER answer = { 0 };

	assert_return_code(rename(path, aside), 0);
	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ANY, 1, &answer), -EUCLEAN);
	assert_non_null(strstr(answer.err.text, "restart"));
	assert_return_code(rename(aside, path), 0);
	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ANY, 1, &answer), 0);
}

static void half_made_things_of_the_dead_are_cleared_away(void **state)
{
	struct scene *s = *state;
	CLEANUP_FREE char *orphan = store_path(s, ".sessions/0123456789abcdef0123456789abcdef");
	CLEANUP_FREE char *foreign = store_path(s, ".sessions/notes.txt");

	s->store = store_close(s->store);
	assert_int_equal(file_write(AT_FDCWD, orphan, "", 0, 0600, NULL), 0);
	assert_int_equal(file_write(AT_FDCWD, foreign, "", 0, 0600, NULL), 0);
	s->store = scene_open(s);
	assert_int_equal(access(orphan, F_OK), -1);
	assert_int_equal(access(foreign, F_OK), 0);
}

/* In a mount namespace of its own, so that nothing is left behind. */
static bool tmpfs_mount(const char *dir, const char *options)
{
	return unshare(CLONE_NEWNS) == 0 &&
	       mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("none", dir, "tmpfs", 0, options) == 0;
}

#define NOT_PERMITTED 77

static int fill_and_free(struct scene *s)
{
	CLEANUP_FREE char *ballast = xasprintf("%s/ballast", s->dir);
	CLEANUP_FREE char *block = xcalloc(1, 65536);
	int fd, n, kept = 0;
	ANSWER put = { 0 };

	s->store = scene_open(s);
	for (n = 0; n < 3; n++)
		if (ask_put(s->loop, s->store, "/k", STORE_ANY, n, &put) != 0)
			return 1;
	fd = open(ballast, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	while (write(fd, block, 65536) > 0 || write(fd, block, 512) > 0)
		;
	for (int r = 0; r == 0; kept = r == 0 ? n : kept, n++)
		if ((r = ask_put(s->loop, s->store, "/k", STORE_ANY, n, &put)) != 0 && r != -ENOSPC)
			return 2;
	if (put.err.class != ERROR_TRY_AGAIN || !strstr(put.err.text, "free some space"))
		return 3;
	if (ask_number(s->loop, s->store, "/k") != (kept ? kept : 2))
		return 4;
	if (ftruncate(fd, 0) < 0 || close(fd) < 0)
		return 5;
	if (ask_put(s->loop, s->store, "/k", STORE_ANY, 1000, &put) != 0)
		return 6;
	s->store = store_close(s->store);
	s->store = scene_open(s);
	return ask_number(s->loop, s->store, "/k") == 1000 ? 0 : 7;
}

static void on_full_disk(struct scene *s, int out)
{
	if (!tmpfs_mount(s->dir, "size=1m"))
		_exit(NOT_PERMITTED);
	_exit(fill_and_free(s));
}

static int child_code(struct child *child)
{
	int status = child_end(child, 0);

	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == NOT_PERMITTED) {
		print_message("skipped: mounts or changes of user are not permitted here\n");
		skip();
	}
	return WEXITSTATUS(status);
}

static void a_full_disk_is_told_and_leaves_nothing_half_written(void **state)
{
	struct child child = child_start(on_full_disk, *state);

	assert_int_equal(child_code(&child), 0);
}

static int open_failed(struct scene *s, int code, const char *words)
{
	struct store *store = NULL;
	struct error err = { 0 };
	int r = store_open("local:store.db", s->dir, s->loop, &store, &err);

	if (r != code || store || !strstr(err.text, words)) {
		(void)dprintf(2, "%d instead of %d: %s\n", r, code, err.text);
		return 1;
	}
	return 0;
}

static void on_read_only(struct scene *s, int out)
{
	struct scene inner = *s;

	if (!tmpfs_mount(s->dir, "size=1m"))
		_exit(NOT_PERMITTED);
	if (mount(NULL, s->dir, NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0)
		_exit(NOT_PERMITTED);
	if (open_failed(s, -EROFS, "Read-only file system"))
		_exit(1);
	if (mount(NULL, s->dir, NULL, MS_REMOUNT, NULL) < 0)
		_exit(2);
	(void)store_close(scene_open(&inner));
	if (mount(NULL, s->dir, NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0)
		_exit(3);
	_exit(open_failed(s, -EROFS, "Read-only file system"));
}

static void a_read_only_file_system_is_told_at_open(void **state)
{
	struct child child = child_start(on_read_only, *state);

	assert_int_equal(child_code(&child), 0);
}

static void as_nobody(struct scene *s, int out)
{
	if (setgroups(0, NULL) < 0 || setgid(65534) < 0 || setuid(65534) < 0)
		_exit(NOT_PERMITTED);
	_exit(open_failed(s, -EACCES, "store.db"));
}

static void a_directory_of_somebody_else_is_told_at_open(void **state)
{
	struct scene *s = *state;
	struct child child = child_start(as_nobody, s);

	assert_int_equal(child_code(&child), 0);
	assert_return_code(chmod(s->dir, 0755), 0); /* can be looked at, not opened */
	child = child_start(as_nobody, s);
	assert_int_equal(child_code(&child), 0);
	s->store = store_close(s->store);
	(void)file_remove_tree(AT_FDCWD, s->dir, NULL);
	assert_return_code(mkdir(s->dir, 0755), 0);
	child = child_start(as_nobody, s);
	assert_int_equal(child_code(&child), 0);
}

static void a_missing_directory_is_told_at_open(void **state)
{
	struct scene *s = *state;
	struct store *store = NULL;
	struct error err = { 0 };

	assert_int_equal(store_open("local:no/such/store.db", s->dir, s->loop, &store, &err),
			 -ENOENT);
	assert_non_null(strstr(err.text, "must exist and be writable"));
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
		CASE(the_files_are_for_their_owner_only),
		CASE(damaged_files_are_refused_and_left_alone),
		CASE(files_of_others_and_newer_ones_are_refused),
		CASE(a_damaged_value_is_told_with_its_key),
		CASE(a_file_replaced_while_in_use_takes_no_more_writes),
		CASE(half_made_things_of_the_dead_are_cleared_away),
		CASE(a_full_disk_is_told_and_leaves_nothing_half_written),
		CASE(a_read_only_file_system_is_told_at_open),
		CASE(a_directory_of_somebody_else_is_told_at_open),
		CASE(a_missing_directory_is_told_at_open),
	};

	return cmocka_run_group_tests_name("store-local", tests, NULL, NULL);
}
