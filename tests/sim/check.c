/* SPDX-License-Identifier: Apache-2.0 */
/* What must hold after each step (ownership protocol, section 12; DESIGN 5). */
#include "sim/check.h"

#include "core/reconcile.h"
#include "sim/clock.h"

/* Vcpus must not run under a live keeper. */
static bool too_late(const struct step *step, int i)
{
	const struct node *node = &step->world->node[i];

	if (!node->up || node->frozen || node->revoked)
		return false;
	return step->rules->time ? clock_too_late(step, i) : !node->lease;
}

static bool counts_as_running(const struct step *step, const struct vm *vm, int i)
{
	const struct node *node = &step->world->node[i];
	const struct site *site = &vm->site[i];
	bool runs = site_vcpus_run(site);

	runs |= step->rules->wrong == WRONG_EARLY_BLOCK_ACTIVATE && site->copy == COPY_LOADED;
	/* Two on one network, be one of them unable to write. */
	return runs && node->up && (!node->revoked || site->policy == LEASE_KEEP);
}

static void check_vm(struct step *step, const struct vm *vm, const bool late[NODES])
{
	int running = 0;

	for (int i = 0; i < step->rules->nodes; i++) {
		const struct site *site = &vm->site[i];

		if (site_vcpus_run(site) && site->keeper == KEEPER_ALIVE && late[i] &&
		    site->policy != LEASE_KEEP)
			step_fail(step, "V4 vcpus run after the lease");
		if (!step->world->restored && site->known && site->record.epoch > vm->record.epoch)
			step_fail(step, "I10 what was answered is lost");
		running += counts_as_running(step, vm, i);
	}
	if (running > 1)
		step_fail(step, "V1 two copies run");
}

void check_world(struct step *step)
{
	const struct rules *rules = step->rules;
	const struct world *world = step->world;
	bool late[NODES] = { false };

	for (int i = 0; i < rules->nodes; i++)
		late[i] = too_late(step, i);
	for (int v = 0; v < rules->vms; v++)
		check_vm(step, &world->vm[v], late);
	for (int i = 0; i < rules->nodes; i++)
		if (world->node[i].session && world->node[i].life != LIFE_ALIVE)
			step_fail(step, "V5 a member of the cluster is fenced");
}

/* ---- I3: what a keeper decides ends no guest that goes on nowhere else ---- */

/* By a copy that is not given up for lost. */
static bool is_fed(const struct step *step, uint8_t attempt)
{
	for (int i = 0; i < step->rules->nodes; i++) {
		const struct site *site = &step->vm->site[i];

		if (site->copy == COPY_FEEDING && site->attempt == attempt &&
		    step->world->node[i].life != LIFE_FENCED)
			return true;
	}
	return false;
}

/* The whole state of a guest that has not ended.  A copy that was sent or loaded is it where the
 * record says so. */
static bool is_whole(const struct step *step, int i)
{
	const struct vm *vm = step->vm;
	const struct site *site = &vm->site[i];

	switch (site->copy) {
	case COPY_RUNNING:
	case COPY_SENDING:
	case COPY_SWITCHING:
		return true;
	case COPY_STOPPED:
		return site->situation != SITUATION_POWERED_OFF;
	case COPY_FAULTING:
		return is_fed(step, site->attempt);
	case COPY_COMPLETED:
		return site->fresh && vm->record.phase != OWNER_OFF && vm->record.node == i;
	case COPY_LOADED:
		return site->fresh && vm->record.phase == OWNER_HELD && vm->record.node == i &&
		       (vm->record.feeder == NOBODY || is_fed(step, site->attempt));
	default:
		return false;
	}
}

bool check_is_somewhere(const struct step *step)
{
	for (int i = 0; i < step->rules->nodes; i++)
		if (step->world->node[i].life != LIFE_FENCED && is_whole(step, i))
			return true;
	return false;
}

/* A user wants it to end, QEMU could not let it run, or what was sent was kept long enough (step 9:
 * after a minute a target that then gives it back gives nothing). */
static bool may_end(const struct step *step)
{
	const struct vm *vm = step->vm;

	for (int i = 0; i < step->rules->nodes; i++)
		if (vm->site[i].restart)
			return true;
	return vm->stop || step->site->refused || step->site->released ||
	       step->rules->on_panic != PANIC_REPORT;
}

bool check_may_end(const struct step *step)
{
	return step->move.kind != MOVE_LOOK || may_end(step);
}
