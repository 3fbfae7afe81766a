/* SPDX-License-Identifier: Apache-2.0 */
#include "model/record-fields.h"

#include <assert.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/error.h"

int record_name_index(const char *const *names, const char *name)
{
	for (int i = 0; name && names[i]; i++)
		if (strcmp(names[i], name) == 0)
			return i;
	return -1;
}

/* A copy of the record to take keys out of.  A newer layout is refused rather than misread. */
int record_open(json_t *value, const char *what, json_t **ret_left, struct error *err)
{
	json_auto_t *left = NULL;
	const json_t *version = json_object_get(value, "v");

	if (!json_is_object(value))
		return error_bad_data(err, "the %s record is not a JSON object", what);
	if (version && (!json_is_integer(version) || json_integer_value(version) < 1))
		return error_bad_data(err, "the %s record has no usable version 'v'", what);
	if (json_integer_value(version) > RECORD_VERSION)
		return error_bad_data(err,
				      "the %s record has layout %lld, this Drover knows layouts up "
				      "to %d: upgrade Drover on this node",
				      what, (long long)json_integer_value(version), RECORD_VERSION);
	left = json_copy(value);
	assert(left);
	(void)json_object_del(left, "v");
	*ret_left = TAKE_PTR(left);
	return 0;
}

/* What nobody took; NULL when that is nothing. */
json_t *record_rest(json_t **left)
{
	if (json_object_size(*left) == 0)
		return NULL;
	return TAKE_PTR(*left);
}

json_t *record_finish(json_t *record, json_t *rest)
{
	assert(record);
	if (rest)
		(void)json_object_update_missing(record, rest);
	return record;
}

/* Text into a buffer of the struct; absent and null are "". */
int record_take_text(json_t *left, const char *what, const char *key, char *buffer, size_t size,
		     struct error *err)
{
	const json_t *value = json_object_get(left, key);
	size_t length = json_string_length(value);

	buffer[0] = '\0';
	if (value && !json_is_null(value)) {
		if (!json_is_string(value))
			return error_bad_data(err, "'%s' of the %s record is not text", key, what);
		if (length >= size || strlen(json_string_value(value)) != length)
			return error_bad_data(err,
					      "'%s' of the %s record is not text of at most %zu "
					      "bytes",
					      key, what, size - 1);
		memcpy(buffer, json_string_value(value), length + 1);
	}
	(void)json_object_del(left, key);
	return 0;
}

int record_take_number(json_t *left, const char *what, const char *key, uint64_t *ret,
		       struct error *err)
{
	const json_t *value = json_object_get(left, key);

	*ret = 0;
	if (value && !json_is_null(value)) {
		if (!json_is_integer(value) || json_integer_value(value) < 0)
			return error_bad_data(
				err, "'%s' of the %s record is not a whole number from 0 on", key,
				what);
		*ret = (uint64_t)json_integer_value(value);
	}
	(void)json_object_del(left, key);
	return 0;
}

/* One of `names`; absent is the first of them. */
int record_take_choice(json_t *left, const char *what, const char *key, const char *const *names,
		       int *ret, struct error *err)
{
	char name[16];
	int r;

	r = record_take_text(left, what, key, name, sizeof(name), err);
	if (r < 0)
		return r;
	*ret = name[0] == '\0' ? 0 : record_name_index(names, name);
	if (*ret < 0)
		return error_bad_data(err, "'%s' of the %s record is '%s', which is not known", key,
				      what, name);
	return 0;
}

int record_take_flag(json_t *left, const char *what, const char *key, bool *ret, struct error *err)
{
	const json_t *value = json_object_get(left, key);

	if (value && !json_is_null(value) && !json_is_boolean(value))
		return error_bad_data(err, "'%s' of the %s record is neither true nor false", key,
				      what);
	*ret = json_is_true(value);
	(void)json_object_del(left, key);
	return 0;
}

json_t *record_text(const char *text)
{
	json_t *value = text[0] != '\0' ? json_string(text) : json_null();

	assert(value); /* the struct holds UTF-8: it came from JSON or from checked names */
	return value;
}

json_t *record_number(uint64_t number)
{
	return number > 0 ? json_integer((json_int_t)number) : json_null();
}
