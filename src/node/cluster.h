/* SPDX-License-Identifier: Apache-2.0 */
/* The requests `cluster-...` of control.sock: a cluster is made, tokens are given out, a node
 * leaves, and how all this stands. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

struct node;
struct request;

void cluster_init(struct node *node, struct request *request);
void cluster_token(struct node *node, struct request *request);
void cluster_leave(struct node *node, struct request *request);
void cluster_status(struct node *node, struct request *request);

json_t *cluster_member_json(bool authority); /* a record of a member, joined now */
