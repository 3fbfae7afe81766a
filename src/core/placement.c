/* SPDX-License-Identifier: Apache-2.0 */
#include "core/placement.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "util/error.h"

static bool same(const char *a, const char *b)
{
	return strcmp(a, b) == 0;
}

static const char *kvm_host(const struct placement_facts *facts)
{
	return facts->definition->kvm_host ? facts->definition->kvm_host : "";
}

/* Is the order still the newest word about where the VM should be? */
static bool order_counts(const struct placement_facts *facts)
{
	const struct placement *placement = facts->placement;

	if (placement->kind == PLACEMENT_NONE)
		return false;
	if (facts->generation <= placement->generation || !*kvm_host(facts))
		return true;
	/* The name may have gone away and come back meanwhile. */
	return facts->host_generation <= placement->generation &&
	       same(kvm_host(facts), placement->kvm_host);
}

static const char *holder(const struct placement_facts *facts)
{
	return facts->owner && facts->owner->phase != OWNER_OFF ? facts->owner->node : "";
}

enum placement_by placement_node(const struct placement_facts *facts, const char **ret_node)
{
	const struct {
		const char *node;
		enum placement_by by;
	} words[] = {
		{ order_counts(facts) ? facts->placement->node : "", PLACED_BY_ORDER },
		{ kvm_host(facts), PLACED_BY_DEFINITION },
		{ holder(facts), PLACED_BY_OWNER },
		{ facts->owner ? facts->owner->home : "", PLACED_BY_HOME },
		{ facts->source, PLACED_BY_SOURCE },
		{ facts->node, PLACED_BY_NOBODY },
	};
	size_t i = 0;

	while (!*words[i].node && words[i].by != PLACED_BY_NOBODY)
		i++;
	*ret_node = words[i].node;
	return words[i].by;
}

void placement_terms(const struct placement_facts *facts, struct placement_terms *ret)
{
	const struct definition *definition = facts->definition;
	const struct placement *placement = facts->placement;
	/* One that sent it home speaks of that way only. */
	bool counts = order_counts(facts) || (placement->kind == PLACEMENT_NONE &&
					      placement->generation == facts->generation);

	/* They come along with its memory only. */
	bool disks_stay = facts->owner && *facts->owner->home;

	*ret = (struct placement_terms){
		.shutdown = definition->migration_method == MIGRATE_SHUTDOWN && !disks_stay,
		.max_downtime_ms = definition->migration_max_downtime / 1000,
		.bandwidth = definition->migration_bandwidth,
		.postcopy = definition->migration_postcopy,
		.number = placement->number,
		.cancel = placement->cancel,
	};
	if (!counts)
		return;
	if (placement->method != PLACEMENT_AUTO)
		ret->shutdown = placement->method == PLACEMENT_SHUTDOWN && !disks_stay;
	if (placement->max_downtime_ms)
		ret->max_downtime_ms = placement->max_downtime_ms;
	if (placement->bandwidth)
		ret->bandwidth = placement->bandwidth;
	if (placement->postcopy)
		ret->postcopy = true;
}

static void set_name(char field[RECORD_NAME_SIZE], const char *name)
{
	(void)snprintf(field, RECORD_NAME_SIZE, "%s", name);
}

static void place(struct placement *ret, enum placement_kind kind, const char *node,
		  const char *return_to)
{
	ret->kind = kind;
	set_name(ret->node, node);
	set_name(ret->return_to, return_to);
}

/* To stay there: the definition's own word needs no order beside it. */
static void place_for_good(const struct placement_facts *facts, const char *node,
			   struct placement *ret)
{
	if (same(kvm_host(facts), node))
		place(ret, PLACEMENT_NONE, "", "");
	else
		place(ret, PLACEMENT_MOVE, node, "");
}

/* Where `unmigrate` would bring it; "": it is not migrated. */
static const char *home_of(const struct placement_facts *facts)
{
	if (!order_counts(facts) || !*facts->placement->return_to)
		return "";
	return *kvm_host(facts) ? kvm_host(facts) : facts->placement->return_to;
}

/* Disks of one node move with a VM that runs, never alone. */
static int check_disks(const struct placement_facts *facts, const char *to,
		       enum placement_method method, struct error *err)
{
	const char *home = facts->owner ? facts->owner->home : "";

	if (!*home || same(home, to))
		return 0;
	if (!*holder(facts))
		return error_refuse(err,
				    "the disks of VM '%s' are on node '%s', and move only while it "
				    "runs: 'drover start %s' first",
				    facts->vm, home, facts->vm);
	if (method == PLACEMENT_SHUTDOWN)
		return error_refuse(err,
				    "the disks of VM '%s' are on node '%s', and move only while it "
				    "runs: it cannot be moved by a shutdown",
				    facts->vm, home);
	return 0;
}

static int check_target(const struct placement_facts *facts, const struct placement_order *order,
			struct error *err)
{
	const char *there = holder(facts), *now;

	(void)placement_node(facts, &now);
	/* One that is migrated there may be told to stay. */
	if (order->verb == PLACE_MOVE && *home_of(facts))
		return 0;
	if (same(now, order->to) && same(there, order->to))
		return error_refuse(err, "VM '%s' is on node '%s' already", facts->vm, order->to);
	if (same(now, order->to) && !*there)
		return error_refuse(err, "VM '%s' belongs to node '%s' already", facts->vm,
				    order->to);
	return check_disks(facts, order->to, order->method, err);
}

static int order_migrate(const struct placement_facts *facts, const struct placement_order *order,
			 struct placement *ret, struct error *err)
{
	const char *home = home_of(facts), *now;
	int r;

	r = check_target(facts, order, err);
	if (r < 0)
		return r;
	(void)placement_node(facts, &now);
	if (!*home)
		home = same(now, order->to) ? holder(facts) : now;
	if (same(home, order->to))
		place_for_good(facts, order->to, ret);
	else
		place(ret, PLACEMENT_MIGRATE, order->to, home);
	return 0;
}

static int order_move(const struct placement_facts *facts, const struct placement_order *order,
		      struct placement *ret, struct error *err)
{
	int r;

	r = check_target(facts, order, err);
	if (r == 0)
		place_for_good(facts, order->to, ret);
	return r;
}

static int order_unmigrate(const struct placement_facts *facts, const struct placement_order *order,
			   struct placement *ret, struct error *err)
{
	const char *home = home_of(facts);

	if (!*home)
		return error_refuse(err, "VM '%s' is not migrated: there is no way back",
				    facts->vm);
	place_for_good(facts, home, ret);
	return check_disks(facts, home, order->method, err);
}

/* It stays where it is, and what it was on that node stays true. */
static int order_cancel(const struct placement_facts *facts, const struct placement_order *order,
			struct placement *ret, struct error *err)
{
	const char *there = holder(facts), *home = home_of(facts), *now;

	(void)placement_node(facts, &now);
	if (facts->owner && *facts->owner->feeder)
		return error_refuse(err,
				    "VM '%s' runs on node '%s' already and fetches the rest of its "
				    "memory from node '%s': there is no way back before that is "
				    "done",
				    facts->vm, there, facts->owner->feeder);
	if (!*there || same(there, now))
		return error_refuse(err, "VM '%s' is not being moved", facts->vm);
	if (!*home)
		home = kvm_host(facts);
	if (!*home || same(home, there))
		place_for_good(facts, there, ret);
	else
		place(ret, PLACEMENT_MIGRATE, there, home);
	ret->cancel = ret->number;
	return 0;
}

int placement_ordered(const struct placement_facts *facts, const struct placement_order *order,
		      struct placement *ret, struct error *err)
{
	static int (*const verbs[])(const struct placement_facts *, const struct placement_order *,
				    struct placement *, struct error *) = {
		[PLACE_MIGRATE] = order_migrate,
		[PLACE_MOVE] = order_move,
		[PLACE_UNMIGRATE] = order_unmigrate,
		[PLACE_CANCEL] = order_cancel,
	};
	struct placement next = {
		.generation = facts->generation,
		.method = order->method,
		.max_downtime_ms = order->max_downtime_ms,
		.bandwidth = order->bandwidth,
		.postcopy = order->postcopy,
		.number = facts->placement->number + 1,
		.cancel = facts->placement->cancel,
		.rest = facts->placement->rest,
	};
	int r;

	if (order->method == PLACEMENT_SHUTDOWN &&
	    facts->definition->migration_method == MIGRATE_LIVE)
		return error_refuse(err,
				    "the definition of VM '%s' says 'migration_method: live': it "
				    "is not shut down to be moved",
				    facts->vm);
	set_name(next.kvm_host, kvm_host(facts));
	(void)snprintf(next.since, sizeof(next.since), "%s", order->since);
	(void)snprintf(next.by, sizeof(next.by), "%s", order->by);
	r = verbs[order->verb](facts, order, &next, err);
	if (r == 0)
		*ret = next;
	return r;
}

int placement_arrived(const struct placement_facts *facts, uint64_t number, enum vm_wish wish,
		      enum vm_state state, const char *reason, struct error *err)
{
	const char *target;

	(void)placement_node(facts, &target);
	if (facts->placement->number != number)
		return error_set_class(err, ERROR_REFUSED, -ECANCELED,
				       "VM '%s' was ordered to node '%s' meanwhile", facts->vm,
				       target);
	/* It is off, or stands still: it will begin, or go on, where it belongs. */
	if (wish != WISH_RUN && wish != WISH_ELSEWHERE)
		return 1;
	if (!facts->owner || facts->owner->phase != OWNER_HELD || !same(holder(facts), target))
		return 0;
	if (state == VM_FAILED)
		return error_set(err, -ECANCELED, "VM '%s' did not start on node '%s': %s",
				 facts->vm, target, reason ? reason : "reason unknown");
	return state != VM_OFF && state != VM_STARTING && state != VM_UNKNOWN;
}
