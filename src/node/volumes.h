/* SPDX-License-Identifier: Apache-2.0 */
/* The volumes of this node, with what is known of their use. */
#pragma once
#include <jansson.h>

#include <stddef.h>

struct error;
struct node;
struct request;
struct volume_info;

struct volumes {
	struct volume_info *infos;
	size_t count;
};
/* None when the disk cannot be read or hangs: without them VM objects lack paths, no more. */
struct volumes volumes_load(const struct node *node);
void volumes_done(struct volumes *volumes);

void volumes_request(struct node *node, struct request *request); /* volume-ls */
/* Names of the volumes that are there for a VM. */
json_t *volumes_left(const struct node *node, const char *vm);
