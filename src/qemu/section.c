/* SPDX-License-Identifier: Apache-2.0 */
/* Sections and their way onto a command line.  One table knows QEMU's groups: the option of each,
 * which key may stand alone in front, and which side of hardware and binding it is on. */
#include "qemu/section.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"

#define SECTIONS_MAX 1024
#define KEYS_MAX 128

struct group {
	const char *name;
	const char *option;
	const char *head; /* key whose value is written first, without the key; or NULL */
	const char *id;	  /* what the id is called there */
	enum { BINDING, HARDWARE } side;
	bool list; /* any number of sections without an id */
	enum { COMMA_DOUBLED, NO_COMMA, WHOLE_VALUE } form;
};

/* In the order of the command line: what others refer to first. */
/* clang-format off */
static const struct group groups[] = {
	{ "name",	"-name",	"guest" },
	{ "add-fd",	"-add-fd",	NULL, .list = true },
	{ "chardev",	"-chardev",	"backend",	"id" },
	{ "mon",	"-mon",		"chardev",	.list = true },
	{ "object",	"-object",	"qom-type",	"id",	HARDWARE },
	{ "machine",	"-machine",	"type",		NULL,	HARDWARE },
	{ "accel",	"-accel",	"accel",	NULL,	HARDWARE },
	{ "cpu",	"-cpu",		"model",	NULL,	HARDWARE, .form = NO_COMMA },
	{ "smp-opts",	"-smp",		"cpus",		NULL,	HARDWARE },
	{ "memory",	"-m",		"size",		NULL,	HARDWARE },
	{ "numa",	"-numa",	"type",		NULL,	HARDWARE, true },
	{ "rtc",	"-rtc",		NULL,		NULL,	HARDWARE },
	{ "boot-opts",	"-boot",	NULL,		NULL,	HARDWARE },
	{ "global",	"-global",	NULL,		NULL,	HARDWARE, true },
	{ "smbios",	"-smbios",	NULL,		NULL,	HARDWARE, true },
	{ "fw_cfg",	"-fw_cfg",	"name",		NULL,	HARDWARE, true },
	{ "kernel",	"-append",	"append",	NULL,	HARDWARE, false, WHOLE_VALUE },
	{ "blockdev",	"-blockdev",	"driver",	"node-name" },
	{ "drive",	"-drive",	NULL,		"id" },
	{ "netdev",	"-netdev",	"type",		"id" },
	{ "fsdev",	"-fsdev",	"fsdriver",	"id" },
	{ "tpmdev",	"-tpmdev",	"type",		"id" },
	{ "audiodev",	"-audiodev",	"driver",	"id" },
	{ "vnc",	"-vnc",		"vnc" },
	{ "device",	"-device",	"driver",	"id",	HARDWARE },
};
/* clang-format on */

static const struct group *group_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
		if (strcmp(groups[i].name, name) == 0)
			return &groups[i];
	}
	return NULL;
}

bool section_is_known(const char *group)
{
	return group_find(group) != NULL;
}

bool section_is_hardware(const char *group)
{
	const struct group *found = group_find(group);

	return found && found->side == HARDWARE;
}

bool section_is_list(const char *group)
{
	const struct group *found = group_find(group);

	return found && found->list;
}

bool section_is(const struct section *section, const char *group)
{
	return strcmp(section->group, group) == 0;
}

struct section *sections_add(struct sections *sections, const char *group, const char *id)
{
	struct section *section;

	sections->items = xrealloc(sections->items, sections->count + 1, sizeof(*sections->items));
	section = &sections->items[sections->count++];
	*section = (struct section){
		.group = xstrdup(group),
		.id = xstrdup_or_null(id),
		.props = json_object(),
	};
	return section;
}

struct section *sections_copy(struct sections *sections, const struct section *section)
{
	struct section *copy = sections_add(sections, section->group, section->id);

	json_object_update(copy->props, section->props);
	return copy;
}

static bool same_id(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

struct section *sections_find(const struct sections *sections, const char *group, const char *id)
{
	for (size_t i = 0; i < sections->count; i++) {
		struct section *section = &sections->items[i];

		if (section_is(section, group) && same_id(section->id, id))
			return section;
	}
	return NULL;
}

static void section_done(struct section *section)
{
	free(section->group);
	free(section->id);
	json_decref(section->props);
}

void sections_remove(struct sections *sections, const char *group, const char *id)
{
	struct section *section = sections_find(sections, group, id);
	size_t index;

	if (!section)
		return;
	index = (size_t)(section - sections->items);
	section_done(section);
	sections->count--;
	memmove(section, section + 1, (sections->count - index) * sizeof(*section));
}

void sections_done(struct sections *sections)
{
	for (size_t i = 0; i < sections->count; i++)
		section_done(&sections->items[i]);
	free(sections->items);
	*sections = (struct sections){ 0 };
}

void section_set(struct section *section, const char *key, const char *value)
{
	if (value)
		json_object_set_new(section->props, key, json_text(value, strlen(value)));
	else
		json_object_del(section->props, key);
}

void section_setf(struct section *section, const char *key, const char *fmt, ...)
{
	CLEANUP_FREE char *value = NULL;
	va_list args;
	int r;

	va_start(args, fmt);
	r = vasprintf(&value, fmt, args);
	va_end(args);
	if (r < 0)
		abort();
	section_set(section, key, value);
}

const char *section_get(const struct section *section, const char *key)
{
	return json_string_value(json_object_get(section->props, key));
}

json_t *sections_json(const struct sections *sections)
{
	json_t *array = json_array();

	for (size_t i = 0; i < sections->count; i++) {
		const struct section *section = &sections->items[i];
		json_t *item = json_object();

		json_set_string(item, "group", section->group);
		if (section->id)
			json_set_string(item, "id", section->id);
		json_object_set_new(item, "props", json_copy(section->props));
		json_array_append_new(array, item);
	}
	return array;
}

static int section_parse(json_t *item, struct sections *sections, struct error *err)
{
	const char *group, *id = json_string_or(item, "id", NULL), *key;
	struct section *section;
	json_t *props, *value;
	int r;

	r = json_need_string(item, "group", &group, err);
	if (r < 0)
		return r;
	r = json_need_object(item, "props", &props, err);
	if (r < 0)
		return r;
	if (json_object_size(props) > KEYS_MAX)
		return error_bad_data(err, "section [%s \"%s\"] has more than %d keys", group,
				      id ? id : "", KEYS_MAX);
	json_object_foreach(props, key, value)
	{
		if (!json_is_string(value))
			return error_bad_data(err, "section [%s \"%s\"]: '%s' must be a string",
					      group, id ? id : "", key);
	}
	section = sections_add(sections, group, id);
	json_object_update(section->props, props);
	return 0;
}

int sections_parse(json_t *array, struct sections *ret, struct error *err)
{
	CLEANUP(sections_done) struct sections sections = { 0 };
	size_t i;
	json_t *item;
	int r;

	if (!json_is_array(array) || json_array_size(array) > SECTIONS_MAX)
		return error_bad_data(err, "sections must be a list of at most %d", SECTIONS_MAX);
	json_array_foreach(array, i, item)
	{
		r = section_parse(item, &sections, err);
		if (r < 0)
			return r;
	}
	*ret = sections;
	sections = (struct sections){ 0 };
	return 0;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The keys of a section by alphabet; the names belong to the section. */
static size_t section_keys(const struct section *section, const char *keys[KEYS_MAX])
{
	const char *key;
	json_t *value;
	size_t n = 0;

	json_object_foreach(section->props, key, value)
	{
		if (n < KEYS_MAX)
			keys[n++] = key;
	}
	qsort(keys, n, sizeof(keys[0]), by_text);
	return n;
}

static int check_key(const struct section *section, const char *key, struct error *err)
{
	for (const char *p = key; *p; p++) {
		if (!isalnum((unsigned char)*p) && !strchr("_-.+", *p))
			return error_bad_data(err, "[%s \"%s\"]: '%s' is not a name of a property",
					      section->group, section->id ? section->id : "", key);
	}
	return 0;
}

static void add_comma(struct text *text)
{
	if (text->length > 0)
		text_add(text, ",", 1);
}

static int add_value(struct text *text, const struct group *group, const char *key,
		     const char *value, struct error *err)
{
	for (const char *p = value; *p; p++) {
		if (*p != ',') {
			text_add(text, p, 1);
			continue;
		}
		if (group->form == NO_COMMA)
			return error_bad_data(err,
					      "[%s] %s = \"%s\": a comma cannot be said here; "
					      "write each property on a line of its own",
					      group->name, key, value);
		text_add(text, ",,", 2);
	}
	return 0;
}

static int section_text(const struct section *section, const struct group *group, struct text *text,
			struct error *err)
{
	const char *head = group->head ? section_get(section, group->head) : NULL;
	const char *keys[KEYS_MAX];
	size_t n = section_keys(section, keys);
	int r = 0;

	/* "-device a=b" would be a property named a. */
	if (head && (strchr(head, '=') || !*head))
		head = NULL;
	if (head)
		r = add_value(text, group, group->head, head, err);
	if (r == 0 && section->id && group->id) {
		add_comma(text);
		text_addf(text, "%s=", group->id);
		r = add_value(text, group, group->id, section->id, err);
	}
	for (size_t i = 0; i < n && r == 0; i++) {
		if (head && strcmp(keys[i], group->head) == 0)
			continue;
		r = check_key(section, keys[i], err);
		if (r < 0)
			return r;
		add_comma(text);
		text_addf(text, "%s=", keys[i]);
		r = add_value(text, group, keys[i], section_get(section, keys[i]), err);
	}
	return r;
}

/* "cache.direct" = "on" becomes {"cache": {"direct": true}}. */
static void set_nested(json_t *object, const char *key, const char *value)
{
	const char *dot = strchr(key, '.');
	CLEANUP_FREE char *first = NULL;
	json_t *inner;

	if (!dot && (strcmp(value, "on") == 0 || strcmp(value, "off") == 0)) {
		json_object_set_new(object, key, json_boolean(strcmp(value, "on") == 0));
		return;
	}
	if (!dot) {
		json_set_string(object, key, value);
		return;
	}
	first = xasprintf("%.*s", (int)(dot - key), key);
	inner = json_object_get(object, first);
	if (!inner) {
		inner = json_object();
		json_object_set_new(object, first, inner);
	}
	set_nested(inner, dot + 1, value);
}

/* A null can be said in JSON only. */
static char *section_as_json(const struct section *section, const struct group *group)
{
	json_auto_t *object = json_object();
	const char *key;
	json_t *value;

	if (section->id)
		json_set_string(object, group->id, section->id);
	json_object_foreach(section->props, key, value)
	{
		if (json_is_null(value))
			json_object_set(object, key, value);
		else
			set_nested(object, key, json_string_value(value));
	}
	return json_print(object);
}

static bool has_null(const struct section *section)
{
	const char *key;
	json_t *value;

	json_object_foreach(section->props, key, value)
	{
		if (json_is_null(value))
			return true;
	}
	return false;
}

static int section_argv(const struct section *section, const struct group *group, struct strv *argv,
			struct error *err)
{
	CLEANUP(text_done) struct text text = { 0 };
	CLEANUP_FREE char *json = NULL;
	int r;

	if (has_null(section)) {
		json = section_as_json(section, group);
		strv_add(argv, group->option);
		strv_add(argv, json);
		return 0;
	}
	if (group->form == WHOLE_VALUE) {
		const char *value = section_get(section, group->head);

		text_addf(&text, "%s", value ? value : "");
	} else {
		r = section_text(section, group, &text, err);
		if (r < 0)
			return r;
	}
	if (!text.text || !*text.text)
		return 0;
	strv_add(argv, group->option);
	strv_add(argv, text.text);
	return 0;
}

int sections_argv(const struct sections *sections, struct strv *argv, struct error *err)
{
	for (size_t i = 0; i < sections->count; i++) {
		if (!section_is_known(sections->items[i].group))
			return error_bad_data(err,
					      "[%s]: this Drover knows no such group of QEMU's; "
					      "a newer one wrote it",
					      sections->items[i].group);
	}
	for (size_t g = 0; g < ARRAY_SIZE(groups); g++) {
		for (size_t i = 0; i < sections->count; i++) {
			int r;

			if (!section_is(&sections->items[i], groups[g].name))
				continue;
			r = section_argv(&sections->items[i], &groups[g], argv, err);
			if (r < 0)
				return r;
		}
	}
	return 0;
}
