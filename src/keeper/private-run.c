/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/private-run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "keeper/copy.h"
#include "keeper/keeper.h"
#include "util/cleanup.h"
#include "util/mem.h"
#include "wire/sock.h"

/* The number may belong to another process by the time it is opened; as long as the pidfd says that
 * ours lives, it did not. */
int private_run_open(const struct keeper *keeper, int *ret_fd, struct error *err)
{
	const struct copy *copy = keeper->copy;
	CLEANUP_FREE char *path = xasprintf("/proc/%d/root/run", (int)copy->id.pid);
	CLEANUP_FD int fd = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return error_set(err, -errno, "cannot reach QEMU's own /run: %m");
	if (process_wait(copy->pidfd, 0) != 0)
		return error_set(err, -ESRCH, "QEMU (pid %d) has ended", (int)copy->id.pid);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int private_run_dir(const struct keeper *keeper, const char *name, mode_t mode, int *ret_fd,
		    struct error *err)
{
	uid_t uid = keeper->copy->uid;
	CLEANUP_FD int run = -1, fd = -1;
	int r = private_run_open(keeper, &run, err);

	if (r < 0)
		return r;
	if (mkdirat(run, name, mode) < 0 && errno != EEXIST)
		return error_set(err, -errno, "cannot make '/run/%s' for QEMU: %m", name);
	fd = openat(run, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fchown(fd, uid, (gid_t)uid) < 0)
		return error_set(err, -errno, "cannot open '/run/%s' of QEMU: %m", name);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int private_run_connect(const struct keeper *keeper, int dir, const char *name, int *ret_fd,
			struct error *err)
{
	CLEANUP_FD int node = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC), own = -1;
	struct stat st = { 0 };
	char number[16];
	int fd;

	if (node < 0 || fstat(node, &st) < 0)
		return error_set(err, -errno, "cannot find QEMU's socket '%s': %m", name);
	if (!S_ISSOCK(st.st_mode) || st.st_uid != keeper->copy->uid)
		return error_refuse(err, "'%s' is no socket of QEMU's", name);
	own = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (own < 0)
		return error_set(err, -errno, "cannot open /proc/self/fd: %m");
	(void)snprintf(number, sizeof(number), "%d", node);
	fd = sock_connect(own, number, err);
	if (fd < 0)
		return fd;
	*ret_fd = fd;
	return 0;
}
