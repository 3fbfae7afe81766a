/* SPDX-License-Identifier: Apache-2.0 */
/* One standing order into the store, compared with the version that it was worked out from: of two
 * users who order at once one is first, and the other one's command is checked anew. */
#pragma once

#include "core/command.h"

struct error;
struct node_vm;
struct order;

/* `r`: 0, and `order` is what stands now; -ESTALE: somebody else's order came in between, the VM
 * has it by now, check anew; else as the store said.  Called exactly once, from the loop. */
typedef void (*order_written_fn)(void *ctx, int r, const struct order *order,
				 const struct error *err);
int order_write(struct node_vm *vm, enum command command, const char *by, order_written_fn done,
		void *ctx, struct error *err);
