/* SPDX-License-Identifier: Apache-2.0 */
/* VM objects for `ls` and `status`.  Docs/PROTOCOL.md lists the
 * keys; they are all there, always. */
#pragma once
#include <jansson.h>
#include <stddef.h>

struct node;
struct node_vm;
struct request;
struct volumes;

json_t *status_json(const struct node_vm *vm);
json_t *status_list(const struct node *node);
/* At most `max` of them, in the order of names, from the one behind `after` on (NULL: the first).
 */
json_t *status_part(const struct node *node, const struct volumes *volumes, const char *after,
		    size_t max);

void status_ls(struct node *node, struct request *request);
void status_one(struct node *node, struct request *request);
