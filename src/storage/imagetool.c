/* SPDX-License-Identifier: Apache-2.0 */
/* The room in which qemu-img works.  It reads headers that a stranger (`source`) or a guest that
 * has taken its QEMU over (a volume of its own) may have written, and a header can name any file,
 * URL or device as what lies below.  So the process gets an empty root with the programs of the
 * host, read-only, and exactly the one or two images that it works on, put there by descriptor:
 * what we checked is what it opens.  It has no network, no other namespace's abstract sockets or
 * shared memory, no /proc, /sys, /dev or /run, and a user of its own.
 *
 * qemu-img takes names only and no descriptors (7.2 has no -add-fd there), images are 0600 of root,
 * and reopening /proc/self/fd/N asks for the mode again.  Changing owners back and forth would
 * leave a volume with a stranger's after a crash, and a user namespace with idmapped mounts does
 * not exist for all file systems.  Hence one capability stays: CAP_DAC_OVERRIDE, which in this root
 * opens nothing but those images.  (It does not include open_by_handle_at(), the way out of a mount
 * namespace; that needs CAP_DAC_READ_SEARCH.)  On NFS the server looks at the user instead: there
 * the source has to be readable by all. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "storage/internal.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"

/* Any directory that every host has: in our mount namespace the new root hides it. */
#define NEW_ROOT "/run"

/* What fd stands for, as a mount that can be put anywhere: taken before we leave the mount
 * namespace that the file belongs to. */
static int detach(int fd, int *ret_tree, struct error *err)
{
	*ret_tree = -1;
	if (fd < 0)
		return 0;
	*ret_tree = open_tree(fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (*ret_tree < 0)
		return error_set(err, -errno, "cannot detach an image: %m");
	return 0;
}

/* A directory of programs or libraries, or the link that merged-/usr made of it. */
static int place_programs(const char *path, struct error *err)
{
	CLEANUP_FREE char *target = xasprintf(NEW_ROOT "%s", path);
	char link[256];
	ssize_t length = readlink(path, link, sizeof(link) - 1);

	if (length > 0) {
		link[length] = '\0';
		return symlink(link, target) == 0
			       ? 0
			       : error_set(err, -errno, "cannot make '%s': %m", target);
	}
	if (access(path, F_OK) < 0)
		return 0;
	if (mkdir(target, 0755) < 0 || mount(path, target, NULL, MS_BIND, NULL) < 0)
		return error_set(err, -errno, "cannot mount '%s': %m", path);
	return 0;
}

static int place_file(const char *path, struct error *err)
{
	CLEANUP_FREE char *target = xasprintf(NEW_ROOT "%s", path);
	CLEANUP_FD int fd = -1;

	if (access(path, F_OK) < 0)
		return 0;
	fd = open(target, O_CREAT | O_EXCL | O_RDONLY | O_CLOEXEC, 0444);
	if (fd < 0 || mount(path, target, NULL, MS_BIND, NULL) < 0)
		return error_set(err, -errno, "cannot mount '%s': %m", path);
	return 0;
}

static int make_root(struct error *err)
{
	static const char *const programs[] = { "/usr", "/bin", "/sbin", "/lib", "/lib64" };
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID |
					       MOUNT_ATTR_NODEV };
	int r = 0;

	if (mount("images", NEW_ROOT, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=64k") < 0)
		return error_set(err, -errno, "cannot mount an empty root for qemu-img: %m");
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(programs); i++)
		r = place_programs(programs[i], err);
	if (r < 0)
		return r;
	if (mkdir(NEW_ROOT "/etc", 0755) < 0 || mkdir(NEW_ROOT "/images", 0755) < 0)
		return error_set(err, -errno, "cannot make a root for qemu-img: %m");
	r = place_file("/etc/ld.so.cache", err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < 2; i++) {
		CLEANUP_FD int fd = open(i ? NEW_ROOT IMAGETOOL_TARGET : NEW_ROOT IMAGETOOL_SOURCE,
					 O_CREAT | O_EXCL | O_RDONLY | O_CLOEXEC, 0444);

		if (fd < 0)
			return error_set(err, -errno, "cannot make a root for qemu-img: %m");
	}
	if (mount_setattr(AT_FDCWD, NEW_ROOT, AT_RECURSIVE, &attr, sizeof(attr)) < 0)
		return error_set(err, -errno, "cannot make the root of qemu-img read-only: %m");
	return 0;
}

/* After the rest has become read-only.  A source may be a block device: it keeps its `dev`. */
static int place_image(int tree, const char *path, bool writable, struct error *err)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC |
					       (writable ? 0 : MOUNT_ATTR_RDONLY) };

	if (tree < 0)
		return 0;
	if (mount_setattr(tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0 ||
	    move_mount(tree, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return error_set(err, -errno, "cannot mount an image for qemu-img: %m");
	return 0;
}

/* As switch_root(8) does: pivot_root() cannot leave an initial ramdisk. */
static int change_root(struct error *err)
{
	if (chdir(NEW_ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
	    chdir("/") < 0)
		return error_set(err, -errno, "cannot enter the root of qemu-img: %m");
	return 0;
}

/* Everything but CAP_DAC_OVERRIDE, which passes exec as an ambient one; capabilities(7). */
static int drop_rights(uid_t uid, struct error *err)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	const uint32_t bit = 1U << CAP_DAC_OVERRIDE;
	const struct __user_cap_data_struct caps[2] = {
		{ .effective = bit, .permitted = bit, .inheritable = bit }
	};

	for (unsigned long cap = 0; cap <= 63; cap++)
		if (cap != CAP_DAC_OVERRIDE && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			break; /* the last one that this kernel knows */
	/* Else the change of user would take what is to stay as well. */
	if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_NOROOT, 0, 0, 0) < 0 ||
	    setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
		return error_set(err, -errno, "cannot become user %u for qemu-img: %m",
				 (unsigned)uid);
	if (syscall(SYS_capset, &header, caps) < 0 ||
	    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0) < 0 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_set(err, -errno, "cannot drop the rights of qemu-img: %m");
	return 0;
}

int imagetool_enter(void *ctx, struct error *err)
{
	const struct imagetool *tool = ctx;
	int source = -1, target = -1, r;

	r = detach(tool->source_fd, &source, err);
	if (r == 0)
		r = detach(tool->target_fd, &target, err);
	if (r < 0)
		return r;
	if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC) < 0)
		return error_set(err, -errno, "cannot make namespaces for qemu-img: %m");
	if (mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) < 0)
		return error_set(err, -errno, "cannot separate the mount namespace: %m");
	r = make_root(err);
	if (r == 0)
		r = place_image(source, NEW_ROOT IMAGETOOL_SOURCE, false, err);
	if (r == 0)
		r = place_image(target, NEW_ROOT IMAGETOOL_TARGET, true, err);
	if (r == 0)
		r = change_root(err);
	return r < 0 ? r : drop_rights(tool->uid, err);
}
