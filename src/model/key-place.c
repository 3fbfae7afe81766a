/* SPDX-License-Identifier: Apache-2.0 */
/* Where something stands, as FILE:LINE:COLUMN and dotted path, in front of what is to be said about
 * it. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/key.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/document.h"

/* RFC 6901. */
static void place_pointer(const struct key_place *place, struct text *pointer)
{
	if (!place->up)
		return;
	place_pointer(place->up, pointer);
	if (!place->name) {
		text_addf(pointer, "/%zu", place->index);
		return;
	}
	text_add(pointer, "/", 1);
	for (const char *c = place->name; *c; c++) {
		if (*c == '~' || *c == '/')
			text_add(pointer, *c == '~' ? "~0" : "~1", 2);
		else
			text_add(pointer, c, 1);
	}
}

static bool name_is_plain(const char *name)
{
	size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				     "0123456789_-");

	return length > 0 && name[length] == '\0';
}

/* "parameters.nics[0].srv", for people. */
static void place_dotted(const struct key_place *place, struct text *dotted)
{
	if (!place->up)
		return;
	place_dotted(place->up, dotted);
	if (!place->name) {
		text_addf(dotted, "[%zu]", place->index);
		return;
	}
	if (dotted->length > 0)
		text_add(dotted, ".", 1);
	if (name_is_plain(place->name)) {
		text_add(dotted, place->name, strlen(place->name));
	} else {
		json_auto_t *name = json_string(place->name);
		char quoted[KEY_QUOTE_SIZE];

		text_addf(dotted, "%s", key_quote(name, quoted));
	}
}

static void place_say(const struct key_reader *reader, const struct key_place *place, bool at_key,
		      const char *fmt, va_list arguments, struct text *line)
	__attribute__((format(printf, 4, 0)));

static void place_say(const struct key_reader *reader, const struct key_place *place, bool at_key,
		      const char *fmt, va_list arguments, struct text *line)
{
	CLEANUP(text_done) struct text pointer = { 0 };
	CLEANUP(text_done) struct text dotted = { 0 };
	CLEANUP_FREE char *sentence = NULL;
	unsigned row = 0, column = 0;

	if (reader->document) {
		place_pointer(place, &pointer);
		(at_key ? document_where_key : document_where)(
			reader->document, pointer.text ? pointer.text : "", &row, &column);
		text_addf(line, "%s:%u:%u: ", document_label(reader->document), row, column);
	}
	place_dotted(place, &dotted);
	if (dotted.length > 0)
		text_addf(line, "%s: ", dotted.text);
	if (vasprintf(&sentence, fmt, arguments) < 0)
		abort();
	text_add(line, sentence, strlen(sentence));
}

int key_wrong(const struct key_reader *reader, const struct key_place *place, struct error *err,
	      const char *fmt, ...)
{
	CLEANUP(text_done) struct text line = { 0 };
	va_list arguments;

	va_start(arguments, fmt);
	place_say(reader, place, false, fmt, arguments, &line);
	va_end(arguments);
	return error_bad_data(err, "%s", line.text);
}

int key_wrong_key(const struct key_reader *reader, const struct key_place *place, struct error *err,
		  const char *fmt, ...)
{
	CLEANUP(text_done) struct text line = { 0 };
	va_list arguments;

	va_start(arguments, fmt);
	place_say(reader, place, true, fmt, arguments, &line);
	va_end(arguments);
	return error_bad_data(err, "%s", line.text);
}

void key_note(const struct key_reader *reader, const struct key_place *place, const char *fmt, ...)
{
	CLEANUP(text_done) struct text line = { 0 };
	va_list arguments;

	if (!reader->notes)
		return;
	va_start(arguments, fmt);
	place_say(reader, place, true, fmt, arguments, &line);
	va_end(arguments);
	strv_add(reader->notes, line.text);
}
