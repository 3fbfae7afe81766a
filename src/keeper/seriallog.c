/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/seriallog.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/error.h"

static int copy_range(int from, off_t offset, off_t end, int to, struct error *err)
{
	char bytes[65536];

	while (offset < end) {
		size_t want = end - offset < (off_t)sizeof(bytes) ? (size_t)(end - offset)
								  : sizeof(bytes);
		ssize_t got = pread(from, bytes, want, offset);

		if (got <= 0)
			return error_set(err, got < 0 ? -errno : -EIO,
					 "cannot read serial.log: %m");
		for (ssize_t done = 0; done < got;) {
			ssize_t put = write(to, bytes + done, (size_t)(got - done));

			if (put < 0)
				return error_set(err, -errno, "cannot write serial.log.1: %m");
			done += put;
		}
		offset += got;
	}
	if (fsync(to) < 0)
		return error_set(err, -errno, "cannot write serial.log.1: %m");
	return 0;
}

int seriallog_rotate(int dir_fd, uint64_t max, struct error *err)
{
	CLEANUP_FD int log = openat(dir_fd, "serial.log", O_RDWR | O_CLOEXEC);
	CLEANUP_FD int old = -1;
	struct stat st;
	off_t begin, end;
	int r;

	if (log < 0)
		return errno == ENOENT ? 0 : error_set(err, -errno, "cannot open serial.log: %m");
	if (fstat(log, &st) < 0)
		return error_set(err, -errno, "cannot look at serial.log: %m");
	begin = lseek(log, 0, SEEK_DATA);
	if (begin < 0)
		begin = 0;
	end = st.st_size - st.st_size % st.st_blksize;
	if ((uint64_t)(st.st_size - begin) <= max || end <= begin)
		return 0;
	old = openat(dir_fd, "serial.log.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (old < 0)
		return error_set(err, -errno, "cannot make serial.log.1: %m");
	r = copy_range(log, begin, end, old, err);
	if (r < 0) {
		(void)unlinkat(dir_fd, "serial.log.new", 0);
		return r;
	}
	if (renameat(dir_fd, "serial.log.new", dir_fd, "serial.log.1") < 0)
		return error_set(err, -errno, "cannot rename serial.log.1: %m");
	if (fallocate(log, FALLOC_FL_COLLAPSE_RANGE, 0, end) < 0 &&
	    fallocate(log, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, end) < 0)
		return error_set(err, -errno, "cannot shorten serial.log: %m");
	return 1;
}
