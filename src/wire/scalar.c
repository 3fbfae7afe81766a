/* SPDX-License-Identifier: Apache-2.0 */
/* Plain scalars.  YAML 1.1, which libyaml was written for, reads `no` as false and 12:34:56 as a
 * number of base 60; here only what the 1.2 core schema lists is anything but text, so that MAC
 * addresses, times and answers stay what they are. */
#include "wire/scalar.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* "null", "Null" or "NULL", and no other mixture. */
static bool is_word(const char *text, const char *lower)
{
	size_t length = strlen(lower);
	bool first = text[0] == toupper((unsigned char)lower[0]);
	bool all = strlen(text) == length;

	if (strlen(text) != length)
		return false;
	for (size_t i = 0; all && i < length; i++)
		all = text[i] == toupper((unsigned char)lower[i]);
	return all || strcmp(text, lower) == 0 || (first && strcmp(text + 1, lower + 1) == 0);
}

static bool is_all(const char *text, const char *set)
{
	return text[0] != '\0' && text[strspn(text, set)] == '\0';
}

/* The base when it is written like an integer, else 0. */
static int integer_base(const char *text)
{
	static const char decimal[] = "0123456789";

	if (strncmp(text, "0x", 2) == 0)
		return is_all(text + 2, "0123456789abcdefABCDEF") ? 16 : 0;
	if (strncmp(text, "0o", 2) == 0)
		return is_all(text + 2, "01234567") ? 8 : 0;
	return is_all(text + (text[0] == '-' || text[0] == '+'), decimal) ? 10 : 0;
}

/* [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )? */
static bool is_float(const char *text)
{
	static const char digits[] = "0123456789";
	size_t before, after = 0;

	text += text[0] == '-' || text[0] == '+';
	before = strspn(text, digits);
	text += before;
	if (*text == '.') {
		after = strspn(++text, digits);
		text += after;
	}
	if (before + after == 0)
		return false;
	if (*text == 'e' || *text == 'E') {
		text++;
		text += *text == '-' || *text == '+';
		return is_all(text, digits);
	}
	return *text == '\0';
}

static bool is_no_number(const char *text)
{
	const char *unsigned_text = text + (text[0] == '-' || text[0] == '+');

	return (unsigned_text[0] == '.' && is_word(unsigned_text + 1, "inf")) ||
	       strcmp(text, ".nan") == 0 || strcmp(text, ".NaN") == 0 || strcmp(text, ".NAN") == 0;
}

static json_t *integer_value(const char *text, int base, const char **ret_problem)
{
	long long value;

	errno = 0;
	value = strtoll(base == 10 ? text : text + 2, NULL, base);
	if (errno) {
		*ret_problem = "this number does not fit into 64 bits: put it in quotes if it is "
			       "text";
		return NULL;
	}
	return json_integer(value);
}

static json_t *float_value(const char *text, const char **ret_problem)
{
	double value = strtod(text, NULL);

	if (!isfinite(value)) {
		*ret_problem = "this number is too large: put it in quotes if it is text";
		return NULL;
	}
	return json_real(value);
}

json_t *scalar_value(const char *text, size_t length, const char **ret_problem)
{
	int base;

	if (length == 0 || strcmp(text, "~") == 0 || is_word(text, "null"))
		return json_null();
	if (is_word(text, "true"))
		return json_true();
	if (is_word(text, "false"))
		return json_false();
	base = integer_base(text);
	if (base)
		return integer_value(text, base, ret_problem);
	if (is_float(text))
		return float_value(text, ret_problem);
	if (is_no_number(text)) {
		*ret_problem =
			"infinity and not-a-number cannot be used: put it in quotes if it is "
			"text";
		return NULL;
	}
	return json_stringn(text, length);
}
