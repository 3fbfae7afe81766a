/* SPDX-License-Identifier: Apache-2.0 */
#include "core/ownership.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/mutant.h"
#include "util/error.h"

static void text_set(char *field, size_t size, const char *value)
{
	(void)snprintf(field, size, "%s", value ? value : "");
}

/* What every write has in common; what a row of the protocol's table does not name becomes null. */
static void next_record(const struct owner *before, const struct writer *me, struct owner *ret)
{
	*ret = (struct owner){ .epoch = before ? before->epoch + 1 : 1 };
	if (!before) {
		text_set(ret->by, sizeof(ret->by), me->by);
		return;
	}
	memcpy(ret->home, before->home, sizeof(ret->home));
	memcpy(ret->lease, before->lease, sizeof(ret->lease));
	text_set(ret->by, sizeof(ret->by), me->by);
	ret->rest = json_incref(before->rest);
}

static void hold(struct owner *ret, const struct writer *me, const char *lease)
{
	ret->phase = OWNER_HELD;
	text_set(ret->node, sizeof(ret->node), me->node);
	text_set(ret->boot, sizeof(ret->boot), me->boot);
	text_set(ret->lease, sizeof(ret->lease), lease ? lease : "keep");
}

int owner_check_here(const struct owner *owner, const char *node, struct error *err)
{
	if (owner->phase == OWNER_MOVING)
		return error_refuse(err, "it is being moved from '%s' to '%s' (epoch %" PRIu64 ")",
				    owner->node, owner->to, owner->epoch);
	if (owner->phase == OWNER_HELD && strcmp(owner->node, node) != 0)
		return error_refuse(err,
				    "node '%s' holds it (epoch %" PRIu64
				    "); stop it there first, or wait until that node is fenced",
				    owner->node, owner->epoch);
	if (owner->phase == OWNER_OFF && *owner->home && strcmp(owner->home, node) != 0)
		return error_refuse(err, "its disks are on node '%s'", owner->home);
	return 0;
}

int owner_claim(const struct owner *before, const struct writer *me, bool home, const char *lease,
		struct owner *ret, struct error *err)
{
	int r;

	if (before && before->phase != OWNER_OFF)
		return error_refuse(err, "node '%s' holds it (epoch %" PRIu64 ")", before->node,
				    before->epoch);
	if (before) {
		r = owner_check_here(before, me->node, err);
		if (r < 0)
			return r;
	}
	next_record(before, me, ret);
	hold(ret, me, lease);
	text_set(ret->home, sizeof(ret->home), home ? me->node : "");
	return 0;
}

int owner_renew(const struct owner *before, const struct writer *me, const char *lease,
		struct owner *ret, struct error *err)
{
	if (before->phase != OWNER_HELD || strcmp(before->node, me->node) != 0)
		return error_refuse(err, "this node does not hold it (epoch %" PRIu64 ")",
				    before->epoch);
	next_record(before, me, ret);
	hold(ret, me, lease);
	memcpy(ret->feeder, before->feeder, sizeof(ret->feeder));
	ret->try_epoch = before->try_epoch;
	return 0;
}

int owner_release(const struct owner *before, const struct writer *me, struct owner *ret,
		  struct error *err)
{
	if (before->phase != OWNER_HELD || strcmp(before->node, me->node) != 0)
		return error_refuse(err, "this node does not hold it (epoch %" PRIu64 ")",
				    before->epoch);
	next_record(before, me, ret);
	ret->phase = OWNER_OFF;
	return 0;
}

static int not_holder(const struct owner *before, struct error *err)
{
	return error_refuse(err, "this node does not hold it (epoch %" PRIu64 ")", before->epoch);
}

static int not_receiver(const struct owner *before, struct error *err)
{
	return error_refuse(err, "it is not being moved here (epoch %" PRIu64 ")", before->epoch);
}

static bool held_by(const struct owner *record, const char *node)
{
	return record->phase == OWNER_HELD && strcmp(record->node, node) == 0;
}

int owner_check_claim(const struct owner *owner, const char *claimed_by, uint64_t epoch,
		      struct error *err)
{
	uint64_t now = owner ? owner->epoch : 0;

	if (epoch < now || (epoch == now && owner && held_by(owner, claimed_by)) ||
	    MUTANT(CLAIMS_WEAR_OFF))
		return 0;
	return error_refuse(err,
			    "node '%s' claims it with epoch %" PRIu64
			    ", but the owner record is at %" PRIu64
			    ": the store was set back to an older state, or another cluster uses "
			    "this storage",
			    claimed_by, epoch, now);
}

static bool moving_from(const struct owner *record, const char *node)
{
	return record->phase == OWNER_MOVING && strcmp(record->node, node) == 0;
}

static bool moving_to(const struct owner *record, const char *node)
{
	return record->phase == OWNER_MOVING && strcmp(record->to, node) == 0;
}

int owner_move(const struct owner *before, const struct writer *me, const char *to,
	       const char *mode, struct owner *ret, struct error *err)
{
	if (!held_by(before, me->node))
		return not_holder(before, err);
	if (strcmp(to, me->node) == 0)
		return error_refuse(err, "it is on node '%s' already", to);
	if (before->feeder[0])
		return error_refuse(err, "node '%s' still hands out pages of its memory",
				    before->feeder);
	next_record(before, me, ret);
	ret->phase = OWNER_MOVING;
	memcpy(ret->node, before->node, sizeof(ret->node));
	memcpy(ret->boot, before->boot, sizeof(ret->boot));
	text_set(ret->to, sizeof(ret->to), to);
	text_set(ret->mode, sizeof(ret->mode), mode);
	return 0;
}

int owner_take(const struct owner *before, const struct writer *me, struct owner *ret,
	       struct error *err)
{
	if (!moving_to(before, me->node))
		return not_receiver(before, err);
	next_record(before, me, ret);
	hold(ret, me, before->lease);
	ret->try_epoch = before->epoch;
	if (strcmp(before->mode, "post") == 0)
		memcpy(ret->feeder, before->node, sizeof(ret->feeder));
	if (before->home[0] && !MUTANT(HOME_STAYS))
		text_set(ret->home, sizeof(ret->home), me->node);
	return 0;
}

int owner_back(const struct owner *before, const struct writer *me, struct owner *ret,
	       struct error *err)
{
	if (!moving_from(before, me->node))
		return not_holder(before, err);
	next_record(before, me, ret);
	hold(ret, me, before->lease);
	return 0;
}

/* The record of a holder that somebody else writes: permission comes only from its own renew. */
static void hold_for(struct owner *ret, const char *node, const char *boot)
{
	ret->phase = OWNER_HELD;
	text_set(ret->node, sizeof(ret->node), node);
	text_set(ret->boot, sizeof(ret->boot), boot);
}

int owner_decline(const struct owner *before, const struct writer *me, struct owner *ret,
		  struct error *err)
{
	if (!moving_to(before, me->node))
		return not_receiver(before, err);
	next_record(before, me, ret);
	hold_for(ret, before->node, before->boot);
	return 0;
}

int owner_give(const struct owner *before, const struct writer *me, const char *source,
	       const char *source_boot, struct owner *ret, struct error *err)
{
	if (!held_by(before, me->node) || before->try_epoch == 0)
		return not_holder(before, err);
	if (before->feeder[0])
		return error_refuse(err, "part of its memory is here: it cannot be given back");
	next_record(before, me, ret);
	hold_for(ret, source, source_boot);
	ret->try_epoch = before->try_epoch;
	if (before->home[0])
		text_set(ret->home, sizeof(ret->home), source);
	return 0;
}

int owner_settle(const struct owner *before, const struct writer *me, struct owner *ret,
		 struct error *err)
{
	if (!held_by(before, me->node) || !before->feeder[0])
		return not_holder(before, err);
	next_record(before, me, ret);
	hold(ret, me, before->lease);
	ret->try_epoch = before->try_epoch;
	return 0;
}

int owner_check_write(const struct owner *before, const struct owner *after, const char *node,
		      struct error *err)
{
	bool ours = after->phase == OWNER_OFF || strcmp(after->node, node) == 0;

	if (after->epoch != (before ? before->epoch : 0) + 1)
		return error_refuse(err, "the owner record goes from epoch %" PRIu64 " to %" PRIu64,
				    before ? before->epoch : 0, after->epoch);
	if (!before || before->phase == OWNER_OFF) {
		if (after->phase == OWNER_HELD && ours)
			return 0;
	} else if (held_by(before, node)) {
		/* release, renew, settle, move, give */
		if (ours || (after->phase == OWNER_HELD && before->try_epoch))
			return 0;
	} else if (moving_from(before, node)) {
		if (after->phase == OWNER_HELD && ours)
			return 0;
	} else if (moving_to(before, node)) {
		/* take, decline */
		if (after->phase == OWNER_HELD && (ours || strcmp(after->node, before->node) == 0))
			return 0;
	}
	return error_refuse(err,
			    "the agent of node '%s' may not write this owner record: epoch "
			    "%" PRIu64 " is for '%s'",
			    node, after->epoch, after->node);
}

int owner_acquire(const struct owner *before, const struct writer *me, bool home, const char *lease,
		  struct owner *ret, struct error *err)
{
	int r;

	if (before && before->phase == OWNER_HELD && strcmp(before->node, me->node) == 0) {
		r = owner_renew(before, me, lease, ret, err);
		if (r == 0 && home)
			text_set(ret->home, sizeof(ret->home), me->node);
		return r;
	}
	return owner_claim(before, me, home, lease, ret, err);
}

bool owner_won(const struct owner *now, const struct owner *asked)
{
	return now->phase == asked->phase && now->epoch == asked->epoch &&
	       strcmp(now->node, asked->node) == 0 && strcmp(now->by, asked->by) == 0;
}
