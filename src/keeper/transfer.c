/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/transfer.h"

#include <stdio.h>
#include <string.h>

#include "keeper/copy.h"
#include "keeper/keeper.h"
#include "keeper/migration.h"
#include "keeper/monitor.h"
#include "keeper/ownership.h"
#include "keeper/recovery.h"
#include "keeper/source.h"
#include "keeper/timeline.h"
#include "util/log.h"
#include "wire/json.h"

static bool one_of(const char *word, const char *const *list)
{
	for (; *list; list++)
		if (strcmp(*list, word) == 0)
			return true;
	return false;
}

static bool is_postcopy(const char *status)
{
	return strncmp(status, "postcopy", 8) == 0;
}

static enum migration_copy sent_copy(const char *run_state)
{
	static const char *const still[] = { "paused", "finish-migrate", NULL };

	return strcmp(run_state, "running") != 0 && one_of(run_state, still) ? COPY_SWITCHING
									     : COPY_SENDING;
}

/* Its vcpus were stopped before anything was sent, so it does not resume by itself, whatever
 * becomes of the migration: then it is as if everything had been sent. */
static enum migration_copy still_copy(const struct keeper *keeper)
{
	const struct migration *migration = keeper->migration;
	bool sends = source_ready(migration->source) && !source_late(migration->source);

	return sends || migration_status_sends(migration->status) ? COPY_SWITCHING : COPY_COMPLETED;
}

bool transfer_lacks_pages(const struct keeper *keeper)
{
	return ownership_held_here(keeper) && keeper->ownership->record.feeder[0] &&
	       strcmp(keeper->migration->status, "completed") != 0;
}

bool transfer_is_broken(const struct keeper *keeper)
{
	/* A target that waits for a new stream calls that "setup". */
	const char *status = keeper->migration->status;

	return strcmp(status, "postcopy-paused") == 0 || strcmp(status, "setup") == 0 ||
	       strncmp(status, "postcopy-recover", strlen("postcopy-recover")) == 0;
}

bool transfer_is_undone(const struct keeper *keeper)
{
	const char *status = keeper->migration->status;

	return keeper->copy && keeper->copy->still &&
	       (strcmp(keeper->ownership->record.mode, "post") == 0 ||
		strcmp(status, "cancelled") == 0) &&
	       transfer_copy(keeper) == COPY_COMPLETED && strcmp(status, "completed") != 0;
}

/* That it was let run is noted before it is: so what is `paused` may never have run, and is let go
 * on as such.  Whatever else stopped it, it has run. */
static enum migration_copy received_copy(const struct keeper *keeper, const char *run_state)
{
	if (strcmp(run_state, "inmigrate") == 0)
		return COPY_INCOMING;
	if (strcmp(run_state, "running") == 0)
		return transfer_lacks_pages(keeper) ? COPY_FAULTING : COPY_RUNNING;
	return !keeper->copy->ran || strcmp(run_state, "paused") == 0 ? COPY_LOADED : COPY_STOPPED;
}

/* What was sent away, or is kept still for that, comes to none of these: the guest has ended before
 * it was stopped, or was let go on here by a keeper that did not come to write that down. */
static bool has_ended(const struct copy *copy, const char *run_state)
{
	static const char *const ends[] = { "shutdown", "guest-panicked",
					    "io-error", "internal-error",
					    "watchdog", "suspended",
					    NULL };

	return copy->powered_off || one_of(run_state, ends);
}

/* QEMU also calls `completed` what it received earlier, or sent and was let run again.  Nobody lets
 * one run that was sent away while the record says that it moves. */
static bool is_yet_to_go(const struct keeper *keeper, const char *run_state)
{
	return strcmp(run_state, "running") == 0 && keeper->ownership->record.phase == OWNER_MOVING;
}

static enum migration_copy sender_copy(const struct keeper *keeper, const char *run_state)
{
	const struct copy *copy = keeper->copy;
	const char *status = keeper->migration->status;

	if (!copy->ran)
		return COPY_COLD;
	/* By the status, never by the run state: one that was stopped and then failed is in
	 * `postmigrate` too (docs/QEMU.md). */
	if (copy->attempt && strcmp(status, "completed") == 0) {
		if (is_yet_to_go(keeper, run_state))
			return COPY_RUNNING;
		return has_ended(copy, run_state) ? COPY_STOPPED : COPY_COMPLETED;
	}
	if (is_postcopy(status))
		return COPY_FEEDING;
	if (copy->still && !has_ended(copy, run_state))
		return still_copy(keeper);
	if (strcmp(run_state, "finish-migrate") == 0)
		return COPY_SWITCHING;
	if (copy->attempt && migration_status_sends(status))
		return sent_copy(run_state);
	return strcmp(run_state, "running") == 0 ? COPY_RUNNING : COPY_STOPPED;
}

/* COPIES: QEMU has not been heard lately, nothing may be decided. */
enum migration_copy transfer_copy(const struct keeper *keeper)
{
	const struct copy *copy = keeper->copy;
	const char *run_state = monitor_run_state(keeper->monitor);
	const char *status = keeper->migration->status;

	if (!copy)
		return COPY_NONE;
	/* It may wait for a page in the middle of a device, and answers nothing before that. */
	if (monitor_mute(keeper->monitor) && copy->incoming && copy->ran && *status &&
	    transfer_lacks_pages(keeper))
		return COPY_FAULTING;
	if (!run_state || monitor_mute(keeper->monitor) || (copy->attempt && !*status))
		return COPIES;
	return copy->incoming ? received_copy(keeper, run_state) : sender_copy(keeper, run_state);
}

static void take_status(struct keeper *keeper, const char *status, json_t *info)
{
	struct migration *migration = keeper->migration;

	if (strcmp(migration->status, status) != 0) {
		(void)snprintf(migration->status, sizeof(migration->status), "%s", status);
		log_info("QEMU's migration is %s", status);
		if (is_postcopy(status))
			timeline_phase(migration->timeline, status);
		if ((strcmp(status, "completed") == 0 || is_postcopy(status)) && keeper->copy &&
		    !keeper->copy->incoming)
			ownership_forget_permission(keeper);
		monitor_refresh(keeper->monitor);
	}
	if (migration->source)
		source_status(migration->source, status, info);
	recovery_info(migration->recovery, info);
	keeper_look(keeper);
}

static void on_info(void *ctx, int r, json_t *value, const struct error *err)
{
	struct keeper *keeper = ctx;

	keeper->migration->asking = false;
	/* QEMU may send an event of its migration before an older answer. */
	if (r == 0 && keeper->migration->changed)
		transfer_ask(keeper);
	else if (r == 0 && !source_early(keeper->migration->source))
		take_status(keeper, json_string_or(value, "status", "none"), value);
}

void transfer_ask(struct keeper *keeper)
{
	struct error err = { 0 };

	if (!keeper->copy || !keeper->copy->attempt || keeper->migration->asking)
		return;
	if (monitor_call(keeper->monitor, "query-migrate", NULL, on_info, keeper, &err) == 0)
		keeper->migration->asking = true;
	keeper->migration->changed = false;
}

void transfer_event(struct keeper *keeper, const char *name, json_t *data, uint64_t usec)
{
	struct migration *migration = keeper->migration;

	if (strcmp(name, "RESUME") == 0)
		migration->resumed = usec;
	if (migration->source)
		source_event(migration->source, name, data, usec);
	if (strcmp(name, "MIGRATION") == 0) {
		migration->changed = true;
		take_status(keeper, json_string_or(data, "status", "none"), NULL);
	}
}

bool transfer_is_healthy(const struct keeper *keeper)
{
	static const char *const healthy[] = { "running", "paused", "finish-migrate", "postmigrate",
					       NULL };
	const char *run_state = monitor_run_state(keeper->monitor);

	return run_state && one_of(run_state, healthy);
}
