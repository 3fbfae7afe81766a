/* SPDX-License-Identifier: Apache-2.0 */
/* Time, for histories that have it (rules.time): clocks that drift, a wall clock that jumps, hosts
 * that are suspended, renewals with core/lease's arithmetic, and a store that keeps only what it
 * promised.  Without it only the order counts: leases end before sessions. */
#pragma once
#include "sim/parts.h"

void clock_init(const struct rules *rules, struct world *world);
bool clock_step(struct step *step);

/* What a keeper of node `i` sees when it looks at the lease. */
bool clock_lease(const struct step *step, int i);
/* The same with `left` microseconds to spare, for what was won by the write of this VM. */
enum lease_use clock_lease_use(const struct step *step, int v, int i, uint64_t left);
bool clock_lease_ended(const struct step *step, int i);	  /* keepers may act now */
bool clock_session_ended(const struct step *step, int i); /* the store may end it now */
/* The promise of the store is over, and the keepers have had the time they need. */
bool clock_too_late(const struct step *step, int i);

void clock_asked(struct step *step, int v, int i); /* a write of this node's is asked for */
void clock_joined(struct step *step, int i);
void clock_parted(struct step *step, int i); /* connections of this node are broken */
void clock_store_up(struct step *step);
