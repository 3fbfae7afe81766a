/* SPDX-License-Identifier: Apache-2.0 */
/* A question to the agent of another node, over a connection of its own: a node that hangs holds up
 * nothing but what it was asked. */
#pragma once
#include <jansson.h>
#include <stdint.h>

struct error;
struct node;
struct remote;

struct remote_question {
	const char *address; /* as membership_address() */
	const char *node;    /* who must answer there; NULL with `pin` */
	const char *pin;     /* fingerprint of the CA: we have no certificate yet */
	const char *command;
	json_t *args; /* borrowed, may be NULL */
	uint64_t timeout_usec;
};

struct remote_ops {
	/* Exactly once, from the loop, unless the question was called off; as peer_reply_fn. */
	void (*reply)(void *ctx, int r, json_t *value, const struct error *err);
	void (*progress)(void *ctx, json_t *data); /* may be NULL */
};

int remote_ask(struct node *node, const struct remote_question *question,
	       const struct remote_ops *ops, void *ctx, struct remote **ret, struct error *err);
/* An event that belongs to the question, while it is not answered. */
void remote_tell(struct remote *remote, const char *event, json_t *data);
struct remote *remote_cancel(struct remote *remote); /* takes NULL, returns it */
