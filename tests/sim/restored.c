/* SPDX-License-Identifier: Apache-2.0 */
/* A store that is set back to an older state while hosts run, and what holds then: the claims
 * beside volumes that all hosts share.  As docs/UPGRADING.md wants it, agents are stopped
 * meanwhile, and nothing is being started or moved at that time. */
#include "sim/restored.h"

/* ---- claims, as src/keeper/claims.c has them ---- */

static const struct claim *claim_of(const struct step *step)
{
	return &step->vm->claim;
}

static bool is_mine(const struct step *step, int node)
{
	return claim_of(step)->epoch && claim_of(step)->node == node;
}

static bool is_ahead(const struct step *step)
{
	struct owner record;

	if (!claim_of(step)->epoch)
		return false;
	record_owner(&step->site->record, &record);
	return owner_check_claim(&record, node_name(claim_of(step)->node), claim_of(step)->epoch,
				 NULL) < 0;
}

bool claim_forbids_start(const struct step *step)
{
	return step->rules->wrong != WRONG_CLAIM_SEEN_LATE && is_ahead(step);
}

bool claim_forbids_release(const struct step *step)
{
	return step->rules->wrong != WRONG_WRITTEN_UNDER_CLAIM && is_ahead(step) &&
	       !is_mine(step, step->move.node);
}

/* Of storage, when the record is won already. */
bool claim_write(struct step *step)
{
	const struct claim *claim = claim_of(step);
	uint8_t epoch = step->site->record.epoch;

	if (!step->rules->restored)
		return true;
	if (claim->epoch > epoch || (claim->epoch == epoch && claim->node != step->move.node))
		return false;
	step->vm->claim = (struct claim){ epoch, step->move.node };
	step->site->claimed = epoch;
	return true;
}

void claim_free(struct vm *vm, int node)
{
	const struct site *site = &vm->site[node];
	uint8_t known = site->record.epoch > site->claimed ? site->record.epoch : site->claimed;

	if (vm->claim.node == node && vm->claim.epoch <= known)
		vm->claim = (struct claim){ 0 };
}

/* ---- the store ---- */

/* Once: what is put back shall be old. */
static bool backs_up(struct step *step)
{
	struct world *world = step->world;

	if (world->restored || world->store_down || world->vm[0].backup.record.epoch)
		return false;
	for (int v = 0; v < step->rules->vms; v++) {
		struct vm *vm = &world->vm[v];

		vm->backup = (struct backup){ vm->record, vm->stop, vm->pause, vm->place };
		vm->backup.record.by = NOBODY;
	}
	return true;
}

static bool is_at_rest(const struct step *step)
{
	for (int v = 0; v < step->rules->vms; v++)
		for (int i = 0; i < step->rules->nodes; i++) {
			const struct site *site = &step->world->vm[v].site[i];

			if ((site->copy != COPY_NONE && site->copy != COPY_RUNNING &&
			     site->copy != COPY_STOPPED) ||
			    site->starting || site->resuming)
				return false;
		}
	return true;
}

/* What agents had asked for is gone with them, and a keeper takes the first word of a new agent
 * like a keeper that was started a moment ago. */
static void agents_restart(struct vm *vm)
{
	for (int i = 0; i < NODES; i++) {
		struct site *site = &vm->site[i];

		site->flight = FLIGHT_NONE;
		if (site->write == WRITE_NONE) {
			site->known = site->permitted = 0;
			site->record = (struct record){ 0 };
		}
	}
	for (int i = 0; i < GHOSTS; i++)
		vm->ghost[i] = (struct ghost){ 0 };
}

static bool is_set_back(struct step *step)
{
	struct world *world = step->world;

	if (world->restored || world->store_down || !world->vm[0].backup.record.epoch ||
	    !is_at_rest(step))
		return false;
	world->restored = 1;
	for (int v = 0; v < step->rules->vms; v++) {
		struct vm *vm = &world->vm[v];

		agents_restart(vm);
		vm->record = vm->backup.record;
		vm->former = (struct record){ 0 };
		vm->stop = vm->backup.stop;
		vm->pause = vm->backup.pause;
		vm->place = vm->backup.place;
		vm->backup = (struct backup){ 0 };
	}
	return true;
}

/* By an operator, who has seen that the VM runs nowhere. */
static bool is_removed(struct step *step)
{
	if (!claim_of(step)->epoch)
		return false;
	for (int i = 0; i < step->rules->nodes; i++)
		if (step->vm->site[i].copy != COPY_NONE || step->vm->site[i].starting)
			return false;
	step->vm->claim = (struct claim){ 0 };
	return true;
}

/* By an operator too: a guest that was paused cannot go on under a record that is not its node's.
 */
static bool is_killed(struct step *step)
{
	struct site *site = step->site;

	if (!step->world->restored || site->copy != COPY_STOPPED || site->write != WRITE_NONE ||
	    (step->vm->record.phase == OWNER_HELD && step->vm->record.node == step->move.node))
		return false;
	site_end_copy(site);
	return true;
}

bool restored_step(struct step *step)
{
	switch (step->move.kind) {
	case MOVE_BACKUP:
		return backs_up(step);
	case MOVE_CLAIM_REMOVED:
		return is_removed(step);
	case MOVE_KILLED:
		return is_killed(step);
	default: /* FAULT_RESTORED */
		return is_set_back(step);
	}
}
