/* SPDX-License-Identifier: Apache-2.0 */
/* The sending side's conversation with the target's keeper. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "keeper/dial.h"
#include "keeper/door.h"
#include "keeper/keeper.h"
#include "keeper/migration.h"
#include "keeper/mirror.h"
#include "keeper/postcopy.h"
#include "keeper/report.h"
#include "keeper/script.h"
#include "keeper/source-parts.h"
#include "keeper/timeline.h"
#include "model/config.h"
#include "qemu/hardware.h"
#include "tls/tls.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

static void say_lost(struct source *source);

static int on_say_lost(sd_event_source *timer, uint64_t usec, void *ctx)
{
	say_lost(ctx);
	return 0;
}

/* Again and again, until the record says that it was heard. */
static void say_lost(struct source *source)
{
	json_auto_t *data = json_pack("{s:I, s:s}", "epoch", (json_int_t)source->epoch, "why",
				      "there is no copy here any more");

	if (source->peer)
		(void)peer_event(source->peer, "lost", data);
	source_arm(source, &source->repeat, USEC_PER_SEC, on_say_lost);
}

/* It goes as far as it can without. */
static void no_postcopy(struct source *source, const char *why)
{
	source->postcopy = false;
	report_event(source->keeper, "postcopy-impossible", NULL,
		     "it cannot go on on node '%s' before all of its memory is there: %s",
		     source->target, why);
}

static void on_hello(void *ctx, int r, json_t *value, const struct error *err)
{
	struct source *source = ctx;

	if (r < 0) {
		source_fail(source, err->text);
		return;
	}
	source->agreed = true;
	if (source->lost)
		say_lost(source);
	if (source->postcopy && !json_bool_or(value, "postcopy", false))
		no_postcopy(source,
			    json_string_or(value, "postcopy_trouble", "it does not know how to"));
	timeline_phase(source_timeline(source), "agreed");
	keeper_look(source->keeper);
}

static void say_hello(struct source *source)
{
	struct keeper *keeper = source->keeper;
	json_auto_t *args = json_pack(
		"{s:i, s:s, s:I, s:s, s:b, s:o}", "v", 1, "vm", keeper->name, "epoch",
		(json_int_t)source->epoch, "secret", source->secret, "postcopy",
		(int)source->postcopy, "hardware",
		source->late || !keeper->hardware ? json_null() : hardware_json(keeper->hardware));
	struct error err = { 0 };

	if (peer_call(source->peer, "hello", args, keeper->config->timers.migration_stall, on_hello,
		      source, &err) < 0)
		source_fail(source, err.text);
}

static void on_tried(void *ctx, int r, const struct error *err)
{
	struct source *source = ctx;

	source->script = NULL;
	if (r < 0)
		no_postcopy(source, err->text);
	if (source->peer)
		say_hello(source);
}

static void on_begun(void *ctx)
{
	struct source *source = ctx;
	struct error why = { 0 };

	if (source->late) {
		say_hello(source);
		return;
	}
	source->postcopy = postcopy_possible(source->keeper, &why);
	if (source->postcopy) {
		source->script = postcopy_try(source->keeper, on_tried, source);
		return;
	}
	if (why.text[0])
		no_postcopy(source, why.text);
	say_hello(source);
}

static void on_event(void *ctx, const char *name, json_t *data, json_t *whole)
{
	struct source *source = ctx;

	if ((uint64_t)json_int_or(data, "epoch", 0) != source->epoch)
		return;
	if (strcmp(name, "fresh") == 0) {
		source->peer_fresh = clock_now();
		switchover_look_fresh(source);
	} else if (strcmp(name, "running") == 0 && !source->running) {
		uint64_t resumed = (uint64_t)json_int_or(data, "resume_usec", 0);

		source->running = true;
		timeline_phase(source_timeline(source), "running heard");
		timeline_number(source_timeline(source), "resume_usec", resumed);
		if (source->stop_usec && resumed > source->stop_usec)
			timeline_number(source_timeline(source), "pause_usec",
					resumed - source->stop_usec);
		if (source->stop_heard)
			timeline_number(source_timeline(source), "observed_usec",
					clock_now() - source->stop_heard);
		checkpoint("keeper.source.running");
		keeper_look(source->keeper);
	} else if (strcmp(name, "gone") == 0) {
		CLEANUP_FREE char *why =
			xasprintf("node '%s': %s", source->target,
				  json_string_or(data, "why", "the receiver is gone"));

		source->gone = true;
		source_fail(source, why);
	}
}

static void on_gone(void *ctx, const struct error *why)
{
	struct source *source = ctx;
	CLEANUP_FREE char *text =
		xasprintf("the keeper on node '%s' is gone: %s", source->target, why->text);

	source->peer = peer_close(source->peer);
	source_fail(source, text);
}

static const struct peer_ops ops = { .event = on_event, .begun = on_begun, .gone = on_gone };

static void on_connected(void *ctx, int fd, const struct error *err)
{
	struct source *source = ctx;
	struct transport *transport = NULL;
	struct error why = { 0 };
	int r;

	source->dial = NULL;
	if (fd < 0) {
		source_fail(source, err->text);
		return;
	}
	r = tls_connect(fd, source->identity, source->target, &transport, &why);
	if (r == 0)
		r = peer_open_transport(transport, source->keeper->loop, &ops, source,
					&source->peer, &why);
	if (r < 0)
		source_fail(source, why.text);
}

void source_begin(struct keeper *keeper, json_t *offer, bool late)
{
	CLEANUP_FREE char *dir = xasprintf("%s/tls", keeper->config->paths.lib);
	struct source *source = xcalloc(1, sizeof(*source));
	struct error err = { 0 };
	int r;

	source->keeper = keeper;
	source->late = late;
	source->epoch = (uint64_t)json_int_or(offer, "epoch", 0);
	(void)snprintf(source->target, sizeof(source->target), "%s",
		       json_string_or(offer, "node", ""));
	(void)snprintf(source->address, sizeof(source->address), "%s",
		       json_string_or(offer, "address", ""));
	(void)snprintf(source->secret, sizeof(source->secret), "%s",
		       json_string_or(offer, "secret", ""));
	keeper->migration->source = source;
	if (!late) {
		mirror_call_off_old(keeper);
		keeper->migration->called_off = false;
	}
	if (!late && !keeper->migration->timeline)
		keeper->migration->timeline = timeline_new(keeper, "source", keeper->config->node,
							   source->target, source->epoch);
	r = tls_identity_load(dir, &source->identity, &err);
	if (r == 0)
		r = dial_start(keeper->loop, source->address, door_control_line(),
			       keeper->config->timers.migration_stall, on_connected, source,
			       &source->dial, &err);
	if (r < 0)
		source_fail(source, err.text);
}
