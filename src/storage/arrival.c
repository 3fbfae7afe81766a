/* SPDX-License-Identifier: Apache-2.0 */
/* Local disks that move with their VM.  A mirror fills a file that has no volume's name; it gets
 * the name once the VM is owned here, and the file on the other side loses it.  Each step may have
 * been done before: whoever comes next repeats it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storage/internal.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"

#define ARRIVING "arriving"
#define GONE "gone"

char *arrival_file(const char *name, uint64_t epoch, enum volume_format format)
{
	return xasprintf(".%s.%" PRIu64 "." ARRIVING ".%s", name, epoch,
			 volume_format_name(format));
}

static char *gone_file(const char *name, uint64_t epoch, enum volume_format format)
{
	return xasprintf(".%s.%" PRIu64 "." GONE ".%s", name, epoch, volume_format_name(format));
}

/* ".NAME.EPOCH.KIND.FORMAT": is it of this kind?  Then whose, and of which epoch. */
static bool parse(const char *file, const char *kind, char name[64], uint64_t *ret_epoch)
{
	char found[16], format[16];
	int end = 0;

	if (sscanf(file, ".%63[^.].%" SCNu64 ".%15[a-z].%15[a-z0-9]%n", name, ret_epoch, found,
		   format, &end) != 4)
		return false;
	return file[end] == '\0' && strcmp(found, kind) == 0 && volume_format_of(format) >= 0;
}

static int open_names(struct storage *storage, const char *vm, const char *name, int *ret_fd,
		      struct error *err)
{
	int r = storage_check_names(vm, name, err);

	return r < 0 ? r : storage_vm_dir(storage, vm, false, ret_fd, err);
}

static int settle(struct storage *storage, int vm_fd, struct error *err)
{
	if (fsync(vm_fd) < 0)
		return error_set(err, -errno, "cannot write the directory of volumes '%s': %m",
				 storage->dir);
	return 0;
}

/* Walks the hidden files of a kind: those of `except_epoch` stay, the others go; or none goes, and
 * the newest is looked for. */
struct sweep {
	const char *kind, *name; /* NULL: of any volume */
	uint64_t except_epoch;
	uint64_t *newest;
};

static bool is_to_go(const struct sweep *sweep, const char *file)
{
	char name[64];
	uint64_t epoch;

	if (!parse(file, sweep->kind, name, &epoch) || epoch == sweep->except_epoch ||
	    (sweep->name && strcmp(name, sweep->name) != 0))
		return false;
	if (sweep->newest && epoch > *sweep->newest)
		*sweep->newest = epoch;
	return !sweep->newest;
}

/* To be walked and closed; NULL with the reason. */
static DIR *open_dir(struct storage *storage, int fd, int *ret_r, struct error *err)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = copy >= 0 ? fdopendir(copy) : NULL;

	if (dir)
		return dir;
	*ret_r = error_set(err, -errno, "cannot read the directory of volumes '%s': %m",
			   storage->dir);
	if (copy >= 0)
		(void)close(copy);
	return NULL;
}

static int sweep_files(struct storage *storage, int vm_fd, const struct sweep *sweep,
		       struct error *err)
{
	struct dirent *entry;
	int r = 0;
	DIR *dir = open_dir(storage, vm_fd, &r, err);

	if (!dir)
		return r;
	while ((entry = readdir(dir)))
		if (is_to_go(sweep, entry->d_name) && unlinkat(vm_fd, entry->d_name, 0) < 0 &&
		    errno != ENOENT)
			r = error_set(err, -errno, "cannot remove '%s': %m", entry->d_name);
	(void)closedir(dir);
	return r;
}

/* What bears the volume's name, in whichever format, is put aside as `gone`. */
static int put_aside(struct storage *storage, int vm_fd, const char *name, uint64_t epoch,
		     struct error *err)
{
	const struct sweep older = { .kind = GONE, .name = name, .except_epoch = epoch };

	for (int format = 0; format < VOLUME_FORMATS; format++) {
		const char *suffix = volume_format_name((enum volume_format)format);
		CLEANUP_FREE char *file = xasprintf("%s.%s", name, suffix);
		CLEANUP_FREE char *gone = gone_file(name, epoch, (enum volume_format)format);

		if (renameat(vm_fd, file, vm_fd, gone) < 0 && errno != ENOENT)
			return error_set(err, -errno, "cannot put '%s' of '%s' aside: %m", file,
					 storage->dir);
	}
	return sweep_files(storage, vm_fd, &older, err);
}

int volume_arrived(struct storage *storage, const char *vm, const char *name, uint64_t epoch,
		   struct error *err)
{
	CLEANUP_FD int vm_fd = -1;
	int r;

	r = open_names(storage, vm, name, &vm_fd, err);
	if (r == -ENOENT)
		return 0;
	for (int format = 0; format < VOLUME_FORMATS && r == 0; format++) {
		CLEANUP_FREE char *from = arrival_file(name, epoch, (enum volume_format)format);
		CLEANUP_FREE char *to =
			xasprintf("%s.%s", name, volume_format_name((enum volume_format)format));

		if (faccessat(vm_fd, from, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		r = put_aside(storage, vm_fd, name, epoch, err);
		if (r == 0 && renameat(vm_fd, from, vm_fd, to) < 0)
			r = error_set(err, -errno, "cannot name volume '%s': %m", name);
		if (r == 0)
			r = settle(storage, vm_fd, err);
	}
	return r;
}

int volume_leave(struct storage *storage, const char *vm, const char *name, uint64_t epoch,
		 struct error *err)
{
	CLEANUP_FD int vm_fd = -1;
	int r;

	r = open_names(storage, vm, name, &vm_fd, err);
	if (r == -ENOENT)
		return 0;
	if (r == 0)
		r = put_aside(storage, vm_fd, name, epoch, err);
	return r < 0 ? r : settle(storage, vm_fd, err);
}

int volume_forget_arrivals(struct storage *storage, const char *vm, uint64_t except_epoch,
			   struct error *err)
{
	const struct sweep sweep = { .kind = ARRIVING, .except_epoch = except_epoch };
	CLEANUP_FD int vm_fd = -1;
	int r;

	r = open_names(storage, vm, "any", &vm_fd, err);
	if (r == -ENOENT)
		return 0;
	return r < 0 ? r : sweep_files(storage, vm_fd, &sweep, err);
}

int volume_left(struct storage *storage, const char *vm, const char *name, uint64_t *ret_epoch,
		struct error *err)
{
	uint64_t newest = 0;
	const struct sweep sweep = { .kind = GONE, .name = name, .newest = &newest };
	CLEANUP_FD int vm_fd = -1;
	int r;

	r = open_names(storage, vm, name, &vm_fd, err);
	if (r == 0)
		r = sweep_files(storage, vm_fd, &sweep, err);
	if (r < 0 && r != -ENOENT)
		return r;
	*ret_epoch = newest;
	return 0;
}

int volume_left_before(struct storage *storage, const char *vm, const char *name, struct error *err)
{
	CLEANUP_FD int vm_fd = -1;
	uint64_t epoch = 0;
	int r;

	r = volume_left(storage, vm, name, &epoch, err);
	if (r < 0 || epoch == 0)
		return r;
	r = open_names(storage, vm, name, &vm_fd, err);
	for (int format = 0; format < VOLUME_FORMATS && r == 0; format++) {
		CLEANUP_FREE char *from = gone_file(name, epoch, (enum volume_format)format);
		CLEANUP_FREE char *to = gone_file(name, 0, (enum volume_format)format);

		if (renameat(vm_fd, from, vm_fd, to) < 0 && errno != ENOENT)
			r = error_set(err, -errno, "cannot rename '%s': %m", from);
	}
	return r;
}

int volume_claimed(struct storage *storage, const char *vm, const char *name,
		   struct volume_claim *ret, struct error *err)
{
	CLEANUP_FD int vm_fd = -1;
	int r;

	r = open_names(storage, vm, name, &vm_fd, err);
	if (r == -ENOENT)
		return 0;
	return r < 0 ? r : claim_read(vm_fd, name, ret, err);
}

int volume_arriving(struct storage *storage, const char *vm, uint64_t last_epoch, struct error *err)
{
	CLEANUP_FD int vm_fd = -1;
	struct dirent *entry;
	char name[64];
	uint64_t epoch;
	DIR *dir;
	int r;

	r = open_names(storage, vm, "any", &vm_fd, err);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	dir = open_dir(storage, vm_fd, &r, err);
	if (!dir)
		return r;
	while (r == 0 && (entry = readdir(dir)))
		r = parse(entry->d_name, ARRIVING, name, &epoch) && epoch <= last_epoch;
	(void)closedir(dir);
	return r;
}

int volume_arriving_vms(struct storage *storage, json_t *list, struct error *err)
{
	struct dirent *entry;
	int r = 0;
	DIR *dir = open_dir(storage, storage->dir_fd, &r, err);

	if (!dir)
		return r;
	/* What is no VM's directory is none of ours. */
	while ((entry = readdir(dir)))
		if (volume_arriving(storage, entry->d_name, UINT64_MAX, NULL) > 0)
			(void)json_array_append_new(list, json_string(entry->d_name));
	(void)closedir(dir);
	return 0;
}

int volume_claim(struct storage *storage, const char *vm, const char *name, uint64_t epoch,
		 const char *node, struct error *err)
{
	CLEANUP_FD int vm_fd = -1;
	int r;

	r = open_names(storage, vm, name, &vm_fd, err);
	if (r == 0)
		r = claim_check(vm_fd, vm, name, epoch, node, err);
	return r < 0 ? r : claim_write(vm_fd, vm, name, epoch, node, err);
}
