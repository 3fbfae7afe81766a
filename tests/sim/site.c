/* SPDX-License-Identifier: Apache-2.0 */
/* The shell of a keeper around the core: facts for migration_decide() and reconcile(), and what
 * follows from what they decide.  src/keeper does the same with a real QEMU. */
#include <string.h>

#include "core/mutant.h"
#include "core/reconcile.h"
#include "core/wish.h"
#include "sim/clock.h"
#include "sim/restored.h"

static const char *write_name(enum write_kind kind)
{
	static const char *const names[] = {
		[WRITE_NONE] = "nothing",    [WRITE_ACQUIRE] = "acquire", [WRITE_RENEW] = "renew",
		[WRITE_RELEASE] = "release", [WRITE_MOVE] = "move",	  [WRITE_TAKE] = "take",
		[WRITE_BACK] = "back",	     [WRITE_DECLINE] = "decline", [WRITE_GIVE] = "give",
		[WRITE_SETTLE] = "settle",   [WRITE_RECOVER] = "recover",
	};

	return names[kind];
}

static int make_write(struct step *step, enum write_kind kind, const struct owner *now,
		      struct owner *ret)
{
	const struct site *site = step->site;
	const struct writer me = { node_name(step->move.node), "boot", "me" };
	const char *lease = lease_policy_name((enum lease_policy)step->vm->policy);

	switch (kind) {
	case WRITE_ACQUIRE:
		return owner_acquire(now, &me, step->rules->disks, lease, ret, NULL);
	case WRITE_RENEW:
		return owner_renew(now, &me, lease, ret, NULL);
	case WRITE_RELEASE:
		return owner_release(now, &me, ret, NULL);
	case WRITE_MOVE:
		return owner_move(now, &me, node_name(site->target),
				  step->rules->post ? "post" : "pre", ret, NULL);
	case WRITE_TAKE:
		return owner_take(now, &me, ret, NULL);
	case WRITE_BACK:
		return owner_back(now, &me, ret, NULL);
	case WRITE_DECLINE:
		return owner_decline(now, &me, ret, NULL);
	case WRITE_GIVE:
		return owner_give(now, &me, node_name(site->from), "boot", ret, NULL);
	default:
		return owner_settle(now, &me, ret, NULL);
	}
}

bool site_ask(struct step *step, enum write_kind kind)
{
	struct site *site = step->site;
	struct owner now, next = { 0 };

	record_owner(&site->record, &now);
	if (make_write(step, kind, &now, &next) < 0) {
		step_fail(step, "the core decides on a write that it refuses");
		return true;
	}
	if (kind == WRITE_TAKE)
		site->from = site->record.node;
	if (site->copy == COPY_LOADED && site->asked < 3)
		site->asked++;
	record_of_owner(&next, &site->next);
	/* Both may be in the record until it is answered: the stricter one holds. */
	if (site->next.lease > site->policy)
		site->policy = site->next.lease;
	site->write = kind;
	site->flight = FLIGHT_NONE;
	if (step->vm->record.by == step->move.node)
		step->vm->record.by = NOBODY;
	store_ask(step, step->move.node, site);
	step_say(step, "asks for %s (epoch %d)", write_name(kind), site->next.epoch);
	return true;
}

static void gather(const struct step *step, const struct owner *record, struct migration_facts *ret)
{
	const struct site *site = step->site;
	enum vm_wish wish = site_wish(step);
	bool placed = step->vm->place != NOBODY;
	enum lease_use use = clock_lease_use(step, step->move.vm, step->move.node, 0);

	*ret = (struct migration_facts){
		.node = node_name(step->move.node),
		.record = record,
		.write_open = site->write != WRITE_NONE,
		.permitted = site->permitted && use != LEASE_LAPSED,
		.lease = use != LEASE_OVER,
		.copy = (enum migration_copy)site->copy,
		.attempt = site->attempt,
		.wanted = site->wanted &&
			  (placed ? wish == WISH_ELSEWHERE && site->target == step->vm->place
				  : wish == WISH_RUN),
		.offered = site->offered,
		.target = site->target == NOBODY ? NULL : node_name(site->target),
		.ready = site->ready,
		.told_long = site->told_long,
		.released = site->released,
		.other_copy_gone = site->gone,
		.stopped_heard = site->heard,
		.unwanted = site->unwanted || wish != WISH_RUN,
		.cont_refused = site->refused,
		.source_known = site->from != NOBODY,
		.postcopy = site->agreed,
		.ended = wish_is_down(wish),
	};
}

/* ---- what migration_decide() says ---- */

static bool write_move(struct step *step)
{
	step->site->attempt = step->site->record.epoch + 1;
	step->site->ready = 1;
	return site_ask(step, WRITE_MOVE);
}

static bool say_stopped(struct step *step)
{
	struct site *site = step->site;
	struct site *target;
	bool first;

	if (site->record.to == NOBODY)
		return false;
	target = &step->vm->site[site->record.to];
	/* That it cannot be heard does not stop the time that an answer has. */
	first = !site->said;
	site->said = 1;
	if (target->stopped_coming == site->attempt ||
	    (target->heard && target->attempt == site->attempt) || !step->node->link ||
	    !step->world->node[site->record.to].link)
		return first;
	if (target->stopped_coming)
		target->stopped_late = target->stopped_coming;
	target->stopped_coming = site->attempt;
	step_say(step, "says stopped (%d)", site->attempt);
	return true;
}

static void say_running(struct step *step, uint8_t attempt)
{
	const struct site *site = step->site;

	if (site->from != NOBODY && step->node->link && step->world->node[site->from].link)
		step->vm->site[site->from].running_coming = attempt;
}

static bool cont(struct step *step)
{
	struct site *site = step->site;
	bool came = site->copy == COPY_LOADED;
	uint8_t attempt = site->attempt;

	if (came && step->world->faults == 0 && site->asked != 1)
		step_fail(step, "V6 more than one round trip to the store in the pause");
	site_run(step, step->move.node, came && step->rules->post ? COPY_FAULTING : COPY_RUNNING,
		 "cont");
	if (came) {
		(void)claim_write(step);
		say_running(step, attempt);
	}
	if (!came || !step->rules->post)
		site->attempt = 0;
	return true;
}

static bool cancel(struct step *step)
{
	struct site *site = step->site;

	site->ready = 0;
	if (site->copy == COPY_SENDING)
		site->copy = COPY_RUNNING;
	else
		site_run(step, step->move.node, COPY_RUNNING, "migrate_cancel");
	return true;
}

static bool end_copy(struct step *step, const struct migration_decision *decision)
{
	struct site *site = step->site;
	uint8_t refused = site->refused, from = site->from;

	if (site_vcpus_run(site) && site->copy != COPY_FAULTING)
		step_fail(step, "a migration ends a guest that runs");
	site_end_copy(site);
	site->refused = refused;
	site->from = refused ? from : NOBODY;
	step_say(step, "ends its copy: %s", decision->why);
	return true;
}

static bool act(struct step *step, const struct migration_decision *decision)
{
	switch (decision->action) {
	case MIGRATION_WRITE_MOVE:
		return write_move(step);
	case MIGRATION_SEND:
		step->site->copy = COPY_SENDING;
		return true;
	case MIGRATION_CANCEL:
		return cancel(step);
	case MIGRATION_SAY_STOPPED:
		return say_stopped(step);
	case MIGRATION_WRITE_BACK:
		if (step->site->copy == COPY_NONE && claim_forbids_release(step))
			return false;
		return site_ask(step, WRITE_BACK);
	case MIGRATION_WRITE_RENEW:
		return site_ask(step, WRITE_RENEW);
	case MIGRATION_WRITE_TAKE:
		return site_ask(step, WRITE_TAKE);
	case MIGRATION_WRITE_DECLINE:
		return site_ask(step, WRITE_DECLINE);
	case MIGRATION_WRITE_GIVE:
		return site_ask(step, WRITE_GIVE);
	case MIGRATION_WRITE_SETTLE:
		return site_ask(step, WRITE_SETTLE);
	case MIGRATION_CONT:
		return cont(step);
	case MIGRATION_FINISH:
	case MIGRATION_DESTROY:
		return end_copy(step, decision);
	default:
		return false;
	}
}

static bool held_here(const struct site *site, int node)
{
	return site->known && site->record.phase == OWNER_HELD && site->record.node == node;
}

/* What a keeper is in the middle of goes before, as what is left of a copy does. */
static bool life_first(const struct site *site)
{
	return site->starting || site->stopping || (site->remains && site->copy == COPY_NONE);
}

bool site_look(struct step *step)
{
	struct site *site = step->site;
	struct migration_decision decision;
	struct migration_facts facts;
	struct owner record;

	if (site->keeper != KEEPER_ALIVE || !step->node->up || !site->known || site->resuming)
		return false;
	if (step->rules->life && life_first(site))
		return (site->write == WRITE_NONE || site->starting) && site_reconcile(step);
	if (site->starting)
		return false;
	record_owner(&site->record, &record);
	gather(step, &record, &facts);
	if ((site->write == WRITE_TAKE && step->rules->wrong == WRONG_RUN_ON_UNKNOWN) ||
	    (site->write == WRITE_BACK && site->copy == COPY_COMPLETED &&
	     step->rules->wrong == WRONG_NOT_THERE_YET &&
	     node_reaches_store(step->world, step->move.node) &&
	     step->vm->record.epoch == site->record.epoch) ||
	    (site->write == WRITE_BACK && site->copy == COPY_COMPLETED &&
	     step->rules->wrong == WRONG_UNKNOWN_IS_NO)) {
		site_run(step, step->move.node, COPY_RUNNING, "cont without an answer");
		return true;
	}
	decision = migration_decide(&facts);
	/* Only the wrong rule that destroys, none that would ask twice. */
	if (site->write != WRITE_NONE && decision.action != MIGRATION_DESTROY &&
	    decision.action != MIGRATION_FINISH && decision.action != MIGRATION_CONT)
		return false;
	if (decision.action == MIGRATION_NONE)
		return site->write == WRITE_NONE && site_reconcile(step);
	return act(step, &decision);
}

/* ---- a start, once its write is answered ---- */

bool site_start(struct step *step)
{
	struct site *site = step->site;
	enum lease_use use = clock_lease_use(step, step->move.vm, step->move.node, 0);

	if (!site->starting || site->write != WRITE_NONE || site->keeper != KEEPER_ALIVE ||
	    !step->node->up || step->node->slow)
		return false;
	if (site->copy == COPY_NONE && site->permitted && !site->remains) {
		site_end_copy(site);
		if (claim_write(step))
			site->copy = COPY_COLD;
		else
			site->starting = 0;
		return true;
	}
	site->starting = 0;
	if (site->copy != COPY_COLD)
		return true;
	if (!site->permitted || !(use == LEASE_USABLE || MUTANT(CONT_AFTER_LEASE))) {
		site_end_copy(site);
		return true;
	}
	if (step->world->faults == 0)
		step_fail(step, "V3 memory lost without a fault");
	if (step->rules->disks && !step->vm->disk[step->move.node])
		step_fail(step, "V2 an old disk boots");
	site->fresh = 1;
	site_run(step, step->move.node, COPY_RUNNING, "cold start");
	return true;
}

/* ---- answers and news ---- */

static bool won(struct step *step)
{
	struct site *site = step->site;
	struct owner now, asked;

	site->record = step->rules->wrong == WRONG_STALE_READ && step->vm->former.epoch
			       ? step->vm->former
			       : step->vm->record;
	record_owner(&site->record, &now);
	record_owner(&site->next, &asked);
	(void)strcpy(asked.by, node_name(step->move.node));
	return owner_won(&now, &asked);
}

void site_answered(struct step *step, bool done)
{
	struct site *site = step->site;
	enum write_kind kind = (enum write_kind)site->write;
	bool mine = done || won(step);

	if (done)
		site->record = site->next;
	if (kind == WRITE_TAKE && !done && step->rules->wrong == WRONG_CONFLICT_IS_NO)
		site_end_copy(site);
	site->record.by = NOBODY;
	site->permitted = mine && held_here(site, step->move.node) &&
			  (!site->lapsed || MUTANT(CONT_AFTER_LEASE));
	if (mine)
		site->policy = site->record.lease;
	if (kind == WRITE_GIVE)
		site->refused = 0, site->from = NOBODY;
	store_orphan(step->vm, step->move.node, site);
	step_say(step, "hears that its %s %s", write_name(kind),
		 mine ? "is done" : "came to nothing");
	if (!site->resuming)
		return;
	site->resuming = 0;
	if (site->copy == COPY_STOPPED && site->permitted &&
	    clock_lease_use(step, step->move.vm, step->move.node, 0) == LEASE_USABLE)
		site_run(step, step->move.node, COPY_RUNNING, "resume");
}

void site_told(struct step *step, const struct record *record)
{
	struct site *site = step->site;

	if (step->rules->wrong != WRONG_TOLD_KEEPS_PERMISSION &&
	    step->rules->wrong != WRONG_PERMISSION_NEVER_VOID)
		site->permitted = 0;
	site->record = *record;
	site->record.by = NOBODY;
	site->known = 1;
	if (held_here(site, step->move.node) && record->lease > site->policy)
		site->policy = record->lease;
}

/* ---- the end of the lease ---- */

void site_lease_over(struct step *step, struct site *site)
{
	static const char *const run_states[COPIES] = {
		[COPY_COLD] = "prelaunch",
		[COPY_RUNNING] = "running",
		[COPY_STOPPED] = "paused",
		[COPY_SENDING] = "running",
		[COPY_SWITCHING] = "finish-migrate",
		[COPY_COMPLETED] = "postmigrate",
		[COPY_FEEDING] = "finish-migrate",
		[COPY_INCOMING] = "inmigrate",
		[COPY_LOADED] = "paused",
		[COPY_FAULTING] = "running",
	};
	enum lease_act act;

	if (site->copy == COPY_NONE)
		return;
	act = lease_act((enum lease_policy)site->policy,
			lease_copy_of(run_states[site->copy], true, site->copy == COPY_FEEDING));
	if (site->copy == COPY_SWITCHING && step->rules->wrong == WRONG_LEASE_SPARES_DEVICE_PHASE)
		return;
	if (step->rules->wrong == WRONG_LEASE_KILLS_FULL_COPIES && site->copy != COPY_INCOMING)
		act = LEASE_ACT_KILL;
	if (act != LEASE_ACT_NONE && (site->copy == COPY_COMPLETED || site->copy == COPY_LOADED ||
				      site->copy == COPY_FEEDING))
		step_fail(step,
			  "I3 the end of the lease destroys a state that cannot run by itself");
	if (act == LEASE_ACT_PAUSE && site->copy == COPY_RUNNING) {
		site->copy = COPY_STOPPED;
		site->situation = SITUATION_PAUSED;
		site->paused = 1;
	} else if (act != LEASE_ACT_NONE) {
		site_end_copy(site);
	}
}
