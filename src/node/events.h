/* SPDX-License-Identifier: Apache-2.0 */
/* What happened, for people: one JSON object a line.  The node's own events are in
 * LOG/events.jsonl; those of a VM in its keeper's file, so that they do not depend on an agent
 * being there.  A reader sees both merged by time, and may follow. */
#pragma once
struct error;
struct events;
struct node;
struct node_vm;
struct request;

void events_open(struct node *node);
struct events *events_close(struct events *events);

/* `vm` may be NULL.  What cannot be written is ignored. */
void events_add(struct node *node, const char *vm, const char *event, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* The file of this VM's keeper may have grown: followers get what came since the last look, also
 * what was written while nobody was connected to the keeper. */
void events_look(struct node_vm *vm);
/* What is in that file now is history. */
void events_begin(struct node_vm *vm);

/* The request `events`. */
void events_request(struct node *node, struct request *request);
/* A client has gone: stop following for it. */
void events_forget(struct node *node);
