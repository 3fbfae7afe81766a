/* SPDX-License-Identifier: Apache-2.0 */
/* How many VMs move at the same time (`migration.outgoing`, `migration.incoming`).  A node lets VMs
 * come in the order in which they began to wait; one whose receiver nobody sends to goes to the end
 * of the queue, and one that cannot be let in makes way.  It lets those leave for which a receiver
 * waits, so that no two nodes can wait for each other. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct node;
struct node_vm;

struct slot {
	uint64_t waiting_since; /* clock_now(); 0: does not wait, has none */
	uint64_t granted;	/* when; 0: not */
	bool used;		/* its keeper said that it uses it */
};
struct slots {
	struct slot send, receive;
};

/* Something about the VM has changed: who may go now? */
void slots_look(struct node *node);
bool slots_may_send(const struct node_vm *vm);
bool slots_may_receive(const struct node_vm *vm);
