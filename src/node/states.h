/* SPDX-License-Identifier: Apache-2.0 */
/* /drover/vms/NAME/state: the last known state of a VM, for those who cannot ask its keeper: this
 * agent after a restart, and other nodes.  Telemetry never goes in there: a record is written a
 * moment after the state changed, all that changed meanwhile in one go; that of a VM which came
 * from another node at once. */
#pragma once

struct node;
struct node_vm;

/* The keeper told of a new state. */
void states_changed(struct node_vm *vm);
/* Its records have changed: what waited for that is written now. */
void states_look(struct node_vm *vm);
