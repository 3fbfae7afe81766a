/* SPDX-License-Identifier: Apache-2.0 */
/* Commands of users: start, stop, restart, kill, pause, resume, ensure, and shutdown-all.  A
 * command is checked against the present facts, becomes a standing order in the store, and is then
 * waited for: it is done when the VM has come to what was ordered, has failed to, or time is up. */
#pragma once
#include <stdbool.h>

struct node;
struct node_vm;
struct request;

/* Handler of the control table; answers the request in the end. */
void orders_request(struct node *node, struct request *request, const char *by);
/* The node's mode has become `stopped`: answers with all VMs once all are off. */
void orders_wait_all_off(struct node *node, struct request *request, const char *by);

/* A keeper turns the wish into an administrative stop (`on_panic: off`). */
void orders_stop_by_keeper(struct node_vm *vm, struct request *request);

/* The VM has changed: judge the commands that wait for it. */
void orders_look(struct node_vm *vm);
bool orders_wait_for(const struct node_vm *vm);
/* Lets go of all of them without an answer. */
void orders_close(struct node *node);
