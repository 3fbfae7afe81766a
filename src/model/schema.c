/* SPDX-License-Identifier: Apache-2.0 */
#include "model/schema.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "util/cleanup.h"

#define WILDCARDS_MAX 4

struct part {
	const char *text;
	size_t length;
};

const char *schema_step_prefix(const struct schema_step *step, char buffer[SCHEMA_KEY_SIZE])
{
	const char *wildcard = strchr(step->from, '*');
	const char *end = wildcard ? wildcard : strrchr(step->from, '/') + 1;

	(void)snprintf(buffer, SCHEMA_KEY_SIZE, "%.*s", (int)(end - step->from), step->from);
	return buffer;
}

/* Does the key fit?  `parts` gets what the `*` stand for, and after them what is below. */
static bool match(const char *pattern, const char *key, struct part parts[WILDCARDS_MAX + 1],
		  size_t *ret_count)
{
	size_t count = 0;

	for (; *pattern; pattern++) {
		if (*pattern != '*') {
			if (*pattern != *key++)
				return false;
			continue;
		}
		if (count == WILDCARDS_MAX)
			return false;
		parts[count] = (struct part){ key, strcspn(key, "/") };
		if (parts[count].length == 0)
			return false;
		key += parts[count++].length;
	}
	parts[count] = (struct part){ key, strlen(key) };
	*ret_count = count;
	return (pattern[-1] == '/') == (*key != '\0');
}

static bool rename_as(const char *pattern, const struct part *parts, size_t count,
		      char ret_key[SCHEMA_KEY_SIZE])
{
	size_t at = 0, next = 0;

	for (; *pattern; pattern++) {
		const struct part one = { pattern, 1 };
		const struct part *part = *pattern == '*' && next < count ? &parts[next++] : &one;

		if (at + part->length >= SCHEMA_KEY_SIZE)
			return false;
		memcpy(ret_key + at, part->text, part->length);
		at += part->length;
	}
	if (at + parts[count].length >= SCHEMA_KEY_SIZE)
		return false;
	memcpy(ret_key + at, parts[count].text, parts[count].length + 1);
	return true;
}

int schema_step_apply(const struct schema_step *step, const char *key, json_t *value,
		      char ret_key[SCHEMA_KEY_SIZE], json_t **ret_value)
{
	struct part parts[WILDCARDS_MAX + 1];
	json_t *changed;
	size_t count;

	if (!match(step->from, key, parts, &count))
		return 0;
	if (step->to) {
		if (!rename_as(step->to, parts, count, ret_key))
			return 0;
		*ret_value = json_incref(value);
		return 1;
	}
	changed = json_deep_copy(value);
	if (step->change(changed) == 0) {
		json_decref(changed);
		return 0;
	}
	(void)snprintf(ret_key, SCHEMA_KEY_SIZE, "%s", key);
	*ret_value = changed;
	return 1;
}
