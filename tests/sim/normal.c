/* SPDX-License-Identifier: Apache-2.0 */
/* Equal futures are one state: epochs count from the record's, and what nothing looks at any more
 * is forgotten. */
#include <string.h>

#include "sim/parts.h"

#define BASE 16 /* the epoch of the record, in every normal state */

static void shift(uint8_t *epoch, int by)
{
	int moved = *epoch + by;

	if (*epoch)
		*epoch = (uint8_t)(moved < 1 ? 1 : moved);
}

static void shift_record(struct record *record, int by)
{
	shift(&record->epoch, by);
	shift(&record->try_epoch, by);
}

static void shift_site(struct site *site, int by)
{
	shift_record(&site->record, by);
	shift_record(&site->next, by);
	shift(&site->attempt, by);
	shift(&site->claimed, by);
	shift(&site->offered, by);
	shift(&site->stopped_coming, by);
	shift(&site->stopped_late, by);
	shift(&site->running_coming, by);
}

static bool was_sent(const struct vm *vm, uint8_t attempt)
{
	for (int i = 0; i < NODES; i++)
		if (vm->site[i].copy == COPY_COMPLETED && vm->site[i].attempt == attempt)
			return true;
	return false;
}

static void normal_site(const struct rules *rules, struct vm *vm, int node)
{
	bool any = rules->wrong == WRONG_ANY_EPOCH;
	struct site *site = &vm->site[node];
	bool away = site->record.phase == OWNER_MOVING && site->record.node == node;
	bool receiver = site->copy == COPY_INCOMING || site->copy == COPY_LOADED;

	if ((site->copy == COPY_RUNNING || site->copy == COPY_STOPPED) && !away &&
	    site->write != WRITE_MOVE)
		site->attempt = 0;
	if (site->copy == COPY_INCOMING || site->copy == COPY_NONE)
		site->fresh = 0;
	if (!receiver)
		site->heard = site->unwanted = site->agreed = 0;
	if (site->offered && site->offered < vm->record.epoch)
		site->offered = site->wanted = site->ready = 0, site->target = NOBODY;
	if (site->copy == COPY_RUNNING && !away && site->write != WRITE_MOVE)
		site->ready = 0;
	if (site->copy != COPY_LOADED)
		site->asked = 0;
	if (!any && !(receiver && site->attempt == site->stopped_coming))
		site->stopped_coming = 0;
	if (!any && !(receiver && site->attempt == site->stopped_late))
		site->stopped_late = 0;
	if (site->running_coming && !was_sent(vm, site->running_coming))
		site->running_coming = 0;
}

static void normal_ghosts(const struct rules *rules, struct vm *vm)
{
	bool unversioned =
		rules->wrong == WRONG_TAKE_UNVERSIONED || rules->wrong == WRONG_RECOVER_UNVERSIONED;

	for (int i = 0; i < GHOSTS; i++) {
		struct ghost *ghost = &vm->ghost[i];
		bool dead = ghost->next.epoch <= vm->record.epoch && !unversioned;

		if (ghost->stale && rules->wrong != WRONG_NO_LIFE_CHECK &&
		    rules->wrong != WRONG_SESSION_KEY)
			dead = true;
		for (int j = 0; j < i; j++)
			dead |= memcmp(&vm->ghost[j], ghost, sizeof(*ghost)) == 0;
		if (dead)
			*ghost = (struct ghost){ 0 };
	}
	/* Order means nothing. */
	for (int i = 1; i < GHOSTS; i++)
		for (int j = i;
		     j > 0 && memcmp(&vm->ghost[j - 1], &vm->ghost[j], sizeof(struct ghost)) < 0;
		     j--) {
			struct ghost swap = vm->ghost[j];

			vm->ghost[j] = vm->ghost[j - 1];
			vm->ghost[j - 1] = swap;
		}
}

/* What the record was before: only as long as somebody can be told. */
static void normal_former(const struct rules *rules, struct vm *vm)
{
	bool told = rules->wrong == WRONG_STALE_READ || rules->wrong == WRONG_STORE_FORGETS;

	for (int i = 0; rules->stale && i < rules->nodes; i++)
		told |= !vm->site[i].known || vm->site[i].record.epoch < vm->former.epoch;
	if (!told)
		vm->former = (struct record){ 0 };
}

void world_normalise(const struct rules *rules, struct world *world)
{
	for (int v = 0; v < rules->vms; v++) {
		struct vm *vm = &world->vm[v];
		int by = BASE - vm->record.epoch;

		for (int i = 0; i < rules->nodes; i++)
			normal_site(rules, vm, i);
		normal_ghosts(rules, vm);
		normal_former(rules, vm);
		if (world->faults >= rules->faults)
			vm->backup = (struct backup){ 0 };
		shift_record(&vm->record, by);
		shift_record(&vm->former, by);
		shift(&vm->stream, by);
		shift(&vm->claim.epoch, by);
		shift_record(&vm->backup.record, by);
		for (int i = 0; i < rules->nodes; i++)
			shift_site(&vm->site[i], by);
		for (int i = 0; i < GHOSTS; i++)
			shift_record(&vm->ghost[i].next, by);
	}
}
