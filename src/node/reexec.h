/* SPDX-License-Identifier: Apache-2.0 */
/* The agent becomes another program in place, the one that is installed now: same process, same
 * socket, same session with the store.  That program is asked first whether it can; what it cannot
 * do is a refusal, and all stays as it is. */
#pragma once
#include <stdbool.h>

struct error;
struct node;
struct reexec;
struct request;

/* First of all: what we are, and what was handed down to us.  `argv` outlives the node. */
void reexec_open(struct node *node, char **argv);
struct reexec *reexec_close(struct reexec *reexec);

/* Keepers, and probes, that the program before us started are our children still. */
void reexec_adopt_children(struct node *node);
/* What the program before us left open for us, or -1; the caller owns it from then on. */
int reexec_lock(struct node *node);
int reexec_listener(struct node *node);

/* Looks whether the installed program can take over and lets it; `request` (NULL: a signal) is
 * answered only when it cannot. */
void reexec_begin(struct node *node, struct request *request);
/* The same program anew, with what has changed in the store. */
void reexec_same(struct node *node);
/* A job ended: was it the last one to wait for? */
void reexec_look(struct node *node);
/* The loop has ended: is it for this?  Then the descriptors in question will outlive us. */
bool reexec_due(const struct node *node);
/* Does not return when it worked. */
int reexec_run(const char *program, char **argv, struct error *err);
/* The program to go on as, for the time after the node; owned by the caller. */
char *reexec_program(const struct node *node);

/* `droverd --check`: tells on stdout what this program is, or why it cannot run. */
int reexec_check(const char *root, struct error *err);
