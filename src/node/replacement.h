/* SPDX-License-Identifier: Apache-2.0 */
/* Keepers that run another program than the one that is installed make way for it, one at a time:
 * the next one only when the VM of the last one is looked after again.  A keeper that is busy
 * (starting, stopping, moving its VM) is asked again later; the guests notice nothing. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

struct link;
struct node;
struct replacement;
struct request;

void replacement_open(struct node *node);
struct replacement *replacement_close(struct replacement *replacement);

/* Something about VMs or their keepers has changed. */
void replacement_look(struct node *node);
/* Of a keeper that was just connected. */
bool replacement_is_outdated(const struct link *link);
json_t *replacement_json(const struct node *node); /* {total, outdated} */
/* The request `keepers`. */
void replacement_request(struct node *node, struct request *request);
