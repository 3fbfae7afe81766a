/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/mirror.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "keeper/copy.h"
#include "keeper/dial.h"
#include "keeper/keeper.h"
#include "keeper/monitor.h"
#include "keeper/psk.h"
#include "keeper/script.h"
#include "model/config.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/tcp.h"

struct disk {
	char name[64];
	int fd; /* ours of QEMU's connection; -1 */
	bool started, ready, ended;
};

struct mirror {
	struct keeper *keeper;
	char address[128];
	struct disk disks[DEFINITION_VOLUMES_MAX];
	size_t count, at;
	uint64_t epoch; /* of the move */
	uint64_t speed; /* bytes a second; 0: without a limit */
	struct dial *dial;
	struct script *script;
	mirror_fn done;
	void *ctx;
	bool ending, over; /* `done` was called for the last time */
};

/* Of QEMU's job, its node and its descriptor.  With the epoch, since what is called off may linger
 * while the next try begins; a name of a node has at most 31 characters. */
static char *job_name(const struct mirror *mirror, const struct disk *disk)
{
	return xasprintf("m%" PRIu64 "-%zu", mirror->epoch, (size_t)(disk - mirror->disks));
}

static void tell(struct mirror *mirror, int r, const struct error *err)
{
	if (mirror->over)
		return;
	mirror->over = r < 0;
	mirror->done(mirror->ctx, r, err);
}

static void fail(struct mirror *mirror, int r, const char *what, const char *why)
{
	struct error err = { 0 };

	tell(mirror, error_set(&err, r, "mirror of volume '%s': %s", what, why), &err);
}

static bool all(const struct mirror *mirror, bool ended)
{
	for (size_t i = 0; i < mirror->count; i++)
		if (!(ended ? mirror->disks[i].ended : mirror->disks[i].ready))
			return false;
	return true;
}

/* A small disk is ready before QEMU has answered that its job began. */
static void look_ready(struct mirror *mirror)
{
	if (!mirror->ending && mirror->at == mirror->count && all(mirror, false))
		tell(mirror, 0, NULL);
}

static void next_disk(struct mirror *mirror);

static void on_started(void *ctx, int r, const struct error *err)
{
	struct mirror *mirror = ctx;

	mirror->script = NULL;
	if (r < 0) {
		fail(mirror, r, mirror->disks[mirror->at].name, err->text);
		return;
	}
	if (++mirror->at < mirror->count)
		next_disk(mirror);
	else
		look_ready(mirror);
}

static void on_connected(void *ctx, int fd, const struct error *err)
{
	struct mirror *mirror = ctx;
	struct disk *disk = &mirror->disks[mirror->at];
	CLEANUP_FREE char *job = job_name(mirror, disk);
	CLEANUP_FREE char *device = xasprintf("vol-%s", disk->name);

	mirror->dial = NULL;
	if (fd < 0) {
		fail(mirror, -EIO, disk->name, err->text);
		return;
	}
	/* `discard`: else what is empty counts as sent, for the limit of bandwidth.
	 * Not `write-blocking`: QEMU 7.2 may abort, and the guest with it, when the target dies
	 * during a write of the guest's that goes to both sides (docs/QEMU.md). */
	disk->started = true;
	disk->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	tcp_give_up_after(fd, mirror->keeper->config->timers.migration_stall);
	mirror->script = script_new(mirror->keeper);
	script_add_fd(mirror->script, job, fd);
	script_add(mirror->script, "blockdev-add",
		   json_pack("{s:s, s:s, s:s, s:{s:s, s:s}, s:s, s:s}", "driver", "nbd",
			     "node-name", job, "discard", "unmap", "server", "type", "fd", "str",
			     job, "export", disk->name, "tls-creds", PSK_ID));
	script_add(mirror->script, "blockdev-mirror",
		   json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:b}", "job-id", job, "device", device,
			     "target", job, "sync", "full", "copy-mode", "background", "speed",
			     (json_int_t)(mirror->speed / mirror->count), "auto-dismiss", 1));
	script_run(mirror->script, on_started, mirror);
}

static void next_disk(struct mirror *mirror)
{
	struct error err = { 0 };

	if (dial_start(mirror->keeper->loop, mirror->address, "",
		       mirror->keeper->config->timers.migration_stall, on_connected, mirror,
		       &mirror->dial, &err) < 0)
		fail(mirror, -EIO, mirror->disks[mirror->at].name, err.text);
}

static int take_disks(struct mirror *mirror, json_t *disks, struct error *err)
{
	json_t *volumes = json_object_get(disks, "volumes"), *volume;
	size_t i;

	if (json_array_size(volumes) == 0 || json_array_size(volumes) > DEFINITION_VOLUMES_MAX)
		return error_bad_data(err, "the target names no disks that it can take");
	json_array_foreach(volumes, i, volume)
	{
		const char *name = json_string_value(volume);

		if (!name || strlen(name) >= sizeof(mirror->disks[i].name))
			return error_bad_data(err, "the target names a disk that is none");
		mirror->disks[i].fd = -1;
		(void)snprintf(mirror->disks[i].name, sizeof(mirror->disks[i].name), "%s", name);
		mirror->count++;
	}
	return 0;
}

int mirror_begin(struct keeper *keeper, const char *host, json_t *disks, uint64_t speed,
		 mirror_fn ready, void *ctx, struct mirror **ret, struct error *err)
{
	struct mirror *mirror = xcalloc(1, sizeof(*mirror));
	int r;

	*mirror = (struct mirror){ .keeper = keeper,
				   .epoch = keeper->copy->attempt,
				   .speed = speed,
				   .done = ready,
				   .ctx = ctx };
	(void)snprintf(mirror->address, sizeof(mirror->address), "%.100s:%d", host,
		       (int)json_int_or(disks, "port", 0));
	r = take_disks(mirror, disks, err);
	if (r < 0) {
		free(mirror);
		return r;
	}
	*ret = mirror;
	next_disk(mirror);
	return 0;
}

static void on_cancelled(void *ctx, int r, const struct error *err)
{
	struct mirror *mirror = ctx;

	mirror->script = NULL;
	if (r < 0)
		tell(mirror, r, err);
}

void mirror_end(struct mirror *mirror, mirror_fn ended)
{
	mirror->ending = true;
	mirror->done = ended;
	checkpoint("keeper.source.mirror-end");
	mirror->script = script_new(mirror->keeper);
	/* The guest stands still.  A ready job that is cancelled sends what is left first and ends
	 * with both sides equal (QAPI block-job-cancel). */
	for (size_t i = 0; i < mirror->count; i++) {
		CLEANUP_FREE char *job = job_name(mirror, &mirror->disks[i]);

		if (mirror->speed)
			script_add(mirror->script, "block-job-set-speed",
				   json_pack("{s:s, s:i}", "device", job, "speed", 0));
		script_add(mirror->script, "block-job-cancel", json_pack("{s:s}", "device", job));
	}
	script_run(mirror->script, on_cancelled, mirror);
}

/* QEMU waits without end for a target that says nothing, with its monitor and its guest: when it is
 * told to call a mirror off, and in `blockdev-del` (docs/QEMU.md).  Nothing is left to wait for
 * then. */
void mirror_shut(struct mirror *mirror)
{
	for (size_t i = 0; mirror && i < mirror->count; i++) {
		if (mirror->disks[i].fd >= 0)
			(void)shutdown(mirror->disks[i].fd, SHUT_RDWR);
		cleanup_closep(&mirror->disks[i].fd);
		mirror->disks[i].fd = -1;
	}
}

static void on_dropped(void *ctx, int r, const struct error *err)
{
	struct mirror *mirror = ctx;

	mirror->script = NULL;
	mirror_shut(mirror);
	tell(mirror, r, err);
}

/* Its connections have to be closed, or the target's server could not end. */
static void drop_nodes(struct mirror *mirror)
{
	script_cancel(mirror->script);
	mirror->script = script_new(mirror->keeper);
	for (size_t i = 0; i < mirror->count; i++) {
		CLEANUP_FREE char *job = job_name(mirror, &mirror->disks[i]);

		script_add(mirror->script, "blockdev-del", json_pack("{s:s}", "node-name", job));
	}
	script_run(mirror->script, on_dropped, mirror);
}

static struct disk *disk_of(struct mirror *mirror, const char *job)
{
	for (size_t i = 0; i < mirror->count; i++) {
		CLEANUP_FREE char *name = job_name(mirror, &mirror->disks[i]);

		if (strcmp(name, job) == 0)
			return &mirror->disks[i];
	}
	return NULL;
}

void mirror_progress(struct mirror *mirror, json_t *jobs, uint64_t *ret_done, uint64_t *ret_total)
{
	json_t *job;
	size_t i;

	*ret_done = *ret_total = 0;
	json_array_foreach(jobs, i, job)
	{
		if (!disk_of(mirror, json_string_or(job, "device", "")))
			continue;
		*ret_done += (uint64_t)json_int_or(job, "offset", 0);
		*ret_total += (uint64_t)json_int_or(job, "len", 0);
	}
}

void mirror_event(struct mirror *mirror, const char *name, json_t *data)
{
	struct disk *disk = mirror ? disk_of(mirror, json_string_or(data, "device", "")) : NULL;
	const char *error = json_string_or(data, "error", NULL);

	if (!disk)
		return;
	if (strcmp(name, "BLOCK_JOB_READY") == 0) {
		disk->ready = true;
		look_ready(mirror);
	} else if (strcmp(name, "BLOCK_JOB_COMPLETED") == 0 ||
		   strcmp(name, "BLOCK_JOB_CANCELLED") == 0) {
		disk->ended = true;
		if (error || !mirror->ending)
			fail(mirror, -EIO, disk->name, error ? error : "it ended too early");
		else if (all(mirror, true))
			drop_nodes(mirror);
	}
}

static void on_called_off(void *ctx, int r, const struct error *err)
{
	if (r < 0)
		log_debug("calling a mirror off: %s", err->text);
}

static void on_old_jobs(void *ctx, int r, json_t *value, const struct error *err)
{
	struct keeper *keeper = ctx;
	struct script *script;
	json_t *job;
	size_t i;

	if (r < 0)
		return;
	script = script_new(keeper);
	json_array_foreach(value, i, job)
	{
		const char *name = json_string_or(job, "device", "");

		if (strcmp(json_string_or(job, "type", ""), "mirror") != 0 ||
		    i >= DEFINITION_VOLUMES_MAX)
			continue;
		script_add_optional(script, "block-job-cancel",
				    json_pack("{s:s, s:b}", "device", name, "force", 1));
	}
	script_run(script, on_called_off, NULL);
}

/* A node is not deleted while its job ends, and one whose target is gone makes QEMU's own flush
 * fail, and each migration with it. */
static void on_old_nodes(void *ctx, int r, json_t *value, const struct error *err)
{
	struct keeper *keeper = ctx;
	size_t i, count = 0;
	struct script *script;
	json_t *node;

	if (r < 0)
		return;
	script = script_new(keeper);
	json_array_foreach(value, i, node)
	{
		const char *name = json_string_or(node, "node-name", "");

		if (strcmp(json_string_or(node, "drv", ""), "nbd") != 0 || name[0] != 'm' ||
		    count++ >= DEFINITION_VOLUMES_MAX)
			continue;
		script_add_optional(script, "blockdev-del", json_pack("{s:s}", "node-name", name));
	}
	script_run(script, on_called_off, NULL);
}

void mirror_call_off_old(struct keeper *keeper)
{
	json_auto_t *flat = json_pack("{s:b}", "flat", 1);

	if (!monitor_answers(keeper->monitor))
		return;
	(void)monitor_call(keeper->monitor, "query-block-jobs", NULL, on_old_jobs, keeper, NULL);
	(void)monitor_call(keeper->monitor, "query-named-block-nodes", flat, on_old_nodes, keeper,
			   NULL);
}

struct mirror *mirror_free(struct mirror *mirror)
{
	struct script *script;

	if (!mirror)
		return NULL;
	dial_cancel(mirror->dial);
	script_cancel(mirror->script);
	mirror_shut(mirror);
	if (monitor_answers(mirror->keeper->monitor)) {
		script = script_new(mirror->keeper);
		for (size_t i = 0; i < mirror->count; i++) {
			CLEANUP_FREE char *job = job_name(mirror, &mirror->disks[i]);

			if (!mirror->disks[i].started)
				continue;
			if (!mirror->disks[i].ended)
				script_add_optional(
					script, "block-job-cancel",
					json_pack("{s:s, s:b}", "device", job, "force", 1));
			script_add_optional(script, "blockdev-del",
					    json_pack("{s:s}", "node-name", job));
		}
		script_run(script, on_called_off, NULL);
	}
	free(mirror);
	return NULL;
}
