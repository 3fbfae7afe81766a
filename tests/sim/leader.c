/* SPDX-License-Identifier: Apache-2.0 */
/* Fencing (ownership protocol, 7.3): part of the surroundings, since the production core has no
 * leader yet.  What it saw, what it ordered and what it has proof of are steps of their own, so all
 * of it may be old when its next write lands; the writes themselves check the `life` record. */
#include "sim/clock.h"
#include "sim/nature.h"

static bool sees(struct step *step)
{
	struct node *node = step->node;

	if (node->life != LIFE_ALIVE || node->session || node->seen)
		return false;
	node->seen = 1;
	return true;
}

/* Who has joined since has another life number, and the write conflicts. */
static bool fence_begins(struct step *step)
{
	struct node *node = step->node;

	if (node->life != LIFE_ALIVE || !node->seen)
		return false;
	life_passes(step, step->rules->wrong == WRONG_SESSION_KEY);
	node->life = LIFE_FENCING;
	node->seen = node->proof = 0;
	return true;
}

static bool orders_power_off(struct step *step)
{
	struct node *node = step->node;

	if (node->life != LIFE_FENCING || !node->up || node->power || node->proof)
		return false;
	node->power = 1;
	return true;
}

/* The command is carried out whenever its controller comes to it. */
static bool powers_off(struct step *step)
{
	struct node *node = step->node;

	if (!node->power)
		return false;
	node->power = 0;
	if (!node->up)
		return true;
	if (node->session)
		step_fail(step, "I3 a member of the cluster is powered off");
	cluster_power_off(step->world, step->rules, step->move.node);
	return true;
}

static bool blocklists(struct step *step)
{
	if (step->node->life != LIFE_FENCING || step->node->revoked)
		return false;
	step->node->revoked = 1;
	return true;
}

/* A guest that may go on after the lease stays on the network, whatever it can write. */
static bool stays_on_the_network(const struct step *step)
{
	for (int v = 0; v < step->rules->vms; v++) {
		const struct vm *vm = &step->world->vm[v];
		uint8_t policy = step->rules->wrong == WRONG_POLICY_OF_DEFINITION
					 ? vm->policy
					 : vm->record.lease;

		if (policy == LEASE_KEEP && vm->record.node == step->move.node)
			return true;
	}
	return false;
}

/* As long as a power-off that was ordered is not read back, nothing is proof: it would hit the node
 * after its return. */
static bool proven(const struct step *step)
{
	const struct node *node = step->node;
	enum wrong wrong = step->rules->wrong;
	bool blocklist =
		node->revoked && (!stays_on_the_network(step) || wrong == WRONG_BLOCKLIST_KEEP);

	if (node->power && wrong != WRONG_POWER_OFF_LATE)
		return false;
	return wrong == WRONG_NO_PROOF || !node->up || blocklist ||
	       (wrong == WRONG_LEASE_ONLY_PROOF && !clock_lease(step, step->move.node));
}

static bool has_proof(struct step *step)
{
	if (step->node->life != LIFE_FENCING || step->node->proof || !proven(step))
		return false;
	step->node->proof = 1;
	return true;
}

static bool fenced(struct step *step)
{
	if (step->node->life != LIFE_FENCING || !step->node->proof)
		return false;
	step->node->life = LIFE_FENCED;
	step->node->proof = 0;
	return true;
}

static bool recovers(struct step *step)
{
	const struct record *record = &step->vm->record;

	if (step->node->life != LIFE_FENCED || record->phase == OWNER_OFF ||
	    record->node != step->move.node)
		return false;
	for (int i = 0; i < GHOSTS; i++)
		if (step->vm->ghost[i].write == WRITE_RECOVER &&
		    step->vm->ghost[i].next.epoch == record->epoch + 1)
			return false;
	store_recover(step);
	return true;
}

bool leader_step(struct step *step)
{
	switch (step->move.kind) {
	case MOVE_POWER_OFF:
		return powers_off(step);
	case MOVE_POWER_REFUSED:
		if (!step->node->power)
			return false;
		step->node->power = 0;
		return true;
	case MOVE_BLOCKLIST_ENDS:
		if (!step->node->revoked || step->rules->wrong != WRONG_BLOCKLIST_ENDS ||
		    step->node->life != LIFE_FENCED)
			return false;
		step->node->revoked = 0;
		return true;
	default:
		break;
	}
	if (step->world->store_down)
		return false;
	switch (step->move.kind) {
	case MOVE_SEES:
		return sees(step);
	case MOVE_FENCE:
		return fence_begins(step);
	case MOVE_POWER_ORDER:
		return orders_power_off(step);
	case MOVE_BLOCKLIST:
		return blocklists(step);
	case MOVE_PROOF:
		return has_proof(step);
	case MOVE_FENCED:
		return fenced(step);
	default:
		return recovers(step);
	}
}
