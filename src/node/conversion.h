/* SPDX-License-Identifier: Apache-2.0 */
/* The records of a cluster, one by one, from one form to the next, for the agent that has the lock.
 */
#pragma once
#include <stdint.h>

struct conversion;
struct error;
struct node;
struct schema;

/* 0: they are of the form `to` now, and the lock is gone. */
typedef void (*conversion_fn)(void *ctx, int r, const struct error *err);

/* `schema` names both forms, as /drover/schema of that version does. */
struct conversion *conversion_new(struct node *node, const struct schema *schema,
				  uint64_t schema_version, uint64_t lock_version,
				  conversion_fn done, void *ctx);
/* Called once; `done` likewise, also from inside. */
void conversion_run(struct conversion *conversion);
struct conversion *conversion_free(struct conversion *conversion);
