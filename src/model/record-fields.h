/* SPDX-License-Identifier: Apache-2.0 */
/* The fields of a record of the store.  Every reader takes its keys out of a copy of the value;
 * what is left over is `rest`, and every writer puts that back behind its own keys. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

#define RECORD_VERSION 1

/* Index in a NULL-terminated list; -1: not in it. */
int record_name_index(const char *const *names, const char *name);

/* A copy of the record to take keys out of.  A newer layout is refused rather than misread. */
int record_open(json_t *value, const char *what, json_t **ret_left, struct error *err);
/* What nobody took; NULL when that is nothing. */
json_t *record_rest(json_t **left);
json_t *record_finish(json_t *record, json_t *rest);

/* Text into a buffer of the struct; absent and null are "". */
int record_take_text(json_t *left, const char *what, const char *key, char *buffer, size_t size,
		     struct error *err);
int record_take_number(json_t *left, const char *what, const char *key, uint64_t *ret,
		       struct error *err);
/* One of `names`; absent is the first of them. */
int record_take_choice(json_t *left, const char *what, const char *key, const char *const *names,
		       int *ret, struct error *err);
int record_take_flag(json_t *left, const char *what, const char *key, bool *ret, struct error *err);

/* "" and 0 are null. */
json_t *record_text(const char *text);
json_t *record_number(uint64_t number);
