/* SPDX-License-Identifier: Apache-2.0 */
/* keeper.sock: the agent's side of this keeper.  The newest connection is the agent; its requests
 * are dispatched by a table. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

#include "wire/peer.h"

struct error;
struct keeper;
struct link;

int link_open(struct keeper *keeper, struct error *err);
struct link *link_close(struct link *link);
bool link_up(const struct link *link);
int link_call(struct link *link, const char *command, json_t *args, uint64_t timeout_usec,
	      peer_reply_fn reply, void *ctx, struct error *err);
void link_event(struct link *link, const char *name, json_t *data);
/* The copy is gone: what users asked of its monitor is answered with that. */
void link_drop_passed(struct link *link);
