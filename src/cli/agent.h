/* SPDX-License-Identifier: Apache-2.0 */
/* One question to the agent, waited for: with progress on a terminal, and with a sentence that
 * names the next step when nobody answers. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct cli;
struct error;

struct question {
	const char *command;
	json_t *args;	       /* borrowed, may be NULL */
	uint64_t timeout_usec; /* 0: a question that is answered at once */
	/* Each event that the agent sends meanwhile; NULL: a line on the terminal shows it. */
	void (*progress)(void *ctx, json_t *data);
	void *ctx;
	const char *vm; /* whose order it is, for that line and for Ctrl-C; may be NULL */
	bool order;	/* it stands even when we go away */
	bool endless;	/* it goes on until Ctrl-C, which is then no failure */
	bool once;	/* not to be asked again when the agent becomes another program meanwhile */
	bool replaces;	/* that is what it is for: then it is answered */
	/* What to ask then instead; NULL: the same. */
	const char *then;
};

/* -EINTR: Ctrl-C.  `ret_value` is a new reference, may be NULL, and is NULL after the end of an
 * endless one. */
int agent_ask(const struct cli *cli, const struct question *question, json_t **ret_value,
	      struct error *err);

/* The same for a question with at most a VM; `vm` may be NULL. */
int agent_ask_vm(const struct cli *cli, const char *command, const char *vm, json_t **ret_value,
		 struct error *err);

/* All VMs, as `ls` has them. */
int agent_list(const struct cli *cli, json_t **ret_list, struct error *err);

/* How long to wait for an answer that takes its time: what the user said and a little more, so that
 * the agent's own sentence comes first. */
uint64_t agent_patience(const struct cli *cli);

/* {"vm": vm or null, "wait": ..., "timeout_ms": ...} as the waiting commands take it. */
json_t *agent_order_args(const struct cli *cli, const char *vm);
