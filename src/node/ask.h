/* SPDX-License-Identifier: Apache-2.0 */
/* Writes to the store that are repeated, unchanged, until they are answered: an unknown outcome is
 * never read about (ownership protocol, section 6). */
#pragma once
#include <stdint.h>

#include "store/store.h"

struct error;
struct node;

/* As store_write(); -EAGAIN reaches `reply` only when `timeout_usec` has passed without an answer.
 * `ops` and what they point to is copied; nothing is written while the form of the records changes.
 * When the node closes, `reply` is not called any more. */
int ask_write(struct node *node, const struct store_op *ops, size_t count, uint64_t timeout_usec,
	      store_write_fn reply, void *ctx, struct error *err);
