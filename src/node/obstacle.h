/* SPDX-License-Identifier: Apache-2.0 */
/* /drover/vms/NAME/obstacle: why the node that a VM is to come to cannot let it in; written there,
 * read where it is, for whoever waits for the move.  It goes with that node's session. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct node_vm;

/* Something about the VM has changed: what this node tells of it is written, or taken back. */
void obstacle_look(struct node_vm *vm);
/* What the node that it is to go to says against its coming, borrowed; NULL: nothing. */
const char *obstacle_why(const struct node_vm *vm);
/* That was said of the order with that number, and will not be otherwise soon. */
bool obstacle_stands(const struct node_vm *vm, uint64_t number);
/* In a sentence, on any node; NULL: nothing stands in its way.  The caller frees it. */
char *obstacle_words(const struct node_vm *vm);
