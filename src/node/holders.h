/* SPDX-License-Identifier: Apache-2.0 */
/* What a node told last of its VMs holds as long as it is in the cluster; when it is not, nobody
 * knows. */
#pragma once
#include <jansson.h>

struct node;
struct request;

/* Answers with a list of VM objects, in which the states of VMs whose holder has no session are
 * unknown.  Takes `list`. */
void holders_answer(struct node *node, struct request *request, json_t *list);
