/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of keys: what a YAML file may say, where it goes, and what would be right.
 *
 * A definition and the configuration are each one table of `struct key`.  Reading, defaults,
 * messages with FILE:LINE:COLUMN, the Markdown reference and the JSON schema all come from it, so
 * that they cannot disagree. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct document;
struct error;
struct key_place;
struct key_reader;
struct strv;
struct text;

enum key_type {
	KEY_TEXT,
	KEY_INTEGER,
	KEY_BOOL,
	KEY_CHOICE,
	KEY_SIZE,     /* bytes: "5G", or a whole number of `scale` bytes */
	KEY_DURATION, /* microseconds: "30s"; a number without a unit is refused */
	KEY_PATH,     /* absolute, without ".." */
	KEY_MAP,      /* of the keys in `inner` */
	KEY_NAMED,    /* map from a free name to a map of the keys in `inner`; `read` reads it */
	KEY_LIST,     /* of maps of the keys in `inner`; `read` reads it */
	KEY_ANY,      /* carried, not looked at, unless by `read` */
};

/* What a value becomes, at `offset` of the target. */
enum key_store {
	STORE_NOT,
	STORE_TEXT,	/* const char *, borrowed from the tree */
	STORE_COPY,	/* char *, owned */
	STORE_U64,	/* uint64_t; also sizes and durations */
	STORE_I64,	/* int64_t */
	STORE_UNSIGNED, /* unsigned */
	STORE_BOOL,	/* bool */
	STORE_INDEX,	/* int or enum: the index in `choices` */
};

struct key {
	const char *name;
	enum key_type type;
	bool nullable; /* `key:` without a value is right */
	bool later;    /* taken and kept; nothing acts on it yet */
	int64_t min, max;
	int64_t scale;		    /* KEY_SIZE: bytes of a plain number; 0: refused */
	const char *unit;	    /* KEY_INTEGER: "MiB" */
	const char *const *choices; /* KEY_CHOICE, NULL-terminated */
	const char *pattern;	    /* KEY_TEXT: POSIX ERE that is also one of ECMA 262 */
	const char *right;	    /* after "write "; NULL: made from type and limits */
	const char *example;	    /* a right value as YAML */
	const char *fallback;	    /* value when absent; NULL: nothing is stored */
	const char *absent;	    /* the same in words, where `fallback` cannot say it */
	const char *meaning;	    /* one sentence for the reference */
	enum key_store store;
	size_t offset;
	const struct key *inner; /* up to a key without a name */
	/* Called after the check by type: more checks, or the whole reading of a list. */
	int (*read)(const struct key_reader *reader, const struct key_place *place, json_t *value,
		    void *target, struct error *err);
};

struct key_reader {
	const struct document *document; /* NULL: no positions */
	bool strict;			 /* an unknown key is an error, else a note */
	struct strv *notes;		 /* NULL: nobody wants them */
	void *owner;			 /* for `read` */
};

/* Where we are in the tree: a chain on the stack, innermost first.  `name` NULL: a list's `index`.
 * The place of the root has no `up`. */
struct key_place {
	const struct key_place *up;
	const char *name;
	size_t index;
};

/* Stores every fallback of the table, that of inner KEY_MAPs too. */
void key_defaults(const struct key *keys, void *target);

/* Reads a map.  `key_read_map` refuses anything but a map. */
int key_read_map(const struct key_reader *reader, const struct key_place *place,
		 const struct key *keys, json_t *value, void *target, struct error *err);
const struct key *key_find(const struct key *keys, const char *name);

/* -EBADMSG with "FILE:LINE:COLUMN: dotted.path: what is wrong; write what would be right".
 * `key_wrong_key` points at the key instead of its value. */
int key_wrong(const struct key_reader *reader, const struct key_place *place, struct error *err,
	      const char *fmt, ...) __attribute__((format(printf, 4, 5)));
int key_wrong_key(const struct key_reader *reader, const struct key_place *place, struct error *err,
		  const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* The same sentence as a note, standing at the key instead of the value. */
void key_note(const struct key_reader *reader, const struct key_place *place, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* A value as it stands in a message: compact JSON, cut; "no value", "a map", "a list". */
#define KEY_QUOTE_SIZE 96
const char *key_quote(const json_t *value, char buffer[KEY_QUOTE_SIZE]);

/* What would be right, for the end of a message: "write MiB as a whole number ...". */
void key_right(const struct key *key, struct text *ret);
/* The type and limits for the reference: "whole number of MiB, 16 to 16777216". */
void key_kind(const struct key *key, struct text *ret);
/* The names of a NULL-terminated list: "a, b or c". */
void key_list_names(const char *const *names, const char *last, struct text *ret);

/* "30s", "500ms", "2min", "1h", "1d" and "5G", "512M": false when it is no such text. */
bool key_parse_duration(const char *text, uint64_t *ret_usec);
bool key_parse_size(const char *text, uint64_t *ret_bytes);
/* The shortest exact way to write it. */
void key_print_duration(uint64_t usec, struct text *ret);
void key_print_size(uint64_t bytes, struct text *ret);

/* A Markdown table of the keys, and the `properties` of a JSON schema. */
void key_reference(const struct key *keys, const char *prefix, struct text *ret);
json_t *key_schema_map(const struct key *keys, bool strict);
