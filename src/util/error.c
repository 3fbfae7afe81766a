/* SPDX-License-Identifier: Apache-2.0 */
/* Errors by value: one code for the program, one sentence for the operator, written where the
 * trouble is known best.  A sentence that does not fit is cut between two characters. */
#include "util/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* clang-format off */
static const struct {
	const char *name;
	int exit_code;
} classes[ERROR_CLASSES] = {
	[ERROR_FAILED]	  = { "failed",	   1 },
	[ERROR_USAGE]	  = { "usage",	   64 },
	[ERROR_BAD_DATA]  = { "bad-data",  65 },
	[ERROR_REFUSED]	  = { "refused",   69 },
	[ERROR_TRY_AGAIN] = { "try-again", 75 },
};
/* clang-format on */

/* vsnprintf may have cut a character in two; the half one would make the text unfit for JSON. */
static void trim_half_character(char *text)
{
	size_t length = strlen(text);
	size_t tail = 0;
	unsigned char lead;
	size_t wanted;

	while (tail < 3 && tail < length && ((unsigned char)text[length - 1 - tail] & 0xc0) == 0x80)
		tail++;
	if (tail == length)
		return;
	lead = (unsigned char)text[length - 1 - tail];
	wanted = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : lead >= 0xc0 ? 1 : 0;
	if (tail < wanted)
		text[length - 1 - tail] = '\0';
}

static int error_setv(struct error *err, enum error_class class, int code, const char *fmt,
		      va_list args) __attribute__((format(printf, 4, 0)));
static int error_setv(struct error *err, enum error_class class, int code, const char *fmt,
		      va_list args)
{
	struct error next = { .class = class };
	int saved = errno;
	int length;

	if (!err)
		return code;
	if (code < 0)
		errno = -code;
	length = vsnprintf(next.text, sizeof(next.text), fmt, args);
	if (length >= (int)sizeof(next.text))
		trim_half_character(next.text);
	*err = next; /* only now: an argument may be the old text */
	errno = saved;
	return code;
}

int error_set(struct error *err, int code, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	code = error_setv(err, ERROR_FAILED, code, fmt, args);
	va_end(args);
	return code;
}

int error_set_class(struct error *err, enum error_class class, int code, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	code = error_setv(err, class, code, fmt, args);
	va_end(args);
	return code;
}

int error_usage(struct error *err, const char *fmt, ...)
{
	va_list args;
	int code;

	va_start(args, fmt);
	code = error_setv(err, ERROR_USAGE, -EINVAL, fmt, args);
	va_end(args);
	return code;
}

int error_bad_data(struct error *err, const char *fmt, ...)
{
	va_list args;
	int code;

	va_start(args, fmt);
	code = error_setv(err, ERROR_BAD_DATA, -EBADMSG, fmt, args);
	va_end(args);
	return code;
}

int error_refuse(struct error *err, const char *fmt, ...)
{
	va_list args;
	int code;

	va_start(args, fmt);
	code = error_setv(err, ERROR_REFUSED, -EPERM, fmt, args);
	va_end(args);
	return code;
}

int error_try_again(struct error *err, const char *fmt, ...)
{
	va_list args;
	int code;

	va_start(args, fmt);
	code = error_setv(err, ERROR_TRY_AGAIN, -EAGAIN, fmt, args);
	va_end(args);
	return code;
}

int error_prefix(struct error *err, int code, const char *fmt, ...)
{
	struct error context = { 0 };
	va_list args;

	if (!err)
		return code;
	va_start(args, fmt);
	(void)error_setv(&context, err->class, code, fmt, args);
	va_end(args);
	if (err->text[0] == '\0') {
		*err = context;
		return code;
	}
	return error_set_class(err, err->class, code, "%s: %s", context.text, err->text);
}

int error_exit_code(enum error_class class)
{
	return (unsigned)class < ERROR_CLASSES ? classes[class].exit_code : 1;
}

const char *error_class_name(enum error_class class)
{
	return classes[(unsigned)class < ERROR_CLASSES ? class : ERROR_FAILED].name;
}

enum error_class error_class_of(const char *name)
{
	for (unsigned i = 0; name && i < ERROR_CLASSES; i++)
		if (strcmp(classes[i].name, name) == 0)
			return (enum error_class)i;
	return ERROR_FAILED;
}
