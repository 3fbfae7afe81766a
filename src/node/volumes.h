/* SPDX-License-Identifier: Apache-2.0 */
/* The volumes of this node, with what is known of their use. */
#pragma once
#include <jansson.h>

struct node;
struct request;

void volumes_request(struct node *node, struct request *request); /* volume-ls */
/* Names of the volumes that are there for a VM. */
json_t *volumes_left(const struct node *node, const char *vm);
