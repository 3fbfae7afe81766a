/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "keeper/agent.h"
#include "keeper/keeper.h"
#include "keeper/lease.h"
#include "keeper/link.h"
#include "keeper/migration.h"
#include "keeper/monitor.h"
#include "keeper/report.h"
#include "keeper/start.h"
#include "keeper/stop.h"
#include "model/config.h"
#include "qemu/hardware.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

#define END_SIZE 160 /* words about how a copy ended */
#define COPY_FILE "copy.json"

void copy_token(const struct keeper *keeper, const char *uuid, uint64_t epoch,
		char token[PROCESS_TOKEN_SIZE])
{
	(void)snprintf(token, PROCESS_TOKEN_SIZE, "drover:%s:%s:%" PRIu64, keeper->root_id, uuid,
		       epoch);
}

struct copy *copy_free(struct copy *copy)
{
	if (!copy)
		return NULL;
	sd_event_source_disable_unref(copy->exit_source);
	if (copy->pidfd >= 0)
		(void)close(copy->pidfd);
	free(copy);
	return NULL;
}

int copy_save(const struct keeper *keeper, const struct copy *copy, struct error *err)
{
	json_auto_t *value = json_build(
		err,
		"{s:i, s:s, s:I, s:I, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:b, s:b, "
		"s:b, s:b, s:b, s:s, s:b, s:I, s:b, s:I}",
		"v", 1, "vm", keeper->name, "pid", (json_int_t)copy->id.pid, "start_time",
		(json_int_t)copy->id.start_time, "boot_id", copy->id.boot_id, "token",
		copy->id.token, "epoch", (json_int_t)copy->epoch, "generation",
		(json_int_t)copy->generation, "restarts", (json_int_t)copy->restarts,
		"started_usec", (json_int_t)copy->started, "memory_mib",
		(json_int_t)copy->memory_mib, "uid", (json_int_t)copy->uid, "ran", (int)copy->ran,
		"paused", (int)copy->paused, "powered_off", (int)copy->powered_off, "panicked",
		(int)copy->panicked, "end_ordered", (int)copy->end_ordered, "lease_paused",
		(int)copy->lease_paused, "held", (int)copy->held, "lease",
		lease_policy_name(copy->lease), "incoming", (int)copy->incoming, "attempt",
		(json_int_t)copy->attempt, "still", (int)copy->still, "claimed",
		(json_int_t)keeper->claimed);

	if (!value)
		return -EINVAL;
	return json_write_file(keeper->run_fd, COPY_FILE, value, 0600, err);
}

void copy_note(struct keeper *keeper, bool *what)
{
	struct error err = { 0 };

	if (*what)
		return;
	*what = true;
	if (copy_save(keeper, keeper->copy, &err) < 0)
		log_warning("%s; the next keeper would not know", err.text);
}

static struct copy *copy_parse(const json_t *value)
{
	struct copy *copy = xcalloc(1, sizeof(*copy));

	copy->pidfd = -1;
	copy->id.pid = (pid_t)json_int_or(value, "pid", 0);
	copy->id.start_time = (uint64_t)json_int_or(value, "start_time", 0);
	(void)snprintf(copy->id.boot_id, sizeof(copy->id.boot_id), "%s",
		       json_string_or(value, "boot_id", ""));
	(void)snprintf(copy->id.token, sizeof(copy->id.token), "%s",
		       json_string_or(value, "token", ""));
	copy->epoch = (uint64_t)json_int_or(value, "epoch", 0);
	copy->generation = (uint64_t)json_int_or(value, "generation", 0);
	copy->restarts = (uint64_t)json_int_or(value, "restarts", 0);
	copy->started = (uint64_t)json_int_or(value, "started_usec", 0);
	copy->memory_mib = (uint64_t)json_int_or(value, "memory_mib", 0);
	copy->uid = (uid_t)json_int_or(value, "uid", 0);
	copy->ran = json_bool_or(value, "ran", false);
	copy->paused = json_bool_or(value, "paused", false);
	copy->lease_paused = json_bool_or(value, "lease_paused", false);
	copy->held = json_bool_or(value, "held", false);
	copy->lease = lease_policy_of(json_string_or(value, "lease", NULL));
	copy->powered_off = json_bool_or(value, "powered_off", false);
	copy->panicked = json_bool_or(value, "panicked", false);
	copy->end_ordered = json_bool_or(value, "end_ordered", false);
	copy->incoming = json_bool_or(value, "incoming", false);
	copy->attempt = (uint64_t)json_int_or(value, "attempt", 0);
	copy->still = json_bool_or(value, "still", false);
	return copy;
}

/* How it ended, as far as it can be told: only a parent learns an exit code, and only from a copy
 * that it still holds. */
static json_t *describe_exit(const struct copy *copy, char *text, size_t size)
{
	siginfo_t info = { 0 };
	const char *how = "unknown";
	json_t *exit = json_object();
	char now[CLOCK_TEXT_SIZE];

	(void)snprintf(text, size, "QEMU ended, its exit code is unknown (it was adopted)");
	if (copy->child && copy->pidfd >= 0 &&
	    waitid(P_PIDFD, (id_t)copy->pidfd, &info, WEXITED | WNOHANG) == 0 && info.si_pid) {
		how = info.si_code == CLD_EXITED ? "exit" : "signal";
		(void)snprintf(text, size, "QEMU ended %s %d",
			       info.si_code == CLD_EXITED ? "with exit code" : "by signal",
			       info.si_status);
		json_object_set_new(exit, "code", json_integer(info.si_status));
	} else {
		json_object_set_new(exit, "code", json_null());
	}
	if (copy->powered_off || copy->panicked) {
		how = copy->panicked ? "panic" : "power-off";
		(void)snprintf(text, size,
			       copy->panicked ? "the guest had panicked" : "the guest powered off");
	} else if (copy->end_ordered) {
		how = "ended";
	}
	json_set_string(exit, "how", how);
	json_set_string(exit, "time", clock_text(clock_wall(), now));
	return exit;
}

/* Beside QEMU's own last words (fc-P12). */
static void log_end(const struct keeper *keeper, const struct copy *copy, const char *text)
{
	CLEANUP_FD int fd = openat(keeper->log_fd, "qemu.log", O_WRONLY | O_APPEND | O_CLOEXEC);
	char now[CLOCK_TEXT_SIZE];

	if (fd >= 0)
		(void)dprintf(fd, "%s pid %d: %s\n", clock_text(clock_wall(), now),
			      (int)copy->id.pid, text);
}

/* Tells of an end, and remembers it as a failure unless it was ordered or a start tells better. */
static void note_end(struct keeper *keeper, const struct copy *copy, char *text, size_t size)
{
	uint64_t ran = clock_wall() > copy->started ? clock_wall() - copy->started : 0;

	json_decref(keeper->report.last_exit);
	keeper->report.last_exit = describe_exit(copy, text, size);
	keeper->remains = true;
	report_event(keeper, "qemu-ended", keeper->report.last_exit, "%s", text);
	if (!copy->end_ordered && !keeper->start)
		keeper_failed(keeper, ran, text);
}

struct found {
	pid_t pid;
	uid_t uid;
	unsigned count;
	char token[PROCESS_TOKEN_SIZE];
};

/* The token stands behind "opaque=" and ends the argument. */
static void note_found(void *ctx, pid_t pid, uid_t uid, const char *argument)
{
	struct found *found = ctx;
	const char *token = strstr(argument, "drover:");

	found->pid = pid;
	found->uid = uid;
	found->count++;
	if (token)
		(void)snprintf(found->token, sizeof(found->token), "%.*s", (int)strcspn(token, ","),
			       token);
}

/* Finds the one process that carries the token (or begins with it); 1, 0, or -EBUSY for several. */
static int find_by_token(const struct keeper *keeper, const char *token, struct copy *copy,
			 struct error *err)
{
	const struct uid_range uids = { keeper->config->qemu_uid_base,
					keeper->config->qemu_uid_count };
	struct found found = { 0 };
	int r;

	r = process_scan(token, uids, note_found, &found, err);
	if (r < 0)
		return r;
	if (found.count == 0)
		return 0;
	if (found.count > 1)
		return error_set(err, -EBUSY,
				 "%u processes carry the token '%s': end all but the right one by "
				 "hand",
				 found.count, token);
	copy->uid = found.uid;
	r = process_identify(found.pid, found.token, &copy->id, err);
	if (r == -ESRCH || r == -ENOENT)
		return 0;
	return r < 0 ? r : 1;
}

static int adopt(struct keeper *keeper, struct copy *copy, struct error *err)
{
	int r;

	r = process_open(&copy->id, &copy->pidfd, err);
	if (r <= 0)
		return r;
	keeper->copy = copy;
	keeper->remains = true;
	r = copy_watch(keeper, copy, err);
	if (r < 0) {
		keeper->copy = NULL;
		return r;
	}
	report_event(keeper, "adopted", NULL, "QEMU runs as pid %d", (int)copy->id.pid);
	return 1;
}

/* The number in the file is wrong, or its process says another name: is the one of that name there?
 * `told` is what the number told, and stands when there is none. */
static int adopt_by_name(struct keeper *keeper, struct copy *copy, int told, struct error *err)
{
	struct error why = { 0 };
	struct copy named = *copy;
	int r;

	r = find_by_token(keeper, copy->id.token, &named, &why);
	if (r < 0)
		return error_set(err, r, "%s", why.text);
	if (r == 0)
		return told;
	*copy = named;
	return adopt(keeper, copy, err);
}

int copy_adopt(struct keeper *keeper, struct error *err)
{
	json_auto_t *value = NULL;
	CLEANUP_FREE struct copy *copy = NULL;
	struct error why = { 0 };
	char text[END_SIZE];
	int r;

	r = json_read_file(keeper->run_fd, COPY_FILE, &value, &why);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return error_set(err, r, "%s", why.text);
	keeper->remains = true;
	if (strcmp(json_string_or(value, "vm", ""), keeper->name) != 0)
		return error_bad_data(err, "copy.json is that of VM '%s'",
				      json_string_or(value, "vm", "?"));
	copy = copy_parse(value);
	keeper->claimed = (uint64_t)json_int_or(value, "claimed", 0);
	/* Launched, but its number was not yet noted when the last keeper died. */
	if (copy->id.pid == 0 && strcmp(copy->id.boot_id, keeper->boot_id) == 0) {
		r = find_by_token(keeper, copy->id.token, copy, err);
		if (r <= 0)
			return r;
	}
	r = adopt(keeper, copy, err);
	if ((r == 0 || r == -EBADE) && strcmp(copy->id.boot_id, keeper->boot_id) == 0)
		r = adopt_by_name(keeper, copy, r, err);
	if (r == 1)
		(void)TAKE_PTR(copy);
	if (r == 0 && copy->ran) {
		note_end(keeper, copy, text, sizeof(text));
		log_end(keeper, copy, text);
	}
	return r;
}

int copy_set_aside(const struct keeper *keeper)
{
	return renameat(keeper->run_fd, COPY_FILE, keeper->run_fd, COPY_FILE ".damaged");
}

/* What the lost file said is gone: orders count as carried out, since a guest that runs is not to
 * be restarted for an order of long ago. */
static void assume(const struct keeper *keeper, struct copy *copy)
{
	const char *epoch = strrchr(copy->id.token, ':');

	copy->epoch = epoch ? strtoull(epoch + 1, NULL, 10) : 0;
	copy->generation = keeper->hardware->generation;
	copy->restarts = keeper->want.restarts;
	copy->memory_mib = keeper->hardware->memory_mib;
	copy->started = clock_wall();
	copy->ran = true;
	copy->paused = keeper->want.wish == WISH_PAUSE;
}

int copy_search(struct keeper *keeper, struct error *err)
{
	CLEANUP_FREE struct copy *copy = xcalloc(1, sizeof(*copy));
	char prefix[PROCESS_TOKEN_SIZE];
	int r;

	(void)snprintf(prefix, sizeof(prefix), "drover:%s:%s:", keeper->root_id,
		       keeper->hardware->uuid);
	copy->pidfd = -1;
	r = find_by_token(keeper, prefix, copy, err);
	if (r <= 0)
		return r;
	assume(keeper, copy);
	keeper->claimed = copy->epoch;
	r = adopt(keeper, copy, err);
	if (r == 1)
		(void)copy_save(keeper, TAKE_PTR(copy), NULL);
	return r;
}

static int on_exit_readable(sd_event_source *source, int fd, uint32_t revents, void *ctx)
{
	(void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
	copy_ended(ctx);
	return 0;
}

int copy_watch(struct keeper *keeper, struct copy *copy, struct error *err)
{
	int r;

	r = sd_event_add_io(keeper->loop, &copy->exit_source, copy->pidfd, EPOLLIN,
			    on_exit_readable, keeper);
	if (r < 0)
		return error_set(err, r, "cannot watch QEMU (pid %d): %m", (int)copy->id.pid);
	return 0;
}

void copy_ended(struct keeper *keeper)
{
	struct copy *copy = TAKE_PTR(keeper->copy);
	char text[END_SIZE];

	keeper->monitor = monitor_close(keeper->monitor);
	keeper->pausing = keeper->resuming = false; /* their answers will not come any more */
	lease_copy_ended(keeper);
	link_drop_passed(keeper->link);
	agent_reset(keeper->agent);
	migration_copy_ended(keeper);
	free(TAKE_PTR(keeper->pending));
	note_end(keeper, copy, text, sizeof(text));
	if (keeper->start) /* takes QEMU's last words from its log, ours come after them */
		start_copy_ended(keeper);
	log_end(keeper, copy, text);
	keeper->stop = stop_cancel(keeper->stop);
	copy_free(copy);
	keeper_look(keeper);
}
