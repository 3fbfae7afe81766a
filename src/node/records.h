/* SPDX-License-Identifier: Apache-2.0 */
/* What the store knows of VMs and of this node, kept beside it: listed at the start and whenever
 * somebody else may have changed something.  When the store does not answer or is damaged, what is
 * known stays: silence and damage never empty anything. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/definition.h"

struct error;
struct node;
struct records;
struct store_entry;

int records_open(struct node *node, struct error *err);
struct records *records_close(struct records *records);

/* True once the first listing was answered, either way. */
bool records_answered(const struct node *node);
/* True once a listing was read: what is not known since then does not exist. */
bool records_known(const struct node *node);
/* Why the store's content is not known (any more), or NULL. */
const char *records_trouble(const struct node *node);
#define VMS_PREFIX "/drover/vms/"
/* The leaf of "/drover/vms/NAME/LEAF", and the name; -1: it is none that we know. */
int records_split_key(const char *key, char name[VM_NAME_MAX + 1]);
/* What a listing of that VM had; `asked_written` is node->written as it was asked for. False:
 * we have written it since, and it has to be listed again. */
bool records_take(struct node *node, const char *name, const struct store_entry *entries,
		  size_t count, uint64_t asked_written);
/* Somebody found that what is known is out of date. */
void records_refresh(struct node *node);
/* The same for callers that need to go on after it: `done` is called once, from the loop, after the
 * next listing. */
typedef void (*records_fn)(void *ctx);
void records_after_refresh(struct node *node, records_fn done, void *ctx);
