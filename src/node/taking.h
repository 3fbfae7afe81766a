/* SPDX-License-Identifier: Apache-2.0 */
/* A listing of all VMs, taken into what is known a few VMs in each turn of the loop: twenty
 * thousand at once would be seconds in which the session of the node is not renewed. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct node;
struct store_entry;
struct taking;

/* `done` is called once, at once when there are only a few.  `again`: we wrote meanwhile what the
 * listing may not have yet. */
typedef void (*taking_fn)(void *ctx, bool again);
void taking_begin(struct node *node, const struct store_entry *entries, size_t count,
		  uint64_t asked_written, taking_fn done, void *ctx);
struct taking *taking_close(struct taking *taking);

/* That VM alone was read since the listing was: it stays as it is. */
void taking_skip(const struct node *node, const char *vm);
