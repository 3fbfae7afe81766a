/* SPDX-License-Identifier: Apache-2.0 */
/* The form of the records that a cluster keeps, as a number in /drover/schema: {v, version} and,
 * while they are brought to the next one, {to, by}.  Where none stands they are of the first one:
 * so it was before this record.  An agent works with the one form that it found when it started; it
 * stays outside while that is not the one that stands there, for it would read records wrong and
 * write them so.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "store/store.h"

struct error;
struct node;
struct schema_change;

#define SCHEMA_KEY "/drover/schema"
#define SCHEMA_LOCK "/drover/schema-lock" /* ephemeral: who brings them to the next form */

struct schema {
	int64_t version; /* 0: none stands there */
	int64_t to;	 /* the one that it is being brought to; 0: none */
	char by[72];	 /* the node that does it */
};
int schema_parse(const json_t *value, struct schema *ret, struct error *err);
json_t *schema_json(const struct schema *schema);

/* The forms that this build works with: {min, max}. */
json_t *schema_range_json(void);
int64_t schema_newest(void);
/* The way from that form to the next one. */
const struct schema_change *schema_change_from(int64_t version);
/* The one that this agent works with; 0: it has not found one yet. */
int64_t schema_loaded(const struct node *node);

/* May this agent work with what stands there?  NULL: nothing does, it may. */
int schema_check(struct node *node, const struct store_entry *entry, struct error *err);
/* A write of this agent's holds only as long as the form does: 1 with one more operation, 0: none
 * is needed, negative: not now. */
int schema_guard(const struct node *node, struct store_op *ret_op, struct error *err);
/* As store_list(); a list that was read while the form changed is none: -EAGAIN. */
int schema_list(struct node *node, const char *prefix, store_list_fn reply, void *ctx,
		struct error *err);
