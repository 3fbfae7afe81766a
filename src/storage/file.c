/* SPDX-License-Identifier: Apache-2.0 */
/* The `file` driver: prepares one volume in steps.  A volume that is there already takes all steps
 * in one turn of the loop and starts no process; images are copied and made by `qemu-img` as a
 * child, beside, and renamed once they are whole. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "storage/internal.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/file.h"
#include "util/mem.h"
#include "util/spawn.h"

#define SECTOR UINT64_C(512)
#define NOBODY 65534 /* any kernel knows it, no configuration is needed */

/* Images as qemu-img is told of them: format and what lies below are not for the header to say. */
#define IMAGE_FILE(path) "\"file\": {\"driver\": \"file\", \"filename\": \"" path "\"}}"
#define IMAGE_RAW(path) "json:{\"driver\": \"raw\", " IMAGE_FILE(path)
#define IMAGE_QCOW2(path) "json:{\"driver\": \"qcow2\", \"backing\": null, " IMAGE_FILE(path)

struct volume_job {
	struct storage *storage;
	struct volume_job *previous, *next;
	struct volume_want want; /* its strings are ours */
	char *node;
	uint64_t epoch;
	uint64_t deadline;
	volume_prepared_fn reply;
	void *ctx;

	sd_event_source *start;
	struct tool *tool;
	const char *tool_purpose;
	size_t step;
	int vm_fd;
	char *file; /* "root.raw", as it is called when it is whole; NULL: want.path */
	char *part; /* ".root.part" while it is being made */
	char *path; /* absolute, of the former */
	char *note;
	struct volume_open open;
};

static struct volume_job *job_free(struct volume_job *job)
{
	if (job->previous)
		job->previous->next = job->next;
	else
		job->storage->jobs = job->next;
	if (job->next)
		job->next->previous = job->previous;
	tool_cancel(job->tool);
	if (job->part)
		(void)unlinkat(job->vm_fd, job->part, 0);
	if (job->vm_fd >= 0)
		(void)close(job->vm_fd);
	sd_event_source_disable_unref(job->start);
	volume_open_done(&job->open);
	free((char *)job->want.vm);
	free((char *)job->want.name);
	free((char *)job->want.source);
	free((char *)job->want.path);
	free(job->node);
	free(job->file);
	free(job->part);
	free(job->path);
	free(job->note);
	free(job);
	return NULL;
}

struct volume_job *volume_cancel(struct volume_job *job)
{
	return job ? job_free(job) : NULL;
}

/* ---- running qemu-img ---- */

static void job_advance(struct volume_job *job);
static void job_end(struct volume_job *job, int r, const struct error *err);

/* The last line that says something: qemu-img's own words. */
static int tool_words(const struct tool_result *result, const char *purpose, struct error *err)
{
	const char *text = result->err_text ? result->err_text : "";
	size_t end = strlen(text);
	size_t start;
	int code = strstr(text, "No space left on device") ? -ENOSPC : -EIO;

	while (end > 0 && strchr("\r\n ", text[end - 1]))
		end--;
	for (start = end; start > 0 && text[start - 1] != '\n'; start--)
		;
	if (start == end)
		return error_set(err, code, "%s: qemu-img ended with %d and said nothing", purpose,
				 result->code);
	return error_set(err, code, "%s: %.*s", purpose, (int)(end - start), text + start);
}

static void on_tool(void *ctx, int r, struct tool_result *result, const struct error *why)
{
	struct volume_job *job = ctx;
	struct error err = { 0 };

	job->tool = NULL;
	if (r == 0 && result->code == 0) {
		job_advance(job);
		return;
	}
	if (r == 0)
		r = tool_words(result, job->tool_purpose, &err);
	else {
		err = *why;
		(void)error_prefix(&err, r, "%s", job->tool_purpose);
	}
	job_end(job, r, &err);
}

/* 1: started, goes on in on_tool().  The images are there under the names of imagetool; the
 * descriptors are needed until this returns. */
static int job_run(struct volume_job *job, const char *purpose, const char *const *argv,
		   int source_fd, int target_fd, struct error *err)
{
	struct imagetool room = {
		.source_fd = source_fd,
		.target_fd = target_fd,
		.uid = job->want.uid ? job->want.uid : NOBODY,
	};
	const struct spawn what = {
		.argv = argv,
		.stdin_fd = -1,
		.stdout_fd = -1,
		.stderr_fd = -1,
		.die_with_parent = true,
		.prepare = imagetool_enter,
		.prepare_ctx = &room,
	};
	uint64_t now = clock_now();
	int r;

	if (now >= job->deadline)
		return error_set(err, -ETIMEDOUT, "%s: no time is left for it", purpose);
	job->tool_purpose = purpose;
	r = tool_start(job->storage->loop, &what, job->deadline - now, on_tool, job, &job->tool,
		       err);
	if (r < 0)
		return error_prefix(err, r, "%s (qemu-img is in the package qemu-utils)", purpose);
	return 1;
}

/* ---- the steps: 0 next, 1 a child is at work, negative: failed ---- */

static const char *job_target(const struct volume_job *job)
{
	return job->part ? job->part : job->file;
}

static char *job_target_path(const struct volume_job *job)
{
	return xasprintf("%s/%s/%s", job->storage->dir, job->want.vm, job_target(job));
}

static int volume_exists(int vm_fd, const char *name, enum volume_format format, struct error *err)
{
	CLEANUP_FREE char *file = xasprintf("%s.%s", name, volume_format_name(format));
	struct stat st;

	if (fstatat(vm_fd, file, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0
				       : error_set(err, -errno, "cannot look at '%s': %m", file);
	if (!S_ISREG(st.st_mode))
		return error_refuse(err,
				    "'%s' in the directory of volumes is no plain file; to use a "
				    "file elsewhere, write its `path` in the definition",
				    file);
	return 1;
}

/* Claim, and whether there is something to make. */
static int step_look(struct volume_job *job, struct error *err)
{
	const struct volume_want *want = &job->want;
	int r;

	r = storage_vm_dir(job->storage, want->vm, want->use != VOLUME_SHARED, &job->vm_fd, err);
	if (r == 0 && want->use == VOLUME_USE)
		r = claim_check(job->vm_fd, want->vm, want->name, job->epoch, job->node, err);
	if (r == 0 && want->use == VOLUME_ARRIVING)
		job->part = xstrdup(job->file);
	if (r < 0 || want->path || job->part)
		return r;
	for (int format = 0; format < VOLUME_FORMATS; format++) {
		r = volume_exists(job->vm_fd, want->name, (enum volume_format)format, err);
		if (r < 0)
			return r;
		if (r && format != (int)want->format)
			return error_refuse(err,
					    "volume '%s' is there as %s, the definition says %s; "
					    "change `format` back, or remove or convert it",
					    want->name,
					    volume_format_name((enum volume_format)format),
					    volume_format_name(want->format));
		if (r)
			return 0;
	}
	if (want->use == VOLUME_SHARED)
		return error_refuse(err,
				    "volume '%s' is not here, though this storage is said to be "
				    "shared ('storage.shared'): is it mounted?",
				    want->name);
	if (want->size == 0 && !want->source)
		return error_bad_data(err, "volume '%s' is not there yet and has no `size`",
				      want->name);
	job->part = xasprintf(".%s.part", want->name);
	return 0;
}

/* The file is made here, closed to others; qemu-img fills what it finds and keeps the mode. */
static int part_make(struct volume_job *job, int *ret_fd, struct error *err)
{
	CLEANUP_FD int fd = -1;

	(void)unlinkat(job->vm_fd, job->part, 0);
	fd = openat(job->vm_fd, job->part, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
		    0600);
	if (fd < 0)
		return error_set(err, -errno, "cannot make volume '%s' in '%s': %m", job->want.name,
				 job->storage->dir);
	if (!job->want.source && job->want.format == VOLUME_RAW &&
	    ftruncate(fd, (off_t)job->want.size) < 0)
		return error_set(err, -errno, "cannot make volume '%s' of %llu bytes: %m",
				 job->want.name, (unsigned long long)job->want.size);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* The operator's image may be anybody's download, and its header may name any file of this host as
 * what lies below: the guest would find that on its disk. */
static int source_check(const struct volume_want *want, const struct image *image,
			struct error *err)
{
	if (want->overlay || !image->backing)
		return 0;
	return error_refuse(err,
			    "source '%s' lies on another image, '%s', which a copy would take in; "
			    "if that is meant, make it one image first: qemu-img convert -O qcow2 "
			    "'%s' IMAGE.qcow2",
			    want->source, image->backing, want->source);
}

static int source_open(const struct volume_want *want, int *ret_fd, enum volume_format *ret_format,
		       uint64_t *ret_size, struct error *err)
{
	CLEANUP(image_done) struct image image = { 0 };
	CLEANUP_FD int fd = -1;
	int r;

	r = chain_open_file(want->source, false, &fd, err);
	if (r == 0)
		r = image_detect(fd, want->source, ret_format, err);
	if (r == 0)
		r = image_read(fd, *ret_format, want->source, &image, err);
	if (r < 0)
		return error_prefix(err, r, "source");
	r = source_check(want, &image, err);
	if (r < 0)
		return r;
	*ret_fd = TAKE_FD(fd);
	*ret_size = image.size;
	return 0;
}

/* -u: what lies below is written down and not looked at; chain.c will. */
static int make_overlay(struct volume_job *job, enum volume_format below, uint64_t below_size,
			int part_fd, struct error *err)
{
	const struct volume_want *want = &job->want;
	CLEANUP_FREE char *size = xasprintf(
		"%llu", (unsigned long long)(want->size > below_size ? want->size : below_size));

	return job_run(job, "make an overlay",
		       (const char *[]){ "qemu-img", "create", "-q", "-u", "-f",
					 volume_format_name(want->format), "-F",
					 volume_format_name(below), "-b", want->source,
					 IMAGETOOL_TARGET, size, NULL },
		       -1, part_fd, err);
}

static int make_empty(struct volume_job *job, int part_fd, struct error *err)
{
	CLEANUP_FREE char *size = xasprintf("%llu", (unsigned long long)job->want.size);

	return job_run(job, "make an empty qcow2 image",
		       (const char *[]){ "qemu-img", "create", "-q", "-f", "qcow2",
					 IMAGETOOL_TARGET, size, NULL },
		       -1, part_fd, err);
}

static int make_copy(struct volume_job *job, enum volume_format from, int source_fd, int part_fd,
		     struct error *err)
{
	const char *source =
		from == VOLUME_QCOW2 ? IMAGE_QCOW2(IMAGETOOL_SOURCE) : IMAGE_RAW(IMAGETOOL_SOURCE);

	/* writeback, since the default for a target ("unsafe") leaves the flushing to us, and that
	 * would hold up the loop. */
	return job_run(job, "copy the source image",
		       (const char *[]){ "qemu-img", "convert", "-q", "-t", "writeback", "-O",
					 volume_format_name(job->want.format), source,
					 IMAGETOOL_TARGET, NULL },
		       source_fd, part_fd, err);
}

static int step_make(struct volume_job *job, struct error *err)
{
	const struct volume_want *want = &job->want;
	CLEANUP_FD int source_fd = -1;
	CLEANUP_FD int part_fd = -1;
	enum volume_format from = VOLUME_RAW;
	uint64_t source_size = 0;
	int r = 0;

	if (!job->part)
		return 0;
	if (want->source)
		r = source_open(want, &source_fd, &from, &source_size, err);
	if (r == 0)
		r = part_make(job, &part_fd, err);
	if (r < 0)
		return r;
	if (want->overlay)
		return make_overlay(job, from, source_size, part_fd, err);
	if (want->source)
		return make_copy(job, from, source_fd, part_fd, err);
	return want->format == VOLUME_RAW ? 0 : make_empty(job, part_fd, err);
}

static char *size_text(uint64_t bytes)
{
	if (bytes % (UINT64_C(1) << 30) == 0)
		return xasprintf("%llu GiB", (unsigned long long)(bytes >> 30));
	return xasprintf("%.1f MiB", (double)bytes / (1 << 20));
}

static void job_note(struct volume_job *job, uint64_t is, const char *what)
{
	CLEANUP_FREE char *is_text = size_text(is);
	CLEANUP_FREE char *asked_text = size_text(job->want.size);

	free(job->note);
	job->note = xasprintf("volume '%s' has %s, the definition asks for %s: %s", job->want.name,
			      is_text, asked_text, what);
}

static int target_open(const struct volume_job *job, bool writable, int *ret_fd, struct error *err)
{
	int fd = openat(job->vm_fd, job_target(job),
			(writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return error_set(err, -errno, "cannot open '%s/%s/%s': %m", job->storage->dir,
				 job->want.vm, job_target(job));
	*ret_fd = fd;
	return 0;
}

static int step_grow(struct volume_job *job, struct error *err)
{
	const struct volume_want *want = &job->want;
	CLEANUP(image_done) struct image image = { 0 };
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *size = NULL;
	CLEANUP_FD int fd = -1;
	int r;

	if (!job->file || want->use == VOLUME_SHARED)
		return 0;
	/* What a guest may only read is grown while it is being made, or never. */
	r = target_open(job, !want->read_only || job->part, &fd, err);
	if (r < 0)
		return r;
	path = job_target_path(job);
	r = image_read(fd, want->format, path, &image, err);
	if (r < 0)
		return r;
	if (want->size > 0 && image.size > want->size)
		job_note(job, image.size, "it stays larger, for volumes never shrink");
	if (image.size >= want->size || (want->read_only && !job->part))
		return 0;
	if (want->format == VOLUME_RAW) {
		if (ftruncate(fd, (off_t)want->size) < 0)
			return error_set(err, -errno, "cannot grow volume '%s': %m", want->name);
		return 0;
	}
	/* The guest's QEMU could write this header: what it names is not to be opened. */
	r = chain_check_top(want, path, &image, err);
	if (r < 0)
		return r;
	size = xasprintf("%llu", (unsigned long long)want->size);
	return job_run(job, "grow the volume",
		       (const char *[]){ "qemu-img", "resize", "-q", IMAGE_QCOW2(IMAGETOOL_TARGET),
					 size, NULL },
		       -1, fd, err);
}

/* Whole from here on.  NFS and some others know no "unless it exists". */
static int step_publish(struct volume_job *job, struct error *err)
{
	CLEANUP_FD int fd = -1;
	int r;

	if (!job->part)
		return 0;
	r = target_open(job, true, &fd, err);
	if (r < 0)
		return r;
	if (fsync(fd) < 0)
		return error_set(err, -errno, "cannot write volume '%s': %m", job->want.name);
	if (job->want.use == VOLUME_ARRIVING) {
		free(TAKE_PTR(job->part));
		return 0;
	}
	r = renameat2(job->vm_fd, job->part, job->vm_fd, job->file, RENAME_NOREPLACE);
	if (r < 0 && errno == EINVAL && faccessat(job->vm_fd, job->file, F_OK, 0) < 0)
		r = renameat(job->vm_fd, job->part, job->vm_fd, job->file);
	if (r < 0)
		return error_set(err, -errno, "cannot name volume '%s': %m", job->want.name);
	free(TAKE_PTR(job->part));
	if (fsync(job->vm_fd) < 0 || fsync(job->storage->dir_fd) < 0)
		return error_set(err, -errno, "cannot write the directory of volumes '%s': %m",
				 job->storage->dir);
	return 0;
}

static int step_claim(struct volume_job *job, struct error *err)
{
	if (job->want.use != VOLUME_USE)
		return 0;
	return claim_write(job->vm_fd, job->want.vm, job->want.name, job->epoch, job->node, err);
}

static int step_open(struct volume_job *job, struct error *err)
{
	const struct volume_want *want = &job->want;
	int fd = -1;
	int r;

	r = want->path ? chain_open_file(want->path, !want->read_only, &fd, err)
		       : target_open(job, !want->read_only, &fd, err);
	if (r == 0)
		r = chain_open(want, fd, want->path ? want->path : job->path, &job->open, err);
	if (r == 0 && job->open.size < want->size && !job->note)
		job_note(job, job->open.size,
			 want->path ? "what `path` names is used as it is"
				    : "it is read-only and stays as it is");
	return r;
}

static int (*const steps[])(struct volume_job *job, struct error *err) = {
	step_look, step_make, step_grow, step_publish, step_open, step_claim,
};

static void job_advance(struct volume_job *job)
{
	struct error err = { 0 };

	while (job->step < ARRAY_SIZE(steps)) {
		int r = steps[job->step++](job, &err);

		if (r > 0)
			return;
		if (r < 0) {
			job_end(job, r, &err);
			return;
		}
	}
	job_end(job, 0, NULL);
}

/* The job is gone before its owner hears of it, who may close the storage from inside. */
static void job_end(struct volume_job *job, int r, const struct error *err)
{
	volume_prepared_fn reply = job->reply;
	void *ctx = job->ctx;
	CLEANUP_FREE char *note = TAKE_PTR(job->note);
	struct volume_open open = { 0 };
	struct error why = { 0 };

	if (r == 0) {
		open = job->open;
		job->open = (struct volume_open){ 0 };
	} else {
		why = *err;
		(void)error_prefix(&why, r, "volume '%s' of VM %s", job->want.name, job->want.vm);
	}
	job_free(job);
	reply(ctx, r, r < 0 ? NULL : &open, note, r < 0 ? &why : NULL);
}

static int on_start(sd_event_source *source, void *ctx)
{
	job_advance(ctx);
	return 0;
}

static int want_check(struct storage *storage, const struct volume_want *want, struct error *err)
{
	int r = storage_check_names(want->vm, want->name, err);

	if (r < 0)
		return r;
	if ((want->path && want->path[0] != '/') || (want->source && want->source[0] != '/'))
		return error_bad_data(err, "volume '%s': '%s' is not an absolute path", want->name,
				      want->path && want->path[0] != '/' ? want->path
									 : want->source);
	if (want->use == VOLUME_ARRIVING && (want->path || want->source || want->size == 0))
		return error_refuse(err,
				    "volume '%s' cannot come here: it needs a `size`, and neither "
				    "`path` nor an image below it",
				    want->name);
	if (want->overlay && (!want->source || want->format != VOLUME_QCOW2))
		return error_bad_data(err,
				      "volume '%s': an overlay needs a `source` and "
				      "`format: qcow2`",
				      want->name);
	if (want->size > INT64_MAX - SECTOR)
		return error_bad_data(err, "volume '%s': %llu bytes are too many", want->name,
				      (unsigned long long)want->size);
	for (struct volume_job *job = storage->jobs; job; job = job->next)
		if (!strcmp(job->want.vm, want->vm) && !strcmp(job->want.name, want->name))
			return error_try_again(err,
					       "volume '%s' of VM %s is being prepared already",
					       want->name, want->vm);
	return 0;
}

int volume_prepare(struct storage *storage, const struct volume_want *want, uint64_t epoch,
		   const char *node, uint64_t timeout_usec, volume_prepared_fn reply, void *ctx,
		   struct volume_job **ret_job, struct error *err)
{
	struct volume_job *job;
	int r;

	r = want_check(storage, want, err);
	if (r < 0)
		return r;
	job = xcalloc(1, sizeof(*job));
	*job = (struct volume_job){
		.storage = storage,
		.next = storage->jobs,
		.want = *want,
		.node = xstrdup(node),
		.epoch = epoch,
		.deadline = clock_now() + timeout_usec,
		.reply = reply,
		.ctx = ctx,
		.vm_fd = -1,
	};
	job->want.vm = xstrdup(want->vm);
	job->want.name = xstrdup(want->name);
	job->want.source = xstrdup_or_null(want->source);
	job->want.path = xstrdup_or_null(want->path);
	/* A disk is made of sectors. */
	job->want.size = (want->size + SECTOR - 1) / SECTOR * SECTOR;
	if (!want->path) {
		job->file =
			want->use == VOLUME_ARRIVING
				? arrival_file(want->name, epoch, want->format)
				: xasprintf("%s.%s", want->name, volume_format_name(want->format));
		job->path = xasprintf("%s/%s/%s", storage->dir, want->vm, job->file);
	}
	if (storage->jobs)
		storage->jobs->previous = job;
	storage->jobs = job;
	r = sd_event_add_defer(storage->loop, &job->start, on_start, job);
	if (r < 0) {
		job_free(job);
		return error_set(err, r, "cannot enter the event loop: %m");
	}
	*ret_job = job;
	return 0;
}
