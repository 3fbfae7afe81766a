/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "sim/check.h"
#include "sim/clock.h"
#include "sim/nature.h"
#include "sim/restored.h"

void step_fail(struct step *step, const char *violation)
{
	if (!step->outcome->violation)
		step->outcome->violation = violation;
}

void step_say(struct step *step, const char *format, ...)
{
	va_list args;

	if (!step->outcome->say)
		return;
	va_start(args, format);
	(void)vsnprintf(step->outcome->text, sizeof(step->outcome->text), format, args);
	va_end(args);
}

static const struct {
	const char *name;
	enum move_class class;
	bool no_vm, other, no_node, seldom;
} kinds[MOVES] = {
	[MOVE_STORE] = { "the request reaches the store" },
	[MOVE_STORE_ANSWER_LOST] = { "the request reaches the store, its answer is lost",
				     CLASS_LOSS },
	[MOVE_REQUEST_LOST] = { "the request is lost", CLASS_LOSS },
	[MOVE_ANSWER] = { "the answer arrives" },
	[MOVE_ANSWER_LOST] = { "the answer is lost", CLASS_LOSS },
	[MOVE_REPEAT] = { "the same request again" },
	[MOVE_STORE_TWICE] = { "the request reaches the store and will once more", CLASS_LOSS },
	[MOVE_GHOST_LANDS] = { "a request of an earlier life lands", CLASS_NORMAL, .other = true,
			       .no_node = true },
	[MOVE_GHOST_LOST] = { "a request of an earlier life is lost", CLASS_LOSS, .other = true,
			      .no_node = true },
	[MOVE_TOLD] = { "the keeper is told the record" },
	[MOVE_TOLD_OLD] = { "the keeper is told what the record was before", CLASS_LOSS },
	[MOVE_STOPPED_ARRIVES] = { "`stopped` arrives" },
	[MOVE_STOPPED_TWICE] = { "`stopped` arrives and will once more", CLASS_LOSS },
	[MOVE_STOPPED_LATE] = { "a `stopped` that was overtaken arrives", CLASS_LOSS },
	[MOVE_STOPPED_LOST] = { "`stopped` is lost", CLASS_LOSS },
	[MOVE_RUNNING_ARRIVES] = { "`running` arrives" },
	[MOVE_RUNNING_TWICE] = { "`running` arrives and will once more", CLASS_LOSS },
	[MOVE_RUNNING_LOST] = { "`running` is lost", CLASS_LOSS },
	[MOVE_LOOK] = { "the keeper looks" },
	[MOVE_START] = { "the start goes on" },
	[MOVE_RECEIVE] = { "a receiver is started" },
	[MOVE_OFFER] = { "the offer is agreed upon", CLASS_NORMAL, .other = true },
	[MOVE_TOLD_LONG] = { "no `running` in time", CLASS_NORMAL, .seldom = true },
	[MOVE_RELEASED] = { "the stopped copy was kept long enough", CLASS_NORMAL, .seldom = true },
	[MOVE_GIVE_UP] = { "the target gives up", CLASS_NORMAL, .seldom = true },
	[MOVE_CALLED_OFF] = { "the source calls it off", CLASS_NORMAL, .seldom = true,
			      .other = true },
	[MOVE_GONE_HEARD] = { "the other copy is told to be gone", CLASS_NORMAL, .other = true },
	[MOVE_KEEPER_STARTS] = { "a new keeper" },
	[MOVE_KEEPER_WAKES] = { "the keeper wakes" },
	[MOVE_SWITCH] = { "QEMU is at the switch", CLASS_NORMAL, .other = true },
	[MOVE_COMPLETES] = { "QEMU has completed" },
	[MOVE_RESUMES] = { "the switch fails, QEMU resumes by itself" },
	[MOVE_LOADS] = { "QEMU has loaded everything" },
	[MOVE_PAGES] = { "all pages are there", CLASS_NORMAL, .other = true },
	[MOVE_TIME] = { "time goes on", CLASS_NORMAL, .seldom = true, .no_vm = true, .other = true,
			.no_node = true },
	[MOVE_RENEWAL_SENT] = { "a renewal is sent", CLASS_NORMAL, .no_vm = true },
	[MOVE_RENEWAL_LANDS] = { "the renewal reaches the store", CLASS_NORMAL, .no_vm = true },
	[MOVE_RENEWAL_ANSWERED] = { "the renewal is answered", CLASS_NORMAL, .no_vm = true },
	[MOVE_GUEST_OBEYS] = { "the guest is off as asked, or its time is over" },
	[MOVE_LEASE_ENDS] = { "the lease ends", CLASS_NORMAL, .no_vm = true },
	[MOVE_SESSION_ENDS] = { "the session ends", CLASS_NORMAL, .no_vm = true },
	[MOVE_JOINS] = { "the node joins", CLASS_NORMAL, .no_vm = true },
	[MOVE_SEES] = { "the leader misses the session", CLASS_NORMAL, .no_vm = true },
	[MOVE_FENCE] = { "the leader begins to fence", CLASS_NORMAL, .no_vm = true },
	[MOVE_POWER_ORDER] = { "the leader orders the power off", CLASS_NORMAL, .no_vm = true },
	[MOVE_POWER_OFF] = { "the power goes off as ordered", CLASS_NORMAL, .no_vm = true },
	[MOVE_POWER_REFUSED] = { "the power-off is known to have failed", CLASS_NORMAL,
				 .no_vm = true },
	[MOVE_BLOCKLIST] = { "the leader has it blocklisted", CLASS_NORMAL, .no_vm = true },
	[MOVE_BLOCKLIST_ENDS] = { "the blocklist entry ends", CLASS_NORMAL, .no_vm = true },
	[MOVE_PROOF] = { "the leader has proof", CLASS_NORMAL, .no_vm = true },
	[MOVE_FENCED] = { "it is fenced", CLASS_NORMAL, .no_vm = true },
	[MOVE_RECOVER] = { "the leader recovers" },
	[MOVE_BOOTS] = { "the host boots", CLASS_REPAIR, .no_vm = true },
	[MOVE_RECONNECTS] = { "the node sees the store again", CLASS_REPAIR, .no_vm = true },
	[MOVE_LINK_MENDED] = { "the link is mended", CLASS_REPAIR, .no_vm = true },
	[MOVE_THAWS] = { "the host goes on", CLASS_REPAIR, .no_vm = true },
	[MOVE_DISKS_MENDED] = { "the disks answer again", CLASS_REPAIR, .no_vm = true },
	[MOVE_STORE_UP] = { "the store is back", CLASS_REPAIR, .no_vm = true },
	[MOVE_USER_STARTS] = { "a user wants it to run", CLASS_REPAIR },
	[MOVE_BACKUP] = { "the store is backed up", CLASS_LOSS, .seldom = true, .no_vm = true,
			  .no_node = true },
	[MOVE_CLAIM_REMOVED] = { "an operator removes the claim of what runs nowhere", CLASS_REPAIR,
				 .no_node = true },
	[MOVE_KILLED] = { "an operator kills what cannot go on", CLASS_REPAIR },
	[FAULT_KEEPER_DIES] = { "FAULT the keeper dies", CLASS_FAULT },
	[FAULT_KEEPER_HANGS] = { "FAULT the keeper hangs", CLASS_FAULT },
	[FAULT_QEMU_DIES] = { "FAULT QEMU dies", CLASS_FAULT },
	[FAULT_CUT] = { "FAULT the node is cut from the store", CLASS_FAULT, .no_vm = true },
	[FAULT_POWER] = { "FAULT the host loses power", CLASS_FAULT, .no_vm = true },
	[FAULT_LINK] = { "FAULT the link to other hosts is cut", CLASS_FAULT, .no_vm = true },
	[FAULT_RESUMES] = { "FAULT the switch fails, QEMU resumes by itself", CLASS_FAULT },
	[FAULT_SENDING] = { "FAULT the migration fails while copying", CLASS_FAULT },
	[FAULT_INCOMING] = { "FAULT the receiver fails", CLASS_FAULT },
	[FAULT_CONT] = { "FAULT QEMU refuses `cont`", CLASS_FAULT },
	[FAULT_CANCELLED] = { "FAULT a user cancels", CLASS_FAULT },
	[FAULT_DISKS] = { "FAULT the disks hang", CLASS_FAULT, .no_vm = true },
	[FAULT_STORE] = { "FAULT the store is away", CLASS_FAULT, .no_vm = true },
	[FAULT_FREEZES] = { "FAULT the host is suspended", CLASS_FAULT, .no_vm = true },
	[FAULT_CLOCK] = { "FAULT the wall clock jumps back", CLASS_FAULT, .no_vm = true },
	[FAULT_GUEST_OFF] = { "FAULT the guest powers itself off", CLASS_FAULT },
	[FAULT_GUEST_PANICS] = { "FAULT the guest panics", CLASS_FAULT },
	[FAULT_IO_ERROR] = { "FAULT the guest is stopped by a disk error", CLASS_FAULT },
	[FAULT_QEMU_ERROR] = { "FAULT the guest is stopped by an error of QEMU", CLASS_FAULT },
	[FAULT_USER_PAUSES] = { "FAULT a user wants it paused", CLASS_FAULT },
	[FAULT_USER_MOVES] = { "FAULT a user wants it on one node", CLASS_FAULT, .other = true },
	[FAULT_USER_RESTARTS] = { "FAULT a user wants it restarted", CLASS_FAULT },
	[FAULT_RESTORED] = { "FAULT the store is put back as it was backed up", CLASS_FAULT,
			     .no_vm = true, .no_node = true },
	[FAULT_USER_POLICY] = { "FAULT a user changes the lease policy", CLASS_FAULT },
	[FAULT_USER_STOPS] = { "FAULT a user wants it off", CLASS_FAULT },
};

enum move_class world_class(enum move_kind kind)
{
	return kinds[kind].class;
}

bool world_seldom(enum move_kind kind)
{
	return kinds[kind].seldom;
}

static bool is_of_restore(enum move_kind kind)
{
	return (kind >= MOVE_BACKUP && kind <= MOVE_KILLED) || kind == FAULT_RESTORED;
}

/* What `other` counts: a ghost is named by its place, time goes on by strides. */
static int others_of(const struct rules *rules, enum move_kind kind)
{
	if (is_of_restore(kind))
		return rules->restored;
	if (!kinds[kind].other)
		return 1;
	if (kind == MOVE_TIME)
		return rules->time ? TIME_STRIDES : 0;
	return kinds[kind].no_node ? GHOSTS : rules->nodes;
}

size_t world_candidates(const struct rules *rules, struct move ret[CANDIDATES])
{
	size_t n = 0;

	for (int kind = 0; kind < MOVES; kind++) {
		int vms = kinds[kind].no_vm ? 1 : rules->vms;
		int nodes = kinds[kind].no_node ? 1 : rules->nodes;
		int others = others_of(rules, (enum move_kind)kind);

		for (int v = 0; v < vms; v++)
			for (int i = 0; i < nodes; i++)
				for (int j = 0; j < others; j++)
					ret[n++] = (struct move){ (uint8_t)kind, (uint8_t)v,
								  (uint8_t)i, (uint8_t)j };
	}
	return n;
}

void world_describe(const struct rules *rules, struct move move, const struct outcome *outcome,
		    char *buffer, size_t size)
{
	char vm[8] = "";

	if (!kinds[move.kind].no_vm && rules->vms > 1)
		(void)snprintf(vm, sizeof(vm), " vm%d", move.vm);
	(void)snprintf(buffer, size, "%s%s: %s%s%s",
		       kinds[move.kind].no_node ? "--" : node_name(move.node), vm,
		       kinds[move.kind].name, outcome->text[0] ? ": " : "", outcome->text);
}

/* ---- copies ---- */

bool site_vcpus_run(const struct site *site)
{
	return site->copy == COPY_RUNNING || site->copy == COPY_SENDING ||
	       site->copy == COPY_FAULTING;
}

void site_run(struct step *step, int node, enum migration_copy copy, const char *how)
{
	struct vm *vm = step->vm;
	struct site *site = &vm->site[node];

	if (!site->fresh && !step->world->node[node].revoked)
		step_fail(step, "V2 an old state continues");
	for (int i = 0; i < NODES; i++)
		vm->site[i].fresh = vm->disk[i] = 0;
	vm->stream_fresh = 0;
	vm->disk[node] = 1;
	site->copy = (uint8_t)copy;
	site->fresh = 1;
	site->paused = site->by_user = site->situation = 0;
	site->asked = site->said = site->told_long = 0;
	step_say(step, "%s: vcpus run", how);
}

void site_end_copy(struct site *site)
{
	if (site->copy != COPY_NONE)
		site->remains = 1;
	site->copy = COPY_NONE;
	site->situation = site->by_user = site->stopping = site->restart = 0;
	site->attempt = site->fresh = site->paused = site->asked = 0;
	site->heard = site->unwanted = site->refused = site->agreed = 0;
	site->said = site->told_long = site->released = site->gone = 0;
	site->offered = site->wanted = site->ready = 0;
	site->from = site->target = NOBODY;
}

void site_forget(struct site *site)
{
	site->known = site->permitted = 0;
	site->starting = site->stopping = site->resuming = 0;
	site->heard = site->unwanted = site->refused = 0;
	site->said = site->told_long = site->released = site->gone = 0;
	site->offered = site->wanted = site->ready = 0;
	site->from = site->target = NOBODY;
	site->record = (struct record){ 0 };
}

/* ---- the beginning ---- */

void world_init(const struct rules *rules, struct world *ret)
{
	memset(ret, 0, sizeof(*ret));
	for (int i = 0; i < NODES; i++)
		ret->node[i] = (struct node){ .up = i < rules->nodes,
					      .connected = 1,
					      .session = 1,
					      .lease = 1,
					      .link = 1,
					      .life = LIFE_ALIVE };
	for (int v = 0; v < VMS; v++) {
		struct vm *vm = &ret->vm[v];

		vm->record = (struct record){ .epoch = 10,
					      .phase = OWNER_HELD,
					      .node = 0,
					      .to = NOBODY,
					      .feeder = NOBODY,
					      .home = rules->disks ? 0 : NOBODY,
					      .lease = (uint8_t)rules->policy,
					      .by = NOBODY };
		vm->policy = (uint8_t)rules->policy;
		vm->place = NOBODY;
		vm->disk[0] = 1;
		for (int i = 0; i < rules->nodes; i++) {
			site_end_copy(&vm->site[i]);
			vm->site[i].keeper = KEEPER_ALIVE;
			vm->site[i].known = 1;
			vm->site[i].record = vm->record;
			vm->site[i].policy = vm->policy;
		}
		if (rules->restored)
			vm->claim = (struct claim){ 10, 0 }, vm->site[0].claimed = 10;
		vm->site[0].copy = COPY_RUNNING;
		vm->site[0].fresh = vm->site[0].permitted = 1;
	}
	clock_init(rules, ret);
}

static bool may_write(const struct rules *rules, const struct world *world, int node)
{
	return world->node[node].up && !world->node[node].revoked;
}

bool world_runs(const struct rules *rules, const struct world *world, int vm)
{
	for (int i = 0; i < rules->nodes; i++) {
		uint8_t copy = world->vm[vm].site[i].copy;

		if ((copy == COPY_RUNNING || copy == COPY_SENDING) && may_write(rules, world, i))
			return true;
	}
	return false;
}

bool world_clean(const struct rules *rules, const struct world *world, int vm)
{
	int copies = 0;

	for (int i = 0; i < rules->nodes; i++) {
		const struct site *site = &world->vm[vm].site[i];

		if (site->remains || site->starting || site->write != WRITE_NONE)
			return false;
		copies += site->copy != COPY_NONE;
	}
	return copies == 1;
}

/* ---- steps ---- */

static void tell(struct step *step, int v, int i)
{
	struct step told = *step;

	told.move.node = (uint8_t)i;
	told.node = &step->world->node[i];
	told.vm = &step->world->vm[v];
	told.site = &told.vm->site[i];
	site_told(&told, &told.vm->record);
}

bool nature_can_tell(const struct world *world, int v, int i)
{
	const struct node *node = &world->node[i];
	const struct vm *vm = &world->vm[v];
	const struct site *site = &vm->site[i];

	return node_reaches_store(world, i) && node->session && !node->frozen &&
	       site->keeper == KEEPER_ALIVE && site->write == WRITE_NONE &&
	       (!site->known || site->record.epoch < vm->record.epoch);
}

/* Without delays on the way from the store, every keeper knows what there is to be known. */
static void tell_all(struct step *step)
{
	if (step->rules->stale)
		return;
	for (int v = 0; v < step->rules->vms; v++)
		for (int i = 0; i < step->rules->nodes; i++)
			if (nature_can_tell(step->world, v, i))
				tell(step, v, i);
}

/* A stream ends with its reader, and QEMU tells so. */
static void streams_end(struct step *step)
{
	for (int v = 0; v < step->rules->vms; v++) {
		struct vm *vm = &step->world->vm[v];
		const struct site *reader = &vm->site[vm->stream_to];

		if (reader->copy != COPY_INCOMING || reader->attempt != vm->stream)
			vm->stream = vm->stream_to = vm->stream_fresh = 0;
		for (int i = 0; i < step->rules->nodes; i++) {
			struct site *site = &vm->site[i];
			const struct site *target;

			if (site->copy != COPY_SENDING || site->target == NOBODY)
				continue;
			target = &step->world->vm[v].site[site->target];
			if (target->copy != COPY_INCOMING || target->attempt != site->attempt)
				site->ready = 0;
		}
	}
}

static bool is_of_clock(enum move_kind kind)
{
	return (kind >= MOVE_TIME && kind < MOVE_LEASE_ENDS) || kind == MOVE_THAWS ||
	       kind == FAULT_FREEZES || kind == FAULT_CLOCK;
}

/* On a host that is suspended nothing happens, but what others do to it. */
static bool goes_on_without(const struct step *step)
{
	switch (step->move.kind) {
	case MOVE_STORE:
	case MOVE_STORE_TWICE:
	case MOVE_STORE_ANSWER_LOST:
	case MOVE_REQUEST_LOST:
	case MOVE_ANSWER_LOST:
	case MOVE_GHOST_LANDS:
	case MOVE_GHOST_LOST:
	case MOVE_TIME:
	case MOVE_RENEWAL_LANDS:
	case MOVE_SESSION_ENDS:
	case MOVE_RECONNECTS:
	case MOVE_LINK_MENDED:
	case MOVE_THAWS:
	case MOVE_STORE_UP:
	case MOVE_BACKUP:
	case MOVE_CLAIM_REMOVED:
	case FAULT_RESTORED:
	case FAULT_CUT:
	case FAULT_POWER:
	case FAULT_LINK:
	case FAULT_STORE:
		return true;
	default:
		return step->move.kind >= MOVE_SEES && step->move.kind <= MOVE_RECOVER;
	}
}

/* What is left of a copy goes with it. */
static void leave_nothing(struct step *step)
{
	for (int v = 0; v < step->rules->vms; v++)
		for (int i = 0; i < step->rules->nodes; i++) {
			struct vm *vm = &step->world->vm[v];

			if (vm->site[i].remains)
				claim_free(vm, i);
			vm->site[i].remains = 0;
		}
}

bool world_step(const struct rules *rules, struct world *world, struct move move,
		struct outcome *ret)
{
	struct step step = { rules,
			     world,
			     ret,
			     move,
			     &world->node[move.node],
			     &world->vm[move.vm],
			     &world->vm[move.vm].site[move.node] };
	bool done, was_somewhere, may_end;

	ret->violation = NULL;
	ret->text[0] = '\0';
	if (kinds[move.kind].class == CLASS_FAULT && world->faults >= rules->faults)
		return false;
	if (step.node->frozen && !goes_on_without(&step))
		return false;
	may_end = check_may_end(&step);
	was_somewhere = !may_end && check_is_somewhere(&step);
	if (move.kind <= MOVE_GHOST_LOST)
		done = store_step(&step);
	else if (move.kind == MOVE_LOOK)
		done = site_look(&step);
	else if (move.kind == MOVE_START)
		done = site_start(&step);
	else if (is_of_restore((enum move_kind)move.kind))
		done = restored_step(&step);
	else if (is_of_clock((enum move_kind)move.kind))
		done = clock_step(&step);
	else
		done = nature_step(&step);
	if (!done)
		return false;
	if (kinds[move.kind].class == CLASS_FAULT)
		world->faults++;
	if (!rules->life)
		leave_nothing(&step);
	streams_end(&step);
	tell_all(&step);
	check_world(&step);
	if (was_somewhere && !check_is_somewhere(&step))
		step_fail(&step, "I3 a keeper ends a guest that goes on nowhere else");
	return true;
}
