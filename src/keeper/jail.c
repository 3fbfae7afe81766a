/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"
#include "util/mem.h"

static int open_readable(const char *what, const char *path, int *ret_fd, struct error *err)
{
	CLEANUP_FD int fd = -1;
	struct stat st;

	*ret_fd = -1;
	if (!path)
		return 0;
	fd = open(path, O_PATH | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_set(err, -errno, "cannot open the %s '%s': %m", what, path);
	if (!S_ISREG(st.st_mode))
		return error_bad_data(err, "the %s '%s' is not a file", what, path);
	if (!(st.st_mode & S_IROTH))
		return error_set(err, -EACCES,
				 "the %s '%s' (mode %04o) is not readable by QEMU's own user: "
				 "chmod o+r '%s'",
				 what, path, st.st_mode & 07777, path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* systemd-resolved keeps it in /run, which will be hidden. */
static void open_resolv(struct jail *jail)
{
	CLEANUP_FREE char *path = realpath("/etc/resolv.conf", NULL);

	if (!path || strncmp(path, "/run/", 5) != 0 || strlen(path) >= sizeof(jail->resolv))
		return;
	jail->resolv_fd = open(path, O_PATH | O_CLOEXEC);
	(void)snprintf(jail->resolv, sizeof(jail->resolv), "%s", path);
}

int jail_open(struct jail *jail, const char *kernel, const char *initrd, const char *firmware,
	      struct error *err)
{
	int r;

	jail->kernel_fd = jail->initrd_fd = jail->firmware_fd = jail->resolv_fd = -1;
	r = open_readable("kernel", kernel, &jail->kernel_fd, err);
	if (r == 0)
		r = open_readable("initrd", initrd, &jail->initrd_fd, err);
	if (r == 0)
		r = open_readable("firmware", firmware, &jail->firmware_fd, err);
	if (r < 0)
		jail_done(jail);
	else
		open_resolv(jail);
	return r;
}

void jail_done(struct jail *jail)
{
	cleanup_closep(&jail->kernel_fd);
	cleanup_closep(&jail->initrd_fd);
	cleanup_closep(&jail->firmware_fd);
	cleanup_closep(&jail->resolv_fd);
	jail->kernel_fd = jail->initrd_fd = jail->firmware_fd = jail->resolv_fd = -1;
}

static const struct {
	const char *path;
	unsigned major, minor; /* Documentation/admin-guide/devices.txt of Linux */
} devices[] = {
	{ "/dev/null", 1, 3 },	 { "/dev/zero", 1, 5 },	   { "/dev/full", 1, 7 },
	{ "/dev/random", 1, 8 }, { "/dev/urandom", 1, 9 },
};

/* QEMU runs without rights: a node of its own is how it may use what the host keeps for root. */
static int make_own(const struct jail *jail, const char *path, dev_t device, struct error *err)
{
	if (device &&
	    (mknod(path, S_IFCHR | 0600, device) < 0 || chown(path, jail->uid, jail->uid) < 0))
		return error_set(err, -errno, "cannot make '%s': %m", path);
	return 0;
}

static int make_dev(const struct jail *jail, dev_t kvm, dev_t userfault, struct error *err)
{
	int r;

	if (mount("dev", "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=64k") < 0)
		return error_set(err, -errno, "cannot mount a private /dev: %m");
	for (size_t i = 0; i < ARRAY_SIZE(devices); i++)
		if (mknod(devices[i].path, S_IFCHR | 0666,
			  makedev(devices[i].major, devices[i].minor)) < 0 ||
		    chmod(devices[i].path, 0666) < 0)
			return error_set(err, -errno, "cannot make '%s': %m", devices[i].path);
	if (symlink("/proc/self/fd", "/dev/fd") < 0)
		return error_set(err, -errno, "cannot make '/dev/fd': %m");
	r = make_own(jail, "/dev/kvm", kvm, err);
	return r < 0 ? r : make_own(jail, "/dev/userfaultfd", userfault, err);
}

/* What fd stands for, as a mount of its own that can be put anywhere: taken before we leave the
 * mount namespace that the file belongs to. */
static int detach_file(int *fd, struct error *err)
{
	int tree;

	if (*fd < 0)
		return 0;
	tree = open_tree(*fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (tree < 0)
		return error_set(err, -errno, "cannot detach a file of the guest: %m");
	*fd = tree;
	return 0;
}

static int place_file(int tree, const char *path, struct error *err)
{
	int target;

	if (tree < 0)
		return 0;
	target = open(path, O_CREAT | O_EXCL | O_RDONLY | O_CLOEXEC, 0444);
	if (target < 0)
		return error_set(err, -errno, "cannot make '%s': %m", path);
	(void)close(target);
	if (move_mount(tree, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return error_set(err, -errno, "cannot mount '%s': %m", path);
	return 0;
}

static int make_parents(const char *path, struct error *err)
{
	CLEANUP_FREE char *dir = xstrdup(path);

	*strrchr(dir, '/') = '\0';
	return file_make_dirs(AT_FDCWD, dir, 0755, err);
}

static int make_run(const struct jail *jail, struct error *err)
{
	int r;

	if (mount("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755,size=64k") <
	    0)
		return error_set(err, -errno, "cannot mount a private /run: %m");
	if (mkdir("/run/vm", 0755) < 0)
		return error_set(err, -errno, "cannot make '/run/vm': %m");
	r = place_file(jail->kernel_fd, JAIL_KERNEL, err);
	if (r == 0)
		r = place_file(jail->initrd_fd, JAIL_INITRD, err);
	if (r == 0)
		r = place_file(jail->firmware_fd, JAIL_FIRMWARE, err);
	if (r == 0 && jail->resolv_fd >= 0)
		r = make_parents(jail->resolv, err);
	if (r == 0)
		r = place_file(jail->resolv_fd, jail->resolv, err);
	return r;
}

/* Nothing of the host's can be written; what is mounted over it after this is QEMU's own. */
static int seal_files(struct error *err)
{
	struct mount_attr sealed = { .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID };
	static const char *const scratch[] = { "/tmp", "/var/tmp" };

	if (mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &sealed, sizeof(sealed)) < 0)
		return error_set(err, -errno, "cannot make the host's files read-only: %m");
	for (size_t i = 0; i < ARRAY_SIZE(scratch); i++)
		if (mount("tmp", scratch[i], "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
			  "mode=1777,size=64m") < 0 &&
		    errno != ENOENT)
			return error_set(err, -errno, "cannot mount a private %s: %m", scratch[i]);
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=2") < 0)
		return error_set(err, -errno, "cannot mount a private /proc: %m");
	return 0;
}

int jail_enter(void *ctx, struct error *err)
{
	struct jail jail = *(const struct jail *)ctx; /* ours: descriptors change here */
	struct stat kvm = { 0 }, userfault = { 0 };
	int r;

	r = detach_file(&jail.kernel_fd, err);
	if (r == 0)
		r = detach_file(&jail.initrd_fd, err);
	if (r == 0)
		r = detach_file(&jail.firmware_fd, err);
	if (r == 0)
		r = detach_file(&jail.resolv_fd, err);
	if (r < 0)
		return r;
	if (jail.kvm && stat("/dev/kvm", &kvm) < 0)
		return error_set(err, -errno, "cannot find /dev/kvm: %m");
	/* Without it QEMU says whether it can do without. */
	if (jail.userfault)
		(void)stat("/dev/userfaultfd", &userfault);
	if (unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | (jail.network ? 0 : CLONE_NEWNET)) <
	    0)
		return error_set(err, -errno, "cannot make namespaces of its own: %m");
	/* Ours must not reach the host; the host's unmounts should still reach us. */
	if (mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0)
		return error_set(err, -errno, "cannot separate the mount namespace: %m");
	r = seal_files(err);
	if (r < 0)
		return r;
	r = make_dev(&jail, kvm.st_rdev, userfault.st_rdev, err);
	if (r < 0)
		return r;
	return make_run(&jail, err);
}
