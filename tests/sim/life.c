/* SPDX-License-Identifier: Apache-2.0 */
/* A VM's life on one host: what is wanted of it, by core/placement and core/wish, and what
 * core/reconcile makes of that.  The shell's part of each action is here. */
#include "core/mutant.h"
#include "core/placement.h"
#include "core/reconcile.h"
#include "core/wish.h"
#include "sim/clock.h"
#include "sim/restored.h"

/* The node of `vm`, as its definition and the record have it. */
static bool belongs_here(const struct step *step)
{
	const struct vm *vm = step->vm;
	const struct definition definition = {
		.kvm_host = vm->place == NOBODY ? NULL : node_name(vm->place),
	};
	const struct placement none = { 0 };
	struct owner record;
	const struct placement_facts facts = {
		.definition = &definition,
		.placement = &none,
		.owner = &record,
		.source = "",
		.node = node_name(step->move.node),
	};
	const char *node;

	/* Nobody said where: whoever looks first. */
	if (vm->place == NOBODY)
		return true;
	record_owner(&step->site->record, &record);
	(void)placement_node(&facts, &node);
	return node_number(node) == step->move.node;
}

static bool is_bystander(const struct step *step)
{
	const struct record *record = &step->site->record;
	const bool held = record->phase != OWNER_OFF;

	if (step->site->copy != COPY_NONE || (held && record->node == step->move.node))
		return false;
	return held || !belongs_here(step);
}

enum vm_wish site_wish(const struct step *step)
{
	const struct wish_input input = {
		.online = true,
		.here = belongs_here(step),
		.mode = NODE_READY,
		.order = step->vm->stop	   ? ORDER_STOP
			 : step->vm->pause ? ORDER_PAUSE
					   : ORDER_NONE,
		.bystander = is_bystander(step),
	};

	return wish_of(&input);
}

static bool held_here(const struct step *step)
{
	const struct site *site = step->site;

	return site->known && site->record.phase == OWNER_HELD &&
	       site->record.node == step->move.node;
}

/* False: it is a copy that only a migration may touch. */
static bool situation_of(const struct site *site, enum situation *ret)
{
	switch (site->copy) {
	case COPY_NONE:
		*ret = site->remains ? SITUATION_REMAINS : SITUATION_ABSENT;
		return true;
	case COPY_COLD:
		*ret = SITUATION_PRELAUNCH;
		return true;
	case COPY_RUNNING:
	case COPY_FAULTING:
		*ret = SITUATION_RUNNING;
		return true;
	case COPY_STOPPED:
		*ret = site->situation ? (enum situation)site->situation : SITUATION_PAUSED;
		return true;
	default:
		return false;
	}
}

static void gather(const struct step *step, struct facts *ret)
{
	const struct site *site = step->site;
	struct owner record;

	record_owner(&site->record, &record);
	*ret = (struct facts){
		.busy = site->starting	 ? BUSY_STARTING
			: site->stopping ? BUSY_STOPPING
					 : BUSY_NOTHING,
		.restart_due = site->restart,
		.retry_due = site->retry,
		.paused_by_us = site->by_user,
		.paused_by_lease = site->paused,
		.lease_over = !clock_lease(step, step->move.node),
		.held_elsewhere = owner_check_here(&record, node_name(step->move.node), NULL) < 0,
		.claims_held = site->copy == COPY_NONE && held_here(step),
		.may_receive = true,
		.on_panic = step->rules->on_panic,
	};
}

bool site_may_receive(const struct step *step)
{
	struct facts facts;

	gather(step, &facts);
	return situation_of(step->site, &facts.situation) &&
	       reconcile(site_wish(step), &facts).action == ACTION_RECEIVE;
}

static bool starts(struct step *step)
{
	struct site *site = step->site;

	if (claim_forbids_start(step))
		return false;
	site->starting = 1;
	site->retry = 0;
	if (MUTANT(READ_IS_ENOUGH) && held_here(step)) {
		site->permitted = 1;
		return true;
	}
	return site_ask(step, WRITE_ACQUIRE);
}

static bool resumes(struct step *step)
{
	struct site *site = step->site;

	/* The keeper's renewal is refused, and it tries again later. */
	if (!held_here(step))
		return false;
	site->resuming = 1;
	site->retry = 0;
	return site_ask(step, WRITE_RENEW);
}

/* What is to be started again here keeps the record. */
static bool cleans(struct step *step)
{
	struct site *site = step->site;

	if (site->remains)
		claim_free(step->vm, step->move.node);
	site->remains = 0;
	if (!held_here(step) || site_wish(step) == WISH_RUN)
		return true;
	if (claim_forbids_release(step))
		return false;
	return site_ask(step, WRITE_RELEASE);
}

static bool begins_to_stop(struct step *step)
{
	if (!step->rules->life)
		site_end_copy(step->site);
	step->site->stopping = step->rules->life;
	return true;
}

static bool pauses(struct step *step)
{
	struct site *site = step->site;

	site->copy = COPY_STOPPED;
	site->situation = SITUATION_PAUSED;
	site->by_user = 1;
	return true;
}

static bool acts(struct step *step, enum action action)
{
	struct site *site = step->site;

	switch (action) {
	case ACTION_START:
		return starts(step);
	case ACTION_RESUME:
		return resumes(step);
	case ACTION_CLEANUP:
		return cleans(step);
	case ACTION_SHUTDOWN:
		return begins_to_stop(step);
	case ACTION_DESTROY:
		site_end_copy(site);
		return true;
	case ACTION_PAUSE:
		return pauses(step);
	case ACTION_ORDER_STOP:
		step->vm->stop = 1;
		return true;
	case ACTION_GIVE_UP_STOP:
		site->stopping = 0;
		return true;
	case ACTION_GIVE_UP_START:
		site->starting = 0;
		site_end_copy(site);
		return true;
	default:
		return false; /* RECEIVE comes with a receiver: see nature.c */
	}
}

bool site_reconcile(struct step *step)
{
	struct decision decision;
	struct facts facts;

	gather(step, &facts);
	if (!situation_of(step->site, &facts.situation))
		return false;
	decision = reconcile(site_wish(step), &facts);
	if (!acts(step, decision.action))
		return false;
	if (!step->outcome->text[0])
		step_say(step, "%s: %s", action_name(decision.action), decision.why);
	return true;
}

/* The guest itself, or what it runs on. */
bool life_step(struct step *step)
{
	static const enum situation situations[] = {
		[0] = SITUATION_POWERED_OFF,
		[FAULT_GUEST_PANICS - FAULT_GUEST_OFF] = SITUATION_PANICKED,
		[FAULT_IO_ERROR - FAULT_GUEST_OFF] = SITUATION_IO_ERROR,
		[FAULT_QEMU_ERROR - FAULT_GUEST_OFF] = SITUATION_INTERNAL_ERROR,
	};
	struct site *site = step->site;
	bool obeys = step->move.kind == MOVE_GUEST_OBEYS;

	if (!step->rules->life || (obeys && !site->stopping) ||
	    (site->copy != COPY_RUNNING &&
	     !(obeys && (site->copy == COPY_STOPPED || site->copy == COPY_FAULTING))))
		return false;
	site->copy = COPY_STOPPED;
	site->situation = (uint8_t)(obeys ? SITUATION_POWERED_OFF
					  : situations[step->move.kind - FAULT_GUEST_OFF]);
	return true;
}

/* ---- users ---- */

static bool content(const struct vm *vm)
{
	for (int i = 0; i < NODES; i++)
		if (vm->site[i].copy == COPY_STOPPED)
			return false;
	return !vm->stop && !vm->pause && vm->place == NOBODY;
}

/* Takes back what they ordered, and has what is stopped go on or start anew. */
static bool users_start(struct step *step)
{
	struct vm *vm = step->vm;

	if (content(vm))
		return false;
	vm->stop = vm->pause = 0;
	vm->place = NOBODY;
	for (int i = 0; i < step->rules->nodes; i++) {
		struct site *site = &vm->site[i];

		site->retry = 1;
		site->restart |= site->copy == COPY_STOPPED && site->situation > SITUATION_PAUSED;
	}
	return true;
}

bool world_told_why(const struct rules *rules, const struct world *world, int vm)
{
	const struct vm *of = &world->vm[vm];

	for (int i = 0; i < rules->nodes; i++)
		if (of->site[i].copy == COPY_STOPPED && of->site[i].situation > SITUATION_PAUSED)
			return true;
	return of->stop || of->pause || of->place != NOBODY;
}

static bool users_move(struct step *step)
{
	if (step->vm->place == step->move.other)
		return false;
	step->vm->place = step->move.other;
	return true;
}

static bool users_restart(struct step *step)
{
	bool any = false;

	for (int i = 0; i < step->rules->nodes; i++) {
		struct site *site = &step->vm->site[i];

		site->restart |= site->copy != COPY_NONE;
		any |= site->copy != COPY_NONE;
	}
	return any;
}

bool users_step(struct step *step)
{
	struct vm *vm = step->vm;

	if (!step->rules->users || step->move.node != 0)
		return false;
	switch (step->move.kind) {
	case MOVE_USER_STARTS:
		return users_start(step);
	case FAULT_USER_MOVES:
		return step->rules->life && users_move(step);
	case FAULT_USER_RESTARTS:
		return step->rules->life && users_restart(step);
	case FAULT_USER_PAUSES:
		if (!step->rules->life || vm->pause)
			return false;
		vm->pause = 1;
		return true;
	case FAULT_USER_POLICY:
		vm->policy = (vm->policy + 1) % 3;
		return true;
	default: /* FAULT_USER_STOPS */
		if (vm->stop)
			return false;
		vm->stop = 1;
		return true;
	}
}
