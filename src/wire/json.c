/* SPDX-License-Identifier: Apache-2.0 */
/* JSON with our errors and limits.  jansson alone would take 2048 levels, which a peer could use to
 * exhaust the stack of a recursive walker, so depth is measured before anything is built. */
#include "wire/json.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"
#include "util/mem.h"
#include "util/utf8.h"

#define DEPTH_MAX 64
#define FILE_MAX_BYTES (16u * 1024 * 1024)

json_t *json_build(struct error *err, const char *fmt, ...)
{
	json_error_t why;
	json_t *value;
	va_list args;

	va_start(args, fmt);
	value = json_vpack_ex(&why, 0, fmt, args);
	va_end(args);
	if (!value)
		(void)error_bad_data(err, "cannot make a message: %s (text must be UTF-8)",
				     why.text);
	return value;
}

/* A NUL is replaced too: jansson's parser refuses it at the other side. */
json_t *json_text(const char *bytes, size_t length)
{
	CLEANUP(text_done) struct text text = { 0 };

	text_add(&text, "", 0);
	while (length > 0) {
		size_t n = utf8_length(bytes, length);

		if (n == 0 || *bytes == '\0') {
			text_add(&text, "\xef\xbf\xbd", 3);
			n = 1;
		} else {
			text_add(&text, bytes, n);
		}
		bytes += n;
		length -= n;
	}
	return json_stringn(text.text, text.length);
}

const char *json_string_or(const json_t *object, const char *key, const char *fallback)
{
	const json_t *value = json_object_get(object, key);

	return json_is_string(value) ? json_string_value(value) : fallback;
}

int64_t json_int_or(const json_t *object, const char *key, int64_t fallback)
{
	const json_t *value = json_object_get(object, key);

	return json_is_integer(value) ? json_integer_value(value) : fallback;
}

bool json_bool_or(const json_t *object, const char *key, bool fallback)
{
	const json_t *value = json_object_get(object, key);

	return json_is_boolean(value) ? json_is_true(value) : fallback;
}

static int need(const json_t *object, const char *key, json_type type, const char *what,
		json_t **ret, struct error *err)
{
	json_t *value = json_object_get(object, key);

	if (!value)
		return error_bad_data(err, "'%s' is missing: it must be %s", key, what);
	if (json_typeof(value) != type)
		return error_bad_data(err, "'%s' must be %s", key, what);
	*ret = value;
	return 0;
}

int json_need_string(const json_t *object, const char *key, const char **ret, struct error *err)
{
	json_t *value = NULL;
	int r;

	r = need(object, key, JSON_STRING, "a string", &value, err);
	if (r >= 0)
		*ret = json_string_value(value);
	return r;
}

int json_need_int(const json_t *object, const char *key, int64_t *ret, struct error *err)
{
	json_t *value = NULL;
	int r;

	r = need(object, key, JSON_INTEGER, "an integer", &value, err);
	if (r >= 0)
		*ret = json_integer_value(value);
	return r;
}

int json_need_object(const json_t *object, const char *key, json_t **ret, struct error *err)
{
	return need(object, key, JSON_OBJECT, "an object", ret, err);
}

void json_set_string(json_t *object, const char *key, const char *value)
{
	(void)json_object_set_new(object, key,
				  value ? json_text(value, strlen(value)) : json_null());
}

static unsigned depth_of(const char *text, size_t length)
{
	bool in_string = false;
	unsigned depth = 0;
	unsigned most = 0;

	for (size_t i = 0; i < length; i++) {
		if (in_string && text[i] == '\\')
			i++;
		else if (text[i] == '"')
			in_string = !in_string;
		else if (!in_string && (text[i] == '{' || text[i] == '['))
			most = ++depth > most ? depth : most;
		else if (!in_string && (text[i] == '}' || text[i] == ']') && depth > 0)
			depth--;
	}
	return most;
}

size_t json_parts(const char *text, size_t length)
{
	bool in_string = false;
	size_t parts = 0;

	for (size_t i = 0; i < length; i++) {
		if (in_string && text[i] == '\\')
			i++;
		else if (text[i] == '"')
			in_string = !in_string;
		else if (!in_string && strchr("[{,:", text[i]) && text[i])
			parts++;
	}
	return parts;
}

int json_parse(const char *text, size_t length, json_t **ret, struct error *err)
{
	json_error_t why;
	json_t *value;

	if (depth_of(text, length) > DEPTH_MAX)
		return error_bad_data(err, "JSON is nested deeper than %u levels", DEPTH_MAX);
	value = json_loadb(text, length, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &why);
	if (!value)
		return error_bad_data(err, "not valid JSON: line %d, column %d: %s", why.line,
				      why.column, why.text);
	*ret = value;
	return 0;
}

static char *print(const json_t *value, size_t flags)
{
	char *text = json_dumps(value, flags | JSON_ENCODE_ANY);

	assert(text); /* a value of jansson's own making is printable */
	return text;
}

char *json_print(const json_t *value)
{
	return print(value, JSON_COMPACT | JSON_SORT_KEYS);
}

char *json_print_pretty(const json_t *value)
{
	return print(value, JSON_INDENT(2));
}

int json_read_file(int dir_fd, const char *path, json_t **ret, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	json_auto_t *value = NULL;
	size_t length;
	int r;

	r = file_read(dir_fd, path, FILE_MAX_BYTES, &text, &length, err);
	if (r < 0)
		return r;
	r = json_parse(text, length, &value, err);
	if (r < 0)
		return error_prefix(err, r, "'%s'", path);
	if (!json_is_object(value))
		return error_bad_data(err, "'%s' must hold a JSON object", path);
	*ret = TAKE_PTR(value);
	return 0;
}

int json_write_file(int dir_fd, const char *path, const json_t *value, unsigned mode,
		    struct error *err)
{
	CLEANUP(text_done) struct text text = { 0 };
	CLEANUP_FREE char *printed = json_print_pretty(value);

	text_addf(&text, "%s\n", printed);
	return file_write(dir_fd, path, text.text, text.length, mode, err);
}
