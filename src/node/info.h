/* SPDX-License-Identifier: Apache-2.0 */
/* What other nodes know of this one without asking it: /drover/nodes/NODE/info.  Written soon after
 * something that counts has changed, and once a minute when load or memory did; a thousand idle
 * nodes write less than 20 times a second. */
#pragma once
#include <jansson.h>
#include <stdint.h>

struct info;
struct node;

void info_open(struct node *node);
struct info *info_close(struct info *info);

json_t *info_json(const struct node *node); /* the record */
/* Something may have changed. */
void info_touch(struct node *node);
/* The session has written it on its own. */
void info_written(struct node *node);
/* This node has left the cluster: not any more, until it joins again. */
void info_forget(struct node *node);
/* How long the store took for the last renewal of our session; 0: not known. */
void info_note_latency(struct node *node, uint64_t usec);
uint64_t info_latency(const struct node *node);
