/* SPDX-License-Identifier: Apache-2.0 */
/* What differs between two definitions, line by line: for `drover apply --dry-run`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/definition.h"
#include "util/cleanup.h"
#include "util/mem.h"

static void diff_value(const char *path, json_t *before, json_t *after, struct text *ret);

static void print_value(const json_t *value, struct text *ret)
{
	CLEANUP_FREE char *text = NULL;

	if (!value) {
		text_addf(ret, "(none)");
		return;
	}
	text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
	text_addf(ret, "%s", text ? text : "(not text)");
}

/* Inventories put passwords into definitions; they are nobody's to print. */
static bool is_secret(const char *path)
{
	return strstr(path, "password") || strstr(path, "secret");
}

static void diff_line(const char *path, const json_t *before, const json_t *after, struct text *ret)
{
	text_addf(ret, "%s: ", path[0] != '\0' ? path : "(all)");
	if (is_secret(path)) {
		text_addf(ret, "%s (not shown)\n",
			  !before  ? "added"
			  : !after ? "removed"
				   : "changed");
		return;
	}
	print_value(before, ret);
	text_addf(ret, " -> ");
	print_value(after, ret);
	text_addf(ret, "\n");
}

static void diff_objects(const char *path, json_t *before, json_t *after, struct text *ret)
{
	const char *dot = path[0] != '\0' ? "." : "";
	const char *name;
	json_t *value;

	json_object_foreach(before, name, value)
	{
		CLEANUP_FREE char *inside = xasprintf("%s%s%s", path, dot, name);

		diff_value(inside, value, json_object_get(after, name), ret);
	}
	json_object_foreach(after, name, value)
	{
		CLEANUP_FREE char *inside = xasprintf("%s%s%s", path, dot, name);

		if (!json_object_get(before, name))
			diff_value(inside, NULL, value, ret);
	}
}

static void diff_arrays(const char *path, json_t *before, json_t *after, struct text *ret)
{
	size_t a = json_array_size(before), b = json_array_size(after);

	for (size_t i = 0; i < (a > b ? a : b); i++) {
		CLEANUP_FREE char *inside = xasprintf("%s[%zu]", path, i);

		diff_value(inside, json_array_get(before, i), json_array_get(after, i), ret);
	}
}

/* A whole map or list that came or went is taken apart too, so that each line is short and a secret
 * in it is seen by its key. */
static bool both_are(const json_t *before, const json_t *after, json_type type)
{
	return (before || after) && (!before || json_typeof(before) == type) &&
	       (!after || json_typeof(after) == type);
}

static void diff_value(const char *path, json_t *before, json_t *after, struct text *ret)
{
	bool empty = json_object_size(before) + json_array_size(before) + json_object_size(after) +
			     json_array_size(after) ==
		     0;

	if (before && after && json_equal(before, after))
		return;
	if (!empty && both_are(before, after, JSON_OBJECT))
		diff_objects(path, before, after, ret);
	else if (!empty && both_are(before, after, JSON_ARRAY))
		diff_arrays(path, before, after, ret);
	else
		diff_line(path, before, after, ret);
}

void definition_diff(json_t *before, json_t *after, struct text *ret)
{
	diff_value("", before, after, ret);
}
