/* SPDX-License-Identifier: Apache-2.0 */
/* A log is shortened while somebody appends to it: what is left of it and what was taken out are,
 * together, exactly what was written, as long as that is not more than may be kept. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "keeper/logfile.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"

#define MAX (256 * 1024)

static int directory(const char *base, char *path, size_t size)
{
	(void)snprintf(path, size, "%s/drover-logfile-XXXXXX", base);
	assert_non_null(mkdtemp(path));
	return open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
}

static size_t read_data(int dir, const char *name, char *into, size_t size)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	off_t begin;
	ssize_t length;

	assert_true(fd >= 0);
	begin = lseek(fd, 0, SEEK_DATA);
	if (begin < 0)
		begin = lseek(fd, 0, SEEK_END); /* a hole only */
	length = pread(fd, into, size, begin);
	assert_true(length >= 0);
	(void)close(fd);
	return (size_t)length;
}

static void append(int dir, const char *bytes, size_t length)
{
	int fd = openat(dir, "serial.log", O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, length), length);
	(void)close(fd);
}

static void nothing_is_lost_or_doubled_in(const char *base)
{
	static char written[MAX * 3], old[MAX * 3], now[MAX * 3];
	struct error err = { 0 };
	char path[128];
	int dir = directory(base, path, sizeof(path));
	uint64_t dropped = 0;
	size_t n_old, n_now;

	for (size_t i = 0; i < sizeof(written); i++)
		written[i] = (char)(i * 7 + i / 251); /* every byte there is, NUL too */
	append(dir, written, MAX + 777);
	assert_int_equal(logfile_shorten(dir, "serial.log", MAX, &dropped, &err), 1);
	assert_int_equal(dropped, 0);
	append(dir, written + MAX + 777, 333);
	n_old = read_data(dir, "serial.log.1", old, sizeof(old));
	n_now = read_data(dir, "serial.log", now, sizeof(now));
	assert_int_equal(n_old + n_now, MAX + 777 + 333);
	assert_memory_equal(old, written, n_old);
	assert_memory_equal(now, written + n_old, n_now);
	assert_true(n_now < MAX);
	assert_int_equal(logfile_shorten(dir, "serial.log", MAX, &dropped, &err), 0);
	(void)close(dir);
	assert_int_equal(file_remove_tree(AT_FDCWD, path, &err), 0);
}

static void nothing_is_lost_where_blocks_can_be_taken_out(void **state)
{
	nothing_is_lost_or_doubled_in("/var/tmp");
}

static void nothing_is_lost_where_only_holes_can_be_made(void **state)
{
	nothing_is_lost_or_doubled_in("/dev/shm");
}

/* A writer numbers its lines; wherever the cuts fall, the lines join up. */
static void a_writer_that_goes_on_loses_no_line(void **state)
{
	static char text[16 * 1024 * 1024];
	struct error err = { 0 };
	char path[128];
	int dir = directory("/var/tmp", path, sizeof(path)), status, rotations = 0;
	size_t length, expected = 0;
	char *line;
	pid_t pid;

	append(dir, "", 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int fd = openat(dir, "serial.log", O_WRONLY | O_APPEND | O_CLOEXEC);

		for (unsigned i = 0; i < 200000; i++)
			if (dprintf(fd, "%u\n", i) < 0)
				_exit(1);
		_exit(0);
	}
	while (waitpid(pid, &status, WNOHANG) == 0)
		rotations += logfile_shorten(dir, "serial.log", 64 * 1024, NULL, &err) == 1;
	assert_int_equal(status, 0);
	length = read_data(dir, "serial.log", text, sizeof(text) - 1);
	text[length] = '\0';
	/* Only the last two pieces are kept; what is there is contiguous up to the last line. */
	line = strchr(text, '\n') + 1;
	expected = strtoul(line, NULL, 10);
	for (; *line; line = strchr(line, '\n') + 1)
		assert_int_equal(strtoul(line, NULL, 10), expected++);
	assert_int_equal(expected, 200000);
	assert_true(rotations > 0);
	(void)close(dir);
	assert_int_equal(file_remove_tree(AT_FDCWD, path, &err), 0);
}

static void a_log_that_is_not_there_needs_no_rotation(void **state)
{
	struct error err = { 0 };
	uint64_t dropped = 0;
	char path[128];
	int dir = directory("/var/tmp", path, sizeof(path));

	assert_int_equal(logfile_shorten(dir, "serial.log", MAX, &dropped, &err), 0);
	(void)close(dir);
	assert_int_equal(file_remove_tree(AT_FDCWD, path, &err), 0);
}

/* QEMU may do to its log what it likes: an exbibyte of nothing is neither read nor written. */
static void a_log_that_was_made_huge_costs_no_more_than_is_kept(void **state)
{
	static char bytes[MAX], old[MAX * 2], now[MAX];
	struct error err = { 0 };
	uint64_t dropped = 0;
	char path[128];
	int dir = directory("/dev/shm", path, sizeof(path));
	CLEANUP_FD int log = -1;
	struct stat st;

	append(dir, "first", 5);
	log = openat(dir, "serial.log", O_RDWR | O_CLOEXEC);
	assert_true(log >= 0);
	memset(bytes, 'x', sizeof(bytes));
	assert_int_equal(pwrite(log, bytes, MAX, (off_t)1 << 60), MAX);
	assert_int_equal(logfile_shorten(dir, "serial.log", MAX / 2, &dropped, &err), 1);
	assert_int_equal(dropped, ((uint64_t)1 << 60) + MAX / 2);
	assert_int_equal(fstatat(dir, "serial.log.1", &st, 0), 0);
	assert_int_equal(st.st_size, MAX / 2);
	assert_int_equal(read_data(dir, "serial.log", now, sizeof(now)), 0);
	assert_int_equal(logfile_shorten(dir, "serial.log", MAX / 2, &dropped, &err), 0);

	/* A hole within what is kept is no data either. */
	append(dir, "second", 6);
	assert_int_equal(ftruncate(log, ((off_t)1 << 60) + 4 * MAX), 0);
	assert_int_equal(pwrite(log, "third", 5, ((off_t)1 << 60) + 4 * MAX - 5), 5);
	assert_int_equal(logfile_shorten(dir, "serial.log", 2 * MAX, &dropped, &err), 1);
	assert_int_equal(fstatat(dir, "serial.log.1", &st, 0), 0);
	assert_true(st.st_size <= 4096);
	assert_int_equal(read_data(dir, "serial.log.1", old, sizeof(old)), st.st_size);
	assert_memory_equal(old + st.st_size - 5, "third", 5);
	(void)close(dir);
	assert_int_equal(file_remove_tree(AT_FDCWD, path, &err), 0);
}

static void the_newest_is_kept_of_what_grew_too_fast(void **state)
{
	static char written[MAX * 3], old[MAX * 3];
	struct error err = { 0 };
	uint64_t dropped = 0;
	char path[128];
	int dir = directory("/var/tmp", path, sizeof(path));

	for (size_t i = 0; i < sizeof(written); i++)
		written[i] = (char)(i * 7 + i / 251);
	append(dir, written, sizeof(written));
	assert_int_equal(logfile_shorten(dir, "serial.log", MAX, &dropped, &err), 1);
	assert_int_equal(dropped, 2 * MAX);
	assert_int_equal(read_data(dir, "serial.log.1", old, sizeof(old)), MAX);
	assert_memory_equal(old, written + 2 * MAX, MAX);
	(void)close(dir);
	assert_int_equal(file_remove_tree(AT_FDCWD, path, &err), 0);
}

/* The disk is full, perhaps of this log. */
static void a_log_whose_past_cannot_be_kept_is_shortened_all_the_same(void **state)
{
	static char written[MAX * 2], now[MAX];
	struct error err = { 0 };
	uint64_t dropped = 0;
	char path[128];
	int dir = directory("/var/tmp", path, sizeof(path));

	append(dir, written, sizeof(written));
	assert_int_equal(mkdirat(dir, "serial.log.1", 0700), 0);
	assert_int_equal(logfile_shorten(dir, "serial.log", MAX, &dropped, &err), 1);
	assert_int_equal(dropped, sizeof(written));
	assert_non_null(strstr(err.text, "serial.log.1"));
	assert_int_equal(read_data(dir, "serial.log", now, sizeof(now)), 0);
	(void)close(dir);
	assert_int_equal(file_remove_tree(AT_FDCWD, path, &err), 0);
}

static void a_log_that_is_no_file_is_left_alone(void **state)
{
	struct error err = { 0 };
	char path[128];
	int dir = directory("/var/tmp", path, sizeof(path));

	assert_int_equal(symlinkat("/etc/passwd", dir, "serial.log"), 0);
	assert_int_equal(mkfifoat(dir, "qemu.log", 0600), 0);
	assert_true(logfile_shorten(dir, "serial.log", 0, NULL, &err) < 0);
	assert_true(logfile_shorten(dir, "qemu.log", 0, NULL, &err) < 0);
	(void)close(dir);
	assert_int_equal(file_remove_tree(AT_FDCWD, path, &err), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_lost_where_blocks_can_be_taken_out),
		cmocka_unit_test(nothing_is_lost_where_only_holes_can_be_made),
		cmocka_unit_test(a_writer_that_goes_on_loses_no_line),
		cmocka_unit_test(a_log_that_was_made_huge_costs_no_more_than_is_kept),
		cmocka_unit_test(the_newest_is_kept_of_what_grew_too_fast),
		cmocka_unit_test(a_log_whose_past_cannot_be_kept_is_shortened_all_the_same),
		cmocka_unit_test(a_log_that_is_no_file_is_left_alone),
		cmocka_unit_test(a_log_that_is_not_there_needs_no_rotation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
