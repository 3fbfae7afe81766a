/* SPDX-License-Identifier: Apache-2.0 */
/* Why no receiver could be made ready here for a VM that is to come: told to the agent, which tells
 * the node that has it, for somebody there may wait for the move. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct error;
struct keeper;

struct obstacle {
	char why[512]; /* "": nothing stands in the way, or it is not known yet */
	unsigned tries;
	bool final; /* another try soon would say the same */
};

/* One more try came to nothing, before there was anything to come to; `epoch` is that of the move.
 */
void obstacle_met(struct keeper *keeper, uint64_t epoch, const struct error *err);
/* What stood in the way does not any more, or is to be looked at anew. */
void obstacle_forget(struct keeper *keeper);
/* {number, why, final}, or null. */
json_t *obstacle_json(const struct keeper *keeper);
