/* SPDX-License-Identifier: Apache-2.0 */
/* The migrations that went through this node, as its keepers wrote them down
 * (LOG/vms/NAME/migrations.jsonl). */
#pragma once

struct node;
struct request;

/* The request `migrations`: {vm: NAME|null} -> [{...}, ...], oldest first. */
void timelines_request(struct node *node, struct request *request);
