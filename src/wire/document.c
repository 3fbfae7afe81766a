/* SPDX-License-Identifier: Apache-2.0 */
/* YAML to JSON with places.  libyaml gives events with marks; we build the tree from them and keep,
 * for each value, where it and its key stood.  Places are found by number of the container and
 * name in it, so what they cost grows with the file and not with its depth. */
#include "wire/document.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "util/utf8.h"
#include "wire/json.h"
#include "wire/scalar.h"

#define TEXT_MAX (1024u * 1024)
#define DEPTH_MAX 64
#define VALUES_MAX 100000
#define SHOWN_MAX 60 /* characters of the user's text in a message */

struct place {
	unsigned line, column;
	unsigned key_line, key_column;
};

struct document {
	char *label;
	json_t *root;
	struct place *places; /* [0] is the root */
	size_t n_places;
	json_t *index; /* "CONTAINER/NAME" to a number in `places` */
};

struct reader {
	yaml_parser_t yaml;
	yaml_event_t event;
	const char *label;
	const char *text;
	size_t length;
	struct document *document; /* being read */
	size_t values;
	struct error *err;
};

static int complain(const struct reader *reader, const yaml_mark_t *mark, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static int complain(const struct reader *reader, const yaml_mark_t *mark, const char *fmt, ...)
{
	CLEANUP_FREE char *words = NULL;
	va_list args;

	va_start(args, fmt);
	if (vasprintf(&words, fmt, args) < 0)
		words = NULL;
	va_end(args);
	return error_bad_data(reader->err, "%s:%zu:%zu: %s", reader->label, mark->line + 1,
			      mark->column + 1, words);
}

/* libyaml's index counts characters. */
static char character_at(const struct reader *reader, size_t index)
{
	size_t at = 0;

	while (index-- > 0 && at < reader->length)
		at += utf8_length(reader->text + at, reader->length - at);
	return at < reader->length ? reader->text[at] : '\0';
}

/* What is usually meant by libyaml's words. */
static const char *hint(const struct reader *reader)
{
	/* clang-format off */
	static const struct {
		const char *problem, *hint;
	} hints[] = {
		{ "mapping values are not allowed",
		  "a value that holds ': ' must be in quotes, and keys of one mapping must be indented alike" },
		{ "could not find expected ':'", "a key must be followed by ': ' and its value" },
		{ "did not find expected key",
		  "keys of one mapping must be indented alike, and quotes and brackets closed" },
		{ "did not find expected '-' indicator",
		  "items of one list must be indented alike and begin with '- '" },
		{ "block sequence entries are not allowed", "begin the list on a line of its own" },
		{ "did not find expected ',' or", "separate with ',' and close every bracket" },
		{ "unexpected end of stream", "close the quote that was opened before" },
		{ "unknown escape character", "use single quotes for text with backslashes" },
	};
	/* clang-format on */
	for (size_t i = 0; i < ARRAY_SIZE(hints); i++)
		if (strstr(reader->yaml.problem, hints[i].problem))
			return hints[i].hint;
	if (strstr(reader->yaml.problem, "cannot start any token"))
		return character_at(reader, reader->yaml.problem_mark.index) == '\t'
			       ? "indent with spaces, not with tabs"
			       : "put a value that begins with this character in quotes";
	return "check the indentation, the quotes and the brackets";
}

static int next_event(struct reader *reader)
{
	yaml_event_delete(&reader->event);
	if (yaml_parser_parse(&reader->yaml, &reader->event))
		return 0;
	if (!reader->yaml.problem)
		return error_set(reader->err, -ENOMEM, "%s: no memory to read it", reader->label);
	return complain(reader, &reader->yaml.problem_mark, "not valid YAML: %s: %s",
			reader->yaml.problem, hint(reader));
}

static size_t add_place(struct document *document, const yaml_mark_t *key, const yaml_mark_t *value)
{
	size_t n = document->n_places;

	/* Doubles whenever the count is a power of two. */
	if ((n & (n - 1)) == 0)
		document->places =
			xrealloc(document->places, n ? 2 * n : 1, sizeof(*document->places));
	document->places[n] = (struct place){ .line = (unsigned)value->line + 1,
					      .column = (unsigned)value->column + 1,
					      .key_line = (unsigned)key->line + 1,
					      .key_column = (unsigned)key->column + 1 };
	document->n_places++;
	return n;
}

static void add_to_index(struct document *document, size_t container, const char *name,
			 size_t place)
{
	CLEANUP_FREE char *key = xasprintf("%zu/%s", container, name);

	(void)json_object_set_new(document->index, key, json_integer((json_int_t)place));
}

static int refuse_properties(const struct reader *reader, const unsigned char *anchor,
			     const unsigned char *tag)
{
	const yaml_mark_t *mark = &reader->event.start_mark;

	if (anchor)
		return complain(reader, mark,
				"anchors ('&%.*s') are not used here: write the value out wherever "
				"it is needed",
				SHOWN_MAX, (const char *)anchor);
	if (tag)
		return complain(reader, mark,
				"tags ('%.*s') are not used here: leave the tag out, and put text "
				"that looks like a number in quotes",
				SHOWN_MAX, (const char *)tag);
	return 0;
}

static int read_scalar(struct reader *reader, json_t **ret)
{
	const char *text = (const char *)reader->event.data.scalar.value;
	size_t length = reader->event.data.scalar.length;
	const yaml_mark_t *mark = &reader->event.start_mark;
	const char *problem = NULL;
	json_t *value;
	int r;

	r = refuse_properties(reader, reader->event.data.scalar.anchor,
			      reader->event.data.scalar.tag);
	if (r < 0)
		return r;
	if (memchr(text, '\0', length))
		return complain(reader, mark, "text must not hold a NUL character: remove it");
	if (reader->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
		value = scalar_value(text, length, &problem);
	else
		value = json_stringn(text, length);
	if (!value)
		return complain(reader, mark, "'%.*s': %s", SHOWN_MAX, text,
				problem ? problem : "this is not valid UTF-8 text");
	*ret = value;
	return 0;
}

/* The current event begins a value that was given the number `place`. */
static int read_value(struct reader *reader, unsigned depth, size_t place, json_t **ret);

/* Makes a place for the value that begins here and reads it. */
static int read_member(struct reader *reader, unsigned depth, size_t container, const char *name,
		       const yaml_mark_t *key, json_t **ret)
{
	const yaml_mark_t *mark = &reader->event.start_mark;
	size_t place;

	if (++reader->values > VALUES_MAX)
		return complain(reader, mark, "more than %d values: split the file", VALUES_MAX);
	if (depth > DEPTH_MAX)
		return complain(reader, mark, "nested deeper than %d levels: make it flatter",
				DEPTH_MAX);
	place = add_place(reader->document, key ? key : mark, mark);
	if (name)
		add_to_index(reader->document, container, name, place);
	return read_value(reader, depth, place, ret);
}

static int read_key(struct reader *reader, json_t *object, size_t place, char **ret)
{
	const yaml_mark_t *mark = &reader->event.start_mark;
	CLEANUP_FREE char *key = NULL;
	const json_t *before;
	int r;

	if (reader->event.type != YAML_SCALAR_EVENT)
		return complain(reader, mark, "a key must be plain text");
	r = refuse_properties(reader, reader->event.data.scalar.anchor,
			      reader->event.data.scalar.tag);
	if (r < 0)
		return r;
	key = xstrdup((const char *)reader->event.data.scalar.value);
	if (strlen(key) != reader->event.data.scalar.length)
		return complain(reader, mark, "a key must not hold a NUL character: remove it");
	if (strcmp(key, "<<") == 0)
		return complain(reader, mark,
				"merge keys ('<<') are not used here: write the keys out");
	if (json_object_get(object, key)) {
		CLEANUP_FREE char *name = xasprintf("%zu/%s", place, key);

		before = json_object_get(reader->document->index, name);
		return complain(
			reader, mark,
			"key '%.*s' is here a second time, it was first on line %u: remove one",
			SHOWN_MAX, key,
			reader->document->places[json_integer_value(before)].key_line);
	}
	*ret = TAKE_PTR(key);
	return 0;
}

static int read_mapping(struct reader *reader, unsigned depth, size_t place, json_t **ret)
{
	json_auto_t *object = json_object();
	int r;

	for (;;) {
		CLEANUP_FREE char *key = NULL;
		yaml_mark_t key_mark;
		json_t *value;

		r = next_event(reader);
		if (r < 0)
			return r;
		if (reader->event.type == YAML_MAPPING_END_EVENT)
			break;
		key_mark = reader->event.start_mark;
		r = read_key(reader, object, place, &key);
		if (r < 0)
			return r;
		r = next_event(reader);
		if (r < 0)
			return r;
		r = read_member(reader, depth + 1, place, key, &key_mark, &value);
		if (r < 0)
			return r;
		(void)json_object_set_new(object, key, value);
	}
	*ret = TAKE_PTR(object);
	return 0;
}

static int read_sequence(struct reader *reader, unsigned depth, size_t place, json_t **ret)
{
	json_auto_t *array = json_array();
	int r;

	for (size_t i = 0;; i++) {
		char name[24];
		json_t *value;

		r = next_event(reader);
		if (r < 0)
			return r;
		if (reader->event.type == YAML_SEQUENCE_END_EVENT)
			break;
		(void)snprintf(name, sizeof(name), "%zu", i);
		r = read_member(reader, depth + 1, place, name, NULL, &value);
		if (r < 0)
			return r;
		(void)json_array_append_new(array, value);
	}
	*ret = TAKE_PTR(array);
	return 0;
}

static int read_value(struct reader *reader, unsigned depth, size_t place, json_t **ret)
{
	const yaml_event_t *event = &reader->event;
	int r;

	switch (event->type) {
	case YAML_SCALAR_EVENT:
		return read_scalar(reader, ret);
	case YAML_MAPPING_START_EVENT:
		r = refuse_properties(reader, event->data.mapping_start.anchor,
				      event->data.mapping_start.tag);
		return r < 0 ? r : read_mapping(reader, depth, place, ret);
	case YAML_SEQUENCE_START_EVENT:
		r = refuse_properties(reader, event->data.sequence_start.anchor,
				      event->data.sequence_start.tag);
		return r < 0 ? r : read_sequence(reader, depth, place, ret);
	case YAML_ALIAS_EVENT:
		return complain(reader, &event->start_mark,
				"aliases ('*%.*s') are not used here: write the value out; text "
				"that begins with '*' goes in quotes",
				SHOWN_MAX, (const char *)event->data.alias.anchor);
	default:
		return complain(reader, &event->start_mark, "a value is missing here");
	}
}

static void document_free(struct document *document)
{
	json_decref(document->root);
	json_decref(document->index);
	free(document->places);
	free(document->label);
	free(document);
}

/* Between DOCUMENT-START and DOCUMENT-END.  `*ret` is NULL for a document without any content, as a
 * `---` at the end of a file makes one. */
static int read_document(struct reader *reader, struct document **ret)
{
	struct document *document;
	int r;

	*ret = NULL;
	r = next_event(reader);
	if (r < 0)
		return r;
	if (reader->event.type == YAML_SCALAR_EVENT && reader->event.data.scalar.length == 0 &&
	    reader->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
	    !reader->event.data.scalar.anchor && !reader->event.data.scalar.tag)
		return next_event(reader);
	document = xcalloc(1, sizeof(*document));
	document->label = xstrdup(reader->label);
	document->index = json_object();
	reader->document = document;
	r = read_member(reader, 0, 0, NULL, NULL, &document->root);
	if (r >= 0)
		r = next_event(reader);
	if (r < 0) {
		document_free(document);
		return r;
	}
	*ret = document;
	return 0;
}

static int read_stream(struct reader *reader, struct document ***documents, size_t *count)
{
	struct document *document;
	int r;

	for (;;) {
		r = next_event(reader);
		if (r < 0)
			return r;
		if (reader->event.type == YAML_STREAM_END_EVENT)
			return 0;
		if (reader->event.type != YAML_DOCUMENT_START_EVENT)
			continue;
		r = read_document(reader, &document);
		if (r < 0)
			return r;
		if (!document)
			continue;
		*documents = xrealloc(*documents, *count + 1, sizeof(**documents));
		(*documents)[(*count)++] = document;
	}
}

/* What libyaml's reader would refuse without telling where. */
static bool is_forbidden(const unsigned char *at, size_t n)
{
	if (n == 1)
		return (at[0] < 0x20 && !strchr("\t\n\r", at[0])) || at[0] == 0x7f || at[0] == 0;
	if (n == 2)
		return at[0] == 0xc2 && at[1] < 0xa0 && at[1] != 0x85;
	return n == 3 && at[0] == 0xef &&
	       ((at[1] == 0xbb && at[2] == 0xbf) || (at[1] == 0xbf && at[2] >= 0xbe));
}

static int check_characters(const struct reader *reader)
{
	yaml_mark_t mark = { 0 };

	for (size_t i = 0, n; i < reader->length; i += n) {
		const unsigned char *at = (const unsigned char *)reader->text + i;

		n = utf8_length(reader->text + i, reader->length - i);
		if (n == 0)
			return complain(reader, &mark,
					"byte 0x%02x is not UTF-8: save the file as UTF-8", *at);
		if (is_forbidden(at, n))
			return complain(reader, &mark,
					"an invisible control character (byte 0x%02x) is here: "
					"remove it",
					at[n - 1]);
		mark.column++;
		if (*at == '\n') {
			mark.line++;
			mark.column = 0;
		}
	}
	return 0;
}

int documents_parse(const char *label, const char *text, size_t length,
		    struct document ***ret_documents, size_t *ret_count, struct error *err)
{
	struct reader reader = { .label = label, .err = err };
	struct document **documents = NULL;
	size_t count = 0;
	int r;

	if (length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
		text += 3;
		length -= 3;
	}
	if (length > TEXT_MAX)
		return error_bad_data(err, "%s:1:1: longer than %u KiB: split the file", label,
				      TEXT_MAX / 1024);
	reader.text = text;
	reader.length = length;
	r = check_characters(&reader);
	if (r < 0)
		return r;
	if (!yaml_parser_initialize(&reader.yaml))
		return error_set(err, -ENOMEM, "cannot make a YAML parser: %m");
	yaml_parser_set_encoding(&reader.yaml, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&reader.yaml, (const unsigned char *)text, length);
	r = read_stream(&reader, &documents, &count);
	yaml_event_delete(&reader.event);
	yaml_parser_delete(&reader.yaml);
	if (r < 0) {
		documents_free(documents, count);
		return r;
	}
	*ret_documents = documents;
	*ret_count = count;
	return 0;
}

void documents_free(struct document **documents, size_t count)
{
	for (size_t i = 0; i < count; i++)
		document_free(documents[i]);
	free(documents);
}

json_t *document_root(const struct document *document)
{
	return document->root;
}

const char *document_label(const struct document *document)
{
	return document->label;
}

/* The next part of a JSON pointer, unescaped; NULL at its end. */
static char *take_part(const char **pointer)
{
	size_t length;
	char *part, *to;

	if (**pointer != '/')
		return NULL;
	length = strcspn(++*pointer, "/");
	part = to = xcalloc(length + 1, 1);
	for (const char *at = *pointer; at < *pointer + length; at++) {
		if (*at == '~' && (at[1] == '0' || at[1] == '1'))
			*to++ = *++at == '0' ? '~' : '/';
		else
			*to++ = *at;
	}
	*pointer += length;
	return part;
}

static const struct place *find_place(const struct document *document, const char *pointer)
{
	size_t place = 0;

	for (;;) {
		CLEANUP_FREE char *part = take_part(&pointer);
		CLEANUP_FREE char *key = NULL;
		const json_t *found;

		if (!part)
			break;
		key = xasprintf("%zu/%s", place, part);
		found = json_object_get(document->index, key);
		if (!found)
			break;
		place = (size_t)json_integer_value(found);
	}
	return &document->places[place];
}

void document_where(const struct document *document, const char *pointer, unsigned *ret_line,
		    unsigned *ret_column)
{
	const struct place *place = find_place(document, pointer);

	*ret_line = place->line;
	*ret_column = place->column;
}

void document_where_key(const struct document *document, const char *pointer, unsigned *ret_line,
			unsigned *ret_column)
{
	const struct place *place = find_place(document, pointer);

	*ret_line = place->key_line;
	*ret_column = place->key_column;
}
