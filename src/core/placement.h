/* SPDX-License-Identifier: Apache-2.0 */
/* On which node a VM should be, how it gets there, and what an order to move it makes of the
 * placement record.  Pure functions; their tables are in tests/unit/test-placement.c.
 *
 * An order wins over the definition until another order, or until a newer generation of the
 * definition names another `kvm_host` than the one that stood there when it was given.  Then the
 * definition; and where that names nobody, the VM stays where it is. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "model/definition.h"
#include "model/records.h"
#include "model/state.h"

struct error;

struct placement_facts {
	const char *vm;
	const struct definition *definition;
	uint64_t generation;	  /* of it */
	uint64_t host_generation; /* the one that last changed its `kvm_host` */
	const struct placement *placement;
	const struct owner *owner; /* NULL: there is no record */
	const char *source;	   /* node that the definition came from; "": not known */
	const char *node;	   /* this one */
};

/* Who says so. */
enum placement_by {
	PLACED_BY_ORDER,
	PLACED_BY_DEFINITION,
	PLACED_BY_OWNER, /* it is there */
	PLACED_BY_HOME,	 /* its disks are there */
	PLACED_BY_SOURCE,
	PLACED_BY_NOBODY, /* then it is this node */
};
/* `ret_node` is borrowed from the facts. */
enum placement_by placement_node(const struct placement_facts *facts, const char **ret_node);

/* How it is to be moved, the order's word before that of the definition. */
struct placement_terms {
	bool shutdown;			     /* else live, and nothing but live */
	uint64_t max_downtime_ms, bandwidth; /* 0: QEMU's own */
	bool postcopy;
	uint64_t number, cancel; /* of the newest orders; 0: there was none */
};
void placement_terms(const struct placement_facts *facts, struct placement_terms *ret);

/* Is the VM where the order with that number wants it?  `wish` is that of the node that asks,
 * `state` that of the copy on the target, as last told.  1 it is, or need not be before something
 * else changes; 0 not yet; -ECANCELED when it cannot come to that any more. */
int placement_arrived(const struct placement_facts *facts, uint64_t number, enum vm_wish wish,
		      enum vm_state state, const char *reason, struct error *err);

enum placement_verb { PLACE_MIGRATE, PLACE_MOVE, PLACE_UNMIGRATE, PLACE_CANCEL };
struct placement_order {
	enum placement_verb verb;
	const char *to; /* MIGRATE and MOVE */
	enum placement_method method;
	uint64_t max_downtime_ms, bandwidth; /* 0: not said */
	bool postcopy;			     /* false: not said */
	const char *since, *by;
};
/* The record that the order leaves behind, or why it does not fit (ERROR_REFUSED).  `ret` is to be
 * written and needs no placement_done(). */
int placement_ordered(const struct placement_facts *facts, const struct placement_order *order,
		      struct placement *ret, struct error *err);
