/* SPDX-License-Identifier: Apache-2.0 */
/* The directory of volumes: opening it, what is in it, and taking something out of it.  How a
 * volume gets in is in file.c. */
#include "storage/storage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "model/definition.h"
#include "storage/internal.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"
#include "util/mem.h"

#define NAME_CHARACTERS "abcdefghijklmnopqrstuvwxyz0123456789"
#define VOLUME_NAME_MAX 32

static const char *const format_names[VOLUME_FORMATS] = {
	[VOLUME_RAW] = "raw",
	[VOLUME_QCOW2] = "qcow2",
};

const char *volume_format_name(enum volume_format format)
{
	return format_names[format];
}

int volume_format_of(const char *name)
{
	for (int i = 0; name && i < VOLUME_FORMATS; i++)
		if (!strcmp(name, format_names[i]))
			return i;
	return -1;
}

static bool name_good(const char *name, const char *characters, size_t max)
{
	size_t length = strlen(name);

	return length > 0 && length <= max && strchr(NAME_CHARACTERS, name[0]) &&
	       strspn(name, characters) == length;
}

int storage_check_names(const char *vm, const char *name, struct error *err)
{
	if (!name_good(vm, NAME_CHARACTERS "._-", VM_NAME_MAX))
		return error_bad_data(err, "'%s' is no name of a VM", vm);
	if (!name_good(name, NAME_CHARACTERS "_-", VOLUME_NAME_MAX))
		return error_bad_data(err,
				      "'%s' is no name of a volume: at most %d of a-z, 0-9, _ and "
				      "-, a letter or digit first",
				      name, VOLUME_NAME_MAX);
	return 0;
}

int storage_open(const char *dir, sd_event *loop, struct storage **ret_storage, struct error *err)
{
	struct storage *storage;
	char real[PATH_MAX];
	int r, fd;

	r = file_make_dirs(AT_FDCWD, dir, 0700, err);
	if (r < 0)
		return error_prefix(err, r, "directory of volumes");
	/* Children get paths, and the caller may change its directory. */
	if (!realpath(dir, real))
		return error_set(err, -errno, "cannot find directory '%s': %m", dir);
	fd = open(real, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return error_set(err, -errno, "cannot open directory of volumes '%s': %m", real);
	storage = xcalloc(1, sizeof(*storage));
	*storage = (struct storage){
		.dir = xstrdup(real),
		.dir_fd = fd,
		.loop = sd_event_ref(loop),
	};
	*ret_storage = storage;
	return 0;
}

struct storage *storage_close(struct storage *storage)
{
	if (!storage)
		return NULL;
	while (storage->jobs)
		volume_cancel(storage->jobs);
	(void)close(storage->dir_fd);
	sd_event_unref(storage->loop);
	free(storage->dir);
	free(storage);
	return NULL;
}

int storage_vm_dir(struct storage *storage, const char *vm, bool make, int *ret_fd,
		   struct error *err)
{
	int fd;

	if (make && mkdirat(storage->dir_fd, vm, 0700) < 0 && errno != EEXIST)
		return error_set(err, -errno, "cannot make directory '%s/%s': %m", storage->dir,
				 vm);
	fd = openat(storage->dir_fd, vm, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return error_set(err, -errno, "cannot open directory '%s/%s': %m", storage->dir,
				 vm);
	*ret_fd = fd;
	return 0;
}

int volume_release(struct storage *storage, const char *vm, const char *name, uint64_t epoch,
		   const char *node, struct error *err)
{
	CLEANUP_FD int vm_fd = -1;
	int r;

	r = storage_check_names(vm, name, err);
	if (r < 0)
		return r;
	r = storage_vm_dir(storage, vm, false, &vm_fd, err);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	r = claim_check(vm_fd, vm, name, epoch, node, err);
	return r < 0 ? r : claim_remove(vm_fd, name, err);
}

/* ---- the list ---- */

void volume_info_done(struct volume_info *info)
{
	free(info->vm);
	free(info->name);
	free(info->path);
	free(info->claimed_by);
	*info = (struct volume_info){ 0 };
}

/* "root.raw" to "root" and its format; false: not the name of a volume. */
static bool volume_file_name(const char *file, char name[VOLUME_NAME_MAX + 1],
			     enum volume_format *ret_format)
{
	const char *dot = strchr(file, '.');
	int format = dot ? volume_format_of(dot + 1) : -1;

	if (format < 0 || (size_t)(dot - file) > VOLUME_NAME_MAX)
		return false;
	memcpy(name, file, (size_t)(dot - file));
	name[dot - file] = '\0';
	*ret_format = (enum volume_format)format;
	return storage_check_names("vm", name, NULL) == 0;
}

/* One damaged volume must not hide the others: what cannot be told stays 0 or "unknown". */
static int info_fill(struct storage *storage, const char *vm, int vm_fd, const char *file,
		     const char *name, enum volume_format format, struct volume_info *ret_info,
		     struct error *err)
{
	CLEANUP(image_done) struct image image = { 0 };
	CLEANUP(volume_claim_done) struct volume_claim claim = { 0 };
	CLEANUP_FD int fd = -1;
	struct stat st;
	int r;

	fd = openat(vm_fd, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 && (errno == ENOENT || errno == ELOOP))
		return 0;
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_set(err, -errno, "cannot look at volume '%s/%s': %m", vm, file);
	if (!S_ISREG(st.st_mode))
		return 0;
	r = claim_read(vm_fd, name, &claim, NULL);
	(void)image_read(fd, format, file, &image, NULL);
	*ret_info = (struct volume_info){
		.vm = xstrdup(vm),
		.name = xstrdup(name),
		.path = xasprintf("%s/%s/%s", storage->dir, vm, file),
		.format = format,
		.size = image.size,
		.allocated = (uint64_t)st.st_blocks * 512,
		.claimed_by = r > 0   ? TAKE_PTR(claim.node)
			      : r < 0 ? xstrdup("unknown")
				      : NULL,
		.claim_epoch = claim.epoch,
	};
	return 1;
}

struct infos {
	struct volume_info *items;
	size_t count;
};

static void infos_done(struct infos *infos)
{
	for (size_t i = 0; i < infos->count; i++)
		volume_info_done(&infos->items[i]);
	free(infos->items);
}

static void dir_closep(DIR **dir)
{
	if (*dir)
		(void)closedir(*dir);
}

/* readdir() for a descriptor that stays the caller's, from the start. */
static DIR *dir_of(int fd)
{
	int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = own < 0 ? NULL : fdopendir(own);

	if (!dir && own >= 0)
		(void)close(own);
	return dir;
}

static int list_vm(struct storage *storage, const char *vm, struct infos *infos, struct error *err)
{
	CLEANUP(dir_closep) DIR *dir = NULL;
	CLEANUP_FD int vm_fd = -1;
	struct dirent *entry;
	int r;

	r = storage_vm_dir(storage, vm, false, &vm_fd, err);
	/* Removed meanwhile, or something that is no directory of ours. */
	if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP)
		return 0;
	if (r < 0)
		return r;
	dir = dir_of(vm_fd);
	if (!dir)
		return error_set(err, -errno, "cannot list volumes of VM %s: %m", vm);
	for (errno = 0; (entry = readdir(dir)); errno = 0) {
		char name[VOLUME_NAME_MAX + 1];
		enum volume_format format;
		struct volume_info info = { 0 };

		if (!volume_file_name(entry->d_name, name, &format))
			continue;
		r = info_fill(storage, vm, vm_fd, entry->d_name, name, format, &info, err);
		if (r < 0)
			return r;
		if (r == 0)
			continue;
		infos->items = xrealloc(infos->items, infos->count + 1, sizeof(info));
		infos->items[infos->count++] = info;
	}
	if (errno)
		return error_set(err, -errno, "cannot list volumes of VM %s: %m", vm);
	return 0;
}

static int info_compare(const void *a, const void *b)
{
	const struct volume_info *left = a;
	const struct volume_info *right = b;
	int r = strcmp(left->vm, right->vm);

	r = r ? r : strcmp(left->name, right->name);
	return r ? r : (int)left->format - (int)right->format;
}

int volume_list(struct storage *storage, struct volume_info **ret_infos, size_t *ret_count,
		struct error *err)
{
	CLEANUP(infos_done) struct infos infos = { 0 };
	CLEANUP(dir_closep) DIR *dir = dir_of(storage->dir_fd);
	struct dirent *entry;
	int r;

	if (!dir)
		return error_set(err, -errno, "cannot list '%s': %m", storage->dir);
	for (errno = 0; (entry = readdir(dir)); errno = 0) {
		if (storage_check_names(entry->d_name, "any", NULL) < 0)
			continue;
		r = list_vm(storage, entry->d_name, &infos, err);
		if (r < 0)
			return r;
	}
	if (errno)
		return error_set(err, -errno, "cannot list '%s': %m", storage->dir);
	if (infos.count > 1)
		qsort(infos.items, infos.count, sizeof(infos.items[0]), info_compare);
	*ret_infos = TAKE_PTR(infos.items);
	*ret_count = infos.count;
	infos.count = 0;
	return 0;
}

/* ---- removing ---- */

/* An overlay of another volume lies on this file. */
static int check_no_overlay(struct storage *storage, const char *path, struct error *err)
{
	CLEANUP(infos_done) struct infos infos = { 0 };
	int r;

	r = volume_list(storage, &infos.items, &infos.count, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < infos.count; i++) {
		CLEANUP(image_done) struct image image = { 0 };
		CLEANUP_FD int fd = -1;

		if (infos.items[i].format != VOLUME_QCOW2)
			continue;
		fd = open(infos.items[i].path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 && errno == ENOENT)
			continue;
		if (fd < 0)
			return error_set(err, -errno, "cannot tell whether '%s' lies on it: %m",
					 infos.items[i].path);
		r = image_read(fd, VOLUME_QCOW2, infos.items[i].path, &image, NULL);
		if (r == 0 && image.backing && !strcmp(image.backing, path))
			return error_refuse(err,
					    "volume '%s' of VM %s lies on it; remove that one "
					    "first",
					    infos.items[i].name, infos.items[i].vm);
	}
	return 0;
}

/* QEMU locks what it has open, whatever the claim says. */
static int check_not_open(int vm_fd, const char *file, const char *path, struct error *err)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	CLEANUP_FD int fd = openat(vm_fd, file, O_RDWR | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return error_set(err, -errno, "cannot open '%s': %m", path);
	if (fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK)
		return error_refuse(err, "a process has '%s' open; end it first", path);
	return 0;
}

/* 1: there was such a file. */
static int remove_file(struct storage *storage, int vm_fd, const char *vm, const char *name,
		       enum volume_format format, struct error *err)
{
	CLEANUP_FREE char *file = xasprintf("%s.%s", name, volume_format_name(format));
	CLEANUP_FREE char *path = xasprintf("%s/%s/%s", storage->dir, vm, file);
	int r;

	if (faccessat(vm_fd, file, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0
				       : error_set(err, -errno, "cannot look at '%s': %m", path);
	r = check_no_overlay(storage, path, err);
	if (r == 0)
		r = check_not_open(vm_fd, file, path, err);
	if (r < 0)
		return r;
	if (unlinkat(vm_fd, file, 0) < 0)
		return error_set(err, -errno, "cannot remove '%s': %m", path);
	return 1;
}

int volume_remove(struct storage *storage, const char *vm, const char *name, struct error *err)
{
	CLEANUP(volume_claim_done) struct volume_claim claim = { 0 };
	CLEANUP_FD int vm_fd = -1;
	int removed = 0;
	int r;

	r = storage_check_names(vm, name, err);
	if (r == 0)
		r = storage_vm_dir(storage, vm, false, &vm_fd, err);
	if (r == -ENOENT)
		return error_set_class(err, ERROR_REFUSED, -ENOENT,
				       "VM %s has no volume '%s'; 'drover volume ls' lists them",
				       vm, name);
	if (r == 0)
		r = claim_read(vm_fd, name, &claim, err);
	if (r < 0)
		return error_prefix(err, r, "volume '%s' of VM %s", name, vm);
	if (r > 0)
		return error_refuse(err,
				    "volume '%s' of VM %s is in use by node '%s'; stop the VM "
				    "first: drover stop %s",
				    name, vm, claim.node, vm);
	for (int format = 0; format < VOLUME_FORMATS; format++) {
		r = remove_file(storage, vm_fd, vm, name, (enum volume_format)format, err);
		if (r < 0)
			return error_prefix(err, r, "volume '%s' of VM %s", name, vm);
		removed += r;
	}
	if (!removed)
		return error_set_class(err, ERROR_REFUSED, -ENOENT,
				       "VM %s has no volume '%s'; 'drover volume ls' lists them",
				       vm, name);
	(void)fsync(vm_fd);
	(void)unlinkat(storage->dir_fd, vm, AT_REMOVEDIR); /* when it was the last */
	return 0;
}
