/* SPDX-License-Identifier: Apache-2.0 */
/* What a table of keys says, for people (Markdown) and for editors (JSON schema, draft 2020-12). */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "model/key.h"
#include "util/cleanup.h"
#include "util/mem.h"

static void reference_row(const struct key *key, const char *prefix, struct text *ret)
{
	text_addf(ret, "| `%s%s` | ", prefix, key->name);
	key_kind(key, ret);
	text_addf(ret, " | ");
	if (key->fallback)
		text_addf(ret, "%s%s%s", key->fallback[0] ? "`" : "", key->fallback,
			  key->fallback[0] ? "`" : "empty");
	else
		text_addf(ret, "%s", key->absent ? key->absent : "–");
	text_addf(ret, " | %s%s", key->meaning, key->later ? " *Stored; not acted on yet.*" : "");
	if (key->example && key->type != KEY_BOOL && key->type != KEY_CHOICE)
		text_addf(ret, " Example: `%s`", key->example);
	text_addf(ret, " |\n");
}

void key_reference(const struct key *keys, const char *prefix, struct text *ret)
{
	text_addf(ret, "| Key | Type | Default | Meaning |\n|---|---|---|---|\n");
	for (const struct key *key = keys; key->name; key++)
		reference_row(key, prefix, ret);
}

static void set_new(json_t *object, const char *name, json_t *value)
{
	int r = json_object_set_new(object, name, value);

	assert(r == 0); /* tables are UTF-8 */
}

static void schema_limits(const struct key *key, json_t *schema)
{
	set_new(schema, "type", json_string("integer"));
	set_new(schema, "minimum", json_integer(key->min));
	set_new(schema, "maximum", json_integer(key->max));
}

static void schema_size(const struct key *key, json_t *schema)
{
	json_t *text = json_pack("{s:s, s:s}", "type", "string", "pattern", "^[0-9]+[KMGT](iB)?$");

	if (key->scale == 0) {
		(void)json_object_update(schema, text);
		json_decref(text);
		return;
	}
	set_new(schema, "anyOf",
		json_pack("[{s:s, s:I, s:I}, o]", "type", "integer", "minimum",
			  (json_int_t)((key->min + key->scale - 1) / key->scale), "maximum",
			  (json_int_t)(key->max / key->scale), text));
}

static void schema_type(const struct key *key, json_t *schema, bool strict)
{
	json_t *choices;

	switch (key->type) {
	case KEY_TEXT:
		set_new(schema, "type", json_string("string"));
		if (key->pattern)
			set_new(schema, "pattern", json_string(key->pattern));
		if (key->max > 0)
			set_new(schema, "maxLength", json_integer(key->max));
		break;
	case KEY_INTEGER:
		schema_limits(key, schema);
		break;
	case KEY_BOOL:
		set_new(schema, "type", json_string("boolean"));
		break;
	case KEY_CHOICE:
		choices = json_array();
		for (size_t i = 0; key->choices[i]; i++)
			(void)json_array_append_new(choices, json_string(key->choices[i]));
		set_new(schema, "enum", choices);
		break;
	case KEY_SIZE:
		schema_size(key, schema);
		break;
	case KEY_DURATION:
		set_new(schema, "type", json_string("string"));
		set_new(schema, "pattern", json_string("^[0-9]+(us|ms|s|min|h|d)$"));
		break;
	case KEY_PATH:
		set_new(schema, "type", json_string("string"));
		set_new(schema, "pattern", json_string("^/"));
		break;
	case KEY_MAP:
		(void)json_object_update_new(schema, key_schema_map(key->inner, strict));
		break;
	case KEY_NAMED:
		set_new(schema, "type", json_string("object"));
		set_new(schema, "additionalProperties", key_schema_map(key->inner, strict));
		break;
	case KEY_LIST:
		set_new(schema, "type", json_string("array"));
		set_new(schema, "items", key_schema_map(key->inner, strict));
		break;
	case KEY_ANY:
		break;
	}
}

/* `key:` without a value as a second choice. */
static void schema_nullable(json_t *schema)
{
	json_t *type = json_object_get(schema, "type");

	if (type)
		set_new(schema, "type", json_pack("[O, s]", type, "null"));
}

json_t *key_schema_map(const struct key *keys, bool strict)
{
	json_t *properties = json_object();

	for (const struct key *key = keys; key->name; key++) {
		json_t *schema = json_object();

		set_new(schema, "description", json_string(key->meaning));
		schema_type(key, schema, strict);
		if (key->nullable)
			schema_nullable(schema);
		set_new(properties, key->name, schema);
	}
	return json_pack("{s:s, s:o, s:b}", "type", "object", "properties", properties,
			 "additionalProperties", !strict);
}
