/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/recovery.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/backoff.h"
#include "keeper/copy.h"
#include "keeper/dial.h"
#include "keeper/door.h"
#include "keeper/keeper.h"
#include "keeper/migration.h"
#include "keeper/monitor.h"
#include "keeper/report.h"
#include "keeper/script.h"
#include "keeper/source.h"
#include "keeper/transfer.h"
#include "model/config.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

#define TICK (500 * USEC_PER_MSEC)
#define AGAIN_FIRST (1 * USEC_PER_SEC)
#define AGAIN_MAX (30 * USEC_PER_SEC)

struct recovery {
	struct keeper *keeper;
	uint64_t bytes, bytes_at; /* sent, and when that last grew; clock_now() */
	bool broken;		  /* was told */
	bool trying;
	uint64_t since, next; /* of this try; of the next */
	struct backoff backoff;
	struct dial *dial;
	struct script *script;
	int stream; /* ours of what QEMU sends over; -1 */
	sd_event_source *tick;
};

unsigned recovery_tries(const struct recovery *recovery)
{
	return recovery ? recovery->backoff.failures : 0;
}

static void let_go(struct recovery *recovery)
{
	recovery->dial = dial_cancel(recovery->dial);
	recovery->script = script_cancel(recovery->script);
	recovery->trying = false;
}

struct recovery *recovery_free(struct recovery *recovery)
{
	if (!recovery)
		return NULL;
	let_go(recovery);
	cleanup_closep(&recovery->stream);
	sd_event_source_disable_unref(recovery->tick);
	free(recovery);
	return NULL;
}

static void try_failed(struct recovery *recovery, const struct error *err)
{
	log_info("another stream to the target: %s", err->text);
	let_go(recovery);
	recovery->next = clock_now() + backoff_failed(&recovery->backoff, 0);
	keeper_look(recovery->keeper);
}

static void on_resumed(void *ctx, int r, const struct error *err)
{
	struct recovery *recovery = ctx;

	recovery->script = NULL;
	if (r < 0) {
		try_failed(recovery, err);
		return;
	}
	checkpoint("keeper.source.resumed");
	transfer_ask(recovery->keeper);
}

/* As with the first stream (keeper/sender.c): QEMU makes blocking what it gets. */
static void on_given(void *ctx, int r, const struct error *err)
{
	struct recovery *recovery = ctx;

	recovery->script = NULL;
	if (r < 0) {
		try_failed(recovery, err);
		return;
	}
	if (fcntl(recovery->stream, F_SETFL, O_NONBLOCK) < 0)
		log_warning("cannot make the stream non-blocking: %m; ignoring");
	recovery->script = script_new(recovery->keeper);
	script_add(recovery->script, "migrate",
		   json_pack("{s:s, s:b}", "uri", "fd:stream", "resume", 1));
	script_run(recovery->script, on_resumed, recovery);
}

static void on_stream(void *ctx, int fd, const struct error *err)
{
	struct recovery *recovery = ctx;

	recovery->dial = NULL;
	if (fd < 0) {
		try_failed(recovery, err);
		return;
	}
	cleanup_closep(&recovery->stream);
	recovery->stream = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	recovery->script = script_new(recovery->keeper);
	script_add_fd(recovery->script, "stream", fd);
	script_run(recovery->script, on_given, recovery);
}

/* The recovery may be gone by now. */
static void on_reopened(void *ctx, int r, json_t *value, const struct error *err)
{
	struct keeper *keeper = ctx;
	struct recovery *recovery = keeper->migration->recovery;
	const char *address = source_address(keeper->migration->source);
	char words[DOOR_LINE_MAX];
	struct error why = { 0 };

	if (!recovery || !recovery->trying || recovery->dial)
		return;
	if (r < 0 || !address) {
		(void)error_try_again(&why, "%s", r < 0 ? err->text : "the target is not reached");
		try_failed(recovery, &why);
		return;
	}
	door_stream_line(json_string_or(value, "ticket", ""), words);
	checkpoint("keeper.source.reopened");
	if (dial_start(keeper->loop, address, words, keeper->config->timers.migration_stall,
		       on_stream, recovery, &recovery->dial, &why) < 0)
		try_failed(recovery, &why);
}

static void begin(struct recovery *recovery)
{
	struct keeper *keeper = recovery->keeper;
	json_auto_t *args = json_pack("{s:I}", "epoch", (json_int_t)keeper->copy->attempt);
	struct error err = { 0 };

	recovery->trying = true;
	recovery->since = clock_now();
	if (source_ask(keeper->migration->source, "recover", args, on_reopened, keeper, &err) < 0)
		try_failed(recovery, &err);
}

static void note_broken(struct recovery *recovery, bool broken)
{
	struct keeper *keeper = recovery->keeper;

	if (recovery->broken == broken)
		return;
	recovery->broken = broken;
	if (broken)
		report_event(keeper, "postcopy-broken", NULL,
			     "the stream of its memory is broken; the guest may hang until there "
			     "is another");
	else
		report_event(keeper, "postcopy-recovered", NULL,
			     "its memory follows over another stream");
}

/* Nothing flows although both sides think so: the stream is broken by us. */
static void look_flow(struct recovery *recovery)
{
	struct keeper *keeper = recovery->keeper;
	uint64_t now = clock_now();

	note_broken(recovery, false);
	if (now <= recovery->bytes_at + keeper->config->timers.migration_stall)
		return;
	recovery->bytes_at = now;
	log_info("nothing flows to the target");
	(void)monitor_call(keeper->monitor, "migrate-pause", NULL, NULL, NULL, NULL);
}

static void look_broken(struct recovery *recovery)
{
	uint64_t now = clock_now(), stall = recovery->keeper->config->timers.migration_stall;
	struct error err = { 0 };

	note_broken(recovery, true);
	recovery->bytes_at = now;
	if (!recovery->trying) {
		if (now >= recovery->next)
			begin(recovery);
	} else if (now > recovery->since + 2 * stall) {
		if (recovery->stream >= 0)
			(void)shutdown(recovery->stream, SHUT_RDWR);
		(void)error_try_again(&err, "the target does not answer");
		try_failed(recovery, &err);
	}
}

static int on_tick(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct recovery *recovery = ctx;

	(void)sd_event_source_set_time_relative(source, TICK);
	(void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	transfer_ask(recovery->keeper);
	if (transfer_is_broken(recovery->keeper)) {
		look_broken(recovery);
	} else if (strcmp(recovery->keeper->migration->status, "postcopy-active") == 0) {
		let_go(recovery);
		look_flow(recovery);
	}
	return 0;
}

void recovery_look(struct keeper *keeper)
{
	struct recovery *recovery = keeper->migration->recovery;

	if (recovery)
		return;
	recovery = xcalloc(1, sizeof(*recovery));
	*recovery = (struct recovery){
		.keeper = keeper,
		.stream = -1,
		.bytes_at = clock_now(),
		.backoff = { .first = AGAIN_FIRST, .max = AGAIN_MAX, .forget = UINT64_MAX }
	};
	keeper->migration->recovery = recovery;
	if (sd_event_add_time_relative(keeper->loop, &recovery->tick, CLOCK_BOOTTIME, TICK, 0,
				       on_tick, recovery) < 0)
		abort(); /* no memory */
}

void recovery_info(struct recovery *recovery, json_t *info)
{
	json_t *ram = json_object_get(info, "ram");
	uint64_t bytes = (uint64_t)json_int_or(ram, "transferred", 0);

	if (!recovery || !ram || bytes == recovery->bytes)
		return;
	recovery->bytes = bytes;
	recovery->bytes_at = clock_now();
	if (!transfer_is_broken(recovery->keeper))
		backoff_reset(&recovery->backoff);
}
