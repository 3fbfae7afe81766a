/* SPDX-License-Identifier: Apache-2.0 */
/* Errors: a negative errno for the program, a sentence for the operator.  The class picks the exit
 * code of a command and travels in the wire format; the sentence goes up unchanged, each caller
 * that knows more puts its context in front. */
#pragma once
#include <stdarg.h>

enum error_class {
	ERROR_FAILED,	 /* exit 1: it was tried and did not work */
	ERROR_USAGE,	 /* exit 64: the command line is wrong */
	ERROR_BAD_DATA,	 /* exit 65: a file or value is wrong */
	ERROR_REFUSED,	 /* exit 69: it does not fit the present state or the wish */
	ERROR_TRY_AGAIN, /* exit 75: it cannot be told or done now, but may be later */
	ERROR_CLASSES,
};

/* Lives on the caller's stack, nothing to free.  Everywhere a `struct error *` is taken NULL is
 * allowed. */
struct error {
	enum error_class class;
	char text[1024];
};

/* Each returns `code` (a negative errno), or the errno named, so that `return error_set(...)`
 * reads well.  error_set() makes class FAILED; "%m" in `fmt` works as in syslog(3) and tells of
 * -code's errno as it was on entry. */
int error_set(struct error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
int error_set_class(struct error *err, enum error_class class, int code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
int error_usage(struct error *err, const char *fmt, ...) /* -EINVAL */
	__attribute__((format(printf, 2, 3)));
int error_bad_data(struct error *err, const char *fmt, ...) /* -EBADMSG */
	__attribute__((format(printf, 2, 3)));
int error_refuse(struct error *err, const char *fmt, ...) /* -EPERM */
	__attribute__((format(printf, 2, 3)));
int error_try_again(struct error *err, const char *fmt, ...) /* -EAGAIN */
	__attribute__((format(printf, 2, 3)));

/* Puts "context: " in front of the text that is already there; class stays.  Returns `code`. */
int error_prefix(struct error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

int error_exit_code(enum error_class class);
const char *error_class_name(enum error_class class); /* "failed", "usage", "bad-data", "refused",
						       * "try-again" */
enum error_class error_class_of(const char *name);    /* unknown or NULL: ERROR_FAILED */
