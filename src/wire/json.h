/* SPDX-License-Identifier: Apache-2.0 */
/* JSON as this house uses it: jansson with our errors.  Accessors borrow; builders return a new
 * reference. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct error;

/* json_pack with a sentence when it fails (text that is not UTF-8 is the usual reason). */
json_t *json_build(struct error *err, const char *fmt, ...);

/* A JSON string of any bytes: what is not UTF-8 becomes U+FFFD. */
json_t *json_text(const char *bytes, size_t length);

/* Typed look-ups in an object.  The `_or` forms answer the default when the key is absent or null
 * or of another type; the others say what is wrong, with the key's name (-EBADMSG). */
const char *json_string_or(const json_t *object, const char *key, const char *fallback);
int64_t json_int_or(const json_t *object, const char *key, int64_t fallback);
bool json_bool_or(const json_t *object, const char *key, bool fallback);
int json_need_string(const json_t *object, const char *key, const char **ret, struct error *err);
int json_need_int(const json_t *object, const char *key, int64_t *ret, struct error *err);
int json_need_object(const json_t *object, const char *key, json_t **ret, struct error *err);

/* Sets a key to a string, or to null for NULL. */
void json_set_string(json_t *object, const char *key, const char *value);

/* Parses text; trailing bytes, duplicate keys and depth over 64 are errors (-EBADMSG). */
int json_parse(const char *text, size_t length, json_t **ret, struct error *err);
/* How many values a text holds at most, told by its brackets, commas and colons: a bound for the
 * memory that parsing it would take (up to 250 bytes each), before it does. */
size_t json_parts(const char *text, size_t length);
/* Compact, keys sorted: equal values give equal text.  Owned by the caller. */
char *json_print(const json_t *value);
/* For people and files: indented by two, keys in the order of insertion. */
char *json_print_pretty(const json_t *value);

/* A file with one JSON object: read (absent: -ENOENT) and write (whole or not at all). */
int json_read_file(int dir_fd, const char *path, json_t **ret, struct error *err);
int json_write_file(int dir_fd, const char *path, const json_t *value, unsigned mode,
		    struct error *err);
