/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation that succeeds or ends the process, and the two things that grow: argument vectors and
 * texts. */
#include "util/mem.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void __attribute__((noreturn)) out_of_memory(void)
{
	static const char words[] = "out of memory\n";

	(void)!write(STDERR_FILENO, words, sizeof(words) - 1);
	abort();
}

void *xcalloc(size_t count, size_t size)
{
	void *pointer = calloc(count ? count : 1, size ? size : 1);

	if (!pointer)
		out_of_memory();
	return pointer;
}

void *xrealloc(void *pointer, size_t count, size_t size)
{
	pointer = reallocarray(pointer, count ? count : 1, size ? size : 1);
	if (!pointer)
		out_of_memory();
	return pointer;
}

char *xstrdup(const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		out_of_memory();
	return copy;
}

char *xstrdup_or_null(const char *text)
{
	return text ? xstrdup(text) : NULL;
}

static char *format(const char *fmt, va_list args) __attribute__((format(printf, 1, 0)));
static char *format(const char *fmt, va_list args)
{
	char *text;

	if (vasprintf(&text, fmt, args) < 0)
		out_of_memory();
	return text;
}

char *xasprintf(const char *fmt, ...)
{
	va_list args;
	char *text;

	va_start(args, fmt);
	text = format(fmt, args);
	va_end(args);
	return text;
}

/* Takes `item`. */
static void strv_append(struct strv *strv, char *item)
{
	strv->items = xrealloc(strv->items, strv->count + 2, sizeof(*strv->items));
	strv->items[strv->count++] = item;
	strv->items[strv->count] = NULL;
}

void strv_add(struct strv *strv, const char *item)
{
	strv_append(strv, xstrdup(item));
}

void strv_addf(struct strv *strv, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	strv_append(strv, format(fmt, args));
	va_end(args);
}

void strv_done(struct strv *strv)
{
	for (size_t i = 0; i < strv->count; i++)
		free(strv->items[i]);
	free(strv->items);
	*strv = (struct strv){ 0 };
}

void text_add(struct text *text, const char *bytes, size_t length)
{
	if (text->capacity - text->length <= length) {
		assert(length < SIZE_MAX / 4 && text->capacity < SIZE_MAX / 4);
		text->capacity = (text->length + length + 1) * 2;
		text->text = xrealloc(text->text, text->capacity, 1);
	}
	if (length)
		memcpy(text->text + text->length, bytes, length);
	text->length += length;
	text->text[text->length] = '\0';
}

void text_addf(struct text *text, const char *fmt, ...)
{
	va_list args;
	char *words;

	va_start(args, fmt);
	words = format(fmt, args);
	va_end(args);
	text_add(text, words, strlen(words));
	free(words);
}

void text_done(struct text *text)
{
	free(text->text);
	*text = (struct text){ 0 };
}
