/* SPDX-License-Identifier: Apache-2.0 */
/* The last lines of logs that guests may fill with anything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/tail.h"
#include "util/cleanup.h"
#include "util/error.h"

static const char *write_file(const void *bytes, size_t length)
{
	static char path[] = "/tmp/test-tail-XXXXXX";
	CLEANUP_FD int fd = -1;

	(void)snprintf(path, sizeof(path), "/tmp/test-tail-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, length), length);
	return path;
}

static void check(const char *content, size_t length, size_t lines, size_t max,
		  const char *expected, size_t n_expected)
{
	const char *path = write_file(content, length);
	CLEANUP_FREE char *text = NULL;
	size_t n = 0;
	int r = tail_read(path, lines, max, &text, &n, NULL);

	(void)unlink(path);
	assert_int_equal(r, 0);
	assert_int_equal(n, n_expected);
	assert_memory_equal(text, expected, n);
}

#define CHECK(content, lines, max, expected)                                                       \
	check(content, sizeof(content) - 1, lines, max, expected, sizeof(expected) - 1)

static void the_last_lines_come_whole(void **state)
{
	CHECK("one\ntwo\nthree\n", 2, 1000, "two\nthree\n");
	CHECK("one\ntwo\nthree\n", 3, 1000, "one\ntwo\nthree\n");
	CHECK("one\ntwo\nthree\n", 99, 1000, "one\ntwo\nthree\n");
}

static void a_line_without_an_end_is_a_line(void **state)
{
	CHECK("one\ntwo\nthr", 1, 1000, "thr");
	CHECK("one\ntwo\nthr", 2, 1000, "two\nthr");
	CHECK("no newline at all", 1, 1000, "no newline at all");
}

static void empty_lines_count(void **state)
{
	CHECK("one\n\n\n", 2, 1000, "\n\n");
	CHECK("", 5, 1000, "");
	CHECK("one\n", 0, 1000, "");
}

static void any_byte_passes(void **state)
{
	CHECK("a\0b\n\xff\xfe\0\n", 1, 1000, "\xff\xfe\0\n");
}

static void never_more_than_the_maximum(void **state)
{
	CHECK("0123456789\n", 1, 4, "789\n");
}

static void a_missing_file_and_a_pipe_are_refused(void **state)
{
	char path[] = "/tmp/test-tail-XXXXXX";
	struct error err = { 0 };
	char *text = NULL;
	size_t n;

	assert_int_equal(tail_read("/tmp/test-tail-none", 1, 10, &text, &n, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/tmp/test-tail-none"));
	(void)close(mkstemp(path));
	(void)unlink(path);
	assert_return_code(mkfifo(path, 0600), errno);
	assert_int_equal(tail_read(path, 1, 10, &text, &n, &err), -EINVAL);
	(void)unlink(path);
	assert_null(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_last_lines_come_whole),
		cmocka_unit_test(a_line_without_an_end_is_a_line),
		cmocka_unit_test(empty_lines_count),
		cmocka_unit_test(any_byte_passes),
		cmocka_unit_test(never_more_than_the_maximum),
		cmocka_unit_test(a_missing_file_and_a_pipe_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
