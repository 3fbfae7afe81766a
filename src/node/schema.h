/* SPDX-License-Identifier: Apache-2.0 */
/* The form of the records that a cluster keeps, as a number in /drover/schema: {v, version}.  The
 * first agent that joins writes the one it knows; one that does not know what stands there stays
 * outside, for it would read records wrong and write them so. */
#pragma once
#include <jansson.h>

struct error;

#define SCHEMA_KEY "/drover/schema"
#define SCHEMA_VERSION 1

struct node;

/* The forms that this build works with: {min, max}. */
json_t *schema_range_json(void);
/* The one that this agent works with. */
int64_t schema_loaded(const struct node *node);
/* What an agent of this build would write. */
json_t *schema_json(void);
/* May this build work with it?  NULL: nothing stands there yet, it may. */
int schema_check(const json_t *value, struct error *err);
