/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/sender.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "keeper/copy.h"
#include "keeper/dial.h"
#include "keeper/door.h"
#include "keeper/keeper.h"
#include "keeper/migration.h"
#include "keeper/mirror.h"
#include "keeper/monitor.h"
#include "keeper/psk.h"
#include "keeper/report.h"
#include "keeper/script.h"
#include "keeper/timeline.h"
#include "model/config.h"
#include "qemu/hardware.h"
#include "qmp/qmp.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

/* What a QEMU has that was told nothing, from 5.2 to 11.1. */
#define QEMU_DOWNTIME_MS 300
#define QEMU_BANDWIDTH (UINT64_C(128) << 20)

struct sender {
	struct keeper *keeper;
	char *address;
	json_t *terms;
	bool postcopy;
	sender_fn done;
	void *ctx;
	struct dial *dial;
	int stream; /* ours of what QEMU sends over; -1 */
	struct script *script;
	struct mirror *mirror;
	sd_event_source *begin;
};

struct sender *sender_free(struct sender *sender)
{
	if (!sender)
		return NULL;
	dial_cancel(sender->dial);
	cleanup_closep(&sender->stream);
	script_cancel(sender->script);
	mirror_free(sender->mirror);
	sd_event_source_disable_unref(sender->begin);
	json_decref(sender->terms);
	free(sender->address);
	free(sender);
	return NULL;
}

static struct timeline *timeline(const struct sender *sender)
{
	return sender->keeper->migration->timeline;
}

/* The sender may be freed by it. */
static void tell(struct sender *sender, int r, const struct error *err)
{
	sender->done(sender->ctx, r, err);
}

/* Before 9.0 QEMU under TCG forgets what a guest writes while it is copied (docs/QEMU.md): there it
 * must not write.  Noted before it is done, as every stop of ours. */
static bool keep_still(struct keeper *keeper)
{
	struct error err = { 0 };
	int major = 0, minor = 0;

	qmp_version(monitor_qmp(keeper->monitor), &major, &minor);
	if (!keeper->hardware || strcmp(keeper->hardware->accelerator, "tcg") != 0 || major >= 9)
		return false;
	keeper->copy->still = true;
	if (copy_save(keeper, keeper->copy, &err) < 0)
		log_warning("%s; the next keeper would not know that the guest was stopped by us",
			    err.text);
	timeline_phase(keeper->migration->timeline, "standing still");
	report_event(keeper, "standing-still", NULL,
		     "the guest stands still while it is copied: QEMU %d.%d loses what a guest "
		     "without KVM writes meanwhile",
		     major, minor);
	return true;
}

static void on_migrating(void *ctx, int r, const struct error *err)
{
	struct sender *sender = ctx;

	sender->script = NULL;
	tell(sender, r, err);
}

/* QEMU makes what it gets blocking, and would wait in `migrate` for the target's first word with
 * its guest and monitor standing still (docs/QEMU.md). */
static void on_given(void *ctx, int r, const struct error *err)
{
	struct sender *sender = ctx;

	sender->script = NULL;
	if (r < 0) {
		tell(sender, r, err);
		return;
	}
	if (fcntl(sender->stream, F_SETFL, O_NONBLOCK) < 0)
		log_warning("cannot make the stream non-blocking: %m; ignoring");
	sender->script = script_new(sender->keeper);
	if (keep_still(sender->keeper))
		script_add(sender->script, "stop", NULL);
	script_add(sender->script, "migrate", json_pack("{s:s}", "uri", "fd:stream"));
	script_run(sender->script, on_migrating, sender);
}

static void on_stream(void *ctx, int fd, const struct error *err)
{
	struct sender *sender = ctx;

	sender->dial = NULL;
	if (fd < 0) {
		tell(sender, -EIO, err);
		return;
	}
	sender->stream = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	sender->script = script_new(sender->keeper);
	script_add_fd(sender->script, "stream", fd);
	script_run(sender->script, on_given, sender);
}

static void open_stream(struct sender *sender)
{
	char words[DOOR_LINE_MAX];
	struct error err = { 0 };

	door_stream_line(json_string_or(sender->terms, "ticket", ""), words);
	checkpoint("keeper.source.stream");
	if (dial_start(sender->keeper->loop, sender->address, words,
		       sender->keeper->config->timers.migration_stall, on_stream, sender,
		       &sender->dial, &err) < 0)
		tell(sender, -EIO, &err);
}

static void on_mirrored(void *ctx, int r, const struct error *err)
{
	struct sender *sender = ctx;

	if (r < 0) {
		tell(sender, r, err);
		return;
	}
	timeline_phase(timeline(sender), "disks mirrored");
	checkpoint("keeper.source.mirrored");
	open_stream(sender);
}

/* The first that is not 0. */
static json_int_t limit(uint64_t of_order, uint64_t of_definition, uint64_t of_qemu)
{
	return (json_int_t)(of_order ? of_order : of_definition ? of_definition : of_qemu);
}

static int begin_mirrors(struct sender *sender, json_t *disks, struct error *err)
{
	const struct keeper *keeper = sender->keeper;
	CLEANUP_FREE char *host = xstrdup(sender->address);
	char *colon = strrchr(host, ':');

	if (colon)
		*colon = '\0';
	timeline_phase(timeline(sender), "mirroring disks");
	return mirror_begin(sender->keeper, host, disks,
			    (uint64_t)limit(keeper->want.move.bandwidth,
					    keeper->want.definition->migration_bandwidth, 0),
			    on_mirrored, sender, &sender->mirror, err);
}

static void on_configured(void *ctx, int r, const struct error *err)
{
	struct sender *sender = ctx;
	json_t *disks = json_object_get(sender->terms, "disks");
	struct error why = { 0 };

	sender->script = NULL;
	if (r < 0)
		tell(sender, r, err);
	else if (!json_is_object(disks))
		open_stream(sender);
	else if (begin_mirrors(sender, disks, &why) < 0)
		tell(sender, -EIO, &why);
}

static json_t *capability(const char *name, bool on)
{
	return json_pack("{s:s, s:b}", "capability", name, "state", (int)on);
}

/* Limits of the order go before those of the definition, and those before QEMU's own.  These are
 * said too: QEMU would keep what it was told for a former try. */
static json_t *parameters(const struct keeper *keeper)
{
	const struct definition *def = keeper->want.definition;
	const struct want_move *move = &keeper->want.move;

	/* 0: without a limit, as a guest that waits for a page wants it. */
	return json_pack(
		"{s:s, s:I, s:I, s:I}", "tls-creds", PSK_ID, "downtime-limit",
		limit(move->max_downtime_ms, def->migration_max_downtime / USEC_PER_MSEC,
		      QEMU_DOWNTIME_MS),
		"max-bandwidth", limit(move->bandwidth, def->migration_bandwidth, QEMU_BANDWIDTH),
		"max-postcopy-bandwidth", limit(move->bandwidth, def->migration_bandwidth, 0));
}

static void configure(struct sender *sender)
{
	struct script *script = sender->script = script_new(sender->keeper);

	/* One that a former try left. */
	script_add_optional(script, "object-del", json_pack("{s:s}", "id", PSK_ID));
	script_add(script, "object-add",
		   json_pack("{s:s, s:s, s:s, s:s, s:s}", "qom-type", "tls-creds-psk", "id", PSK_ID,
			     "endpoint", "client", "dir", PSK_DIR, "username", PSK_USER));
	script_add(script, "migrate-set-capabilities",
		   json_pack("{s:[o,o,o,o,o]}", "capabilities", capability("events", true),
			     capability("pause-before-switchover", true),
			     capability("auto-converge", true), capability("return-path", false),
			     capability("postcopy-ram", sender->postcopy)));
	script_add(script, "migrate-set-parameters", parameters(sender->keeper));
	script_run(script, on_configured, sender);
}

static int on_begin(sd_event_source *source, void *ctx)
{
	struct sender *sender = ctx;
	const char *key = json_string_or(sender->terms, "key", "");
	struct error err = { 0 };
	int r = 0;

	if (strlen(key) != PSK_SIZE - 1)
		r = error_bad_data(&err, "the target gave no key");
	if (r == 0)
		r = psk_place(sender->keeper, key, false, &err);
	if (r < 0)
		tell(sender, r, &err);
	else
		configure(sender);
	return 0;
}

struct sender *sender_begin(struct keeper *keeper, const char *address, json_t *terms,
			    bool postcopy, sender_fn done, void *ctx)
{
	struct sender *sender = xcalloc(1, sizeof(*sender));

	*sender = (struct sender){ .keeper = keeper,
				   .address = xstrdup(address),
				   .terms = json_incref(terms),
				   .postcopy = postcopy,
				   .done = done,
				   .ctx = ctx,
				   .stream = -1 };
	if (sd_event_add_defer(keeper->loop, &sender->begin, on_begin, sender) < 0)
		abort(); /* no memory */
	return sender;
}

bool sender_has_mirrors(const struct sender *sender)
{
	return sender && sender->mirror;
}

static void on_mirrors_ended(void *ctx, int r, const struct error *err)
{
	tell(ctx, r, err);
}

void sender_mirrored(const struct sender *sender, json_t *jobs, uint64_t *ret_done,
		     uint64_t *ret_total)
{
	mirror_progress(sender->mirror, jobs, ret_done, ret_total);
}

void sender_end_mirrors(struct sender *sender, sender_fn ended)
{
	sender->done = ended;
	mirror_end(sender->mirror, on_mirrors_ended);
}

bool sender_shut(struct sender *sender)
{
	return sender && sender->stream >= 0 && shutdown(sender->stream, SHUT_RDWR) == 0;
}

void sender_shut_mirrors(struct sender *sender)
{
	if (sender)
		mirror_shut(sender->mirror);
}

void sender_event(struct sender *sender, const char *name, json_t *data)
{
	if (sender)
		mirror_event(sender->mirror, name, data);
}
