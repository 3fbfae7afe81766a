/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/disks.h"

#include <string.h>

#include "keeper/keeper.h"
#include "keeper/ownership.h"
#include "keeper/report.h"
#include "model/config.h"
#include "storage/storage.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/mem.h"

static void storage_closep(struct storage **storage)
{
	storage_close(*storage);
}

static int open_volumes(struct keeper *keeper, struct storage **ret, struct error *err)
{
	CLEANUP_FREE char *dir = xasprintf("%s/volumes", keeper->config->paths.lib);

	return storage_open(dir, keeper->loop, ret, err);
}

/* Those that live in the directory of volumes. */
static bool is_ours(const struct definition_volume *volume)
{
	return !volume->path;
}

static int name_arrivals(struct keeper *keeper, struct storage *storage, struct error *err)
{
	const struct definition *def = keeper->want.definition;
	const struct owner *record = &keeper->ownership->record;
	int r = 0;

	if (!ownership_held_here(keeper) || !record->try_epoch)
		return 0;
	for (size_t i = 0; i < def->n_volumes && r == 0; i++)
		if (is_ours(&def->volumes[i]))
			r = volume_arrived(storage, keeper->name, def->volumes[i].name,
					   record->try_epoch, err);
	return r;
}

void disks_arrived(struct keeper *keeper)
{
	const struct definition *def = keeper->want.definition;
	CLEANUP(storage_closep) struct storage *storage = NULL;
	struct error err = { 0 };
	int r;

	r = open_volumes(keeper, &storage, &err);
	if (r == 0)
		r = name_arrivals(keeper, storage, &err);
	checkpoint("keeper.receive.disks");
	for (size_t i = 0; i < def->n_volumes && r == 0; i++)
		r = volume_claim(storage, keeper->name, def->volumes[i].name,
				 keeper->ownership->record.epoch, keeper->config->node, &err);
	if (r == 0)
		keeper->claimed = keeper->ownership->record.epoch;
	/* The guest runs, its disks are open: what is missing is done at its end. */
	if (r < 0)
		report_event(keeper, "volume", NULL, "after the move: %s", err.text);
}

static int leave(struct keeper *keeper, struct storage *storage, struct error *err)
{
	const struct definition *def = keeper->want.definition;
	const struct owner *record = &keeper->ownership->record;
	int r = 0;

	if (!keeper->ownership->exists || !record->home[0] ||
	    strcmp(record->home, keeper->config->node) == 0)
		return 0;
	for (size_t i = 0; i < def->n_volumes && r == 0; i++)
		if (is_ours(&def->volumes[i]) && !def->volumes[i].read_only)
			r = volume_leave(storage, keeper->name, def->volumes[i].name, record->epoch,
					 err);
	return r;
}

/* What is for a move that this node has not heard of yet may be the only copy of a disk. */
bool disks_left(struct keeper *keeper)
{
	const struct owner *record = &keeper->ownership->record;
	bool comes = record->phase == OWNER_MOVING && strcmp(record->to, keeper->config->node) == 0;
	CLEANUP(storage_closep) struct storage *storage = NULL;
	struct error err = { 0 };
	int r;

	if (!keeper->ownership->exists || keeper->config->storage_shared)
		return false;
	r = open_volumes(keeper, &storage, &err);
	if (r == 0)
		r = volume_arriving(storage, keeper->name, record->epoch - comes, &err);
	if (r < 0)
		log_warning("%s; what a move may have left there stays", err.text);
	return r > 0;
}

int disks_settle(struct keeper *keeper, struct error *err)
{
	CLEANUP(storage_closep) struct storage *storage = NULL;
	int r;

	r = open_volumes(keeper, &storage, err);
	if (r == 0)
		r = name_arrivals(keeper, storage, err);
	if (r == 0)
		r = volume_forget_arrivals(storage, keeper->name, 0, err);
	return r < 0 ? r : leave(keeper, storage, err);
}
