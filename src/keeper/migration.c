/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/migration.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "core/backoff.h"
#include "keeper/console.h"
#include "keeper/copy.h"
#include "keeper/disks.h"
#include "keeper/keeper.h"
#include "keeper/lease.h"
#include "keeper/monitor.h"
#include "keeper/offer.h"
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
#include "util/cleanup.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

#define AGAIN_FIRST (1 * USEC_PER_SEC)
#define AGAIN_MAX (20 * USEC_PER_SEC)
#define RECONNECT (100 * USEC_PER_MSEC)

struct migration *migration_new(struct keeper *keeper)
{
	struct migration *migration = xcalloc(1, sizeof(*migration));

	migration->keeper = keeper;
	return migration;
}

struct migration *migration_free(struct migration *migration)
{
	if (!migration)
		return NULL;
	source_free(migration->source);
	receive_free(migration->receive);
	timeline_free(migration->timeline);
	free(migration);
	return NULL;
}

/* ---- what is wanted ---- */

bool migration_is_cold(const struct keeper *keeper)
{
	const struct want_move *move = &keeper->want.move;

	if (strcmp(move->method, "shutdown") == 0)
		return true;
	return strcmp(move->method, "live") != 0 &&
	       keeper->want.definition->migration_method == MIGRATE_SHUTDOWN;
}

bool migration_may_receive(const struct keeper *keeper)
{
	const struct ownership *own = keeper->ownership;

	return own->known && own->exists && own->record.phase == OWNER_HELD &&
	       strcmp(own->record.node, keeper->config->node) != 0 && !own->record.feeder[0] &&
	       keeper->want.move.may_receive && keeper->hardware && !migration_is_cold(keeper);
}

static bool belongs_elsewhere(const struct keeper *keeper)
{
	const struct want_move *move = &keeper->want.move;

	return keeper->want.wish == WISH_ELSEWHERE && move->target[0] && !move->cancelled &&
	       strcmp(move->target, keeper->config->node) != 0 && !migration_is_cold(keeper);
}

/* Of a move that is under way: does it go where the VM is to be, and does nothing speak against it?
 */
static bool is_wanted(const struct keeper *keeper)
{
	const struct source *source = keeper->migration->source;

	return source && !source_failed(source) && belongs_elsewhere(keeper) &&
	       strcmp(keeper->want.move.target, source_target(source)) == 0 &&
	       transfer_is_healthy(keeper);
}

/* The offer that stands, if it is for `epoch` and by the node where the VM is to be. */
static json_t *offer_for(const struct keeper *keeper, uint64_t epoch, const char *node)
{
	json_t *offer = keeper->want.move.offer;

	if (!offer || (uint64_t)json_int_or(offer, "epoch", 0) != epoch ||
	    strcmp(json_string_or(offer, "node", ""), node) != 0)
		return NULL;
	return offer;
}

/* ---- beginnings and ends of the conversations ---- */

static void end_source(struct keeper *keeper, const char *result, const char *why)
{
	struct migration *migration = keeper->migration;

	migration->timeline = timeline_end(migration->timeline, result, why);
	migration->source = source_end(migration->source, why);
	migration->told_since = migration->taken_since = 0;
}

void migration_failed(struct keeper *keeper, const char *why)
{
	struct migration *migration = keeper->migration;
	uint64_t wait = AGAIN_FIRST << (migration->failures < 5 ? migration->failures : 5),
		 random = 0;

	(void)snprintf(migration->trouble, sizeof(migration->trouble), "%s", why);
	if (keeper->copy && keeper->copy->incoming && !keeper->copy->ran) {
		keeper_failed(keeper, 0, why);
		return;
	}
	report_event(keeper, "migration-failed", NULL, "%s", why);
	migration->failures++;
	/* Without a random number it is only less polite. */
	(void)!getrandom(&random, sizeof(random), GRND_NONBLOCK);
	migration->not_before =
		clock_now() + backoff_spread(wait < AGAIN_MAX ? wait : AGAIN_MAX, random);
	keeper_look_in(keeper, migration->not_before - clock_now());
}

/* The guest runs and belongs elsewhere: is there somebody who would take it? */
static void source_running(struct keeper *keeper)
{
	struct migration *migration = keeper->migration;
	const struct owner *record = &keeper->ownership->record;
	json_t *offer = NULL;

	if (ownership_held_here(keeper) && belongs_elsewhere(keeper))
		offer = offer_for(keeper, record->epoch + 1, keeper->want.move.target);
	if (migration->source) {
		/* While the record is ours alone, everything may still be called off. */
		if (record->phase == OWNER_HELD && !keeper->ownership->write &&
		    (source_failed(migration->source) || !offer ||
		     !source_fits(migration->source, offer)))
			end_source(keeper,
				   source_failed(migration->source) ? "failed" : "cancelled",
				   source_failed(migration->source) ? migration->trouble
								    : "it is not wanted any more");
		return;
	}
	if (offer && keeper->want.move.may_send && !keeper->ownership->write &&
	    clock_now() >= migration->not_before)
		source_begin(keeper, offer, false);
}

/* QEMU has sent everything; whoever is to hear of it must be reached, be the first way there gone.
 */
static void source_completed(struct keeper *keeper)
{
	struct migration *migration = keeper->migration;
	const struct owner *record = &keeper->ownership->record;
	json_t *offer;

	if (record->phase != OWNER_MOVING ||
	    (migration->source && !source_failed(migration->source)))
		return;
	offer = offer_for(keeper, record->epoch, record->to);
	if (!offer)
		return;
	if (clock_now() < migration->redial) {
		keeper_look_in(keeper, migration->redial - clock_now());
		return;
	}
	migration->redial = clock_now() + RECONNECT;
	migration->source = source_free(migration->source);
	source_begin(keeper, offer, true);
}

static void source_look(struct keeper *keeper, enum migration_copy copy)
{
	if (copy == COPY_RUNNING || copy == COPY_STOPPED)
		source_running(keeper);
	else if (copy == COPY_COMPLETED || copy == COPY_FEEDING)
		source_completed(keeper);
}

static void receive_look(struct keeper *keeper, enum migration_copy copy)
{
	struct migration *migration = keeper->migration;

	if ((copy == COPY_INCOMING || copy == COPY_LOADED) && !migration->receive)
		receive_resume(keeper);
}

/* ---- facts ---- */

static void gather(struct keeper *keeper, enum migration_copy copy, struct migration_facts *ret)
{
	struct migration *migration = keeper->migration;
	const struct ownership *own = keeper->ownership;
	const struct timers *timers = &keeper->config->timers;
	uint64_t now = clock_now();
	int lease = lease_check(keeper, 0, NULL);
	bool down = keeper->want.wish != WISH_RUN;

	*ret = (struct migration_facts){
		.node = keeper->config->node,
		.record = own->exists ? &own->record : NULL,
		.write_open = own->write != NULL,
		.permitted = own->permitted && lease != -ESTALE,
		.lease = lease == 0,
		.copy = copy,
		.attempt = keeper->copy ? keeper->copy->attempt : 0,
		.wanted = is_wanted(keeper),
		.offered = source_agreed(migration->source),
		.target = source_target(migration->source),
		.ready = source_ready(migration->source),
		.told_long = migration->told_since &&
			     now >= migration->told_since + timers->migration_take_back,
		.released = source_running_heard(migration->source) ||
			    (keeper->copy && keeper->copy->end_ordered) ||
			    (migration->taken_since &&
			     now >= migration->taken_since + timers->migration_keep),
		.other_copy_gone = source_gone_heard(migration->source),
		.stopped_heard = receive_stopped_heard(migration->receive),
		.unwanted = down || receive_failed(migration->receive),
		.cont_refused = migration->cont_refused,
		.source_known = migration->from[0] != '\0',
	};
}

/* Since when something lasts, for what is waited for by time. */
static void note_times(struct keeper *keeper, const struct migration_decision *decision,
		       const struct migration_facts *facts)
{
	struct migration *migration = keeper->migration;
	const struct timers *timers = &keeper->config->timers;
	bool away = facts->record && facts->record->phase == OWNER_HELD &&
		    strcmp(facts->record->node, facts->node) != 0;

	if (decision->action == MIGRATION_SAY_STOPPED && !migration->told_since) {
		timeline_phase(migration->timeline, "completed");
		migration->told_since = clock_now();
		keeper_look_in(keeper, timers->migration_take_back);
	}
	if ((facts->copy == COPY_COMPLETED || facts->copy == COPY_FEEDING) && away &&
	    !migration->taken_since) {
		migration->taken_since = clock_now();
		keeper_look_in(keeper, timers->migration_keep);
	}
}

/* ---- actions ---- */

static void on_written(struct keeper *keeper, int r, const struct error *err)
{
	if (r < 0)
		log_info("write of the owner record: %s", err->text);
	else if (keeper->ownership->record.phase == OWNER_MOVING)
		checkpoint("keeper.source.moved");
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
	write_record(keeper, OWNERSHIP_MOVE, source_target(keeper->migration->source), "pre",
		     on_written);
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

/* It runs here, by migration. */
static void arrived(struct keeper *keeper)
{
	struct migration *migration = keeper->migration;

	checkpoint("keeper.receive.running");
	keeper->copy->incoming = false;
	keeper->copy->attempt = 0;
	(void)copy_save(keeper, keeper->copy, NULL);
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
	migration->timeline = timeline_end(migration->timeline, "moved", NULL);
	if (migration->receive)
		receive_running(migration->receive, migration->resumed);
	else
		receive_left(keeper);
	disks_arrived(keeper);
	pending_look(keeper);
}

/* It runs here again: what was begun came to nothing. */
static void came_back(struct keeper *keeper)
{
	report_event(keeper, "migration-undone", NULL, "the guest goes on here");
	end_source(keeper, "failed",
		   *keeper->migration->trouble ? keeper->migration->trouble
					       : "the target did not take it");
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
		log_warning("cont: %s; going by what QEMU says next", err->text);
		keeper_look_in(keeper, RECONNECT);
		return;
	}
	if (came) {
		arrived(keeper);
	} else {
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
	keeper_look_in(keeper, RECONNECT);
}

static void cancel(struct keeper *keeper)
{
	struct error err = { 0 };

	timeline_phase(keeper->migration->timeline, "cancelling");
	checkpoint("keeper.source.cancel");
	/* In the device phase QEMU may let a cancelled guest run without its disks, and one whose
	 * stream nobody reads answers nothing: there the stream is shut (docs/QEMU.md). */
	if (strcmp(keeper->migration->status, "device") == 0 &&
	    source_shut(keeper->migration->source)) {
		keeper_look_in(keeper, RECONNECT);
		return;
	}
	if (monitor_call(keeper->monitor, "migrate_cancel", NULL, on_cancelled, keeper, &err) < 0)
		keeper_look_in(keeper, keeper->config->timers.store_retry);
	else
		keeper->migration->acting = true;
}

static void finish(struct keeper *keeper)
{
	const char *node = keeper->ownership->record.node;

	checkpoint("keeper.source.finish");
	keeper->migration->trouble[0] = '\0';
	keeper->migration->failures = 0;
	report_event(keeper, "moved-away", NULL, "it runs on node '%s'", *node ? node : "?");
	end_source(keeper, "moved", NULL);
	copy_note(keeper, &keeper->copy->end_ordered);
	stop_destroy(keeper, "it runs on another node");
}

static void destroy(struct keeper *keeper, const char *why)
{
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

static void act(struct keeper *keeper, const struct migration_decision *decision)
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
		checkpoint("keeper.source.back");
		write_record(keeper, OWNERSHIP_BACK, NULL, NULL, on_back);
		break;
	case MIGRATION_WRITE_RENEW:
		write_record(keeper, OWNERSHIP_RENEW, NULL, NULL, on_written);
		break;
	case MIGRATION_WRITE_TAKE:
		write_take(keeper);
		break;
	case MIGRATION_WRITE_DECLINE:
		checkpoint("keeper.receive.decline");
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

static bool is_news(enum migration_action action)
{
	return action != MIGRATION_WAIT && action != MIGRATION_SAY_STOPPED &&
	       action != MIGRATION_SEND;
}

bool migration_look(struct keeper *keeper)
{
	struct migration *migration = keeper->migration;
	enum migration_copy copy = transfer_copy(keeper);
	struct migration_decision decision;
	struct migration_facts facts;

	if (keeper->start || keeper->stop || keeper->cleanup || keeper->resuming ||
	    keeper->pausing || keeper->unproven || (!keeper->copy && !keeper->scanned))
		return false;
	if (migration->acting)
		return true;
	if (copy == COPIES)
		return keeper->copy->attempt != 0;
	/* The keeper that let it run did not come to say so. */
	if (copy == COPY_RUNNING && keeper->copy->incoming && ownership_held_here(keeper)) {
		lease_begin(keeper);
		arrived(keeper);
	}
	receive_look(keeper, copy);
	offer_look(keeper);
	source_look(keeper, copy);
	gather(keeper, copy, &facts);
	decision = migration_decide(&facts);
	note_times(keeper, &decision, &facts);
	if (decision.action == MIGRATION_NONE)
		return false;
	if (is_news(decision.action))
		log_info("migration: %s, copy %s: %s (%s)", facts.record ? "record" : "no record",
			 migration_copy_name(copy), migration_action_name(decision.action),
			 decision.why);
	act(keeper, &decision);
	return true;
}

void migration_copy_ended(struct keeper *keeper)
{
	struct migration *migration = keeper->migration;

	migration->asking = migration->acting = false;
	migration->status[0] = '\0';
	migration->told_since = migration->taken_since = 0;
	if (migration->receive) {
		migration->timeline = timeline_end(migration->timeline, "failed",
						   *migration->trouble ? migration->trouble
								       : "the receiver has ended");
		migration->receive = receive_end(migration->receive, "the receiver has ended");
	}
	if (migration->source)
		end_source(keeper, "failed", "QEMU has ended");
}

void migration_link_up(struct keeper *keeper)
{
	receive_link_up(keeper->migration->receive);
}

/* ---- for people ---- */

bool migration_hangs(const struct keeper *keeper)
{
	const struct migration *migration = keeper->migration;

	return migration->told_since &&
	       clock_now() > migration->told_since + keeper->config->timers.migration_take_back;
}

json_t *migration_json(const struct keeper *keeper)
{
	const struct migration *migration = keeper->migration;
	json_t *value;

	if (migration->source && !source_failed(migration->source)) {
		value = source_json(migration->source);
		json_set_string(value, "role", "source");
		json_set_string(value, "from", keeper->config->node);
		json_set_string(value, "to", source_target(migration->source));
		return value;
	}
	if (migration->receive && keeper->copy && keeper->copy->incoming)
		return json_pack("{s:s, s:s, s:s, s:s}", "role", "target", "phase",
				 receive_phase(migration->receive), "from",
				 keeper->ownership->record.node, "to", keeper->config->node);
	return NULL;
}

bool migration_words(const struct keeper *keeper, char *buffer, size_t size)
{
	json_auto_t *value = migration_json(keeper);
	const char *phase = json_string_or(value, "phase", "");

	if (!value && belongs_elsewhere(keeper) && *keeper->migration->trouble)
		(void)snprintf(buffer, size, "moving it to node '%s' did not work: %s; tried again",
			       keeper->want.move.target, keeper->migration->trouble);
	else if (!value)
		return false;
	else if (strcmp(json_string_or(value, "role", ""), "target") == 0)
		(void)snprintf(buffer, size, "taking it over from node '%s': %s",
			       json_string_or(value, "from", "?"), phase);
	else if (strcmp(phase, "copying") == 0)
		(void)snprintf(buffer, size, "migrating to node '%s': copying, %d %%",
			       json_string_or(value, "to", "?"),
			       (int)json_int_or(value, "percent", 0));
	else
		(void)snprintf(buffer, size, "migrating to node '%s': %s",
			       json_string_or(value, "to", "?"), phase);
	return true;
}
