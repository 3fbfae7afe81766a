/* SPDX-License-Identifier: Apache-2.0 */
/* YAML (or JSON, which is YAML) to a JSON tree that remembers where each value stood, so that a
 * message can say FILE:LINE:COLUMN.  YAML 1.2 core scalars: only true/false (any usual case) are
 * booleans, `no` and `on` are strings; tags, anchors, aliases and duplicate keys are refused. */
#pragma once
#include <jansson.h>
#include <stddef.h>

struct error;
struct document;

/* One file may hold several documents (`---`).  `label` is what messages call the file.  The array
 * and its documents are the caller's: documents_free(). */
int documents_parse(const char *label, const char *text, size_t length,
		    struct document ***ret_documents, size_t *ret_count, struct error *err);
void documents_free(struct document **documents, size_t count);

json_t *document_root(const struct document *document); /* borrowed */
const char *document_label(const struct document *document);

/* Line and column (from 1) of the value at a JSON pointer (RFC 6901) such as
 * "/parameters/nics/0/srv"; of its nearest ancestor when it is absent. */
void document_where(const struct document *document, const char *pointer, unsigned *ret_line,
		    unsigned *ret_column);
/* The same for the key instead of the value. */
void document_where_key(const struct document *document, const char *pointer, unsigned *ret_line,
			unsigned *ret_column);

/* "did you mean": the candidate nearest to `word` by edit distance (at most 2, and less than half
 * of the word), or NULL. `candidates` is a NULL-terminated list. */
const char *document_nearest(const char *word, const char *const *candidates);
