/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation that ends the process when there is no memory: recovery from a dead process exists
 * and is tested, a thousand untested failure branches would not be.  What a peer can size is
 * bounded before it comes here. */
#pragma once
#include <stddef.h>
#include <stdint.h>

void *xcalloc(size_t count, size_t size) __attribute__((malloc, returns_nonnull));
void *xrealloc(void *pointer, size_t count, size_t size) __attribute__((returns_nonnull));
char *xstrdup(const char *text) __attribute__((malloc, returns_nonnull));
char *xstrdup_or_null(const char *text);
char *xasprintf(const char *fmt, ...)
	__attribute__((format(printf, 1, 2), malloc, returns_nonnull));

/* A NULL-terminated list of owned strings: argument vectors. */
struct strv {
	char **items; /* NULL while empty, else NULL-terminated */
	size_t count;
};
void strv_add(struct strv *strv, const char *item);
void strv_addf(struct strv *strv, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void strv_done(struct strv *strv);

/* A growing text, for printers.  `text` is always terminated once something was added. */
struct text {
	char *text;
	size_t length;
	size_t capacity;
};
void text_add(struct text *text, const char *bytes, size_t length);
void text_addf(struct text *text, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void text_done(struct text *text);
