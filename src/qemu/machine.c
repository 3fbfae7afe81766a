/* SPDX-License-Identifier: Apache-2.0 */
/* Machine type names.  They are ordered by their version numbers, part by part: QEMU lists them as
 * text, where 9.2 comes after 10.0 (fc-qemu P20). */
#include "qemu/build.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"

/* "pc-q35-10.0" is the family "pc-q35-" and the version 10.0; "microvm" has no version. */
static size_t family_length(const char *type)
{
	size_t length = strlen(type);

	while (length > 0 && (isdigit((unsigned char)type[length - 1]) || type[length - 1] == '.'))
		length--;
	while (type[length] == '.')
		length++;
	return length;
}

static int compare_versions(const char *a, const char *b)
{
	while (*a || *b) {
		char *end_a, *end_b;
		unsigned long x = strtoul(a, &end_a, 10), y = strtoul(b, &end_b, 10);

		/* 4.0.1 is newer than 4.0 */
		if (!*a || !*b)
			return *a ? 1 : -1;
		if (x != y)
			return x < y ? -1 : 1;
		a = *end_a == '.' ? end_a + 1 : "";
		b = *end_b == '.' ? end_b + 1 : "";
	}
	return 0;
}

int qemu_machine_compare(const char *a, const char *b)
{
	size_t length_a = family_length(a), length_b = family_length(b);
	size_t shorter = length_a < length_b ? length_a : length_b;
	int order = strncmp(a, b, shorter);

	if (order != 0)
		return order;
	if (length_a != length_b)
		return length_a < length_b ? -1 : 1;
	return compare_versions(a + length_a, b + length_b);
}

static const char *without_alias(const char *asked)
{
	if (strcmp(asked, "q35") == 0)
		return "pc-q35";
	if (strcmp(asked, "pc") == 0)
		return "pc-i440fx";
	return asked;
}

bool qemu_machine_matches(const char *asked, const char *type)
{
	const char *prefix = without_alias(asked);
	size_t length = strlen(prefix);

	if (length == 0 || strncmp(type, prefix, length) != 0)
		return false;
	/* "pc-q35-1" asks for 1.x, not for 10.0. */
	return type[length] == '\0' || type[length] == '-' || type[length] == '.' ||
	       prefix[length - 1] == '-' || prefix[length - 1] == '.';
}

/* Upstream's numbered types are preferred; types of a distribution ("pc-q35-rhel9.6.0") serve where
 * there are no others. */
static bool is_numbered(const char *type)
{
	size_t length = family_length(type);

	return length > 0 && type[length - 1] == '-' && type[length];
}

static bool is_better(const char *type, const char *best)
{
	if (!best || is_numbered(type) != is_numbered(best))
		return !best || is_numbered(type);
	return qemu_machine_compare(type, best) > 0;
}

static const char *newest_match(const struct qemu_build *build, const char *asked)
{
	const char *best = NULL;
	size_t i;
	json_t *machine;

	json_array_foreach(build->machines, i, machine)
	{
		const char *type = json_string_or(machine, "name", "");

		if (strcmp(type, asked) == 0)
			return type;
	}
	json_array_foreach(build->machines, i, machine)
	{
		const char *type = json_string_or(machine, "name", "");

		if (qemu_machine_matches(asked, type) && is_better(type, best))
			best = type;
	}
	return best;
}

static int no_such_machine(const struct qemu_build *build, const char *asked, struct error *err)
{
	CLEANUP(text_done) struct text known = { 0 };
	static const char *const families[] = { "q35", "pc" };

	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		const char *newest = newest_match(build, families[i]);

		if (newest)
			text_addf(&known, "%s%s (newest of '%s')", known.length > 0 ? ", " : "",
				  newest, families[i]);
	}
	return error_refuse(err,
			    "QEMU %s has no machine type '%s'; it has %s; `%s -machine help` lists "
			    "them all",
			    build->version, asked, known.text ? known.text : "neither q35 nor pc",
			    build->binary);
}

int qemu_machine_resolve(const struct qemu_build *build, const char *asked, const char **ret_type,
			 struct error *err)
{
	const char *type = newest_match(build, asked);

	if (!type)
		return no_such_machine(build, asked, err);
	*ret_type = type;
	return 0;
}
