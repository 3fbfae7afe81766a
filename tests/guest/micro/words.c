/* SPDX-License-Identifier: Apache-2.0 */
#include "words.h"

#include <stddef.h>

/* The text behind `prefix` if `text` starts with it, else NULL. */
static const char *behind(const char *text, const char *prefix)
{
	while (*prefix && *text == *prefix) {
		text++;
		prefix++;
	}
	return *prefix ? NULL : text;
}

static const char *value_of(const char *line, const char *name)
{
	/* A loader may put the file name in front, so any word may be ours. */
	while (*line) {
		const char *value = behind(line, name);

		if (value && *value == '=')
			return value + 1;
		while (*line && *line != ' ')
			line++;
		while (*line == ' ')
			line++;
	}
	return NULL;
}

uint32_t words_number(const char *line, const char *name, uint32_t fallback)
{
	const char *digit = value_of(line, name);
	uint32_t number = 0;

	if (!digit || *digit < '0' || *digit > '9')
		return fallback;
	for (; *digit >= '0' && *digit <= '9'; digit++)
		number = number * 10 + (*digit - '0');
	return number;
}

bool words_say(const char *line, const char *name, const char *value)
{
	const char *said = value_of(line, name);

	if (!said)
		return false;
	said = behind(said, value);
	return said && (*said == ' ' || *said == '\0');
}
