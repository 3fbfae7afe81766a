/* SPDX-License-Identifier: Apache-2.0 */
/* What became of one migration, as this side saw it: a line in LOG/vms/NAME/migrations.jsonl, for
 * `drover migrations`. */
#pragma once
#include <stdint.h>

struct keeper;
struct timeline;

/* `role`: "source" or "target"; `id`: the epoch of the move. */
struct timeline *timeline_new(struct keeper *keeper, const char *role, const char *from,
			      const char *to, uint64_t id);
/* Each takes NULL for `timeline`. */
void timeline_phase(struct timeline *timeline, const char *phase);
void timeline_number(struct timeline *timeline, const char *key, uint64_t value);
/* Writes the line; `result`: "moved", "cancelled", "failed".  Returns NULL. */
struct timeline *timeline_end(struct timeline *timeline, const char *result, const char *why);
struct timeline *timeline_free(struct timeline *timeline); /* without a word */
