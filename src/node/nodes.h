/* SPDX-License-Identifier: Apache-2.0 */
/* The other nodes, as their records say: read when somebody asks, never kept, so that a thousand
 * nodes cost nothing as long as nobody looks. */
#pragma once
struct node;
struct request;

/* The request `node-ls`. */
void nodes_list(struct node *node, struct request *request);
/* The request `node` with the argument `node`. */
void nodes_one(struct node *node, struct request *request);
