/* SPDX-License-Identifier: Apache-2.0 */
/* A few VMs read anew because somebody asks about them: what others have written of a VM that is
 * none of this node's business is known as it was when all were listed last. */
#pragma once
#include <stddef.h>

#include "node/records.h"

struct node;

/* `done` is called once, from the loop, when all of them were read.  What cannot be read so is read
 * with a listing of all, which also says what is wrong. */
void reread(struct node *node, const char *const *names, size_t count, records_fn done, void *ctx);
