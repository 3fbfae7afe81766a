/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions, leases and fences (ownership protocol, section 7).  The leader is part of the
 * surroundings: the production core has none yet. */
#include "core/mutant.h"
#include "sim/nature.h"

/* From here no write that was made under the old life can land. */
static void life_passes(struct step *step)
{
	struct world *world = step->world;

	for (int v = 0; v < step->rules->vms; v++) {
		struct vm *vm = &world->vm[v];
		struct site *site = &vm->site[step->move.node];

		if (site->flight == FLIGHT_ASKED)
			site->stale = 1;
		for (int i = 0; i < GHOSTS; i++)
			if (vm->ghost[i].write != WRITE_NONE &&
			    vm->ghost[i].node == step->move.node)
				vm->ghost[i].stale = 1;
	}
}

void cluster_power_off(struct world *world, const struct rules *rules, int node)
{
	for (int v = 0; v < rules->vms; v++) {
		struct site *site = &world->vm[v].site[node];

		store_orphan(&world->vm[v], node, site);
		site_end_copy(site);
		site_forget(site);
		site->keeper = KEEPER_DEAD;
		site->stopped_coming = site->running_coming = site->prepared = 0;
	}
	world->node[node].up = world->node[node].connected = world->node[node].lease = 0;
}

static bool lease_ends(struct step *step)
{
	struct node *node = step->node;

	if (node->connected || !node->lease || !node->up)
		return false;
	node->lease = 0;
	for (int v = 0; v < step->rules->vms; v++) {
		struct site *site = &step->world->vm[v].site[step->move.node];

		site->lapsed = site->write != WRITE_NONE;
		/* What was won under it is void, for a keeper that hangs too: it looks at the
		 * lease before each `cont`. */
		if (!MUTANT(CONT_AFTER_LEASE))
			site->permitted = 0;
		if (site->keeper == KEEPER_ALIVE)
			site_lease_over(step, site);
	}
	return true;
}

static bool session_ends(struct step *step)
{
	struct node *node = step->node;

	if (node->connected || !node->session ||
	    (node->lease && step->rules->wrong != WRONG_EXPIRE_BEFORE_LEASE))
		return false;
	node->session = 0;
	return true;
}

static void return_of(struct step *step, struct vm *vm, bool fenced)
{
	int node = step->move.node;
	struct site *site = &vm->site[node];
	bool keep = step->rules->wrong == WRONG_REJOIN_KEEPS_COPIES;

	if (fenced && keep)
		return;
	if (fenced) {
		store_orphan(vm, node, site);
		site_end_copy(site);
		site_forget(site);
		site->keeper = KEEPER_ALIVE;
	} else if ((site_vcpus_run(site) || site->copy == COPY_SWITCHING ||
		    site->copy == COPY_STOPPED) &&
		   (vm->record.node != node || vm->record.phase == OWNER_OFF)) {
		site_end_copy(site);
	}
	site->permitted = 0;
}

static bool joins(struct step *step)
{
	struct node *node = step->node;

	if (!node->up || !node->connected || node->session ||
	    (node->life == LIFE_FENCING && step->rules->wrong != WRONG_REJOIN_DURING_FENCE))
		return false;
	if (step->rules->wrong != WRONG_NO_NEW_LIFE)
		life_passes(step);
	for (int v = 0; v < step->rules->vms; v++)
		return_of(step, &step->world->vm[v], node->life == LIFE_FENCED);
	node->life = LIFE_ALIVE;
	node->session = node->lease = 1;
	node->revoked = 0;
	return true;
}

static bool fence_begins(struct step *step)
{
	if (step->node->life != LIFE_ALIVE || step->node->session)
		return false;
	life_passes(step);
	step->node->life = LIFE_FENCING;
	return true;
}

static bool blocklists(struct step *step)
{
	if (step->node->life != LIFE_FENCING || step->node->revoked)
		return false;
	step->node->revoked = 1;
	return true;
}

/* A blocklist is no proof where a guest may go on after the lease: it stays on the network. */
static bool proven(const struct step *step)
{
	const struct node *node = step->node;
	enum wrong wrong = step->rules->wrong;
	bool blocklist = step->rules->policy != LEASE_KEEP || wrong == WRONG_BLOCKLIST_KEEP;

	return !node->up || (node->revoked && blocklist) || wrong == WRONG_NO_PROOF ||
	       (wrong == WRONG_LEASE_ONLY_PROOF && !node->lease);
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

static bool repairs(struct step *step)
{
	struct node *node = step->node;

	switch (step->move.kind) {
	case MOVE_BOOTS:
		if (node->up)
			return false;
		node->up = 1;
		return true;
	case MOVE_RECONNECTS:
		if (node->connected || !node->up)
			return false;
		node->connected = 1;
		node->lease = node->session;
		return true;
	case MOVE_LINK_MENDED:
		if (node->link)
			return false;
		node->link = 1;
		return true;
	default:
		if (!step->vm->stop || step->move.node != 0)
			return false;
		step->vm->stop = 0;
		return true;
	}
}

bool cluster_step(struct step *step)
{
	switch (step->move.kind) {
	case MOVE_LEASE_ENDS:
		return lease_ends(step);
	case MOVE_SESSION_ENDS:
		return session_ends(step);
	case MOVE_JOINS:
		return joins(step);
	case MOVE_FENCE:
		return fence_begins(step);
	case MOVE_POWER_OFF:
		if (step->node->life != LIFE_FENCING || !step->node->up)
			return false;
		cluster_power_off(step->world, step->rules, step->move.node);
		return true;
	case MOVE_BLOCKLIST:
		return blocklists(step);
	case MOVE_FENCED:
		if (step->node->life != LIFE_FENCING || !proven(step))
			return false;
		step->node->life = LIFE_FENCED;
		return true;
	case MOVE_RECOVER:
		return recovers(step);
	default:
		return repairs(step);
	}
}
