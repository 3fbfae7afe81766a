/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/claims.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/ownership.h"
#include "keeper/keeper.h"
#include "keeper/ownership.h"
#include "keeper/report.h"
#include "model/config.h"
#include "storage/storage.h"
#include "util/cleanup.h"
#include "util/mem.h"

static void storage_closep(struct storage **storage)
{
	storage_close(*storage);
}

static int open_volumes(const struct keeper *keeper, struct storage **ret, struct error *err)
{
	CLEANUP_FREE char *dir = xasprintf("%s/volumes", keeper->config->paths.lib);

	return storage_open(dir, keeper->loop, ret, err);
}

static const struct owner *record_of(const struct keeper *keeper)
{
	return keeper->ownership->exists ? &keeper->ownership->record : NULL;
}

/* Where to look and how to go on. */
static int refuse_claim(const struct keeper *keeper, const char *volume, const char *node,
			const char *why, struct error *err)
{
	return error_refuse(err,
			    "volume '%s': %s.  If it runs on '%s', 'drover stop %s' ends it there "
			    "and frees its volumes, and 'drover start %s' starts it where it "
			    "belongs.  Only if it runs nowhere, remove '%s/volumes/%s/%s.claim'",
			    volume, why, node, keeper->name, keeper->name,
			    keeper->config->paths.lib, keeper->name, volume);
}

static int check_claim(const struct keeper *keeper, struct storage *storage, const char *volume,
		       bool of_others, struct error *err)
{
	CLEANUP(volume_claim_done) struct volume_claim claim = { 0 };
	struct error why = { 0 };
	int r;

	r = volume_claimed(storage, keeper->name, volume, &claim, err);
	if (r <= 0 || (of_others && strcmp(claim.node, keeper->config->node) == 0))
		return r < 0 ? r : 0;
	r = owner_check_claim(record_of(keeper), claim.node, claim.epoch, &why);
	return r < 0 ? refuse_claim(keeper, volume, claim.node, why.text, err) : 0;
}

/* A disk on a node of its own, which left it with its VM: the same, by the name of the old file.  A
 * VM that came back has got here by two writes at least. */
static int check_left(const struct keeper *keeper, struct storage *storage, const char *volume,
		      struct error *err)
{
	const struct ownership *own = keeper->ownership;
	uint64_t left = 0;
	int r;

	if (!own->exists)
		return volume_left_before(storage, keeper->name, volume, err);
	r = volume_left(storage, keeper->name, volume, &left, err);
	if (r < 0 || !left || owner_check_claim(&own->record, "", left + 1, NULL) == 0)
		return r;
	return error_refuse(err,
			    "volume '%s' left this node with its VM at epoch %" PRIu64
			    ", but the owner record is at %" PRIu64
			    ": the store was set back to an older state.  The disk is where the VM "
			    "ran last: stop it there, bring its disk here, and remove "
			    "'%s/volumes/%s/.%s.%" PRIu64 ".gone.*'",
			    volume, left, own->record.epoch, keeper->config->paths.lib,
			    keeper->name, volume, left);
}

int claims_check(const struct keeper *keeper, const struct definition *def, struct error *err)
{
	CLEANUP(storage_closep) struct storage *storage = NULL;
	int r;

	r = open_volumes(keeper, &storage, err);
	for (size_t i = 0; i < def->n_volumes && r == 0; i++) {
		r = check_claim(keeper, storage, def->volumes[i].name, false, err);
		if (r == 0)
			r = check_left(keeper, storage, def->volumes[i].name, err);
	}
	return r;
}

int claims_check_others(const struct keeper *keeper, const struct definition *def,
			struct error *err)
{
	CLEANUP(storage_closep) struct storage *storage = NULL;
	int r;

	r = open_volumes(keeper, &storage, err);
	for (size_t i = 0; i < def->n_volumes && r == 0; i++)
		r = check_claim(keeper, storage, def->volumes[i].name, true, err);
	return r;
}

/* What this host claimed itself it may free, however old the record is that the store has now.
 * Other claims of a higher epoch are not ours to free: another cluster uses the pool, or who wrote
 * them lost its memory.  They stay, and refuse the next start with their own sentence. */
static int release_claim(struct keeper *keeper, struct storage *storage, const char *volume,
			 struct error *err)
{
	const struct owner *record = record_of(keeper);
	uint64_t epoch = record ? record->epoch : 0;
	int r;

	r = volume_release(storage, keeper->name, volume,
			   keeper->claimed > epoch ? keeper->claimed : epoch, keeper->config->node,
			   err);
	if (r == 0 || err->class != ERROR_REFUSED)
		return r;
	report_event(keeper, "claim-kept", NULL, "%s", err->text);
	return 0;
}

/* Those of all volumes that are there, whatever the definition of now says of them. */
int claims_release(struct keeper *keeper, struct error *err)
{
	CLEANUP(storage_closep) struct storage *storage = NULL;
	struct volume_info *infos = NULL;
	size_t count = 0;
	int r;

	if (!record_of(keeper) && !keeper->claimed)
		return 0;
	r = open_volumes(keeper, &storage, err);
	if (r < 0)
		return r;
	r = volume_list(storage, &infos, &count, err);
	for (size_t i = 0; i < count; i++) {
		if (r == 0 && strcmp(infos[i].vm, keeper->name) == 0 && infos[i].claimed_by &&
		    strcmp(infos[i].claimed_by, keeper->config->node) == 0)
			r = release_claim(keeper, storage, infos[i].name, err);
		volume_info_done(&infos[i]);
	}
	free(infos);
	return r;
}
