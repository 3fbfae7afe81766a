/* SPDX-License-Identifier: Apache-2.0 */
/* control.sock: the command line and drover-api ask here.  A table names each request and who
 * answers it. */
#pragma once
#include <stdbool.h>

#include "wire/peer.h"

struct control;
struct error;
struct node;

/* Binds the socket.  Connections are taken from control_begin() on, so that nobody is told "no such
 * VM" only because the records were not read yet. */
int control_open(struct node *node, struct error *err);
void control_begin(struct node *node);
/* The store has answered something: begins once all that we need to know was answered, either way.
 */
void control_look(struct node *node);
/* The agent becomes another program: clients are told that they may ask that one again, and a copy
 * of the socket's descriptor, which outlives us, is returned; or negative. */
int control_handover(struct node *node);
/* A request about a VM that came from another node; false: that is none that others may ask. */
bool control_serve_member(struct node *node, struct request *request, const char *member);
struct control *control_close(struct control *control);
