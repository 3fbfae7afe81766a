/* SPDX-License-Identifier: Apache-2.0 */
/* One function for each thing that the record can say about this node; each walks the copies. */
#include "core/migration.h"

#include <string.h>

#include "core/mutant.h"
#include "util/cleanup.h"

static const char *const copy_names[] = {
	[COPY_NONE] = "none",		[COPY_COLD] = "cold",
	[COPY_RUNNING] = "running",	[COPY_STOPPED] = "stopped",
	[COPY_SENDING] = "sending",	[COPY_SWITCHING] = "switching",
	[COPY_COMPLETED] = "completed", [COPY_FEEDING] = "feeding",
	[COPY_INCOMING] = "incoming",	[COPY_LOADED] = "loaded",
	[COPY_FAULTING] = "faulting",
};

const char *migration_copy_name(enum migration_copy copy)
{
	return copy_names[copy];
}

bool migration_status_sends(const char *status)
{
	static const char *const ends[] = { "", "none", "completed", "cancelled", "failed" };

	for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
		if (strcmp(status, ends[i]) == 0)
			return false;
	return strncmp(status, "postcopy", strlen("postcopy")) != 0;
}

static const char *const action_names[] = {
	[MIGRATION_NONE] = "nothing",
	[MIGRATION_WAIT] = "wait",
	[MIGRATION_WRITE_MOVE] = "write-move",
	[MIGRATION_SEND] = "send",
	[MIGRATION_CANCEL] = "cancel",
	[MIGRATION_SAY_STOPPED] = "say-stopped",
	[MIGRATION_WRITE_BACK] = "write-back",
	[MIGRATION_WRITE_RENEW] = "write-renew",
	[MIGRATION_WRITE_TAKE] = "write-take",
	[MIGRATION_WRITE_DECLINE] = "write-decline",
	[MIGRATION_WRITE_GIVE] = "write-give",
	[MIGRATION_WRITE_SETTLE] = "write-settle",
	[MIGRATION_CONT] = "cont",
	[MIGRATION_FINISH] = "finish",
	[MIGRATION_DESTROY] = "destroy",
};

const char *migration_action_name(enum migration_action action)
{
	return action_names[action];
}

static struct migration_decision decide(enum migration_action action, const char *why)
{
	return (struct migration_decision){ action, why };
}

static bool named(const char *field, const char *node)
{
	return strcmp(field, node) == 0;
}

static bool may_run(const struct migration_facts *facts)
{
	return (facts->permitted || MUTANT(READ_IS_ENOUGH)) &&
	       (facts->lease || MUTANT(CONT_AFTER_LEASE));
}

/* A stopped copy with the guest's whole state, and the record is ours: first a write of our own,
 * since a forerunner's may still be under way (R1), then it runs. */
static struct migration_decision run_again(const struct migration_facts *facts, const char *why)
{
	if (!facts->permitted && !MUTANT(READ_IS_ENOUGH))
		return decide(MIGRATION_WRITE_RENEW, "only a write of our own permits it to run");
	if (!may_run(facts))
		return decide(MIGRATION_WAIT, "the lease of this node is over");
	return decide(MIGRATION_CONT, why);
}

/* A copy that came here by migration and was taken. */
static struct migration_decision held_loaded(const struct migration_facts *facts)
{
	if (facts->record->try_epoch != facts->attempt)
		return decide(MIGRATION_DESTROY, "it was received for a move that came to nothing");
	if (facts->cont_refused)
		return decide(MUTANT(GIVE_WITH_A_COPY) ? MIGRATION_WRITE_GIVE : MIGRATION_DESTROY,
			      "QEMU cannot let it run");
	return run_again(facts, "the record is ours and everything is here");
}

/* No copy: it may be given back if it never ran here, else it is a cold start's turn. */
static struct migration_decision held_none(const struct migration_facts *facts)
{
	if (facts->cont_refused && facts->source_known && facts->record->try_epoch &&
	    !facts->record->feeder[0])
		return decide(MIGRATION_WRITE_GIVE, "QEMU could not let it run here");
	return decide(MIGRATION_NONE, "");
}

static struct migration_decision held_running(const struct migration_facts *facts)
{
	const struct owner *record = facts->record;

	if (record->feeder[0])
		return decide(MIGRATION_WRITE_SETTLE, "all pages are here");
	if (!facts->wanted || !facts->target || !facts->lease)
		return decide(MIGRATION_NONE, "");
	if (facts->offered == record->epoch + 1 || (facts->offered && MUTANT(RECEIVER_REUSED)))
		return decide(MIGRATION_WRITE_MOVE, "a receiver waits for exactly this epoch");
	return decide(MIGRATION_NONE, "");
}

static struct migration_decision held_faulting(const struct migration_facts *facts)
{
	if (facts->ended)
		return decide(MIGRATION_NONE, "");
	if (facts->other_copy_gone || MUTANT(COLD_BEFORE_LOSS_PROOF))
		return decide(MIGRATION_DESTROY, "the pages that are missing are lost");
	return decide(MIGRATION_WAIT, "pages are still being fetched");
}

static struct migration_decision record_held_here(const struct migration_facts *facts)
{
	switch (facts->copy) {
	case COPY_NONE:
		return held_none(facts);
	case COPY_RUNNING:
		return held_running(facts);
	case COPY_SENDING:
	case COPY_SWITCHING:
		return decide(MIGRATION_CANCEL, "the move is over");
	case COPY_COMPLETED:
		return run_again(facts, "the record came back");
	case COPY_FEEDING:
		if (!facts->permitted)
			return decide(MIGRATION_WRITE_RENEW, "the target gave up");
		return decide(MIGRATION_DESTROY, "part of its memory was on the target");
	case COPY_INCOMING:
		return decide(MIGRATION_DESTROY, "it waits for a move that came to nothing");
	case COPY_LOADED:
		return held_loaded(facts);
	case COPY_FAULTING:
		return held_faulting(facts);
	default:
		return decide(MIGRATION_NONE, "");
	}
}

/* It cannot resume by itself: the target may have it.  When the target does not say in time that
 * it runs, the store decides which of the two goes on. */
static struct migration_decision moving_completed(const struct migration_facts *facts)
{
	if (MUTANT(CONT_WITHOUT_TAKEBACK) && facts->told_long)
		return decide(MIGRATION_CONT, "wrong: nobody was asked");
	if (facts->told_long && !MUTANT(NO_TAKEBACK))
		return decide(MIGRATION_WRITE_BACK, "the target does not say that it runs");
	return decide(MIGRATION_SAY_STOPPED, "the target may have it");
}

static struct migration_decision moving_away(const struct migration_facts *facts)
{
	bool go = facts->wanted && facts->ready && facts->attempt == facts->record->epoch;

	switch (facts->copy) {
	case COPY_NONE:
		if (MUTANT(START_WHILE_MOVING))
			return decide(MIGRATION_NONE, "");
		return decide(MIGRATION_WRITE_BACK, "the guest ended while it was being moved");
	case COPY_RUNNING:
		if (facts->ended && MUTANT(STOP_WITHOUT_BACK))
			return decide(MIGRATION_DESTROY, "wrong: the target may have it");
		return go ? decide(MIGRATION_SEND, "the move is written")
			  : decide(MIGRATION_WRITE_BACK, "the move cannot go on");
	case COPY_SENDING:
		return go ? decide(MIGRATION_WAIT, "memory is being copied")
			  : decide(MIGRATION_CANCEL, "the move cannot go on");
	case COPY_SWITCHING:
		if (MUTANT(STOPPED_BEFORE_COMPLETE))
			return decide(MIGRATION_SAY_STOPPED, "wrong: QEMU may resume by itself");
		return facts->wanted ? decide(MIGRATION_WAIT, "QEMU is handing over")
				     : decide(MIGRATION_CANCEL, "the move is not wanted any more");
	case COPY_COMPLETED:
		return moving_completed(facts);
	case COPY_FEEDING:
		if (facts->other_copy_gone)
			return decide(MIGRATION_WRITE_BACK, "the target's copy is gone");
		return decide(MIGRATION_SAY_STOPPED, "the target may have it");
	case COPY_STOPPED:
		if (MUTANT(STOP_WITHOUT_BACK))
			return decide(MIGRATION_NONE, "");
		return decide(MIGRATION_WRITE_BACK, "the guest was stopped");
	case COPY_COLD:
		return decide(MIGRATION_WRITE_BACK, "nothing was moved");
	default: /* received for an older move, in which this node was the target */
		return decide(MIGRATION_DESTROY, "it was received for a move that came to nothing");
	}
}

static struct migration_decision moving_here(const struct migration_facts *facts)
{
	bool pre = strcmp(facts->record->mode, "post") != 0;

	if (facts->copy == COPY_NONE)
		return decide(MUTANT(SECOND_RECEIVER) ? MIGRATION_WAIT : MIGRATION_WRITE_DECLINE,
			      "there is no receiver any more");
	if (facts->copy != COPY_INCOMING && facts->copy != COPY_LOADED)
		return decide(MIGRATION_NONE, "");
	if (facts->attempt != facts->record->epoch && !MUTANT(RECEIVER_REUSED))
		return decide(MIGRATION_DESTROY, "it was prepared for another move");
	if (!pre && facts->copy == COPY_INCOMING && !facts->postcopy && !MUTANT(RECEIVER_REPLACED))
		return decide(MIGRATION_WRITE_DECLINE,
			      "the source sends to another receiver, which is gone");
	if (facts->copy == COPY_LOADED && (facts->stopped_heard || MUTANT(TAKE_WITHOUT_STOPPED)))
		return decide(MIGRATION_WRITE_TAKE,
			      "everything is here and the source has stopped");
	if (facts->unwanted && pre)
		return decide(MIGRATION_WRITE_DECLINE, "this side gives up");
	return decide(MIGRATION_WAIT, "the source is sending");
}

/* The stopped copy of a guest that goes on elsewhere: kept until that is certain.  What the
 * target's next keeper renews is still what was taken (`try`): its `cont` may yet be refused, and
 * then the record is given back to this very copy. */
static struct migration_decision sent_away(const struct migration_facts *facts)
{
	const struct owner *record = facts->record;
	bool passed_on = !record || (record->epoch > facts->attempt + 1 &&
				     record->try_epoch != facts->attempt);

	if (facts->released || passed_on)
		return decide(MIGRATION_FINISH, "it runs on the target");
	return decide(MIGRATION_WAIT, "the target took it and has not said that it runs");
}

static struct migration_decision feeding(const struct migration_facts *facts)
{
	const struct owner *record = facts->record;

	if (record && record->phase == OWNER_HELD && named(record->feeder, facts->node) &&
	    record->try_epoch == facts->attempt && !facts->other_copy_gone && !MUTANT(KILL_FEEDER))
		return decide(MIGRATION_WAIT, "the target still fetches pages");
	return decide(MIGRATION_FINISH, "the target has all pages");
}

/* For an epoch that is still to come: the move may have been written, and more than that be done,
 * before this side is told.  In postcopy the guest's only whole state may be on its way here. */
static struct migration_decision receiver_elsewhere(const struct migration_facts *facts)
{
	const struct owner *record = facts->record;

	if (!record || facts->attempt <= record->epoch)
		return decide(MIGRATION_DESTROY, "the record has passed on");
	if (facts->unwanted && (!facts->postcopy || MUTANT(GIVE_UP_IN_POSTCOPY)))
		return decide(MIGRATION_DESTROY, "this side gives up");
	return decide(MIGRATION_WAIT, "the source may move it here");
}

static struct migration_decision record_elsewhere(const struct migration_facts *facts)
{
	switch (facts->copy) {
	case COPY_COMPLETED:
		return sent_away(facts);
	case COPY_FEEDING:
		return feeding(facts);
	case COPY_INCOMING:
		return receiver_elsewhere(facts);
	case COPY_LOADED:
		if (MUTANT(LOADED_TOO_EARLY))
			return decide(MIGRATION_DESTROY, "wrong: the move was not read yet");
		return receiver_elsewhere(facts);
	default:
		return decide(MIGRATION_NONE, "");
	}
}

struct migration_decision migration_decide(const struct migration_facts *facts)
{
	const struct owner *record = facts->record;

	if (facts->write_open && facts->unwanted && MUTANT(DESTROY_WHILE_UNANSWERED))
		return decide(MIGRATION_DESTROY, "wrong: the write may land");
	if (facts->write_open)
		return decide(MIGRATION_WAIT, "a write of the record is not answered");
	if (record && record->phase == OWNER_HELD && named(record->node, facts->node))
		return record_held_here(facts);
	if (record && record->phase == OWNER_MOVING && named(record->node, facts->node))
		return moving_away(facts);
	if (record && record->phase == OWNER_MOVING && named(record->to, facts->node))
		return moving_here(facts);
	return record_elsewhere(facts);
}
