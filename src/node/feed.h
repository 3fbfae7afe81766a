/* SPDX-License-Identifier: Apache-2.0 */
/* Definitions that come in through Consul's keys, as fc.qemu's directory publishes them:
 * `node/NAME` holds a definition, `snapshot/ANYTHING` a request for a snapshot.  They arrive as
 * events (Key, Value in base64, ModifyIndex) from `drover handle-consul-event` and from our own
 * watch, often more than once and in any order; the ModifyIndex, kept in the definition as
 * `consul-generation`, tells what is new. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

struct feed;
struct node;
struct request;

void feed_open(struct node *node);
struct feed *feed_close(struct feed *feed);

/* Takes a list of events.  `done` is called once, from the loop, when each of them had its effect;
 * `results` is borrowed: [{key, result: stored|unchanged|ignored|failed, message}].  `again`: some
 * failed for now only, and should be delivered once more. */
typedef void (*feed_done_fn)(void *ctx, json_t *results, bool again);
void feed_take(struct node *node, json_t *events, feed_done_fn done, void *ctx);

/* The request `consul-events`. */
void feed_request(struct node *node, struct request *request);
