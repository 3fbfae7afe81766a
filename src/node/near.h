/* SPDX-License-Identifier: Apache-2.0 */
/* The VMs that are this node's business, in a cluster in which nobody can list all of them after
 * each change: those of the index /drover/assign/NODE/, which is written with what makes a VM our
 * business, and those of which we know that they are.  Each is watched by itself.  All others are
 * read when somebody asks, and rarely by the way: then what the index lacks is found too, and put
 * in.
 *
 * How rarely is a matter of what a listing costs and of how many do it; where that is nothing worth
 * mentioning, all VMs are watched and this does nothing. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "core/placement.h"

struct near;
struct node;
struct node_vm;

struct near *near_close(struct near *near);

/* Writers put what becomes the business of another node into its index, in the same transaction:
 * true, and which node that is. */
bool near_target(const struct placement_facts *facts, const struct node *node,
		 const char **ret_target);
/* Its entry in the index of that node stays even when the node does not hold it any more. */
bool near_stays(const struct node_vm *vm, const char *node);
/* A listing of all took that long: is this node to live by its index until the next one, and when
 * is that?  0: no. */
uint64_t near_decide(struct node *node, uint64_t took_usec);
/* The list of members was read. */
void near_members(struct node *node);
/* It does. */
bool near_is_on(const struct node *node);
/* What is known of that VM is kept up to date. */
bool near_has(const struct node *node, const char *vm);
/* VMs have changed: some may be our business that were not, and the other way round. */
void near_look(struct node *node);
