/* SPDX-License-Identifier: Apache-2.0 */
/* One history: a world and the moves that a seed chooses, until something must not be, or until
 * everything is repaired and every VM runs (L1). */
#pragma once
#include "sim/world.h"

#define HISTORY_MOVES 4096

struct history {
	uint64_t seed;
	struct rules rules;
	struct move moves[HISTORY_MOVES];
	size_t n;
	const char *violation;
};
/* The kind of world, and the number of chosen moves, come from the seed as well. */
void history_rules(uint64_t seed, struct rules *ret);
void history_run(uint64_t seed, const struct rules *rules, struct history *ret);
/* Leaves moves out while the same thing still goes wrong. */
void history_shrink(struct history *history);
void history_print(const struct history *history);
