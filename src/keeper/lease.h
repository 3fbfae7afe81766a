/* SPDX-License-Identifier: Apache-2.0 */
/* The lease of the node as this keeper obeys it (ownership protocol, R2 and 7.2): looked at before
 * every `cont`, and at its end a copy that runs, or could by itself, is paused or killed if the
 * owner record says so; whether the agent is dead, hangs or is cut off makes no difference. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "core/lease.h"

struct error;
struct keeper;
struct lease_guard;

struct lease_guard *lease_guard_free(struct lease_guard *guard); /* NULL allowed */

/* May vcpus be let run now, by the permission that was won last, with `left_usec` of the lease to
 * spare?  -EAGAIN: no, the lease is over.  -ESTALE: it was interrupted since the permission was
 * won: the owner record has to be written anew. */
int lease_check(const struct keeper *keeper, uint64_t left_usec, struct error *err);
/* Could one be won now? */
bool lease_over(const struct keeper *keeper);
/* Nobody tells when there is one again: who waits for it looks so often. */
#define LEASE_AGAIN (500 * USEC_PER_MSEC)

/* Obeys the policy, arms the timer for the end of the lease if there is one to obey. */
void lease_look(struct keeper *keeper);
/* The definition names another policy than the owner record or than the copy obeys: true, the write
 * of it has begun. */
bool lease_change_policy(struct keeper *keeper);
/* A copy that is about to run obeys what the owner record says. */
void lease_begin(struct keeper *keeper);
/* It has ended. */
void lease_copy_ended(struct keeper *keeper);
