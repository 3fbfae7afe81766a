/* SPDX-License-Identifier: Apache-2.0 */
/* The moment in which the guest stands still: both sides must reach the store, disks are made
 * equal, QEMU hands over. */
#include <jansson.h>

#include "keeper/copy.h"
#include "keeper/keeper.h"
#include "keeper/report.h"
#include "keeper/script.h"
#include "keeper/sender.h"
#include "keeper/source-parts.h"
#include "keeper/timeline.h"
#include "model/config.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "wire/json.h"
#include "wire/peer.h"

static void on_continued(void *ctx, int r, const struct error *err)
{
	struct source *source = ctx;

	source->script = NULL;
	if (r < 0)
		source_fail(source, err->text);
}

void switchover_let_go_on(struct source *source)
{
	if (source->let_on)
		return;
	source->let_on = true;
	checkpoint("keeper.source.continue");
	source->script = script_new(source->keeper);
	script_add(source->script, "migrate-continue",
		   json_pack("{s:s}", "state", "pre-switchover"));
	script_run(source->script, on_continued, source);
}

static void on_disks_closed(void *ctx, int r, json_t *value, const struct error *err)
{
	struct source *source = ctx;

	if (r < 0)
		source_fail(source, err->text);
	else
		switchover_let_go_on(source);
}

static void on_mirror_ended(void *ctx, int r, const struct error *err)
{
	struct source *source = ctx;
	json_auto_t *args = json_pack("{s:I}", "epoch", (json_int_t)source->epoch);
	struct error why = { 0 };

	if (r < 0) {
		source_fail(source, err->text);
		return;
	}
	checkpoint("keeper.source.mirror-ended");
	if (peer_call(source->peer, "disks-end", args,
		      source->keeper->config->timers.migration_switch, on_disks_closed, source,
		      &why) < 0)
		source_fail(source, why.text);
}

static int on_limit(sd_event_source *timer, uint64_t usec, void *ctx)
{
	struct source *source = ctx;

	source_fail(source, source->continuing
				    ? "the switch took longer than timers.migration_switch"
				    : "the store did not answer both sides in time");
	return 0;
}

/* QEMU then holds a guest that was paused, and does not let it run by itself whatever happens
 * (protocol, section 8).  Noted before it is done, as every stop of ours. */
static void on_guest_stopped(void *ctx, int r, const struct error *err)
{
	struct source *source = ctx;

	source->script = NULL;
	if (r < 0) {
		source_fail(source, err->text);
		return;
	}
	checkpoint("keeper.source.postcopy-stopped");
	source->script = script_new(source->keeper);
	script_add(source->script, "migrate-start-postcopy", NULL);
	script_run(source->script, on_continued, source);
}

static void stop_guest(struct source *source)
{
	struct keeper *keeper = source->keeper;
	struct error err = { 0 };

	keeper->copy->still = true;
	if (copy_save(keeper, keeper->copy, &err) < 0) {
		source_fail(source, err.text);
		return;
	}
	source->script = script_new(keeper);
	script_add(source->script, "stop", NULL);
	script_run(source->script, on_guest_stopped, source);
}

/* Both sides must reach the store, for it will have to say which one goes on.  Nobody asks it now:
 * both were asked all the time, so this waits only after trouble. */
void switchover_look_fresh(struct source *source)
{
	uint64_t limit = source->keeper->config->timers.migration_switch, now = clock_now();

	if (!source->switching || source->continuing || source->failed ||
	    now > source->own_fresh + limit || now > source->peer_fresh + limit)
		return;
	source->continuing = true;
	if (source->posting)
		stop_guest(source);
	else if (sender_has_mirrors(source->sender))
		sender_end_mirrors(source->sender, on_mirror_ended);
	else
		switchover_let_go_on(source);
}

void switchover_begin(struct source *source)
{
	if (source->switching)
		return;
	source->switching = true;
	timeline_phase(source_timeline(source), "switching");
	source_arm(source, &source->limit, source->keeper->config->timers.migration_switch,
		   on_limit);
	checkpoint("keeper.source.switch");
	switchover_look_fresh(source);
}

void switchover_postcopy(struct source *source)
{
	source->switching = source->posting = true;
	timeline_phase(source_timeline(source), "postcopy");
	report_event(source->keeper, "postcopy", NULL,
		     "its time is over: it goes on on node '%s', and its memory follows",
		     source->target);
	source_arm(source, &source->limit, source->keeper->config->timers.migration_switch,
		   on_limit);
	checkpoint("keeper.source.postcopy");
	switchover_look_fresh(source);
}
