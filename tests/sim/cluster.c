/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions, leases and what comes back (ownership protocol, section 7). */
#include "core/mutant.h"
#include "sim/clock.h"
#include "sim/nature.h"

/* From here no write that was made under the old life can land: the store sees it by the version
 * of the `life` record, if `hidden` does not keep that from it. */
void life_passes(struct step *step, bool hidden)
{
	struct world *world = step->world;

	for (int v = 0; v < step->rules->vms; v++) {
		struct vm *vm = &world->vm[v];
		struct site *site = &vm->site[step->move.node];

		if (site->flight == FLIGHT_ASKED) {
			site->former = 1;
			site->stale |= !hidden;
		}
		for (int i = 0; i < GHOSTS; i++)
			if (vm->ghost[i].write != WRITE_NONE &&
			    vm->ghost[i].node == step->move.node) {
				vm->ghost[i].former = 1;
				vm->ghost[i].stale |= !hidden;
			}
	}
}

bool node_reaches_store(const struct world *world, int node)
{
	return world->node[node].up && world->node[node].connected && !world->store_down;
}

void cluster_power_off(struct world *world, const struct rules *rules, int node)
{
	for (int v = 0; v < rules->vms; v++) {
		struct site *site = &world->vm[v].site[node];

		store_orphan(&world->vm[v], node, site);
		site_end_copy(site);
		site_forget(site);
		site->remains = 0;
		site->keeper = KEEPER_DEAD;
		site->stopped_coming = site->stopped_late = site->running_coming = 0;
	}
	world->node[node].up = world->node[node].connected = world->node[node].lease = 0;
	world->node[node].slow = world->node[node].frozen = 0;
}

static bool lease_ends(struct step *step)
{
	struct node *node = step->node;

	bool over = step->rules->time ? clock_lease_ended(step, step->move.node)
				      : !node_reaches_store(step->world, step->move.node);

	if (!over || !node->lease || !node->up)
		return false;
	node->lease = 0;
	for (int v = 0; v < step->rules->vms; v++) {
		struct site *site = &step->world->vm[v].site[step->move.node];

		/* What was won under it is void, for a keeper that hangs too: it looks at the
		 * lease before each `cont`.  With clocks, core/lease says so. */
		site->lapsed = site->write != WRITE_NONE && !step->rules->time;
		if (!MUTANT(CONT_AFTER_LEASE) && !step->rules->time)
			site->permitted = 0;
		if (site->keeper == KEEPER_ALIVE)
			site_lease_over(step, site);
	}
	return true;
}

static bool session_ends(struct step *step)
{
	struct node *node = step->node;

	bool over = !node->connected &&
		    (!node->lease || step->rules->wrong == WRONG_EXPIRE_BEFORE_LEASE);

	if (step->rules->time)
		over = clock_session_ended(step, step->move.node);
	/* A store that is away ends no session. */
	if (!over || step->world->store_down || !node->session)
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

	if (!node_reaches_store(step->world, step->move.node) || node->session ||
	    (node->life == LIFE_FENCING && step->rules->wrong != WRONG_REJOIN_DURING_FENCE))
		return false;
	life_passes(step, step->rules->wrong == WRONG_NO_NEW_LIFE ||
				  step->rules->wrong == WRONG_SESSION_KEY);
	for (int v = 0; v < step->rules->vms; v++)
		return_of(step, &step->world->vm[v], node->life == LIFE_FENCED);
	node->life = LIFE_ALIVE;
	node->session = 1;
	if (step->rules->time)
		clock_joined(step, step->move.node);
	else
		node->lease = 1;
	node->revoked = node->proof = 0;
	if (step->rules->wrong != WRONG_NO_NEW_LIFE)
		node->seen = 0;
	return true;
}

/* Sessions have their whole time again, and the first renewals are answered. */
static bool store_comes_back(struct step *step)
{
	struct world *world = step->world;

	if (!world->store_down || step->move.node != 0)
		return false;
	world->store_down = 0;
	for (int v = 0; v < step->rules->vms && step->rules->wrong == WRONG_STORE_FORGETS; v++)
		if (world->vm[v].former.epoch)
			world->vm[v].record = world->vm[v].former;
	clock_store_up(step);
	for (int i = 0; i < step->rules->nodes && !step->rules->time; i++)
		if (world->node[i].up && world->node[i].connected)
			world->node[i].lease = world->node[i].session;
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
		/* No kernel resumes the session of the one before. */
		node->session = 0;
		step->world->time.node[step->move.node].lease = (struct lease){ 0 };
		return true;
	case MOVE_RECONNECTS:
		if (node->connected || !node->up)
			return false;
		node->connected = 1;
		if (!step->world->store_down && !step->rules->time)
			node->lease = node->session;
		return true;
	case MOVE_STORE_UP:
		return store_comes_back(step);
	case MOVE_DISKS_MENDED:
		if (!node->slow)
			return false;
		node->slow = 0;
		return true;
	case MOVE_LINK_MENDED:
		if (node->link)
			return false;
		node->link = 1;
		return true;
	default:
		return users_step(step);
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
	default:
		return repairs(step);
	}
}
