/* SPDX-License-Identifier: Apache-2.0 */
#include "core/ownership.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

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
