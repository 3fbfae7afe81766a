/* SPDX-License-Identifier: Apache-2.0 */
/* The file of the embedded store: what is damaged, foreign or newer is refused and left alone; full
 * and read-only disks are told in words that help. */
#include "store-harness.h"

#include <grp.h>
#include <sched.h>
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

	return cmocka_run_group_tests_name("store-file", tests, NULL, NULL);
}
