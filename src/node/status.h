/* SPDX-License-Identifier: Apache-2.0 */
/* VM objects for `ls` and `status`, and the sentences of `explain`.  Docs/PROTOCOL.md lists the
 * keys; they are all there, always. */
#pragma once
#include <jansson.h>

struct node;
struct node_vm;
struct request;

json_t *status_json(const struct node_vm *vm);
json_t *status_list(const struct node *node);

void status_ls(struct node *node, struct request *request);
void status_one(struct node *node, struct request *request);
void status_explain(struct node *node, struct request *request);
