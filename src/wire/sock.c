/* SPDX-License-Identifier: Apache-2.0 */
/* Unix sockets by directory descriptor.  sun_path holds 108 bytes, a run directory may be longer;
 * /proc/self/fd/N/NAME is short whatever the directory is called. */
#include "wire/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"
#include "util/mem.h"

#define SOCK_FLAGS (SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK)

static int set_address(struct sockaddr_un *address, int dir_fd, const char *name, struct error *err)
{
	int length;

	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (dir_fd >= 0 && name[0] != '/')
		length = snprintf(address->sun_path, sizeof(address->sun_path),
				  "/proc/self/fd/%d/%s", dir_fd, name);
	else
		length = snprintf(address->sun_path, sizeof(address->sun_path), "%s", name);
	if (length >= (int)sizeof(address->sun_path))
		return error_set(err, -ENAMETOOLONG,
				 "the socket name '%s' is too long: choose a shorter one", name);
	return 0;
}

/* Makes the socket under the name `beside`, listening. */
static int listen_beside(int dir_fd, const char *beside, mode_t mode, int *ret_fd,
			 struct error *err)
{
	struct sockaddr_un address;
	CLEANUP_FD int fd = -1;
	int r;

	r = set_address(&address, dir_fd, beside, err);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_FLAGS, 0);
	if (fd < 0)
		return error_set(err, -errno, "cannot make a socket: %m");
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return error_set(err, -errno, "cannot bind a socket: %m");
	/* Not listening yet, so nobody slips in under the mode that bind gave it. */
	if (fchmodat(dir_fd, beside, mode, 0) < 0)
		return error_set(err, -errno, "cannot set the mode of a socket: %m");
	if (listen(fd, SOMAXCONN) < 0)
		return error_set(err, -errno, "cannot listen on a socket: %m");
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int sock_listen(int dir_fd, const char *name, mode_t mode, struct error *err)
{
	char beside[sizeof(FILE_UNFINISHED) + 32];
	CLEANUP_FD int fd = -1;
	char id[33];
	int r;

	file_random_id(id);
	(void)snprintf(beside, sizeof(beside), FILE_UNFINISHED "%s", id);
	r = listen_beside(dir_fd, beside, mode, &fd, err);
	if (r >= 0 && renameat(dir_fd, beside, dir_fd, name) < 0)
		r = error_set(err, -errno, "cannot rename it into place: %m");
	if (r < 0) {
		(void)unlinkat(dir_fd, beside, 0);
		return error_prefix(err, r, "cannot listen on '%s'", name);
	}
	return TAKE_FD(fd);
}

int sock_connect(int dir_fd, const char *name, struct error *err)
{
	struct sockaddr_un address;
	CLEANUP_FD int fd = -1;
	int r;

	r = set_address(&address, dir_fd, name, err);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_FLAGS, 0);
	if (fd < 0)
		return error_set(err, -errno, "cannot make a socket: %m");
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
		return TAKE_FD(fd);
	if (errno == EAGAIN)
		return error_try_again(err,
				       "'%s' accepts no connection: its program hangs or has "
				       "too many clients",
				       name);
	if (errno == ECONNREFUSED || errno == ENOENT)
		return error_set_class(err, ERROR_TRY_AGAIN, -errno,
				       "nobody listens on '%s': its program does not run", name);
	return error_set(err, -errno, "cannot connect to '%s': %m", name);
}

int sock_accept(int listener, struct error *err)
{
	int fd;

	do
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	while (fd < 0 && errno == EINTR);
	if (fd < 0)
		return error_set(err, -errno, "cannot accept a connection: %m");
	return fd;
}

int sock_connect_path(const char *path, struct error *err)
{
	const char *slash = strrchr(path, '/');
	CLEANUP_FREE char *parent = NULL;
	CLEANUP_FD int dir = -1;
	int fd;

	if (slash)
		parent =
			slash == path ? xstrdup("/") : xasprintf("%.*s", (int)(slash - path), path);
	dir = open(parent ? parent : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 && errno == ENOENT)
		return error_set_class(err, ERROR_TRY_AGAIN, -ENOENT,
				       "nobody listens on '%s': its program does not run", path);
	if (dir < 0)
		return error_set(err, -errno, "cannot open directory '%s': %m",
				 parent ? parent : ".");
	fd = sock_connect(dir, slash ? slash + 1 : path, err);
	return fd < 0 && slash ? error_prefix(err, fd, "%s", parent) : fd;
}

int sock_peer(int fd, uid_t *ret_uid, pid_t *ret_pid, struct error *err)
{
	struct ucred other;
	socklen_t size = sizeof(other);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &other, &size) < 0)
		return error_set(err, -errno, "cannot tell who is at the other end: %m");
	if (ret_uid)
		*ret_uid = other.uid;
	if (ret_pid)
		*ret_pid = other.pid;
	return 0;
}
