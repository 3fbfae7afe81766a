/* SPDX-License-Identifier: Apache-2.0 */
/* The serial console of a VM on another node: its bytes go over the agents' connection.  Here a
 * socket stands in for the keeper's; there the agent is a client of the keeper's like any other. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

struct caller_console;
struct error;
struct node;
struct node_vm;
struct request;

/* The request `console` for a VM that node `to`, at `address`, has: answered with the path of a
 * socket, which takes one client. */
void console_request(struct node *node, struct request *request, const char *to,
		     const char *address);

/* The other side: the request `console-attach` of a member, answered when the console closes.
 * What the guest says are its progress events. */
int console_attach(struct node *node, struct request *request, struct caller_console **ret,
		   struct error *err);
/* What the user typed: the event `input`. */
void console_input(struct caller_console *console, json_t *data);
struct caller_console *console_detach(struct caller_console *console);
