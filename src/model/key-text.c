/* SPDX-License-Identifier: Apache-2.0 */
/* Values of keys as text for people: what stands in a message, what would be right, and the two
 * kinds of numbers that are written with a unit. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/key.h"
#include "util/cleanup.h"
#include "util/mem.h"

struct unit {
	const char *name;
	uint64_t factor;
};

/* Largest last: printing takes the last one that divides. */
static const struct unit time_units[] = {
	{ "us", 1 },
	{ "ms", UINT64_C(1000) },
	{ "s", UINT64_C(1000000) },
	{ "min", UINT64_C(60000000) },
	{ "h", UINT64_C(3600000000) },
	{ "d", UINT64_C(86400000000) },
};
static const struct unit size_units[] = {
	{ "B", 1 },
	{ "K", UINT64_C(1) << 10 },
	{ "M", UINT64_C(1) << 20 },
	{ "G", UINT64_C(1) << 30 },
	{ "T", UINT64_C(1) << 40 },
};

/* Digits, then a unit: both at the end of the text.  `optional`: may follow the unit ("GiB"). */
static bool parse_unit(const char *text, const struct unit *units, size_t count,
		       const char *optional, uint64_t *ret)
{
	size_t digits = strspn(text, "0123456789");
	const char *name = text + digits;
	unsigned long long number;

	if (digits == 0 || digits > 18)
		return false;
	number = strtoull(text, NULL, 10);
	for (size_t i = 0; i < count; i++) {
		size_t length = strlen(units[i].name);

		if (strncmp(name, units[i].name, length) != 0)
			continue;
		if (name[length] != '\0' && (!optional || strcmp(name + length, optional) != 0))
			continue;
		if (__builtin_mul_overflow((uint64_t)number, units[i].factor, ret))
			*ret = UINT64_MAX;
		return true;
	}
	return false;
}

bool key_parse_duration(const char *text, uint64_t *ret_usec)
{
	return parse_unit(text, time_units, ARRAY_SIZE(time_units), NULL, ret_usec);
}

/* Powers of 1024 only: "5GB" could mean two things, and a wrong guess cannot be shrunk again. */
bool key_parse_size(const char *text, uint64_t *ret_bytes)
{
	return parse_unit(text, size_units + 1, ARRAY_SIZE(size_units) - 1, "iB", ret_bytes);
}

static void print_unit(uint64_t number, const struct unit *units, size_t count, struct text *ret)
{
	size_t best = 0;

	for (size_t i = 0; number > 0 && i < count; i++)
		if (number % units[i].factor == 0)
			best = i;
	text_addf(ret, "%" PRIu64 "%s", number / units[best].factor, units[best].name);
}

void key_print_duration(uint64_t usec, struct text *ret)
{
	print_unit(usec, time_units, ARRAY_SIZE(time_units) - 1, ret);
}

void key_print_size(uint64_t bytes, struct text *ret)
{
	print_unit(bytes, size_units, ARRAY_SIZE(size_units), ret);
}

/* Cuts at `max` bytes, never inside of a UTF-8 character. */
static size_t utf8_cut(const char *text, size_t max)
{
	while (max > 0 && ((unsigned char)text[max] & 0xC0) == 0x80)
		max--;
	return max;
}

const char *key_quote(const json_t *value, char buffer[KEY_QUOTE_SIZE])
{
	static const char more[] = "...\"";
	CLEANUP_FREE char *text = NULL;
	size_t room = KEY_QUOTE_SIZE - 1;

	if (!value || json_is_null(value))
		return "no value";
	if (json_is_object(value))
		return "a map";
	if (json_is_array(value))
		return "a list";
	text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(15));
	if (!text)
		return "text that is not UTF-8";
	if (strlen(text) <= room)
		return strcpy(buffer, text);
	room = utf8_cut(text, room - strlen(more));
	/* A cut inside of an escape would leave its backslash. */
	while (room > 0 && text[room - 1] == '\\')
		room--;
	(void)snprintf(buffer, KEY_QUOTE_SIZE, "%.*s%s", (int)room, text, more);
	return buffer;
}

void key_list_names(const char *const *names, const char *last, struct text *ret)
{
	for (size_t i = 0; names[i]; i++) {
		if (i > 0 && names[i + 1])
			text_addf(ret, ", ");
		else if (i > 0)
			text_addf(ret, " %s ", last);
		text_addf(ret, "%s", names[i]);
	}
}

static void print_limit(const struct key *key, int64_t limit, struct text *ret)
{
	if (key->type == KEY_SIZE)
		key_print_size((uint64_t)limit, ret);
	else if (key->type == KEY_DURATION)
		key_print_duration((uint64_t)limit, ret);
	else
		text_addf(ret, "%" PRId64, limit);
}

static void print_limits(const struct key *key, const char *between, const char *and,
			 struct text *ret)
{
	text_addf(ret, "%s", between);
	print_limit(key, key->min, ret);
	text_addf(ret, "%s", and);
	print_limit(key, key->max, ret);
}

/* The noun of a type, without limits: what "write" takes as its object. */
static void right_noun(const struct key *key, struct text *ret)
{
	switch (key->type) {
	case KEY_INTEGER:
		text_addf(ret, "%s%sa whole number", key->unit ? key->unit : "",
			  key->unit ? " as " : "");
		break;
	case KEY_BOOL:
		text_addf(ret, "true or false");
		break;
	case KEY_CHOICE:
		key_list_names(key->choices, "or", ret);
		break;
	case KEY_SIZE:
		text_addf(ret, "a size with K, M, G or T");
		break;
	case KEY_DURATION:
		text_addf(ret, "a time with ms, s, min or h");
		break;
	case KEY_PATH:
		text_addf(ret, "an absolute path without '..'");
		break;
	case KEY_MAP:
	case KEY_NAMED:
		text_addf(ret, "a map");
		break;
	case KEY_LIST:
		text_addf(ret, "a list");
		break;
	case KEY_TEXT:
	case KEY_ANY:
		text_addf(ret, "text");
		break;
	}
}

static bool has_limits(const struct key *key)
{
	return key->type == KEY_INTEGER || key->type == KEY_SIZE || key->type == KEY_DURATION;
}

void key_right(const struct key *key, struct text *ret)
{
	text_addf(ret, "write ");
	if (key->right) {
		text_addf(ret, "%s", key->right);
	} else {
		right_noun(key, ret);
		if (has_limits(key))
			print_limits(key, " between ", " and ", ret);
	}
	if (key->example && key->type != KEY_BOOL && key->type != KEY_CHOICE)
		text_addf(ret, ", as in %s", key->example);
}

void key_kind(const struct key *key, struct text *ret)
{
	switch (key->type) {
	case KEY_INTEGER:
		text_addf(ret, "whole number");
		if (key->unit)
			text_addf(ret, " of %s", key->unit);
		break;
	case KEY_SIZE:
		text_addf(ret, "size");
		break;
	case KEY_DURATION:
		text_addf(ret, "time");
		break;
	case KEY_PATH:
		text_addf(ret, "absolute path");
		break;
	case KEY_NAMED:
		text_addf(ret, "map of maps");
		break;
	case KEY_LIST:
		text_addf(ret, "list of maps");
		break;
	case KEY_MAP:
		text_addf(ret, "map");
		break;
	case KEY_ANY:
		text_addf(ret, "any");
		break;
	case KEY_BOOL:
	case KEY_CHOICE:
	case KEY_TEXT:
		right_noun(key, ret);
		break;
	}
	if (has_limits(key))
		print_limits(key, ", ", " to ", ret);
}
