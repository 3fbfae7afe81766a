/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/clock.h"
#include "sim/nature.h"

static bool keeper_dies(struct step *step)
{
	struct site *site = step->site;

	if (site->keeper != KEEPER_ALIVE)
		return false;
	store_orphan(step->vm, step->move.node, site);
	site_forget(site);
	site->keeper = KEEPER_DEAD;
	return true;
}

static bool link_breaks(struct step *step)
{
	if (!step->node->link)
		return false;
	step->node->link = 0;
	for (int v = 0; v < step->rules->vms; v++)
		for (int i = 0; i < step->rules->nodes; i++) {
			struct site *site = &step->world->vm[v].site[i];
			bool touched = i == step->move.node || site->target == step->move.node;

			if (site->copy == COPY_SENDING && touched) {
				site->copy = COPY_RUNNING;
				site->ready = 0;
			}
			if (i == step->move.node)
				site->stopped_coming = site->stopped_late = site->running_coming =
					0;
		}
	return true;
}

/* QEMU says no to `cont`: the only answer that proves that nothing ran. */
static bool cont_refused(struct step *step)
{
	struct site *site = step->site;

	if (site->copy != COPY_LOADED || !site->permitted || site->keeper != KEEPER_ALIVE ||
	    site->write != WRITE_NONE || !clock_lease(step, step->move.node) || site->refused)
		return false;
	site->refused = 1;
	return true;
}

static bool switch_fails(struct step *step)
{
	struct site *site = step->site;
	bool by_itself =
		site->copy == COPY_SWITCHING ||
		(site->copy == COPY_FEEDING && step->rules->wrong == WRONG_POSTCOPY_NO_STOP);

	if (!by_itself)
		return false;
	site->ready = 0;
	site_run(step, step->move.node, COPY_RUNNING, "QEMU");
	return true;
}

static bool copy_fails(struct step *step, enum migration_copy copy)
{
	struct site *site = step->site;

	if (site->copy != copy)
		return false;
	if (copy == COPY_SENDING) {
		site->copy = COPY_RUNNING;
		site->ready = 0;
	} else {
		site_end_copy(site);
	}
	return true;
}

/* All connections break with it: what had been accepted is kept, what was not answered may have
 * been either. */
static bool store_goes_away(struct step *step)
{
	struct world *world = step->world;

	if (world->store_down || step->move.node != 0)
		return false;
	world->store_down = 1;
	for (int v = 0; v < step->rules->vms; v++)
		for (int i = 0; i < step->rules->nodes; i++)
			world->vm[v].site[i].flight = FLIGHT_NONE;
	for (int i = 0; i < step->rules->nodes; i++)
		clock_parted(step, i);
	return true;
}

bool fault_step(struct step *step)
{
	struct site *site = step->site;

	if (step->move.kind == FAULT_STORE)
		return store_goes_away(step);
	if (step->move.kind >= FAULT_USER_STOPS)
		return users_step(step);
	if (!step->node->up)
		return false;
	switch (step->move.kind) {
	case FAULT_KEEPER_DIES:
		return keeper_dies(step);
	case FAULT_KEEPER_HANGS:
		if (site->keeper != KEEPER_ALIVE)
			return false;
		site->keeper = KEEPER_HUNG;
		return true;
	case FAULT_QEMU_DIES:
		if (site->copy == COPY_NONE)
			return false;
		site_end_copy(site);
		return true;
	case FAULT_CUT:
		if (!step->node->connected)
			return false;
		step->node->connected = 0;
		clock_parted(step, step->move.node);
		return true;
	case FAULT_POWER:
		cluster_power_off(step->world, step->rules, step->move.node);
		return true;
	case FAULT_LINK:
		return link_breaks(step);
	case FAULT_RESUMES:
		return switch_fails(step);
	case FAULT_SENDING:
		return copy_fails(step, COPY_SENDING);
	case FAULT_INCOMING:
		return copy_fails(step, COPY_INCOMING);
	case FAULT_CONT:
		return cont_refused(step);
	case FAULT_CANCELLED:
		if (!site->wanted)
			return false;
		site->wanted = 0;
		return true;
	case FAULT_DISKS:
		if (step->node->slow)
			return false;
		step->node->slow = 1;
		return true;
	default:
		return life_step(step);
	}
}
