/* SPDX-License-Identifier: Apache-2.0 */
/* The store: a request lands once, late or never, and its answer may be lost.  The checks that a
 * transaction carries (version, life) are made here; what a node may write at all is looked at with
 * the function that the agent uses. */
#include <string.h>

#include "sim/clock.h"

static bool may_land(const struct step *step, const struct ghost *request)
{
	const struct rules *rules = step->rules;
	const struct vm *vm = step->vm;
	const struct node *node = &step->world->node[request->node];
	bool version = vm->record.epoch + 1 == request->next.epoch;
	bool life = node->life == LIFE_ALIVE && !request->stale;

	if (request->write == WRITE_RECOVER)
		return node->life == LIFE_FENCED && !request->stale &&
		       (version || rules->wrong == WRONG_RECOVER_UNVERSIONED);
	/* A key of the session that was made anew has version 0 again. */
	if (rules->wrong == WRONG_SESSION_KEY)
		life = node->session;
	if (!life && rules->wrong != WRONG_NO_LIFE_CHECK)
		return false;
	return version || (rules->wrong == WRONG_TAKE_UNVERSIONED && request->write == WRITE_TAKE);
}

/* V5, R4 and R5: each record has its writers, and they write it in the life that asked for it. */
static void check_writer(struct step *step, const struct ghost *request)
{
	struct owner before, after;

	if (request->write == WRITE_RECOVER && request->next.phase != OWNER_OFF)
		step_fail(step, "V5 a node holds it that never heard of it");
	if (request->former)
		step_fail(step, "V5 a write of a former life lands");
	if (request->write == WRITE_RECOVER || step->rules->wrong == WRONG_TAKE_UNVERSIONED)
		return;
	record_owner(&step->vm->record, &before);
	record_owner(&request->next, &after);
	if (owner_check_write(&before, &after, node_name(request->node), NULL) < 0)
		step_fail(step, "V5 a node writes what is not its own to write");
}

/* A record that was set back comes to the same epochs with other contents; the agent, which knows
 * it as it is, does not carry what it does not allow. */
static bool is_of_another_past(const struct step *step, const struct ghost *request)
{
	struct owner before, after;

	if (!step->world->restored || request->write == WRITE_RECOVER)
		return false;
	record_owner(&step->vm->record, &before);
	record_owner(&request->next, &after);
	return owner_check_write(&before, &after, node_name(request->node), NULL) < 0;
}

static bool land(struct step *step, const struct ghost *request, uint8_t by)
{
	struct vm *vm = step->vm;
	uint8_t epoch = vm->record.epoch + 1;

	if (!may_land(step, request) || is_of_another_past(step, request))
		return false;
	check_writer(step, request);
	vm->former = vm->record;
	vm->record = request->next;
	vm->record.epoch = epoch;
	vm->record.by = by;
	return true;
}

static struct ghost request_of(const struct site *site, int node)
{
	return (struct ghost){ .write = site->write,
			       .node = (uint8_t)node,
			       .former = site->former,
			       .stale = site->stale,
			       .next = site->next };
}

/* Nobody waits for its answer any more; it may land all the same. */
static void keep_ghost(struct vm *vm, const struct ghost *request)
{
	for (int i = 0; i < GHOSTS; i++)
		if (vm->ghost[i].write == WRITE_NONE ||
		    vm->ghost[i].next.epoch <= vm->record.epoch) {
			vm->ghost[i] = *request;
			return;
		}
}

void store_orphan(struct vm *vm, int node, struct site *site)
{
	struct ghost request = request_of(site, node);

	if (site->write != WRITE_NONE && site->flight == FLIGHT_ASKED)
		keep_ghost(vm, &request);
	if (vm->record.by == node)
		vm->record.by = NOBODY;
	site->write = WRITE_NONE;
	site->flight = FLIGHT_NONE;
	site->former = site->stale = site->lapsed = 0;
	site->next = (struct record){ 0 };
}

/* The agent adds the life of the node as it is when it asks. */
void store_ask(struct step *step, int node, struct site *site)
{
	const struct node *at = &step->world->node[node];

	if (!node_reaches_store(step->world, node) || !at->session)
		return;
	site->flight = FLIGHT_ASKED;
	site->former = 0;
	site->stale = at->life != LIFE_ALIVE;
	site->lapsed = !at->lease && !step->rules->time;
	clock_asked(step, step->move.vm, node);
}

void store_recover(struct step *step)
{
	struct record next = { .epoch = step->vm->record.epoch + 1,
			       .phase = OWNER_OFF,
			       .node = NOBODY,
			       .to = NOBODY,
			       .feeder = NOBODY,
			       .home = step->vm->record.home,
			       .lease = step->vm->record.lease,
			       .by = NOBODY };

	if (step->rules->wrong == WRONG_RECOVER_HELD) {
		next.phase = OWNER_HELD;
		next.node = (step->move.node + 1) % (uint8_t)step->rules->nodes;
	}

	keep_ghost(
		step->vm,
		&(struct ghost){ .write = WRITE_RECOVER, .node = step->move.node, .next = next });
}

static bool request_lands(struct step *step, bool answered)
{
	struct site *site = step->site;
	struct ghost request = request_of(site, step->move.node);
	bool landed;

	if (site->flight != FLIGHT_ASKED || step->world->store_down)
		return false;
	landed = land(step, &request, step->move.node);
	if (step->move.kind == MOVE_STORE_TWICE)
		keep_ghost(step->vm, &request);
	site->flight = !answered ? FLIGHT_NONE : landed ? FLIGHT_DONE : FLIGHT_CONFLICT;
	step_say(step, "the store %s the write%s", landed ? "accepts" : "refuses",
		 answered ? "" : ", the answer is lost");
	return true;
}

static bool answer_arrives(struct step *step)
{
	struct site *site = step->site;
	bool done = site->flight == FLIGHT_DONE;

	if ((!done && site->flight != FLIGHT_CONFLICT) || site->keeper != KEEPER_ALIVE ||
	    !node_reaches_store(step->world, step->move.node))
		return false;
	site_answered(step, done);
	return true;
}

static bool ghost_moves(struct step *step, bool lands)
{
	struct ghost *ghost = &step->vm->ghost[step->move.other];
	struct ghost request = *ghost;

	if (ghost->write == WRITE_NONE || (lands && step->world->store_down))
		return false;
	*ghost = (struct ghost){ 0 };
	if (lands && land(step, &request, NOBODY))
		step_say(step, "a late request lands");
	return true;
}

/* The very same request again, until it is answered. */
static bool repeat(struct step *step)
{
	struct site *site = step->site;

	if (site->write == WRITE_NONE || site->flight != FLIGHT_NONE ||
	    site->keeper != KEEPER_ALIVE)
		return false;
	store_ask(step, step->move.node, site);
	return site->flight == FLIGHT_ASKED;
}

bool store_step(struct step *step)
{
	struct site *site = step->site;

	switch (step->move.kind) {
	case MOVE_STORE:
	case MOVE_STORE_TWICE:
		return request_lands(step, true);
	case MOVE_STORE_ANSWER_LOST:
		return request_lands(step, false);
	case MOVE_REQUEST_LOST:
		if (site->flight != FLIGHT_ASKED)
			return false;
		site->flight = FLIGHT_NONE;
		return true;
	case MOVE_ANSWER:
		return answer_arrives(step);
	case MOVE_ANSWER_LOST:
		if (site->flight != FLIGHT_DONE && site->flight != FLIGHT_CONFLICT)
			return false;
		site->flight = FLIGHT_NONE;
		return true;
	case MOVE_REPEAT:
		return repeat(step);
	case MOVE_GHOST_LANDS:
		return ghost_moves(step, true);
	default:
		return ghost_moves(step, false);
	}
}
