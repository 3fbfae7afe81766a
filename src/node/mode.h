/* SPDX-License-Identifier: Apache-2.0 */
/* The mode of this node, a record in the store: `stopped` turns the wishes of all its VMs into
 * "node-stopped" and leaves what their users ordered untouched; `ready` ends that.  As long as it
 * was never read, nobody knows what is wanted of any VM here: a node that was stopped must not
 * start its VMs because the store was slow. */
#pragma once
#include <stdbool.h>

struct node;
struct request;

/* It may have changed: asks the store, again and again until that answers. */
void mode_read(struct node *node);
void mode_close(struct node *node);
/* Was answered once, either way. */
bool mode_answered(const struct node *node);
/* Why it is not known; NULL: node->mode is it. */
const char *mode_trouble(const struct node *node);

void mode_shutdown_all(struct node *node, struct request *request, const char *by);
void mode_node_ready(struct node *node, struct request *request, const char *by);
