/* SPDX-License-Identifier: Apache-2.0 */
/* The owner record as this keeper knows it, and the one write of it that may be open.  The agent
 * carries the write; an answer that does not come is not an answer: the very same write is asked
 * again until there is one (ownership protocol, sections 1 and 6). */
#pragma once
#include <jansson.h>
#include <stdbool.h>

#include "core/lease.h"
#include "model/records.h"

struct definition;
struct error;
struct hardware;
struct keeper;

struct ownership {
	bool known; /* the agent told us the record, or that there is none */
	bool exists;
	bool anew; /* an agent is there that has told nothing yet */
	struct owner record;
	uint64_t version;
	uint64_t won;	/* when the write that gave the permission was asked; clock_now() */
	bool permitted; /* a write of this keeper's own was answered, and names this node (R1) */
	unsigned sequence;
	struct owner_write *write; /* open, or NULL */
};

struct ownership *ownership_new(void);
struct ownership *ownership_free(struct ownership *ownership);

/* What the agent read; ignored while a write of ours is open (its answer will tell). */
int ownership_told(struct keeper *keeper, json_t *owner_or_null, struct error *err);

/* `done`: 0 the record is ours by this very write; -ESTALE somebody else was first, the record as
 * it is now is in keeper->ownership; other errors: the agent refused the write. */
typedef void (*ownership_fn)(struct keeper *keeper, int r, const struct error *err);

/* Claim or renew, storing `hardware` in the same transaction (may be NULL). */
int ownership_acquire(struct keeper *keeper, const struct definition *definition,
		      const struct hardware *hardware, ownership_fn done, struct error *err);
/* The same with another lease policy, for a copy that runs on. */
int ownership_renew(struct keeper *keeper, const char *lease, ownership_fn done, struct error *err);
/* Of the record that the open write asks for. */
enum lease_policy ownership_asked_policy(const struct keeper *keeper);
int ownership_release(struct keeper *keeper, ownership_fn done, struct error *err);

/* The writes of a migration: the record that is to come after the one we know (R4: the makers are
 * in core/ownership.h), with this keeper as its writer. */
enum ownership_kind {
	OWNERSHIP_MOVE, /* `node`: to whom; `detail`: "pre" or "post" */
	OWNERSHIP_BACK,
	OWNERSHIP_RENEW,
	OWNERSHIP_TAKE,
	OWNERSHIP_DECLINE,
	OWNERSHIP_GIVE, /* `node`: back to whom; `detail`: its boot id */
	OWNERSHIP_SETTLE,
};
int ownership_write(struct keeper *keeper, enum ownership_kind kind, const char *node,
		    const char *detail, ownership_fn done, struct error *err);
/* QEMU has sent everything away: what was permitted is void (section 4, step 5). */
void ownership_forget_permission(struct keeper *keeper);

/* The link to the agent is there (again): ask what is open. */
void ownership_link_up(struct keeper *keeper);

bool ownership_held_here(const struct keeper *keeper);
bool ownership_held_elsewhere(const struct keeper *keeper);
