/* SPDX-License-Identifier: Apache-2.0 */
#include "node/tail.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/disks.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"

/* A serial log's name may have been made a link or a pipe by nobody with good intent. */
static int open_plain(const char *path, struct stat *ret, struct error *err)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return error_set(err, -errno, "cannot open '%s': %m", path);
	if (fstat(fd, ret) < 0)
		return error_set(err, -errno, "cannot look at '%s': %m", path);
	if (!S_ISREG(ret->st_mode))
		return error_set(err, -EINVAL, "'%s' is not a plain file", path);
	return TAKE_FD(fd);
}

static size_t read_at(int fd, char *buffer, size_t size, off_t offset)
{
	size_t have = 0;

	while (have < size) {
		ssize_t n = pread(fd, buffer + have, size - have, offset + (off_t)have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		have += (size_t)n;
	}
	return have;
}

/* Where the last `lines` lines begin; a last line without an end counts. */
static size_t start_of(const char *text, size_t length, size_t lines)
{
	size_t at = length, found = 0;

	if (lines == 0)
		return length;
	if (at > 0 && text[at - 1] == '\n')
		at--;
	for (; at > 0; at--)
		if (text[at - 1] == '\n' && ++found == lines)
			break;
	return at;
}

struct work {
	char *path, *text;
	size_t lines, max, length;
	int r;
	struct error err;
};

static void drop(void *ctx)
{
	struct work *work = ctx;

	free(work->path);
	free(work->text);
	free(work);
}

static int read_tail(struct work *work)
{
	CLEANUP_FREE char *text = NULL;
	CLEANUP_FD int fd = -1;
	size_t want, length, start;
	struct stat st;

	fd = open_plain(work->path, &st, &work->err);
	if (fd < 0)
		return fd;
	want = (size_t)st.st_size < work->max ? (size_t)st.st_size : work->max;
	text = xcalloc(want + 1, 1);
	length = read_at(fd, text, want, st.st_size - (off_t)want);
	start = start_of(text, length, work->lines);
	memmove(text, text + start, length - start);
	text[length - start] = '\0';
	work->length = length - start;
	work->text = TAKE_PTR(text);
	return 0;
}

static void run(void *ctx)
{
	struct work *work = ctx;

	work->r = read_tail(work);
}

int tail_read(const char *path, size_t lines, size_t max, char **ret_text, size_t *ret_length,
	      struct error *err)
{
	struct work *work = xcalloc(1, sizeof(*work));
	int r;

	*work = (struct work){ .path = xstrdup(path), .lines = lines, .max = max };
	r = disk_run(&disk_logs, run, drop, work, err);
	if (r < 0)
		return r;
	r = work->r;
	if (r < 0 && err)
		*err = work->err;
	if (r == 0) {
		*ret_length = work->length;
		*ret_text = TAKE_PTR(work->text);
	}
	drop(work);
	return r;
}
