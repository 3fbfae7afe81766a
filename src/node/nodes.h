/* SPDX-License-Identifier: Apache-2.0 */
/* The other nodes, as their records say: read when somebody asks, never kept, so that a thousand
 * nodes cost nothing as long as nobody looks. */
#pragma once
#include <jansson.h>
#include <stddef.h>

struct error;
struct node;
struct request;
struct store_entry;

#define NODES_PREFIX "/drover/nodes/"

/* The request `node-ls`. */
void nodes_list(struct node *node, struct request *request);
/* The request `node` with the argument `node`. */
void nodes_one(struct node *node, struct request *request);

/* {NAME: {name, alive, mode, life, memory_mib...}} out of a listing of NODES_PREFIX. */
json_t *nodes_gather(const struct store_entry *entries, size_t count);
/* There is such a node, it is connected and may run VMs; else ERROR_REFUSED. */
int nodes_check_target(const json_t *nodes, const char *name, struct error *err);
/* One that may have a VM and is not `not_this`: that with the most room.  Borrowed from `nodes`. */
int nodes_choose_target(const json_t *nodes, const char *not_this, const char **ret_name,
			struct error *err);
