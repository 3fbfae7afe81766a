/* SPDX-License-Identifier: Apache-2.0 */
/* The mode of this node, a record in the store: `stopped` turns the wishes of all its VMs into
 * "node-stopped" and leaves what their users ordered untouched; `ready` ends that. */
#pragma once

struct node;
struct request;

void mode_shutdown_all(struct node *node, struct request *request, const char *by);
void mode_node_ready(struct node *node, struct request *request, const char *by);
