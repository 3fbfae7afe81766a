/* SPDX-License-Identifier: Apache-2.0 */
/* Opens a volume with all that lies below it, top first.  QEMU gets descriptors and formats and
 * never looks at a file name in a header; so all that matters is decided here: the top must lie on
 * exactly what the definition says.  What the operator's own source image lies on may be further
 * files of the same directory, with a written-down format. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "storage/internal.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"

void volume_open_done(struct volume_open *open)
{
	for (size_t i = 0; i < open->n_layers; i++) {
		if (open->layers[i].fd >= 0)
			(void)close(open->layers[i].fd);
		free(open->layers[i].path);
	}
	*open = (struct volume_open){ 0 };
}

void volume_open_direct(const struct volume_open *open)
{
	for (size_t i = 0; i < open->n_layers; i++) {
		int flags = fcntl(open->layers[i].fd, F_GETFL);

		if (flags >= 0)
			(void)fcntl(open->layers[i].fd, F_SETFL, flags | O_DIRECT);
	}
}

int chain_open_file(const char *path, bool writable, int *ret_fd, struct error *err)
{
	CLEANUP_FD int fd = -1;
	struct stat st;

	/* A fifo or a tape would block in open(). */
	if (stat(path, &st) < 0)
		return error_set(err, -errno, "cannot open '%s': %m", path);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return error_bad_data(err, "'%s' is neither a file nor a block device", path);
	fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return error_set(err, -errno, "cannot open '%s': %m", path);
	if (fstat(fd, &st) < 0 || (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)))
		return error_bad_data(err, "'%s' is neither a file nor a block device", path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int chain_add(struct volume_open *open, int fd, enum volume_format format, const char *path,
		     struct error *err)
{
	if (open->n_layers == VOLUME_LAYERS_MAX) {
		(void)close(fd);
		return error_refuse(err,
				    "'%s' lies on more than %d images; flatten it with "
				    "'qemu-img rebase' or 'qemu-img convert'",
				    open->layers[0].path, VOLUME_LAYERS_MAX - 1);
	}
	open->layers[open->n_layers++] = (struct volume_layer){
		.fd = fd,
		.format = format,
		.path = xstrdup(path),
	};
	return 0;
}

int chain_check_top(const struct volume_want *want, const char *path, const struct image *image,
		    struct error *err)
{
	const char *asked = want->overlay ? want->source : NULL;

	if (!asked && image->backing)
		return error_refuse(err,
				    "'%s' names '%s' as the image below it, but the definition of "
				    "volume '%s' asks for none; if that is meant, write `source` "
				    "and `overlay: true`",
				    path, image->backing, want->name);
	if (asked && !image->backing)
		return error_refuse(err,
				    "'%s' lies on no image, but the definition of volume '%s' asks "
				    "for an overlay of '%s'; remove `overlay` and `source`, or "
				    "the volume",
				    path, want->name, asked);
	if (asked && strcmp(asked, image->backing) != 0)
		return error_refuse(err,
				    "'%s' lies on '%s', but the definition of volume '%s' says "
				    "'%s'; put the former back, or move the volume with "
				    "'qemu-img rebase'",
				    path, image->backing, want->name, asked);
	return 0;
}

/* The name of what `image` lies on, seen from the directory of `path`.  An operator's image may be
 * anybody's download: were /etc/shadow the name in its header, the guest would read that.  So what
 * an image lies on has to be in its own directory or below. */
static int below_name(const char *path, size_t dir_length, const struct image *image,
		      const char **ret_name, struct error *err)
{
	const char *name = image->backing;
	const char *colon = strchr(name, ':');

	if (image->backing_format < 0)
		return error_refuse(err,
				    "image '%s' does not say in which format '%s' below it is; "
				    "write it down: qemu-img rebase -u -F FORMAT -b '%s' '%s'",
				    path, name, name, path);
	/* "json:", "nbd:" and the like: a colon before any slash. */
	if (colon && !memchr(name, '/', (size_t)(colon - name)))
		return error_refuse(err, "image '%s' lies on '%s', which is not a file", path,
				    name);
	if (strncmp(name, path, dir_length) == 0)
		name += dir_length;
	*ret_name = name;
	return 0;
}

/* Opens what `image` lies on; a relative name counts from the image, as for QEMU. */
static int below_open(const char *path, const struct image *image, int *ret_fd, char **ret_path,
		      struct error *err)
{
	const struct open_how how = { .flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
				      .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };
	size_t dir_length = (size_t)(strrchr(path, '/') - path) + 1;
	CLEANUP_FREE char *dir_path = xasprintf("%.*s", (int)dir_length, path);
	CLEANUP_FD int dir = open(dir_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	CLEANUP_FD int fd = -1;
	const char *name = NULL;
	struct stat st;
	int r;

	r = below_name(path, dir_length, image, &name, err);
	if (r < 0)
		return r;
	if (dir < 0)
		return error_set(err, -errno, "cannot open '%s': %m", dir_path);
	fd = (int)syscall(SYS_openat2, dir, name, &how, sizeof(how));
	if (fd < 0 && errno == EXDEV)
		return error_refuse(err,
				    "image '%s' lies on '%s', which is outside of its directory; "
				    "put both into one, or make it one image: qemu-img convert -O "
				    "qcow2 '%s' IMAGE.qcow2",
				    path, image->backing, path);
	if (fd < 0)
		return error_set(err, -errno, "cannot open '%s', on which '%s' lies: %m",
				 image->backing, path);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return error_bad_data(err, "'%s', on which '%s' lies, is not a file",
				      image->backing, path);
	*ret_fd = TAKE_FD(fd);
	*ret_path = xasprintf("%s%s", dir_path, name);
	return 0;
}

/* Takes `fd`. */
static int source_add(struct volume_open *open, int fd, const char *path, int format,
		      struct image *ret_image, struct error *err)
{
	CLEANUP_FD int own = fd;
	enum volume_format found;
	int r;

	if (format < 0) {
		r = image_detect(fd, path, &found, err);
		if (r < 0)
			return r;
		format = (int)found;
	}
	r = image_read(fd, (enum volume_format)format, path, ret_image, err);
	if (r < 0)
		return r;
	return chain_add(open, TAKE_FD(own), (enum volume_format)format, path, err);
}

static int sources_add(struct volume_open *open, const char *source, int recorded,
		       struct error *err)
{
	CLEANUP(image_done) struct image image = { 0 };
	CLEANUP_FREE char *path = xstrdup(source);
	int fd = -1;
	int r;

	/* The definition names the source, so its own first bytes tell the format; the top's word
	 * is only compared, for a guest that took QEMU over can write it. */
	r = chain_open_file(path, false, &fd, err);
	if (r == 0)
		r = source_add(open, fd, path, -1, &image, err);
	if (r < 0)
		return error_prefix(err, r, "image below '%s'", open->layers[0].path);
	if (recorded >= 0 && (int)open->layers[1].format != recorded)
		return error_refuse(err,
				    "'%s' was made on a %s image, but '%s' is %s now; put the "
				    "image back that it was made on",
				    open->layers[0].path, volume_format_name(recorded), source,
				    volume_format_name(open->layers[1].format));
	while (image.backing) {
		CLEANUP_FREE char *below = NULL;
		int format = image.backing_format;

		r = below_open(path, &image, &fd, &below, err);
		if (r < 0)
			return r;
		image_done(&image);
		free(path);
		path = TAKE_PTR(below);
		r = source_add(open, fd, path, format, &image, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int chain_open(const struct volume_want *want, int top, const char *top_path,
	       struct volume_open *ret_open, struct error *err)
{
	CLEANUP(volume_open_done) struct volume_open open = { 0 };
	CLEANUP(image_done) struct image image = { 0 };
	int r;

	r = chain_add(&open, top, want->format, top_path, err);
	if (r < 0)
		return r;
	r = image_read(top, want->format, top_path, &image, err);
	if (r < 0)
		return r;
	open.size = image.size;
	if (want->format == VOLUME_QCOW2) {
		r = chain_check_top(want, top_path, &image, err);
		if (r < 0)
			return r;
	}
	if (image.backing) {
		r = sources_add(&open, want->source, image.backing_format, err);
		if (r < 0)
			return r;
	}
	*ret_open = open;
	open = (struct volume_open){ 0 };
	return 0;
}
