/* SPDX-License-Identifier: Apache-2.0 */
/* A disk that hangs is a pipe on which nobody writes. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "util/cleanup.h"
#include "util/disk.h"
#include "util/error.h"
#include "util/file.h"
#include "util/mem.h"
#include "util/writer.h"

static char root[] = "/tmp/drover-test-disk-XXXXXX";

struct work {
	int wait_fd, dropped_fd;
	bool done;
};

static void work_run(void *ctx)
{
	struct work *work = ctx;
	char byte;

	work->done = work->wait_fd < 0 || read(work->wait_fd, &byte, 1) == 1;
}

static void work_drop(void *ctx)
{
	struct work *work = ctx;

	if (work->dropped_fd >= 0 && write(work->dropped_fd, "d", 1) != 1)
		abort();
	free(work);
}

static struct work *work_new(int wait_fd, int dropped_fd)
{
	struct work *work = xcalloc(1, sizeof(*work));

	*work = (struct work){ wait_fd, dropped_fd, false };
	return work;
}

static void a_disk_that_hangs_is_left_alone_until_it_answers(void **state)
{
	struct disk disk = { .what = "the disk" };
	struct error err = { 0 };
	int hang[2], dropped[2];
	struct work *work;
	char byte;

	assert_return_code(pipe(hang), 0);
	assert_return_code(pipe(dropped), 0);
	work = work_new(-1, -1);
	assert_return_code(disk_run(&disk, work_run, work_drop, work, &err), 0);
	assert_true(work->done);
	work_drop(work);
	assert_int_equal(disk_run(&disk, work_run, work_drop, work_new(hang[0], dropped[1]), &err),
			 -ETIMEDOUT);
	assert_string_equal(err.text, "the disk does not answer: its disk hangs");
	/* Nothing else is begun: this one is dropped at once. */
	assert_int_equal(disk_run(&disk, work_run, work_drop, work_new(-1, dropped[1]), &err),
			 -ETIMEDOUT);
	assert_int_equal(read(dropped[0], &byte, 1), 1);
	assert_int_equal(write(hang[1], "x", 1), 1);
	assert_int_equal(read(dropped[0], &byte, 1), 1);
	while (atomic_load(&disk.hangs))
		(void)sched_yield();
	work = work_new(-1, -1);
	assert_return_code(disk_run(&disk, work_run, work_drop, work, &err), 0);
	work_drop(work);
	for (int i = 0; i < 2; i++) {
		(void)close(hang[i]);
		(void)close(dropped[i]);
	}
}

static void append(const char *file, const char *line, uint64_t max)
{
	writer_append(file, 0600, max, line, strlen(line));
}

static void expect_file(const char *file, const char *text)
{
	CLEANUP_FREE char *found = NULL;

	assert_return_code(file_read(AT_FDCWD, file, 4096, &found, NULL, NULL), 0);
	assert_string_equal(found, text);
}

static void lines_are_in_their_files_when_append_comes_back(void **state)
{
	CLEANUP_FREE char *a = xasprintf("%s/a", root), *older = xasprintf("%s/a.1", root);
	struct error err = { 0 };

	append(a, "without the thread\n", 0);
	assert_false(writer_runs());
	assert_return_code(writer_start(&err), 0);
	assert_return_code(writer_start(&err), 0);
	assert_true(writer_runs());
	append(a, "with it\n", 0);
	expect_file(a, "without the thread\nwith it\n");
	assert_return_code(rename(a, older), 0);
	append(a, "anew\n", 0);
	expect_file(a, "anew\n");
	append(a, "full\n", 8);
	expect_file(older, "anew\nfull\n");
	/* More files than are kept open. */
	for (int i = 0; i < 20; i++) {
		CLEANUP_FREE char *file = xasprintf("%s/n%d", root, i % 7);

		append(file, "n\n", 0);
	}
	assert_int_equal(writer_lost(), 0);
	writer_stop();
	assert_false(writer_runs());
	append(a, "after it\n", 0);
	expect_file(a, "after it\n");
}

static int setup(void **state)
{
	return mkdtemp(root) ? 0 : -1;
}

static int teardown(void **state)
{
	return file_remove_tree(AT_FDCWD, root, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_disk_that_hangs_is_left_alone_until_it_answers),
		cmocka_unit_test(lines_are_in_their_files_when_append_comes_back),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
