/* SPDX-License-Identifier: Apache-2.0 */
/* The forms that the records of a cluster can have, numbered from 1 on, and the steps from one to
 * the next.  Forward only; each step can be taken again after it was interrupted, record by record,
 * since what has the new form already is left alone.
 *
 * A step never touches what goes with a session (`session`, `offer`), nor /drover/schema..., and
 * never the value of an owner record, whose every write raises its epoch. */
#pragma once
#include <jansson.h>
#include <stddef.h>

struct schema_step {
	const char
		*from;	/* a key; `*` is one part of it; with a `/` at its end: all that is below */
	const char *to; /* its new name, `*` in the same order; NULL: the value changes */
	int (*change)(json_t *value); /* 1: changed, 0: it had the new form */
};

/* How form N becomes form N + 1. */
struct schema_change {
	const struct schema_step *steps;
	size_t n_steps;
};

#define SCHEMA_OLDEST 1
#define SCHEMA_NEWEST 1 /* that there is code for */

#define SCHEMA_KEY_SIZE 513
/* What to list for this step. */
const char *schema_step_prefix(const struct schema_step *step, char buffer[SCHEMA_KEY_SIZE]);
/* What becomes of this record: 1 with its new key and value (a new reference), 0: it stays. */
int schema_step_apply(const struct schema_step *step, const char *key, json_t *value,
		      char ret_key[SCHEMA_KEY_SIZE], json_t **ret_value);
