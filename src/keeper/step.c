/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/step.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/backoff.h"
#include "keeper/claims.h"
#include "keeper/console.h"
#include "keeper/copy.h"
#include "keeper/disks.h"
#include "keeper/keeper.h"
#include "keeper/lease.h"
#include "keeper/migration.h"
#include "keeper/monitor.h"
#include "keeper/ownership.h"
#include "keeper/pending.h"
#include "keeper/psk.h"
#include "keeper/receive.h"
#include "keeper/report.h"
#include "keeper/source.h"
#include "keeper/stop.h"
#include "keeper/timeline.h"
#include "keeper/transfer.h"
#include "model/config.h"
#include "util/checkpoint.h"
#include "util/log.h"
#include "wire/json.h"

#define LOOK_AGAIN (100 * USEC_PER_MSEC)
#define CONT_AGAIN (1 * USEC_PER_SEC)

static void on_written(struct keeper *keeper, int r, const struct error *err)
{
	if (r < 0)
		log_info("write of the owner record: %s", err->text);
	else if (keeper->ownership->record.phase == OWNER_MOVING)
		checkpoint("keeper.source.moved");
	/* A refusal tells nothing new of the record, so the same would be asked at once. */
	if (r < 0 && r != -ESTALE)
		keeper_look_in(keeper, keeper->config->timers.store_retry);
	else
		keeper_look(keeper);
}

/* The guest runs and the record is ours again: the move is forgotten.  A `cont` gives a source its
 * disks back, should QEMU have forgotten that (docs/QEMU.md). */
static void on_back(struct keeper *keeper, int r, const struct error *err)
{
	struct error why = { 0 };

	psk_remove(keeper);
	if (r == 0 && transfer_copy(keeper) == COPY_RUNNING && lease_check(keeper, 0, NULL) == 0 &&
	    monitor_call(keeper->monitor, "cont", NULL, NULL, NULL, &why) == 0) {
		keeper->copy->attempt = 0;
		keeper->copy->still = false;
		(void)copy_save(keeper, keeper->copy, NULL);
	}
	on_written(keeper, r, err);
}

static void on_given(struct keeper *keeper, int r, const struct error *err)
{
	keeper->migration->cont_refused = false;
	on_written(keeper, r, err);
}

static void write_record(struct keeper *keeper, enum ownership_kind kind, const char *node,
			 const char *detail, ownership_fn done)
{
	struct error err = { 0 };

	if (ownership_write(keeper, kind, node, detail, done, &err) < 0) {
		log_error("write of the owner record: %s", err.text);
		keeper_look_in(keeper, keeper->config->timers.store_retry);
	}
}

/* The copy is noted as belonging to the move before there is one: the next keeper knows it by that.
 */
static void write_move(struct keeper *keeper)
{
	struct error err = { 0 };

	keeper->copy->attempt = keeper->ownership->record.epoch + 1;
	keeper->copy->end_ordered = false; /* by a keeper that died before a stop was taken back */
	(void)snprintf(keeper->migration->status, sizeof(keeper->migration->status), "none");
	if (copy_save(keeper, keeper->copy, &err) < 0) {
		keeper->copy->attempt = 0;
		migration_failed(keeper, err.text);
		return;
	}
	report_event(keeper, "migrating", NULL, "to node '%s' (epoch %llu)",
		     source_target(keeper->migration->source),
		     (unsigned long long)keeper->copy->attempt);
	checkpoint("keeper.source.move");
	write_record(keeper, OWNERSHIP_MOVE, source_target(keeper->migration->source),
		     source_postcopy(keeper->migration->source) ? "post" : "pre", on_written);
}

/* Whom to give it back to, should QEMU refuse to run it. */
static void write_take(struct keeper *keeper)
{
	struct migration *migration = keeper->migration;
	const struct owner *record = &keeper->ownership->record;

	memcpy(migration->from, record->node, sizeof(migration->from));
	memcpy(migration->from_boot, record->boot, sizeof(migration->from_boot));
	timeline_phase(migration->timeline, "taking");
	checkpoint("keeper.receive.take");
	write_record(keeper, OWNERSHIP_TAKE, NULL, NULL, on_written);
}

static void announce(struct keeper *keeper)
{
	json_auto_t *args = json_pack("{s:i, s:i, s:i, s:i}", "initial", 50, "max", 550, "rounds",
				      5, "step", 100);
	struct error err = { 0 };

	if (monitor_call(keeper->monitor, "announce-self", args, NULL, NULL, &err) < 0)
		log_warning("announcing its addresses: %s", err.text);
}

static void arrived(struct keeper *keeper)
{
	struct migration *migration = keeper->migration;

	migration->arrived = true;
	announce(keeper);
	keeper->failure[0] = '\0';
	backoff_reset(&keeper->backoff);
	console_next(keeper->console);
	report_event(keeper, "arrived", NULL, "it runs here, moved from node '%s'; QEMU is pid %d",
		     migration->from[0] ? migration->from : "?", (int)keeper->copy->id.pid);
	timeline_phase(migration->timeline, "running");
	timeline_number(migration->timeline, "resume_usec", migration->resumed);
	if (receive_stopped_usec(migration->receive) &&
	    migration->resumed > receive_stopped_usec(migration->receive))
		timeline_number(migration->timeline, "pause_usec",
				migration->resumed - receive_stopped_usec(migration->receive));
	if (migration->receive)
		receive_running(migration->receive, migration->resumed);
	disks_arrived(keeper);
	pending_look(keeper);
}

static void all_here(struct keeper *keeper)
{
	/* Noted last: the next keeper does again what this one may die over. */
	checkpoint("keeper.receive.all-here");
	keeper->copy->incoming = false;
	keeper->copy->attempt = 0;
	(void)copy_save(keeper, keeper->copy, NULL);
	keeper->migration->timeline = timeline_end(keeper->migration->timeline, "moved", NULL);
	receive_over(keeper);
}

void step_arrived(struct keeper *keeper)
{
	checkpoint("keeper.receive.running");
	if (!keeper->migration->arrived)
		arrived(keeper);
	if (!transfer_lacks_pages(keeper))
		all_here(keeper);
}

/* It runs here again: what was begun came to nothing. */
static void came_back(struct keeper *keeper)
{
	report_event(keeper, "migration-undone", NULL, "the guest goes on here");
	if (keeper->migration->called_off) {
		migration_end_source(keeper, "cancelled", MIGRATION_NOT_WANTED);
		return;
	}
	migration_end_source(keeper, "failed",
			     *keeper->migration->trouble ? keeper->migration->trouble
							 : "the target did not take it");
}

/* A copy that may run and does not: it is the only one, so it is tried again, and told. */
static void cont_failed(struct keeper *keeper, int r, const struct error *err)
{
	struct migration *migration = keeper->migration;

	log_warning("%s; going by what QEMU says next", err->text);
	migration->cont_after = clock_now() + CONT_AGAIN;
	keeper_look_in(keeper, CONT_AGAIN);
	if (r != -EREMOTEIO ||
	    strncmp(migration->refusal, err->text, sizeof(migration->refusal) - 1) == 0)
		return;
	(void)snprintf(migration->refusal, sizeof(migration->refusal), "%s", err->text);
	report_event(keeper, "cont-refused", NULL, "%s", err->text);
}

static void on_cont(void *ctx, int r, json_t *value, const struct error *err)
{
	struct keeper *keeper = ctx;
	struct migration *migration = keeper->migration;
	struct copy *copy = keeper->copy;
	bool came = copy && copy->incoming;

	migration->acting = keeper->letting_run = false;
	if (!copy)
		return;
	monitor_outdated(keeper->monitor);
	/* QEMU's own "no" is the only answer that proves that nothing ran. */
	if (r == -EREMOTEIO && came && migration->never_ran) {
		report_event(keeper, "cont-refused", NULL, "%s", err->text);
		migration->cont_refused = true;
		copy->ran = false;
		(void)copy_save(keeper, copy, NULL);
		keeper_look(keeper);
		return;
	}
	if (r < 0) {
		cont_failed(keeper, r, err);
		return;
	}
	migration->refusal[0] = '\0';
	if (came) {
		step_arrived(keeper);
	} else {
		checkpoint("keeper.source.resumed");
		copy->attempt = 0;
		copy->still = false;
		(void)copy_save(keeper, copy, NULL);
		announce(keeper);
		came_back(keeper);
	}
	keeper_look(keeper);
}

static void let_run(struct keeper *keeper)
{
	struct copy *copy = keeper->copy;
	struct error err = { 0 };
	uint64_t now = clock_now();

	if (now < keeper->migration->cont_after) {
		keeper_look_in(keeper, keeper->migration->cont_after - now);
		return;
	}
	keeper->migration->never_ran = !copy->ran;
	copy->ran = true;
	copy->held = false;
	lease_begin(keeper);
	if (copy_save(keeper, copy, &err) < 0) {
		log_error("%s; retrying", err.text);
		copy->ran = !copy->incoming;
		keeper_look_in(keeper, keeper->config->timers.store_retry);
		return;
	}
	checkpoint("keeper.migration.cont");
	if (monitor_call(keeper->monitor, "cont", NULL, on_cont, keeper, &err) < 0) {
		log_error("cont: %s; retrying", err.text);
		keeper_look_in(keeper, keeper->config->timers.store_retry);
		return;
	}
	keeper->migration->acting = keeper->letting_run = true;
}

static void on_cancelled(void *ctx, int r, json_t *value, const struct error *err)
{
	struct keeper *keeper = ctx;

	keeper->migration->acting = false;
	if (r < 0)
		log_warning("migrate_cancel: %s", err->text);
	transfer_ask(keeper);
	keeper_look_in(keeper, LOOK_AGAIN);
}

/* In the device phase QEMU may let a cancelled guest run without its disks, and one whose stream
 * nobody reads is not done with the cancel: there the stream is shut (docs/QEMU.md). */
static bool cancels_by_stream(const struct migration *migration)
{
	return strcmp(migration->status, "device") == 0 ||
	       strcmp(migration->status, "cancelling") == 0;
}

/* QEMU may take its time, and says itself when it is done. */
static void cancel(struct keeper *keeper)
{
	struct migration *migration = keeper->migration;
	struct error err = { 0 };
	uint64_t now = clock_now();

	if (now < migration->cancel_after) {
		keeper_look_in(keeper, migration->cancel_after - now);
		return;
	}
	migration->cancel_after = now + LOOK_AGAIN;
	migration->called_off |= !migration_goes_on(keeper);
	timeline_phase(migration->timeline, "cancelling");
	checkpoint("keeper.source.cancel");
	if (cancels_by_stream(migration) && source_shut(migration->source)) {
		keeper_look_in(keeper, LOOK_AGAIN);
		return;
	}
	if (monitor_call(keeper->monitor, "migrate_cancel", NULL, on_cancelled, keeper, &err) < 0)
		keeper_look_in(keeper, keeper->config->timers.store_retry);
	else
		migration->acting = true;
}

static void finish(struct keeper *keeper)
{
	const char *node = keeper->ownership->record.node;

	checkpoint("keeper.source.finish");
	keeper->migration->trouble[0] = '\0';
	backoff_reset(&keeper->migration->backoff);
	report_event(keeper, "moved-away", NULL, "it runs on node '%s'", *node ? node : "?");
	migration_end_source(keeper, "moved", NULL);
	copy_note(keeper, &keeper->copy->end_ordered);
	stop_destroy(keeper, "it runs on another node");
}

static void destroy(struct keeper *keeper, const char *why)
{
	if (transfer_copy(keeper) == COPY_FAULTING)
		report_event(keeper, "memory-lost", NULL,
			     "part of its memory was on node '%s' and is lost: it is started anew",
			     keeper->ownership->record.feeder);
	copy_note(keeper, &keeper->copy->end_ordered);
	stop_destroy(keeper, why);
}

static void say_stopped(struct keeper *keeper)
{
	struct migration *migration = keeper->migration;

	checkpoint("keeper.source.stopped");
	if (migration->source)
		source_say_stopped(migration->source);
	else
		keeper_look_in(keeper, keeper->config->timers.migration_stopped_repeat);
}

/* With no copy here the target may run it, should the store have been set back to the middle of
 * this move. */
static void write_back(struct keeper *keeper)
{
	struct error err = { 0 };

	if (!keeper->copy && claims_check_others(keeper, keeper->want.definition, &err) == -EPERM) {
		log_warning("the move is not taken back: %s", err.text);
		keeper_look_in(keeper, keeper->config->timers.store_retry);
		return;
	}
	checkpoint("keeper.source.back");
	write_record(keeper, OWNERSHIP_BACK, NULL, NULL, on_back);
}

void step_take(struct keeper *keeper, const struct migration_decision *decision)
{
	struct migration *migration = keeper->migration;

	switch (decision->action) {
	case MIGRATION_WRITE_MOVE:
		write_move(keeper);
		break;
	case MIGRATION_SEND:
		source_send(migration->source);
		break;
	case MIGRATION_CANCEL:
		cancel(keeper);
		break;
	case MIGRATION_SAY_STOPPED:
		say_stopped(keeper);
		break;
	case MIGRATION_WRITE_BACK:
		write_back(keeper);
		break;
	case MIGRATION_WRITE_RENEW:
		write_record(keeper, OWNERSHIP_RENEW, NULL, NULL, on_written);
		break;
	case MIGRATION_WRITE_TAKE:
		write_take(keeper);
		break;
	case MIGRATION_WRITE_DECLINE:
		checkpoint("keeper.receive.decline");
		/* Its host may have crashed: once that is answered its disks are nobody's. */
		keeper->remains = keeper->remains || !keeper->copy;
		write_record(keeper, OWNERSHIP_DECLINE, NULL, NULL, on_written);
		break;
	case MIGRATION_WRITE_GIVE:
		write_record(keeper, OWNERSHIP_GIVE, migration->from, migration->from_boot,
			     on_given);
		break;
	case MIGRATION_WRITE_SETTLE:
		write_record(keeper, OWNERSHIP_SETTLE, NULL, NULL, on_written);
		break;
	case MIGRATION_CONT:
		let_run(keeper);
		break;
	case MIGRATION_FINISH:
		finish(keeper);
		break;
	case MIGRATION_DESTROY:
		destroy(keeper, decision->why);
		break;
	default:
		break;
	}
}
