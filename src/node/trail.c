/* SPDX-License-Identifier: Apache-2.0 */
#include "node/trail.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/disks.h"
#include "util/cleanup.h"
#include "util/mem.h"

/* Of a file at once; whoever is further behind reads the log itself. */
#define READ_MAX (2u * 1024 * 1024)

static int trail_open(const char *dir, const char *name, struct stat *ret)
{
	CLEANUP_FREE char *path = xasprintf("%s/%s", dir, name);
	CLEANUP_FD int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 || fstat(fd, ret) < 0 || !S_ISREG(ret->st_mode))
		return -1;
	return TAKE_FD(fd);
}

struct begin {
	char *dir;
	struct trail trail;
};

static void begin_drop(void *ctx)
{
	struct begin *begin = ctx;

	free(begin->dir);
	free(begin);
}

static void begin_run(void *ctx)
{
	struct begin *begin = ctx;
	struct stat st;
	CLEANUP_FD int fd = trail_open(begin->dir, "events.jsonl", &st);

	if (fd >= 0)
		begin->trail = (struct trail){ st.st_ino, (uint64_t)st.st_size };
}

void trail_begin(struct trail *trail, const char *dir)
{
	struct begin *begin = xcalloc(1, sizeof(*begin));

	*trail = (struct trail){ 0 };
	begin->dir = xstrdup(dir);
	if (disk_run(&disk_logs, begin_run, begin_drop, begin, NULL) < 0)
		return;
	*trail = begin->trail;
	begin_drop(begin);
}

static size_t read_all(int fd, char *buffer, size_t size, uint64_t at)
{
	size_t have = 0;

	while (have < size) {
		ssize_t n = pread(fd, buffer + have, size - have, (off_t)(at + have));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		have += (size_t)n;
	}
	return have;
}

/* A line that is still being written is left for the next time. */
static void read_lines(struct trail *trail, int fd, uint64_t size, trail_line_fn line, void *ctx)
{
	CLEANUP_FREE char *text = NULL;
	char *next, *end;
	size_t length;

	if (trail->at > size) /* cut: it begins anew */
		trail->at = 0;
	if (size - trail->at > READ_MAX)
		trail->at = size - READ_MAX;
	text = xcalloc(size - trail->at + 1, 1);
	length = read_all(fd, text, size - trail->at, trail->at);
	for (next = text; (end = memchr(next, '\n', length - (size_t)(next - text)));
	     next = end + 1) {
		*end = '\0';
		line(ctx, next);
	}
	trail->at += (uint64_t)(next - text);
}

void trail_read(struct trail *trail, const char *dir, trail_line_fn line, void *ctx)
{
	struct stat now, before;
	CLEANUP_FD int file = trail_open(dir, "events.jsonl", &now);
	CLEANUP_FD int older = -1;

	if (trail->inode && (file < 0 || now.st_ino != trail->inode)) {
		older = trail_open(dir, "events.jsonl.1", &before);
		if (older >= 0 && before.st_ino == trail->inode)
			read_lines(trail, older, (uint64_t)before.st_size, line, ctx);
	}
	if (file < 0)
		return;
	if (now.st_ino != trail->inode)
		*trail = (struct trail){ .inode = now.st_ino };
	read_lines(trail, file, (uint64_t)now.st_size, line, ctx);
}
