/* SPDX-License-Identifier: Apache-2.0 */
/* The migrations that went through this node, as its keepers wrote them down
 * (LOG/vms/NAME/migrations.jsonl). */
#pragma once
#include <jansson.h>

struct error;
struct node;

#define TIMELINES_MAX 1000 /* in one list */

/* Adds those of one VM, or of all (NULL), to a list. */
int timelines_read(const struct node *node, const char *vm, json_t *list, struct error *err);
/* A new list, oldest first. */
json_t *timelines_sorted(const json_t *list);
