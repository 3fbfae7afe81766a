/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/migration.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "core/wish.h"
#include "keeper/copy.h"
#include "keeper/keeper.h"
#include "keeper/lease.h"
#include "keeper/offer.h"
#include "keeper/ownership.h"
#include "keeper/receive.h"
#include "keeper/recovery.h"
#include "keeper/report.h"
#include "keeper/source.h"
#include "keeper/step.h"
#include "keeper/timeline.h"
#include "keeper/transfer.h"
#include "model/config.h"
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
	migration->backoff =
		(struct backoff){ .first = AGAIN_FIRST, .max = AGAIN_MAX, .forget = UINT64_MAX };
	return migration;
}

struct migration *migration_free(struct migration *migration)
{
	if (!migration)
		return NULL;
	source_free(migration->source);
	receive_free(migration->receive);
	recovery_free(migration->recovery);
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

bool migration_goes_on(const struct keeper *keeper)
{
	const struct source *source = keeper->migration->source;

	return source && belongs_elsewhere(keeper) &&
	       strcmp(keeper->want.move.target, source_target(source)) == 0;
}

/* And nothing speaks against it. */
static bool is_wanted(const struct keeper *keeper)
{
	return migration_goes_on(keeper) && !source_failed(keeper->migration->source) &&
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

void migration_end_source(struct keeper *keeper, const char *result, const char *why)
{
	struct migration *migration = keeper->migration;

	migration->timeline = timeline_end(migration->timeline, result, why);
	migration->source = source_end(migration->source, why);
	migration->told_since = migration->taken_since = 0;
	migration->called_off = false;
}

void migration_failed(struct keeper *keeper, const char *why)
{
	struct migration *migration = keeper->migration;
	uint64_t random = 0;

	(void)snprintf(migration->trouble, sizeof(migration->trouble), "%s", why);
	if (keeper->copy && keeper->copy->incoming && !keeper->copy->ran) {
		keeper_failed(keeper, 0, why);
		return;
	}
	report_event(keeper, "migration-failed", NULL, "%s", why);
	/* Without a random number it is only less polite. */
	(void)!getrandom(&random, sizeof(random), GRND_NONBLOCK);
	migration->not_before =
		clock_now() + backoff_spread(backoff_failed(&migration->backoff, 0), random);
	keeper_look_in(keeper, migration->not_before - clock_now());
}

/* The guest runs and belongs elsewhere: is there somebody who would take it? */
static void source_running(struct keeper *keeper)
{
	struct migration *migration = keeper->migration;
	const struct owner *record = &keeper->ownership->record;
	bool failed = source_failed(migration->source) && !migration->called_off;
	json_t *offer = NULL;

	if (ownership_held_here(keeper) && belongs_elsewhere(keeper))
		offer = offer_for(keeper, record->epoch + 1, keeper->want.move.target);
	if (migration->source) {
		/* While the record is ours alone, everything may still be called off. */
		if (record->phase == OWNER_HELD && !keeper->ownership->write &&
		    (source_failed(migration->source) || !offer ||
		     !source_fits(migration->source, offer)))
			migration_end_source(keeper, failed ? "failed" : "cancelled",
					     failed ? migration->trouble : MIGRATION_NOT_WANTED);
		return;
	}
	if (offer && keeper->want.move.may_send && !keeper->ownership->write &&
	    clock_now() >= migration->not_before)
		source_begin(keeper, offer, false);
}

/* The copy that was sent, or hands out pages, and the offer by which its target is reached. */
static json_t *offer_of_target(const struct keeper *keeper)
{
	const struct owner *record = &keeper->ownership->record;

	if (record->phase == OWNER_MOVING && strcmp(record->node, keeper->config->node) == 0)
		return offer_for(keeper, record->epoch, record->to);
	if (record->phase == OWNER_HELD && strcmp(record->feeder, keeper->config->node) == 0)
		return offer_for(keeper, record->try_epoch, record->node);
	return NULL;
}

/* Whoever is to hear of it must be reached, be the first way there gone. */
static void source_late_look(struct keeper *keeper)
{
	struct migration *migration = keeper->migration;
	json_t *offer = offer_of_target(keeper);

	if (!offer || (migration->source && !source_failed(migration->source)))
		return;
	if (clock_now() < migration->redial) {
		keeper_look_in(keeper, migration->redial - clock_now());
		return;
	}
	migration->redial = clock_now() + RECONNECT;
	migration->source = source_free(migration->source);
	source_begin(keeper, offer, true);
}

/* The record names this node as the one that still has pages, and there is no copy: the target must
 * hear that, for its guest waits for them.  The way there is kept until the record has changed. */
static bool feeder_is_lost(const struct keeper *keeper)
{
	const struct owner *record = &keeper->ownership->record;

	return !keeper->copy && !keeper->remains && record->phase == OWNER_HELD &&
	       strcmp(record->feeder, keeper->config->node) == 0;
}

static void lost_look(struct keeper *keeper)
{
	if (!feeder_is_lost(keeper)) {
		if (keeper->migration->source)
			migration_end_source(keeper, "failed", "its copy is gone");
		return;
	}
	source_late_look(keeper);
	if (keeper->migration->source)
		source_lost(keeper->migration->source);
}

static void source_look(struct keeper *keeper, enum migration_copy copy)
{
	if (copy == COPY_RUNNING || copy == COPY_STOPPED)
		source_running(keeper);
	else if (copy == COPY_COMPLETED || copy == COPY_FEEDING)
		source_late_look(keeper);
	else if (copy == COPY_NONE)
		lost_look(keeper);
	if (copy == COPY_FEEDING)
		recovery_look(keeper);
}

static void receive_look(struct keeper *keeper, enum migration_copy copy)
{
	struct migration *migration = keeper->migration;

	if ((copy == COPY_INCOMING || copy == COPY_LOADED || copy == COPY_FAULTING) &&
	    !migration->receive)
		receive_resume(keeper);
}

/* ---- facts ---- */

/* What the source of a copy said at its end is no word about the target that it is sent to now. */
static bool pages_are_lost(const struct keeper *keeper)
{
	return keeper->copy && keeper->copy->incoming &&
	       receive_lost_heard(keeper->migration->receive) && transfer_is_broken(keeper);
}

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
		/* One that was over and is back permits no `cont` by what was won before. */
		.lease = lease == 0 || lease == -ESTALE,
		.copy = copy,
		.attempt = keeper->copy ? keeper->copy->attempt : 0,
		.wanted = is_wanted(keeper),
		.offered = source_agreed(migration->source),
		.target = source_target(migration->source),
		.ready = source_ready(migration->source),
		.told_long = (migration->told_since &&
			      now >= migration->told_since + timers->migration_take_back) ||
			     transfer_is_undone(keeper),
		.released = source_running_heard(migration->source) ||
			    (keeper->copy && keeper->copy->end_ordered) ||
			    (migration->taken_since &&
			     now >= migration->taken_since + timers->migration_keep),
		.other_copy_gone = source_gone_heard(migration->source) || pages_are_lost(keeper),
		.stopped_heard = receive_stopped_heard(migration->receive),
		.unwanted = down || receive_failed(migration->receive),
		.cont_refused = migration->cont_refused,
		.source_known = migration->from[0] != '\0',
		.postcopy = receive_postcopy(migration->receive),
		.ended = wish_is_down(keeper->want.wish),
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

	/* Nobody tells when it is there again. */
	if (decision->action == MIGRATION_WAIT && !facts->lease)
		keeper_look_in(keeper, LEASE_AGAIN);
	if (decision->action == MIGRATION_SAY_STOPPED && !migration->told_since) {
		if (strcmp(migration->status, "completed") == 0)
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
	/* The keeper that let it run did not come to say so, or the last page is here. */
	if ((copy == COPY_RUNNING || (copy == COPY_FAULTING && !migration->arrived)) &&
	    keeper->copy->incoming && ownership_held_here(keeper)) {
		lease_begin(keeper);
		step_arrived(keeper);
	}
	receive_look(keeper, copy);
	offer_look(keeper);
	source_look(keeper, copy);
	gather(keeper, copy, &facts);
	decision = migration_decide(&facts);
	note_times(keeper, &decision, &facts);
	if (decision.action == MIGRATION_NONE)
		return feeder_is_lost(keeper);
	if (is_news(decision.action))
		log_info("migration: %s, copy %s: %s (%s)", facts.record ? "record" : "no record",
			 migration_copy_name(copy), migration_action_name(decision.action),
			 decision.why);
	step_take(keeper, &decision);
	return true;
}

void migration_copy_ended(struct keeper *keeper)
{
	struct migration *migration = keeper->migration;

	migration->asking = migration->asking_disks = migration->acting = false;
	migration->status[0] = '\0';
	migration->told_since = migration->taken_since = migration->cont_after = 0;
	migration->refusal[0] = '\0';
	migration->arrived = false;
	migration->recovery = recovery_free(migration->recovery);
	if (migration->receive) {
		migration->timeline = timeline_end(migration->timeline, "failed",
						   *migration->trouble ? migration->trouble
								       : "the receiver has ended");
		migration->receive = receive_end(migration->receive, "the receiver has ended");
	}
	if (migration->source)
		migration_end_source(keeper, "failed", "QEMU has ended");
}

void migration_link_up(struct keeper *keeper)
{
	receive_link_up(keeper->migration->receive);
}

/* ---- for people ---- */

bool migration_hangs(const struct keeper *keeper)
{
	const struct migration *migration = keeper->migration;

	/* Postcopy: once the target took it, it is the one to say so. */
	bool taken = transfer_copy(keeper) == COPY_FEEDING &&
		     keeper->ownership->record.phase != OWNER_MOVING;

	if (*migration->refusal)
		return true;
	return migration->told_since && !taken &&
	       clock_now() > migration->told_since + keeper->config->timers.migration_take_back;
}

bool migration_is_under_way(const struct keeper *keeper)
{
	const struct migration *migration = keeper->migration;

	return (migration->source && !source_failed(migration->source)) ||
	       (migration->receive && keeper->copy && keeper->copy->incoming) ||
	       migration->withdrawing || migration->acting || transfer_copy(keeper) == COPY_FEEDING;
}

static const char *target_of(const struct owner *record)
{
	return record->phase == OWNER_MOVING ? record->to : record->node;
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
	if (transfer_copy(keeper) == COPY_FEEDING)
		return json_pack("{s:s, s:s, s:s, s:s}", "role", "source", "phase", "reconnecting",
				 "from", keeper->config->node, "to",
				 target_of(&keeper->ownership->record));
	if (migration->receive && keeper->copy && keeper->copy->incoming)
		return json_pack("{s:s, s:s, s:s, s:s}", "role", "target", "phase",
				 receive_phase(migration->receive), "from",
				 receive_source(migration->receive), "to", keeper->config->node);
	return NULL;
}

/* Postcopy: the guest runs on one side and has memory on the other. */
static bool words_of_pages(const struct keeper *keeper, char *buffer, size_t size)
{
	const struct owner *record = &keeper->ownership->record;
	enum migration_copy copy = transfer_copy(keeper);
	bool broken = transfer_is_broken(keeper);

	if (copy == COPY_FAULTING && broken)
		(void)snprintf(buffer, size,
			       "part of its memory is on node '%s' and the stream from there is "
			       "broken: it may hang until node '%s' reaches this one again",
			       record->feeder, record->feeder);
	else if (copy == COPY_FAULTING)
		(void)snprintf(buffer, size, "the rest of its memory follows from node '%s'",
			       record->feeder);
	else if (copy == COPY_FEEDING && broken)
		(void)snprintf(buffer, size,
			       "it goes on on node '%s', part of its memory is here and the stream "
			       "is broken: another one is tried, %u tries came to nothing",
			       target_of(record), recovery_tries(keeper->migration->recovery));
	else if (copy == COPY_FEEDING)
		(void)snprintf(buffer, size, "it goes on on node '%s', its memory follows",
			       target_of(record));
	else
		return false;
	return true;
}

bool migration_words(const struct keeper *keeper, char *buffer, size_t size)
{
	json_auto_t *value = migration_json(keeper);
	const char *phase = json_string_or(value, "phase", "");

	if (words_of_pages(keeper, buffer, size))
		return true;
	if (*keeper->migration->refusal)
		(void)snprintf(buffer, size,
			       "it stands still after a move, whole: QEMU does not let it go on "
			       "here: %s; tried again every second",
			       keeper->migration->refusal);
	else if (migration_hangs(keeper) && !ownership_held_here(keeper))
		(void)snprintf(buffer, size,
			       "it stands still, whole: it was sent to node '%s', which does not "
			       "say that it runs there; the store decides which of the two goes on "
			       "(does it answer? 'drover node status')",
			       keeper->ownership->record.to[0] ? keeper->ownership->record.to
							       : keeper->ownership->record.node);
	else if (!value && belongs_elsewhere(keeper) && *keeper->migration->trouble)
		(void)snprintf(buffer, size, "moving it to node '%s' did not work: %s; tried again",
			       keeper->want.move.target, keeper->migration->trouble);
	else if (!value)
		return false;
	else if (strcmp(json_string_or(value, "role", ""), "target") == 0)
		(void)snprintf(buffer, size, "taking it over from node '%s': %s",
			       json_string_or(value, "from", "?"), phase);
	else if (strcmp(phase, "copying") == 0 || strcmp(phase, PHASE_MIRRORING) == 0)
		(void)snprintf(buffer, size, "migrating to node '%s': %s, %d %%",
			       json_string_or(value, "to", "?"), phase,
			       (int)json_int_or(value, "percent", 0));
	else
		(void)snprintf(buffer, size, "migrating to node '%s': %s",
			       json_string_or(value, "to", "?"), phase);
	return true;
}
