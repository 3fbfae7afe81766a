/* SPDX-License-Identifier: Apache-2.0 */
/* Every state that a world can come to, breadth first, so that the first violation has a shortest
 * history; then, backwards, whether from each state the VM comes to run again. */
#pragma once
#include "sim/world.h"

struct explored {
	const char *violation; /* NULL: none */
	size_t states, transitions;
	bool cut_short; /* there are more states than `limit` */
	struct move *path;
	size_t n_path;
};
/* L1 and L2 are looked at when nothing else is wrong. */
void explorer_run(const struct rules *rules, size_t limit, struct explored *ret);
void explored_print(const struct rules *rules, const struct explored *explored);
void explored_done(struct explored *explored);
