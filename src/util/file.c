/* SPDX-License-Identifier: Apache-2.0 */
/* Files that are there whole or not at all: content is written beside, made durable, renamed into
 * place, and the directory is made durable too.  Paths may be longer than their last part, so most
 * work is done with a descriptor of the parent directory. */
#include "util/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"

#define READ_CHUNK (64 * 1024)
#define TREE_DEPTH_MAX 64
#define LOCK_RETRY_USEC 10000

/* Opens the directory that holds the last part of `path`, and tells where that part begins. */
static int open_parent(int dir_fd, const char *path, const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	CLEANUP_FREE char *parent = NULL;
	int fd;

	*ret_name = slash ? slash + 1 : path;
	if ((*ret_name)[0] == '\0')
		return -EISDIR;
	if (!slash)
		parent = xstrdup(".");
	else if (slash == path)
		parent = xstrdup("/");
	else
		parent = xasprintf("%.*s", (int)(slash - path), path);
	fd = openat(dir_fd, parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Reads on to the end of `fd`; one byte more than `limit` is enough to know. */
static int read_all(int fd, size_t limit, char **ret_text, size_t *ret_length)
{
	CLEANUP_FREE char *text = NULL;
	size_t capacity = 0;
	size_t length = 0;
	ssize_t n;

	for (;;) {
		if (capacity - length < READ_CHUNK + 1) {
			capacity = capacity ? capacity * 2 : READ_CHUNK + 1;
			text = xrealloc(text, capacity, 1);
		}
		n = read(fd, text + length, capacity - length - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		length += (size_t)n;
		if (length > limit)
			return -EFBIG;
	}
	text[length] = '\0';
	*ret_text = TAKE_PTR(text);
	*ret_length = length;
	return 0;
}

int file_read(int dir_fd, const char *path, size_t limit, char **ret_text, size_t *ret_length,
	      struct error *err)
{
	CLEANUP_FD int fd = -1;
	CLEANUP_FREE char *text = NULL;
	size_t length = 0;
	struct stat st;
	int r;

	/* Without O_NONBLOCK a FIFO of that name would hold us for ever. */
	fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return error_set(err, -errno, "cannot open '%s': %m", path);
	if (fstat(fd, &st) < 0)
		return error_set(err, -errno, "cannot examine '%s': %m", path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL,
				 "'%s' is not a regular file: put the file itself there", path);
	r = read_all(fd, limit, &text, &length);
	if (r == -EFBIG)
		return error_set_class(err, ERROR_BAD_DATA, r,
				       "'%s' is longer than the limit of %zu bytes", path, limit);
	if (r < 0)
		return error_set(err, r, "cannot read '%s': %m", path);
	if (ret_length)
		*ret_length = length;
	*ret_text = TAKE_PTR(text);
	return 0;
}

static int write_all(int fd, const char *bytes, size_t length)
{
	while (length > 0) {
		ssize_t n = write(fd, bytes, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		bytes += n;
		length -= (size_t)n;
	}
	return 0;
}

/* Makes the temporary file `name` below `dir` hold `data`, durably. */
static int write_beside(int dir, const char *name, const void *data, size_t length, mode_t mode)
{
	CLEANUP_FD int fd = -1;
	int r;

	fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	r = write_all(fd, data, length);
	if (r < 0)
		return r;
	if (fchmod(fd, mode) < 0 || fsync(fd) < 0)
		return -errno;
	return 0;
}

int file_write(int dir_fd, const char *path, const void *data, size_t length, mode_t mode,
	       struct error *err)
{
	CLEANUP_FD int dir = -1;
	const char *name;
	char beside[sizeof(FILE_UNFINISHED) + 32];
	char id[33];
	int r;

	dir = open_parent(dir_fd, path, &name);
	if (dir < 0)
		return error_set(err, dir, "cannot write '%s': its directory: %m", path);
	file_random_id(id);
	(void)snprintf(beside, sizeof(beside), FILE_UNFINISHED "%s", id);
	r = write_beside(dir, beside, data, length, mode);
	if (r >= 0 && renameat(dir, beside, dir, name) < 0)
		r = -errno;
	if (r < 0) {
		(void)unlinkat(dir, beside, 0);
		return error_set(err, r, "cannot write '%s': %m; what was there is unchanged",
				 path);
	}
	if (fsync(dir) < 0)
		return error_set(err, -errno,
				 "'%s' is written, but its directory cannot be made durable: %m",
				 path);
	return 0;
}

void file_remove_unfinished(int dir_fd)
{
	CLEANUP_FD int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *entry;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir)
		return;
	fd = -1; /* the list owns it */
	while ((entry = readdir(dir)))
		if (strncmp(entry->d_name, FILE_UNFINISHED, strlen(FILE_UNFINISHED)) == 0)
			(void)unlinkat(dir_fd, entry->d_name, 0);
	(void)closedir(dir);
}

int file_make_dirs(int dir_fd, const char *path, mode_t mode, struct error *err)
{
	CLEANUP_FREE char *part = xstrdup(path);
	size_t length = strlen(part);
	struct stat st;

	while (length > 1 && part[length - 1] == '/')
		part[--length] = '\0';
	for (char *slash = strchr(part + 1, '/'); length && slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdirat(dir_fd, part, 0755) < 0 && errno != EEXIST)
			return error_set(err, -errno, "cannot make directory '%s': %m", part);
		*slash = '/';
	}
	if (mkdirat(dir_fd, part, mode) < 0 && errno != EEXIST)
		return error_set(err, -errno, "cannot make directory '%s': %m", path);
	if (fstatat(dir_fd, part, &st, 0) < 0)
		return error_set(err, -errno, "cannot examine directory '%s': %m", path);
	if (!S_ISDIR(st.st_mode))
		return error_set(err, -ENOTDIR,
				 "'%s' is in the way: a directory is needed there, move it", path);
	return 0;
}

/* One attempt: 1 with the locked file that the path names, 0 when another one holds it or it was
 * replaced while we took it (`*ret_replaced`). */
static int lock_once(int dir_fd, const char *path, int *ret_fd, bool *ret_replaced,
		     struct error *err)
{
	CLEANUP_FD int fd = -1;
	struct stat held, named;

	*ret_replaced = false;
	fd = openat(dir_fd, path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600);
	if (fd < 0)
		return error_set(err, -errno, "cannot open lock file '%s': %m", path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno == EWOULDBLOCK || errno == EINTR)
			return 0;
		return error_set(err, -errno, "cannot lock '%s': %m", path);
	}
	if (fstat(fd, &held) < 0)
		return error_set(err, -errno, "cannot examine lock file '%s': %m", path);
	if (fstatat(dir_fd, path, &named, AT_SYMLINK_NOFOLLOW) < 0 || named.st_ino != held.st_ino ||
	    named.st_dev != held.st_dev) {
		*ret_replaced = true;
		return 0;
	}
	*ret_fd = TAKE_FD(fd);
	return 1;
}

int file_lock(int dir_fd, const char *path, unsigned long wait_usec, int *ret_fd, struct error *err)
{
	/* The kernel has no flock with a deadline and no event for it, so this one wait looks
	 * again and again. */
	static const struct timespec pause = { .tv_nsec = LOCK_RETRY_USEC * 1000L };
	uint64_t deadline = clock_now() + wait_usec;
	bool replaced;
	int r;

	for (;;) {
		r = lock_once(dir_fd, path, ret_fd, &replaced, err);
		if (r != 0)
			return r < 0 ? r : 0;
		if (replaced)
			continue;
		if (clock_now() >= deadline)
			return error_set_class(err, ERROR_TRY_AGAIN, -EWOULDBLOCK,
					       "'%s' is locked by another process: wait for it, "
					       "or see 'fuser -v' who holds it",
					       path);
		(void)nanosleep(&pause, NULL);
	}
}

static int mount_of(int dir, const char *name, uint64_t *ret_mount, mode_t *ret_mode)
{
	struct statx st;

	if (statx(dir, name, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH, STATX_TYPE | STATX_MNT_ID, &st) <
	    0)
		return -errno;
	*ret_mount = st.stx_mnt_id;
	*ret_mode = st.stx_mode;
	return 0;
}

static int remove_entry(int dir, const char *name, unsigned depth);

static int remove_content(int dir, const char *name, unsigned depth)
{
	CLEANUP_FD int fd = -1;
	struct dirent *entry;
	DIR *list;
	int r = 0;

	if (depth == 0)
		return -ELOOP;
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	list = fdopendir(fd);
	if (!list)
		return -errno;
	fd = -1; /* the list owns it */
	while (r >= 0 && (errno = 0, entry = readdir(list)) != NULL)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			r = remove_entry(dirfd(list), entry->d_name, depth - 1);
	if (r >= 0 && errno != 0)
		r = -errno;
	(void)closedir(list);
	return r;
}

static int remove_entry(int dir, const char *name, unsigned depth)
{
	uint64_t ours, its;
	mode_t mode;
	int r;

	if (unlinkat(dir, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	r = mount_of(dir, name, &its, &mode);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (!S_ISDIR(mode))
		return -EPERM;
	r = mount_of(dir, "", &ours, &mode);
	if (r < 0)
		return r;
	/* Somebody's file system is mounted there: what is in it was not ordered to go. */
	if (its != ours)
		return -EBUSY;
	r = remove_content(dir, name, depth);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	return unlinkat(dir, name, AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : 0;
}

int file_remove_tree(int dir_fd, const char *path, struct error *err)
{
	CLEANUP_FD int dir = -1;
	const char *name;
	int r;

	dir = open_parent(dir_fd, path, &name);
	if (dir == -ENOENT)
		return 0;
	r = dir < 0 ? dir : remove_entry(dir, name, TREE_DEPTH_MAX);
	return r < 0 ? error_set(err, r, "cannot remove '%s': %m", path) : 0;
}

void file_random_id(char buffer[33])
{
	static const char digits[] = "0123456789abcdef";
	unsigned char bits[16];
	size_t have = 0;

	while (have < sizeof(bits)) {
		ssize_t n = getrandom(bits + have, sizeof(bits) - have, 0);

		if (n > 0)
			have += (size_t)n;
		else if (n < 0 && errno != EINTR)
			abort(); /* a kernel without getrandom is not one that we run on */
	}
	for (size_t i = 0; i < sizeof(bits); i++) {
		buffer[2 * i] = digits[bits[i] >> 4];
		buffer[2 * i + 1] = digits[bits[i] & 15];
	}
	buffer[32] = '\0';
}
