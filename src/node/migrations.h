/* SPDX-License-Identifier: Apache-2.0 */
/* The request `migrations`, of which each node knows one side: the nodes at the other ends are
 * asked for theirs. */
#pragma once

struct node;
struct request;

/* {vm: NAME|null} -> [{...}, ...], oldest first; a node that does not tell its sides is one of
 * them, {node, trouble}. */
void migrations_request(struct node *node, struct request *request);
/* Another node asks: {vm: NAME|null, with: NODE|null} -> what is here, of one VM, between us and
 * one node. */
void migrations_serve(struct node *node, struct request *request);
