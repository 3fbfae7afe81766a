/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/nature.h"

#include "core/mutant.h"
#include "sim/clock.h"

static bool linked(const struct step *step, int other)
{
	const struct node *there = &step->world->node[other];

	return step->node->up && step->node->link && there->up && there->link && !there->frozen;
}

static bool alive(const struct step *step)
{
	return step->site->keeper == KEEPER_ALIVE && step->node->up;
}

/* ---- QEMU ---- */

/* Keeper and agents of both sides make sure of the store before they let QEMU switch (step 4). */
static bool qemu_switches(struct step *step)
{
	struct site *site = step->site;
	const struct site *target = &step->vm->site[step->move.other];

	if (site->copy != COPY_SENDING || !alive(step) || !site->ready || !site->wanted ||
	    site->target != step->move.other || target->copy != COPY_INCOMING ||
	    target->attempt != site->attempt || !linked(step, step->move.other) ||
	    !node_reaches_store(step->world, step->move.node) ||
	    !node_reaches_store(step->world, step->move.other) ||
	    clock_lease_use(step, step->move.vm, step->move.node, 2 * USEC_PER_SEC) == LEASE_OVER)
		return false;
	site->copy = step->rules->post ? COPY_FEEDING : COPY_SWITCHING;
	if (step->rules->post && step->rules->wrong != WRONG_POSTCOPY_NO_STOP)
		site->permitted = 0;
	step->vm->stream = site->attempt;
	step->vm->stream_to = step->move.other;
	step->vm->stream_fresh = 1;
	return true;
}

static bool qemu_completes(struct step *step)
{
	if (step->site->copy != COPY_SWITCHING)
		return false;
	step->site->copy = COPY_COMPLETED;
	if (step->rules->wrong != WRONG_PERMISSION_KEPT &&
	    step->rules->wrong != WRONG_PERMISSION_NEVER_VOID)
		step->site->permitted = 0;
	return true;
}

/* Nobody reads the stream any more. */
static bool qemu_resumes(struct step *step)
{
	struct site *site = step->site;

	if (site->copy != COPY_SWITCHING)
		return false;
	for (int i = 0; i < step->rules->nodes; i++) {
		const struct site *other = &step->vm->site[i];

		if ((other->copy == COPY_INCOMING || other->copy == COPY_LOADED) &&
		    other->attempt == site->attempt)
			return false;
	}
	site->ready = 0;
	site_run(step, step->move.node, COPY_RUNNING, "QEMU");
	return true;
}

static bool qemu_loads(struct step *step)
{
	struct site *site = step->site;
	struct vm *vm = step->vm;

	if (site->copy != COPY_INCOMING || !vm->stream || vm->stream != site->attempt ||
	    vm->stream_to != step->move.node || step->node->slow)
		return false;
	site->copy = COPY_LOADED;
	site->fresh = vm->stream_fresh;
	vm->disk[step->move.node] = vm->stream_fresh;
	return true;
}

static bool qemu_has_all_pages(struct step *step)
{
	struct site *site = step->site;
	struct site *feeder = &step->vm->site[step->move.other];

	if (site->copy != COPY_FAULTING || feeder->copy != COPY_FEEDING ||
	    feeder->attempt != site->attempt || !linked(step, step->move.other))
		return false;
	site->copy = COPY_RUNNING;
	feeder->copy = COPY_COMPLETED;
	feeder->fresh = 0;
	return true;
}

/* ---- the target's keeper, and what the two say to each other ---- */

/* For the epoch of the next move (R7). */
static bool awaits_receiver(const struct step *step)
{
	const struct site *site = step->site;
	const struct record *record = &site->record;

	if (MUTANT(SECOND_RECEIVER) && record->phase == OWNER_MOVING &&
	    record->to == step->move.node)
		return true;
	return record->phase == OWNER_HELD && record->feeder == NOBODY && site_may_receive(step);
}

static bool starts_receiver(struct step *step)
{
	struct site *site = step->site;
	bool held = site->record.phase == OWNER_HELD;

	if (!alive(step) || !site->known || site->write != WRITE_NONE || site->copy != COPY_NONE ||
	    site->starting || site->refused || !awaits_receiver(step) ||
	    !node_reaches_store(step->world, step->move.node) || !step->node->session ||
	    step->node->slow || (held && step->vm->offers >= step->rules->offers))
		return false;
	site_end_copy(site);
	site->copy = COPY_INCOMING;
	site->attempt = site->record.epoch + held;
	site->permitted = 0;
	step->vm->offers += held;
	step_say(step, "a receiver for epoch %d", site->attempt);
	return true;
}

/* `other` offers its receiver to this node's keeper. */
static bool agrees(struct step *step)
{
	struct site *site = step->site;
	struct site *other = &step->vm->site[step->move.other];

	if (step->move.other == step->move.node || !alive(step) || site->copy != COPY_RUNNING ||
	    site->write != WRITE_NONE || other->copy != COPY_INCOMING || other->unwanted ||
	    other->keeper != KEEPER_ALIVE || !linked(step, step->move.other) ||
	    site->offered == other->attempt || !site->known || site->record.phase != OWNER_HELD ||
	    site->stopping || (step->vm->place != NOBODY && step->vm->place != step->move.other))
		return false;
	site->offered = other->attempt;
	site->target = step->move.other;
	site->wanted = 1;
	other->agreed = step->rules->post;
	return true;
}

/* The keeper of the holder, `other`, has nothing in mind with this receiver. */
static bool called_off(struct step *step)
{
	struct site *site = step->site;
	const struct site *other = &step->vm->site[step->move.other];

	if (!alive(step) || !site->agreed || other->keeper != KEEPER_ALIVE ||
	    !linked(step, step->move.other) || (other->offered == site->attempt && other->wanted) ||
	    other->write != WRITE_NONE || !other->known || other->record.phase != OWNER_HELD ||
	    other->record.node != step->move.other)
		return false;
	site->agreed = 0;
	return true;
}

/* A message arrives once or twice, after one that was sent later, or never; of another attempt than
 * that of the copy here it is ignored. */
static bool stopped_arrives(struct step *step)
{
	struct site *site = step->site;
	uint8_t *coming =
		step->move.kind == MOVE_STOPPED_LATE ? &site->stopped_late : &site->stopped_coming;
	bool any = step->rules->wrong == WRONG_ANY_EPOCH;

	if (!*coming || !alive(step))
		return false;
	if ((site->copy == COPY_INCOMING || site->copy == COPY_LOADED) &&
	    (site->attempt == *coming || any))
		site->heard = 1;
	if (step->move.kind != MOVE_STOPPED_TWICE)
		*coming = 0;
	return true;
}

static bool running_arrives(struct step *step)
{
	struct site *site = step->site;

	if (!site->running_coming || !alive(step))
		return false;
	if (site->copy == COPY_COMPLETED && site->attempt == site->running_coming)
		site->released = 1;
	if (step->move.kind == MOVE_RUNNING_ARRIVES)
		site->running_coming = 0;
	return true;
}

static bool lost(uint8_t *coming)
{
	if (!*coming)
		return false;
	*coming = 0;
	return true;
}

/* News that were on their way when the record was written once more. */
static bool told_old(struct step *step)
{
	const struct record *former = &step->vm->former;

	if (!step->rules->stale || former->epoch == 0 ||
	    !nature_can_tell(step->world, step->move.vm, step->move.node) ||
	    (step->site->known && step->site->record.epoch >= former->epoch))
		return false;
	site_told(step, former);
	return true;
}

static bool is_gone(const struct step *step, const struct site *other)
{
	if (step->world->node[step->move.other].life == LIFE_FENCED)
		return true;
	if (other->keeper != KEEPER_ALIVE || !linked(step, step->move.other))
		return false;
	if (step->site->copy == COPY_FAULTING)
		return other->copy != COPY_FEEDING;
	return other->copy == COPY_NONE || other->attempt != step->site->attempt;
}

/* Proof, not silence: its keeper says so, or its node is fenced. */
static bool hears_gone(struct step *step)
{
	struct site *site = step->site;
	const struct site *other = &step->vm->site[step->move.other];
	bool feeding = site->copy == COPY_FEEDING && site->target == step->move.other;
	bool faulting = site->copy == COPY_FAULTING && site->known &&
			site->record.feeder == step->move.other;

	/* A new life of the source's keeper knows the target by the record. */
	if (site->copy == COPY_FEEDING && site->known)
		feeding |=
			step->move.other ==
			(site->record.phase == OWNER_MOVING ? site->record.to : site->record.node);
	if (!alive(step) || site->gone || step->move.other == step->move.node ||
	    !(feeding || faulting) || !is_gone(step, other))
		return false;
	site->gone = 1;
	return true;
}

static bool time_passes(struct step *step)
{
	struct site *site = step->site;

	if (!alive(step))
		return false;
	if (step->move.kind == MOVE_TOLD_LONG) {
		if (site->copy != COPY_COMPLETED || !site->said || site->told_long)
			return false;
		site->told_long = 1;
	} else if (step->move.kind == MOVE_RELEASED) {
		if (site->copy != COPY_COMPLETED || site->released || !site->known ||
		    site->record.phase == OWNER_MOVING || site->record.node == step->move.node)
			return false;
		site->released = 1;
	} else {
		if ((site->copy != COPY_INCOMING && site->copy != COPY_LOADED) || site->unwanted)
			return false;
		site->unwanted = 1;
	}
	return true;
}

/* ---- lives of the keeper ---- */

static bool keeper_begins(struct step *step)
{
	struct site *site = step->site;
	bool wakes = step->move.kind == MOVE_KEEPER_WAKES;

	if (!step->node->up || site->keeper != (wakes ? KEEPER_HUNG : KEEPER_DEAD))
		return false;
	site->keeper = KEEPER_ALIVE;
	if (!clock_lease(step, step->move.node)) {
		site_lease_over(step, site);
		site->permitted = 0;
	}
	return true;
}

bool nature_step(struct step *step)
{
	switch (step->move.kind) {
	case MOVE_TOLD:
		if (!step->rules->stale ||
		    !nature_can_tell(step->world, step->move.vm, step->move.node))
			return false;
		site_told(step, &step->vm->record);
		return true;
	case MOVE_TOLD_OLD:
		return told_old(step);
	case MOVE_STOPPED_ARRIVES:
	case MOVE_STOPPED_TWICE:
	case MOVE_STOPPED_LATE:
		return stopped_arrives(step);
	case MOVE_STOPPED_LOST:
		return lost(&step->site->stopped_coming);
	case MOVE_RUNNING_ARRIVES:
	case MOVE_RUNNING_TWICE:
		return running_arrives(step);
	case MOVE_RUNNING_LOST:
		return lost(&step->site->running_coming);
	case MOVE_RECEIVE:
		return starts_receiver(step);
	case MOVE_OFFER:
		return agrees(step);
	case MOVE_TOLD_LONG:
	case MOVE_RELEASED:
	case MOVE_GIVE_UP:
		return time_passes(step);
	case MOVE_CALLED_OFF:
		return called_off(step);
	case MOVE_GONE_HEARD:
		return hears_gone(step);
	case MOVE_KEEPER_STARTS:
	case MOVE_KEEPER_WAKES:
		return keeper_begins(step);
	case MOVE_SWITCH:
		return qemu_switches(step);
	case MOVE_COMPLETES:
		return qemu_completes(step);
	case MOVE_RESUMES:
		return qemu_resumes(step);
	case MOVE_LOADS:
		return qemu_loads(step);
	case MOVE_PAGES:
		return qemu_has_all_pages(step);
	case MOVE_GUEST_OBEYS:
		return alive(step) && life_step(step);
	default:
		if (step->move.kind >= FAULT_KEEPER_DIES)
			return fault_step(step);
		return step->move.kind >= MOVE_SEES && step->move.kind <= MOVE_RECOVER
			       ? leader_step(step)
			       : cluster_step(step);
	}
}
