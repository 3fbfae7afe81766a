/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "keeper/dial.h"
#include "keeper/keeper.h"
#include "keeper/link.h"
#include "keeper/migration.h"
#include "keeper/monitor.h"
#include "keeper/psk.h"
#include "keeper/script.h"
#include "keeper/sender.h"
#include "keeper/source-parts.h"
#include "keeper/timeline.h"
#include "keeper/transfer.h"
#include "model/config.h"
#include "tls/tls.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

#define POLL_EVERY (250 * USEC_PER_MSEC)
#define FRESH_EVERY (300 * USEC_PER_MSEC)

uint64_t source_agreed(const struct source *source)
{
	return source && source->agreed && !source->failed ? source->epoch : 0;
}

const char *source_target(const struct source *source)
{
	return source ? source->target : NULL;
}

bool source_early(const struct source *source)
{
	return source && !source->late && !source->progress.bytes_at;
}

/* It was told to send no more, and does not: what it says is not of an older migration. */
static bool is_called_off(const struct source *source)
{
	const struct migration *migration = source->keeper->migration;

	return migration->called_off && strcmp(migration->status, "cancelled") == 0 &&
	       !source_early(source);
}

bool source_ready(const struct source *source)
{
	return source && source->agreed && !source->failed && source->peer &&
	       !is_called_off(source);
}

bool source_late(const struct source *source)
{
	return source && source->late;
}

bool source_failed(const struct source *source)
{
	return source && source->failed;
}

bool source_running_heard(const struct source *source)
{
	return source && source->running;
}

bool source_gone_heard(const struct source *source)
{
	return source && source->gone;
}

bool source_fits(const struct source *source, json_t *offer)
{
	return offer && strcmp(source->secret, json_string_or(offer, "secret", "")) == 0;
}

struct timeline *source_timeline(const struct source *source)
{
	return source->keeper->migration->timeline;
}

/* ---- ends ---- */

struct source *source_free(struct source *source)
{
	if (!source)
		return NULL;
	dial_cancel(source->dial);
	script_cancel(source->script);
	sender_free(source->sender);
	peer_close(source->peer);
	tls_identity_unref(source->identity);
	sd_event_source_disable_unref(source->poll);
	sd_event_source_disable_unref(source->fresh);
	sd_event_source_disable_unref(source->limit);
	sd_event_source_disable_unref(source->repeat);
	free(source);
	return NULL;
}

struct source *source_end(struct source *source, const char *why)
{
	const char *words = why ? why : "it is done";
	json_auto_t *args = NULL;

	if (!source)
		return NULL;
	if (source->peer && source->agreed) {
		args = json_pack("{s:I, s:o}", "epoch", (json_int_t)source->epoch, "why",
				 json_text(words, strlen(words)));
		(void)peer_call(source->peer, "bye", args, USEC_PER_SEC, NULL, NULL, NULL);
	}
	psk_remove(source->keeper);
	return source_free(source);
}

void source_fail(struct source *source, const char *why)
{
	if (source->failed)
		return;
	source->failed = true;
	sender_shut_mirrors(source->sender);
	/* Once the target has what it takes to run it, this way to it is only one of several.  And
	 * that a target ends whose move was called off is no failure. */
	if (!source->late && !source->keeper->migration->called_off &&
	    transfer_copy(source->keeper) != COPY_FEEDING)
		migration_failed(source->keeper, why);
	keeper_look(source->keeper);
}

void source_arm(struct source *source, sd_event_source **timer, uint64_t usec,
		sd_event_time_handler_t handler)
{
	int r;

	*timer = sd_event_source_disable_unref(*timer);
	r = sd_event_add_time_relative(source->keeper->loop, timer, CLOCK_BOOTTIME, usec, 0,
				       handler, source);
	if (r < 0)
		log_error("cannot set a timer: %s", strerror(-r));
}

/* ---- sending ---- */

static void on_disks(void *ctx, int r, json_t *value, const struct error *err)
{
	struct keeper *keeper = ctx;
	struct source *source = keeper->migration->source;
	uint64_t done, total;

	keeper->migration->asking_disks = false;
	if (r < 0 || !source || !source_early(source) || !sender_has_mirrors(source->sender))
		return;
	sender_mirrored(source->sender, value, &done, &total);
	progress_take_disks(&source->progress, done, total, source_timeline(source));
	keeper_look(keeper);
}

/* Before memory is sent nothing else is under way. */
static void ask_disks(struct source *source)
{
	struct migration *migration = source->keeper->migration;

	if (source_early(source) && sender_has_mirrors(source->sender) && !migration->asking_disks)
		migration->asking_disks = monitor_call(source->keeper->monitor, "query-block-jobs",
						       NULL, on_disks, source->keeper, NULL) == 0;
}

/* The clock of a migration: how far it is, whether bytes still flow, whether its time is over. */
static int on_poll(sd_event_source *timer, uint64_t usec, void *ctx)
{
	struct source *source = ctx;
	uint64_t now = clock_now(), stall = source->keeper->config->timers.migration_stall;

	source_arm(source, &source->poll, POLL_EVERY, on_poll);
	transfer_ask(source->keeper);
	ask_disks(source);
	if (source->switching)
		return 0;
	if (source->progress.bytes_at && now > source->progress.bytes_at + stall)
		source_fail(source,
			    "nothing could be sent for too long: the target or the network hangs");
	else if (now > source->deadline && source->postcopy && source->progress.bytes_at)
		switchover_postcopy(source);
	else if (now > source->deadline)
		source_fail(source,
			    "its time (timers.migration_deadline) is over: the guest writes "
			    "faster than it can be sent, or its disks are large");
	return 0;
}

static void on_fresh(void *ctx, int r, json_t *value, const struct error *err)
{
	struct keeper *keeper = ctx;
	struct source *source = keeper->migration->source;

	if (!source || r < 0)
		return;
	source->own_fresh = clock_now();
	switchover_look_fresh(source);
}

static int on_fresh_due(sd_event_source *timer, uint64_t usec, void *ctx)
{
	struct source *source = ctx;
	struct keeper *keeper = source->keeper;

	source_arm(source, &source->fresh, FRESH_EVERY, on_fresh_due);
	if (link_up(keeper->link))
		(void)link_call(keeper->link, "store-fresh", NULL,
				keeper->config->timers.migration_switch, on_fresh, keeper, NULL);
	return 0;
}

static void on_sending(void *ctx, int r, const struct error *err)
{
	struct source *source = ctx;

	if (r < 0) {
		source_fail(source, err->text);
		return;
	}
	source->progress = (struct progress){ .bytes_at = clock_now() };
	timeline_phase(source_timeline(source), "copying");
	checkpoint("keeper.source.copying");
	transfer_ask(source->keeper);
}

static void on_prepared(void *ctx, int r, json_t *value, const struct error *err)
{
	struct source *source = ctx;

	if (r < 0) {
		source_fail(source, err->text);
		return;
	}
	checkpoint("keeper.source.prepared");
	source->sender = sender_begin(source->keeper, source->address, value, source->postcopy,
				      on_sending, source);
}

bool source_shut(struct source *source)
{
	return source && sender_shut(source->sender);
}

void source_send(struct source *source)
{
	struct keeper *keeper = source->keeper;
	json_auto_t *args = json_pack("{s:I}", "epoch", (json_int_t)source->epoch);
	struct error err = { 0 };

	if (source->begun)
		return;
	source->begun = true;
	source->deadline = clock_now() + keeper->config->timers.migration_deadline;
	source_arm(source, &source->fresh, 0, on_fresh_due);
	source_arm(source, &source->poll, POLL_EVERY, on_poll);
	timeline_phase(source_timeline(source), "moving");
	if (peer_call(source->peer, "prepare", args, keeper->config->timers.migration_stall,
		      on_prepared, source, &err) < 0)
		source_fail(source, err.text);
}

/* ---- news of QEMU ---- */

void source_status(struct source *source, const char *status, json_t *info)
{
	progress_take(&source->progress, info, source_timeline(source));
	if (!source->begun || source->failed)
		return;
	if (strcmp(status, "pre-switchover") == 0) {
		if (source->posting)
			switchover_let_go_on(source);
		else
			switchover_begin(source);
	} else if (strcmp(status, "postcopy-active") == 0) {
		source->limit = sd_event_source_disable_unref(source->limit);
	} else if (strcmp(status, "completed") == 0) {
		source->limit = sd_event_source_disable_unref(source->limit);
		source->poll = sd_event_source_disable_unref(source->poll);
	} else if (strcmp(status, "failed") == 0) {
		CLEANUP_FREE char *why = xasprintf(
			"QEMU: %s", json_string_or(info, "error-desc", "the migration failed"));

		source_fail(source, why);
	}
}

static int on_repeat(sd_event_source *timer, uint64_t usec, void *ctx)
{
	struct source *source = ctx;

	keeper_look(source->keeper);
	return 0;
}

/* Again and again, for a message can be lost and a keeper over there be new. */
void source_say_stopped(struct source *source)
{
	json_auto_t *data = json_pack("{s:I, s:I}", "epoch", (json_int_t)source->epoch, "stop_usec",
				      (json_int_t)source->stop_usec);

	if (source->peer && source->agreed)
		(void)peer_event(source->peer, "stopped", data);
	source_arm(source, &source->repeat, source->keeper->config->timers.migration_stopped_repeat,
		   on_repeat);
}

void source_event(struct source *source, const char *name, json_t *data, uint64_t usec)
{
	if (strcmp(name, "STOP") == 0 && source->begun) {
		source->stop_usec = usec;
		source->stop_heard = clock_now();
		timeline_number(source_timeline(source), "stop_usec", usec);
	} else if (strcmp(name, "SHUTDOWN") == 0 || strcmp(name, "GUEST_PANICKED") == 0) {
		/* Not by the run state, which is asked for: the switch may be the next event. */
		source_fail(source, "the guest ended while it was being moved");
	} else if (strncmp(name, "BLOCK_JOB_", 10) == 0) {
		sender_event(source->sender, name, data);
	}
}

void source_lost(struct source *source)
{
	source->lost = true;
}

int source_ask(struct source *source, const char *command, json_t *args, peer_reply_fn reply,
	       void *ctx, struct error *err)
{
	if (!source || !source->agreed || !source->peer)
		return error_try_again(err, "the target's keeper is not reached");
	return peer_call(source->peer, command, args,
			 source->keeper->config->timers.migration_stall, reply, ctx, err);
}

bool source_postcopy(const struct source *source)
{
	return source && source->postcopy;
}

const char *source_address(const struct source *source)
{
	return source ? source->address : NULL;
}

static const char *phase_of(const struct source *source)
{
	if (transfer_copy(source->keeper) == COPY_FEEDING)
		return transfer_is_broken(source->keeper) ? "reconnecting" : "handing out pages";
	if (source->running)
		return "done";
	if (source->switching)
		return "switching";
	if (source->progress.bytes_at)
		return "copying";
	if (sender_has_mirrors(source->sender))
		return PHASE_MIRRORING;
	return source->begun ? "preparing" : source->agreed ? "agreed" : "connecting";
}

json_t *source_json(const struct source *source)
{
	json_t *value = progress_json(&source->progress);
	uint64_t now = clock_now();
	char text[CLOCK_TEXT_SIZE];

	json_set_string(value, "phase", phase_of(source));
	json_set_string(value, "deadline",
			source->deadline > now
				? clock_text(clock_wall() + (source->deadline - now), text)
				: NULL);
	return value;
}
