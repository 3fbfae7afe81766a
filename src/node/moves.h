/* SPDX-License-Identifier: Apache-2.0 */
/* Orders to move a VM: migrate, move, unmigrate.  An order is checked against what is known of the
 * VM and of the nodes, becomes its placement record, and is then waited for until the VM is there.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct node;
struct node_vm;
struct request;

/* Handler of the control table; answers the request in the end. */
void moves_request(struct node *node, struct request *request, const char *by);

/* How long such a request may take, by what it says. */
uint64_t moves_patience(const struct node *node, json_t *args);

/* The VM has changed: is one that is waited for there? */
void moves_look(struct node_vm *vm);
bool moves_wait_for(const struct node_vm *vm);
/* Lets go of all of them. */
void moves_close(struct node *node);
