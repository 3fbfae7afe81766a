/* SPDX-License-Identifier: Apache-2.0 */
/* Reads a JSON tree by a table of keys: check each value by its type, say what would be right when
 * it is wrong, store it where the table says. */
#include "model/key.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <regex.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/document.h"

#define TEXT_MAX 4096 /* of a text without a limit of its own; PATH_MAX too */

const struct key *key_find(const struct key *keys, const char *name)
{
	for (const struct key *key = keys; key->name; key++)
		if (strcmp(key->name, name) == 0)
			return key;
	return NULL;
}

/* NULL for keys that are only checked: their readers keep what they need themselves. */
static void *field_of(const struct key *key, void *target)
{
	return target ? (char *)target + key->offset : NULL;
}

static void store_text(const struct key *key, void *target, const char *text)
{
	void *at = field_of(key, target);

	if (key->store == STORE_TEXT) {
		*(const char **)at = text;
	} else if (key->store == STORE_COPY) {
		free(*(char **)at);
		*(char **)at = xstrdup_or_null(text);
	}
}

static void store_number(const struct key *key, void *target, int64_t number)
{
	void *at = field_of(key, target);

	switch (key->store) {
	case STORE_U64:
		*(uint64_t *)at = (uint64_t)number;
		break;
	case STORE_I64:
		*(int64_t *)at = number;
		break;
	case STORE_UNSIGNED:
		*(unsigned *)at = (unsigned)number;
		break;
	case STORE_BOOL:
		*(bool *)at = number != 0;
		break;
	case STORE_INDEX:
		*(int *)at = (int)number;
		break;
	case STORE_NOT:
	case STORE_TEXT:
	case STORE_COPY:
		break;
	}
}

static int choice_index(const struct key *key, const char *text)
{
	for (int i = 0; key->choices[i]; i++)
		if (strcmp(key->choices[i], text) == 0)
			return i;
	return -1;
}

static void key_default(const struct key *key, void *target)
{
	uint64_t number = 0;

	switch (key->type) {
	case KEY_INTEGER:
		number = strtoull(key->fallback, NULL, 10);
		break;
	case KEY_BOOL:
		number = strcmp(key->fallback, "true") == 0;
		break;
	case KEY_CHOICE:
		number = (uint64_t)choice_index(key, key->fallback);
		break;
	case KEY_SIZE:
		(void)key_parse_size(key->fallback, &number);
		break;
	case KEY_DURATION:
		(void)key_parse_duration(key->fallback, &number);
		break;
	default:
		break;
	}
	store_text(key, target, key->fallback);
	store_number(key, target, (int64_t)number);
}

void key_defaults(const struct key *keys, void *target)
{
	for (const struct key *key = keys; key->name; key++) {
		if (key->fallback)
			key_default(key, target);
		if (key->type == KEY_MAP)
			key_defaults(key->inner, target);
	}
}

/* "WHAT; write ...". */
static int wrong_value(const struct key_reader *reader, const struct key_place *place,
		       const struct key *key, struct error *err, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));

static int wrong_value(const struct key_reader *reader, const struct key_place *place,
		       const struct key *key, struct error *err, const char *fmt, ...)
{
	CLEANUP(text_done) struct text right = { 0 };
	CLEANUP_FREE char *what = NULL;
	va_list arguments;
	int length;

	va_start(arguments, fmt);
	length = vasprintf(&what, fmt, arguments);
	va_end(arguments);
	if (length < 0)
		abort();
	key_right(key, &right);
	return key_wrong(reader, place, err, "%s; %s", what, right.text);
}

static int check_range(const struct key_reader *reader, const struct key_place *place,
		       const struct key *key, const json_t *value, int64_t number,
		       struct error *err)
{
	bool is_time = key->type == KEY_DURATION;
	char quoted[KEY_QUOTE_SIZE];

	if (number < key->min)
		return wrong_value(reader, place, key, err, "%s is too %s",
				   key_quote(value, quoted), is_time ? "short" : "small");
	if (number > key->max)
		return wrong_value(reader, place, key, err, "%s is too %s",
				   key_quote(value, quoted), is_time ? "long" : "large");
	return 0;
}

static bool text_is_number(const char *text)
{
	if (*text == '-')
		text++;
	return *text != '\0' && text[strspn(text, "0123456789")] == '\0';
}

static int read_integer(const struct key_reader *reader, const struct key_place *place,
			const struct key *key, const json_t *value, void *target, struct error *err)
{
	char quoted[KEY_QUOTE_SIZE];
	int r;

	if (json_is_string(value) && text_is_number(json_string_value(value)))
		return wrong_value(reader, place, key, err,
				   "%s is text, not a number; leave out the quotes",
				   key_quote(value, quoted));
	if (json_is_real(value))
		return wrong_value(reader, place, key, err, "%s is not a whole number",
				   key_quote(value, quoted));
	if (!json_is_integer(value))
		return wrong_value(reader, place, key, err, "%s is not a number",
				   key_quote(value, quoted));
	r = check_range(reader, place, key, value, json_integer_value(value), err);
	if (r < 0)
		return r;
	store_number(key, target, json_integer_value(value));
	return 0;
}

static int read_bool(const struct key_reader *reader, const struct key_place *place,
		     const struct key *key, const json_t *value, void *target, struct error *err)
{
	static const struct {
		const char *text, *right;
	} words[] = {
		{ "yes", "true" }, { "on", "true" },   { "y", "true" },	 { "true", "true" },
		{ "no", "false" }, { "off", "false" }, { "n", "false" }, { "false", "false" },
	};
	char quoted[KEY_QUOTE_SIZE];

	for (size_t i = 0; json_is_string(value) && i < ARRAY_SIZE(words); i++)
		if (strcasecmp(json_string_value(value), words[i].text) == 0)
			return key_wrong(reader, place, err,
					 "%s is text, neither true nor false; write %s without "
					 "quotes",
					 key_quote(value, quoted), words[i].right);
	if (!json_is_boolean(value))
		return wrong_value(reader, place, key, err, "%s is neither true nor false",
				   key_quote(value, quoted));
	store_number(key, target, json_is_true(value));
	return 0;
}

static bool text_matches(const char *pattern, const char *text)
{
	regex_t regex;
	int r;

	r = regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB);
	assert(r == 0); /* patterns are ours */
	r = regexec(&regex, text, 0, NULL, 0);
	regfree(&regex);
	return r == 0;
}

/* YAML made a number or a boolean of what may well be meant as text: `environment: 24.11`. */
static int unquoted_text(const struct key_reader *reader, const struct key_place *place,
			 const struct key *key, const json_t *value, struct error *err)
{
	const char *what = json_is_number(value) ? "a number" : "a boolean";
	char quoted[KEY_QUOTE_SIZE];

	if (key->type == KEY_PATH ||
	    (key->pattern && !text_matches(key->pattern, key_quote(value, quoted))))
		return wrong_value(reader, place, key, err, "%s is %s, not text",
				   key_quote(value, quoted), what);
	return key_wrong(reader, place, err, "%s is %s, not text; put it in quotes",
			 key_quote(value, quoted), what);
}

/* Text without control characters: it ends up in logs, on command lines and in QEMU's files. */
static int check_text(const struct key_reader *reader, const struct key_place *place,
		      const struct key *key, const json_t *value, struct error *err)
{
	const char *text = json_string_value(value);
	size_t length = json_string_length(value);
	size_t max = key->max > 0 ? (size_t)key->max : TEXT_MAX;
	char quoted[KEY_QUOTE_SIZE];

	if (json_is_number(value) || json_is_boolean(value))
		return unquoted_text(reader, place, key, value, err);
	if (!json_is_string(value))
		return wrong_value(reader, place, key, err, "%s is not text",
				   key_quote(value, quoted));
	for (size_t i = 0; i < length; i++)
		if (iscntrl((unsigned char)text[i]))
			return key_wrong(reader, place, err,
					 "%s holds a control character; write it on one line "
					 "without tabs and the like",
					 key_quote(value, quoted));
	if (length > max)
		return key_wrong(reader, place, err,
				 "%s is %zu bytes long; write at most %zu bytes",
				 key_quote(value, quoted), length, max);
	return 0;
}

static int read_text(const struct key_reader *reader, const struct key_place *place,
		     const struct key *key, const json_t *value, void *target, struct error *err)
{
	char quoted[KEY_QUOTE_SIZE];
	int r;

	r = check_text(reader, place, key, value, err);
	if (r < 0)
		return r;
	if (key->pattern && !text_matches(key->pattern, json_string_value(value)))
		return wrong_value(reader, place, key, err, "%s is not valid",
				   key_quote(value, quoted));
	store_text(key, target, json_string_value(value));
	return 0;
}

static int read_choice(const struct key_reader *reader, const struct key_place *place,
		       const struct key *key, const json_t *value, void *target, struct error *err)
{
	int index = json_is_string(value) ? choice_index(key, json_string_value(value)) : -1;
	char quoted[KEY_QUOTE_SIZE];

	if (index < 0)
		return wrong_value(reader, place, key, err, "%s is not known",
				   key_quote(value, quoted));
	store_text(key, target, json_string_value(value));
	store_number(key, target, index);
	return 0;
}

static int read_size(const struct key_reader *reader, const struct key_place *place,
		     const struct key *key, const json_t *value, void *target, struct error *err)
{
	char quoted[KEY_QUOTE_SIZE];
	uint64_t bytes = 0;
	int64_t number;
	int r;

	if (json_is_integer(value) && key->scale > 0) {
		number = json_integer_value(value);
		if (number > 0)
			number = number > INT64_MAX / key->scale ? INT64_MAX : number * key->scale;
	} else if (json_is_string(value) && key_parse_size(json_string_value(value), &bytes)) {
		number = bytes > INT64_MAX ? INT64_MAX : (int64_t)bytes;
	} else {
		return wrong_value(reader, place, key, err, "%s %s", key_quote(value, quoted),
				   json_is_string(value) && text_is_number(json_string_value(value))
					   ? "is text without a unit"
					   : "is not a size");
	}
	r = check_range(reader, place, key, value, number, err);
	if (r < 0)
		return r;
	store_number(key, target, number);
	return 0;
}

static int read_duration(const struct key_reader *reader, const struct key_place *place,
			 const struct key *key, const json_t *value, void *target,
			 struct error *err)
{
	char quoted[KEY_QUOTE_SIZE];
	uint64_t usec = 0;
	int r;

	if (json_is_number(value))
		return wrong_value(reader, place, key, err, "%s has no unit",
				   key_quote(value, quoted));
	if (!json_is_string(value) || !key_parse_duration(json_string_value(value), &usec))
		return wrong_value(reader, place, key, err, "%s is not a time",
				   key_quote(value, quoted));
	r = check_range(reader, place, key, value, usec > INT64_MAX ? INT64_MAX : (int64_t)usec,
			err);
	if (r < 0)
		return r;
	store_number(key, target, (int64_t)usec);
	return 0;
}

static bool path_has_dotdot(const char *path)
{
	for (const char *part = path; part; part = strchr(part, '/')) {
		part += strspn(part, "/");
		if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == '\0'))
			return true;
	}
	return false;
}

static int read_path(const struct key_reader *reader, const struct key_place *place,
		     const struct key *key, const json_t *value, void *target, struct error *err)
{
	const char *path = json_string_value(value);
	char quoted[KEY_QUOTE_SIZE];
	int r;

	r = check_text(reader, place, key, value, err);
	if (r < 0)
		return r;
	if (path[0] != '/')
		return wrong_value(reader, place, key, err, "%s is not an absolute path",
				   key_quote(value, quoted));
	if (path_has_dotdot(path))
		return wrong_value(reader, place, key, err, "%s goes up with '..'",
				   key_quote(value, quoted));
	if (path[strspn(path, "/")] == '\0')
		return wrong_value(reader, place, key, err, "%s names no file",
				   key_quote(value, quoted));
	store_text(key, target, path);
	return 0;
}

static int read_container(const struct key_reader *reader, const struct key_place *place,
			  const struct key *key, const json_t *value, struct error *err)
{
	bool list = key->type == KEY_LIST;
	char quoted[KEY_QUOTE_SIZE];

	if (list ? json_is_array(value) : json_is_object(value))
		return 0;
	return wrong_value(reader, place, key, err, "%s is not a %s", key_quote(value, quoted),
			   list ? "list" : "map");
}

static int read_typed(const struct key_reader *reader, const struct key_place *place,
		      const struct key *key, json_t *value, void *target, struct error *err)
{
	int r;

	switch (key->type) {
	case KEY_TEXT:
		return read_text(reader, place, key, value, target, err);
	case KEY_INTEGER:
		return read_integer(reader, place, key, value, target, err);
	case KEY_BOOL:
		return read_bool(reader, place, key, value, target, err);
	case KEY_CHOICE:
		return read_choice(reader, place, key, value, target, err);
	case KEY_SIZE:
		return read_size(reader, place, key, value, target, err);
	case KEY_DURATION:
		return read_duration(reader, place, key, value, target, err);
	case KEY_PATH:
		return read_path(reader, place, key, value, target, err);
	case KEY_MAP:
		r = read_container(reader, place, key, value, err);
		return r < 0 ? r : key_read_map(reader, place, key->inner, value, target, err);
	case KEY_NAMED:
	case KEY_LIST:
		return read_container(reader, place, key, value, err);
	case KEY_ANY:
		return 0;
	}
	return 0;
}

static int read_value(const struct key_reader *reader, const struct key_place *place,
		      const struct key *key, json_t *value, void *target, struct error *err)
{
	CLEANUP(text_done) struct text right = { 0 };
	int r;

	if (key->later)
		key_note(reader, place, "accepted and stored; Drover does not act on it yet");
	if (json_is_null(value) && key->type != KEY_ANY) {
		if (key->nullable)
			return 0;
		key_right(key, &right);
		return key_wrong(reader, place, err, "there is no value; %s%s", right.text,
				 key->absent && strcmp(key->absent, "required") == 0
					 ? ""
					 : ", or leave out the key");
	}
	r = read_typed(reader, place, key, value, target, err);
	if (r < 0 || !key->read)
		return r;
	return key->read(reader, place, value, target, err);
}

static int unknown_key(const struct key_reader *reader, const struct key_place *place,
		       const struct key *keys, struct error *err)
{
	CLEANUP(text_done) struct text known = { 0 };
	CLEANUP_FREE const char **names = NULL;
	size_t count = 0;
	const char *nearest;

	for (const struct key *key = keys; key->name; key++)
		count++;
	names = xcalloc(count + 1, sizeof(*names));
	for (size_t i = 0; i < count; i++)
		names[i] = keys[i].name;
	nearest = document_nearest(place->name, names);
	if (!reader->strict) {
		key_note(reader, place, "unknown key, kept as it is%s%s%s",
			 nearest ? "; did you mean '" : "", nearest ? nearest : "",
			 nearest ? "'?" : "");
		return 0;
	}
	if (nearest)
		return key_wrong_key(reader, place, err, "unknown key; did you mean '%s'?",
				     nearest);
	key_list_names(names, "and", &known);
	return key_wrong_key(reader, place, err, "unknown key; known here are %s", known.text);
}

int key_read_map(const struct key_reader *reader, const struct key_place *place,
		 const struct key *keys, json_t *value, void *target, struct error *err)
{
	const char *name;
	json_t *member;
	char quoted[KEY_QUOTE_SIZE];
	int r;

	if (!json_is_object(value))
		return key_wrong(reader, place, err, "%s is not a map; write `key: value` lines",
				 key_quote(value, quoted));
	json_object_foreach(value, name, member)
	{
		const struct key_place inside = { .up = place, .name = name };
		const struct key *key = key_find(keys, name);

		if (key)
			r = read_value(reader, &inside, key, member, target, err);
		else
			r = unknown_key(reader, &inside, keys, err);
		if (r < 0)
			return r;
	}
	return 0;
}
