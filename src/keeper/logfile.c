/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/logfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"

/* Without fsync: this runs in the loop of a keeper, and a log is no database.  False: the disk. */
static bool copy_bytes(int from, off_t offset, off_t end, int to)
{
	char bytes[65536];

	while (offset < end) {
		size_t want = end - offset < (off_t)sizeof(bytes) ? (size_t)(end - offset)
								  : sizeof(bytes);
		ssize_t got = pread(from, bytes, want, offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got == 0; /* truncated by its writer meanwhile */
		for (ssize_t done = 0; done < got;) {
			ssize_t put = write(to, bytes + done, (size_t)(got - done));

			if (put < 0 && errno == EINTR)
				continue;
			if (put <= 0)
				return false;
			done += put;
		}
		offset += got;
	}
	return true;
}

/* What was written; what was only skipped over is left out. */
static bool copy_data(int from, off_t offset, off_t end, int to)
{
	while (offset < end) {
		off_t data = lseek(from, offset, SEEK_DATA);
		off_t hole = data < 0 ? -1 : lseek(from, data, SEEK_HOLE);

		if (data < 0 || hole < 0 || data >= end)
			return true; /* only a hole is left (ENXIO) */
		if (!copy_bytes(from, data, hole < end ? hole : end, to))
			return false;
		offset = hole;
	}
	return true;
}

static int keep(int dir_fd, const char *name, int log, off_t begin, off_t end, struct error *err)
{
	CLEANUP_FREE char *part = xasprintf("%s.new", name);
	CLEANUP_FREE char *old = xasprintf("%s.1", name);
	CLEANUP_FD int fd =
		openat(dir_fd, part, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd >= 0 && copy_data(log, begin, end, fd) && renameat(dir_fd, part, dir_fd, old) == 0)
		return 0;
	(void)error_set(err, -errno, "cannot write '%s': %m", old);
	(void)unlinkat(dir_fd, part, 0);
	return -EIO;
}

int logfile_shorten(int dir_fd, const char *name, uint64_t max, uint64_t *ret_dropped,
		    struct error *err)
{
	CLEANUP_FD int log = openat(dir_fd, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	off_t begin, from, end;
	struct stat st;

	if (log < 0)
		return errno == ENOENT ? 0 : error_set(err, -errno, "cannot open '%s': %m", name);
	if (fstat(log, &st) < 0 || !S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "'%s' is not a plain file", name);
	begin = lseek(log, 0, SEEK_DATA);
	if (begin < 0)
		return errno == ENXIO ? 0 : error_set(err, -errno, "cannot read '%s': %m", name);
	end = st.st_size - st.st_size % st.st_blksize;
	if ((uint64_t)(st.st_size - begin) <= max || end <= begin)
		return 0;
	from = (uint64_t)(end - begin) > max ? end - (off_t)max : begin;
	/* A full disk must not keep the log from being shortened: it may be what fills it. */
	if (keep(dir_fd, name, log, from, end, err) < 0)
		from = end;
	if (fallocate(log, FALLOC_FL_COLLAPSE_RANGE, 0, end) < 0 &&
	    fallocate(log, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, end) < 0)
		return error_set(err, -errno, "cannot shorten '%s': %m", name);
	if (ret_dropped)
		*ret_dropped = (uint64_t)(from - begin);
	return 1;
}
