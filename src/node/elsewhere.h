/* SPDX-License-Identifier: Apache-2.0 */
/* VMs that another node holds, as their records say.  For people only: what is decided about a VM
 * here goes by what is here. */
#pragma once
#include <jansson.h>

#include "model/state.h"

struct node_vm;

/* The other node that holds it, borrowed; NULL: this one does, or nobody. */
const char *elsewhere_holder(const struct node_vm *vm);
/* Puts state, reason and what else its holder told of it into a VM object. */
void elsewhere_set(const struct node_vm *vm, json_t *object);
