/* SPDX-License-Identifier: Apache-2.0 */
/* The lease of a node, in numbers and rules: how long it is, whether a permission may be used under
 * it, and what its end means for a copy (ownership protocol, R2, 7.1 and 7.2).  All times are
 * microseconds of the caller's CLOCK_BOOTTIME; two hosts' clocks are never compared. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "model/lease-page.h"

/* By this much a keeper may be late at the end of the lease. */
#define LEASE_SCHED_USEC (500 * USEC_PER_MSEC)

/* How long a lease lasts in a store that ends a session no earlier than `earliest_usec` after a
 * renewal was sent, when it takes up to `stop_usec` to stop all vcpus.  0: that is too short for
 * any lease. */
uint64_t lease_length(uint64_t earliest_usec, uint64_t stop_usec);
uint64_t lease_interval(uint64_t length); /* between two renewals */

/* A renewal that was sent at `sent` is answered at `now`.  A stretch that was interrupted, or that
 * belongs to a new session, begins anew: what was won before it is not won under it. */
struct lease lease_extend(const struct lease *before, uint64_t sent, uint64_t length, uint64_t now,
			  bool new_session);

/* What the owner record says about the end of the lease; the mildest first. */
enum lease_policy { LEASE_KEEP, LEASE_PAUSE, LEASE_STOP };
enum lease_policy lease_policy_of(const char *name); /* NULL and "": keep */
const char *lease_policy_name(enum lease_policy policy);

enum lease_use {
	LEASE_USABLE,
	LEASE_OVER,   /* wait for the next renewal */
	LEASE_LAPSED, /* it is valid, but was interrupted since: the record has to be won anew */
};
/* May vcpus be let run by a permission whose write was sent at `won` (0: is there a lease that one
 * could be won under?), with `left` of the lease to spare?  Without any lease (end 0) the policy
 * `keep` may, since nobody counts on its end. */
enum lease_use lease_use(enum lease_policy policy, const struct lease *lease, uint64_t won,
			 uint64_t left, uint64_t now);

/* A copy as the end of the lease sees it. */
enum lease_copy {
	LEASE_COPY_STOPPED, /* runs only by `cont`: paused, loaded, postmigrate, feeder */
	LEASE_COPY_RUNS,
	LEASE_COPY_ITSELF, /* stopped, and can run by itself: device phase of a migration, sleep */
};
/* By QEMU's RunState; NULL: it is not known, and `ran` tells whether its vcpus were let run.
 * `given`: it was stopped for another copy's sake (`stopped` was said of it, it is a feeder), so it
 * runs only by a `cont` of ours, whatever QEMU calls that: "finish-migrate" in postcopy. */
enum lease_copy lease_copy_of(const char *run_state, bool ran, bool given);

enum lease_act { LEASE_ACT_NONE, LEASE_ACT_PAUSE, LEASE_ACT_KILL };
enum lease_act lease_act(enum lease_policy policy, enum lease_copy copy);
