/* SPDX-License-Identifier: Apache-2.0 */
/* A site's own changes to the generated configuration, in the syntax of QEMU's -readconfig files
 * with {variables}.  It says only what differs: sections are merged key by key. */
#include "qemu/section.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"

#define TEMPLATE_SECTIONS_MAX 256
#define TEMPLATE_KEYS_MAX 64

/* What the keeper rests on: its monitor, its descriptors, QEMU's sandbox and life. */
static const char *const forbidden[] = { "mon",	     "sandbox",	  "run-with", "add-fd",
					 "incoming", "daemonize", "action",   "name" };

struct reader {
	const char *label;
	unsigned line;
	const json_t *vars;
	struct sections sections;
};

static bool is_forbidden(const char *group)
{
	for (size_t i = 0; i < ARRAY_SIZE(forbidden); i++) {
		if (strcmp(forbidden[i], group) == 0)
			return true;
	}
	return false;
}

static void list_vars(const json_t *vars, struct text *text)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)vars, key, value)
		text_addf(text, "%s%s", text->length > 0 ? ", " : "", key);
}

static int unknown_variable(const struct reader *reader, const char *name, size_t length,
			    struct error *err)
{
	CLEANUP(text_done) struct text known = { 0 };

	list_vars(reader->vars, &known);
	return error_bad_data(err, "%s:%u: no variable {%.*s}; there are: %s", reader->label,
			      reader->line, (int)length, name, known.text ? known.text : "none");
}

/* {name} is replaced, {{ and }} stand for themselves. */
static int expand(const struct reader *reader, const char *from, size_t length, struct text *to,
		  struct error *err)
{
	const char *end = from + length;

	text_add(to, "", 0);
	while (from < end) {
		CLEANUP_FREE char *name = NULL;
		const char *close, *value;

		if (*from != '{' || (from + 1 < end && from[1] == '{')) {
			if ((*from == '{' || *from == '}') && from + 1 < end && from[1] == *from)
				from++;
			text_add(to, from++, 1);
			continue;
		}
		close = memchr(from, '}', (size_t)(end - from));
		if (!close)
			return error_bad_data(err, "%s:%u: '{' without '}'; a brace itself is {{",
					      reader->label, reader->line);
		name = xasprintf("%.*s", (int)(close - from - 1), from + 1);
		value = json_string_value(json_object_get(reader->vars, name));
		if (!value)
			return unknown_variable(reader, name, strlen(name), err);
		text_add(to, value, strlen(value));
		from = close + 1;
	}
	return 0;
}

static const char *skip_blanks(const char *p)
{
	return p + strspn(p, " \t");
}

static int bad_line(const struct reader *reader, struct error *err)
{
	return error_bad_data(err,
			      "%s:%u: cannot read this line; lines are [group \"id\"], "
			      "key = \"value\" or # comment",
			      reader->label, reader->line);
}

static int check_group(const struct reader *reader, const char *group, struct error *err)
{
	if (is_forbidden(group))
		return error_bad_data(err, "%s:%u: [%s] is Drover's own and cannot be set here",
				      reader->label, reader->line, group);
	if (!section_is_known(group))
		return error_bad_data(err, "%s:%u: no group [%s]", reader->label, reader->line,
				      group);
	return 0;
}

/* [group] or [group "id"] */
static int read_head(struct reader *reader, const char *p, struct error *err)
{
	size_t length = strspn(p, "abcdefghijklmnopqrstuvwxyz_-");
	CLEANUP_FREE char *group = xasprintf("%.*s", (int)length, p);
	CLEANUP(text_done) struct text id = { 0 };
	bool has_id = false;
	int r;

	p = skip_blanks(p + length);
	if (*p == '"') {
		const char *close = strchr(++p, '"');

		if (!close || close == p)
			return bad_line(reader, err);
		has_id = true;
		r = expand(reader, p, (size_t)(close - p), &id, err);
		if (r < 0)
			return r;
		p = skip_blanks(close + 1);
	}
	if (length == 0 || *p != ']' || *skip_blanks(p + 1))
		return bad_line(reader, err);
	r = check_group(reader, group, err);
	if (r < 0)
		return r;
	if (reader->sections.count >= TEMPLATE_SECTIONS_MAX)
		return error_bad_data(err, "%s:%u: more than %d sections", reader->label,
				      reader->line, TEMPLATE_SECTIONS_MAX);
	if (!section_is_list(group) &&
	    sections_find(&reader->sections, group, has_id ? id.text : NULL))
		return error_bad_data(err, "%s:%u: this section is there twice", reader->label,
				      reader->line);
	sections_add(&reader->sections, group, has_id ? id.text : NULL);
	return 0;
}

/* key = "value" */
static int read_pair(struct reader *reader, const char *p, struct error *err)
{
	CLEANUP(text_done) struct text value = { 0 };
	CLEANUP_FREE char *key = NULL;
	struct section *section;
	const char *close;
	size_t length = 0;
	int r;

	while (isalnum((unsigned char)p[length]) || (p[length] && strchr("_-.+", p[length])))
		length++;
	key = xasprintf("%.*s", (int)length, p);
	p = skip_blanks(p + length);
	if (length == 0 || *p != '=')
		return bad_line(reader, err);
	p = skip_blanks(p + 1);
	close = *p == '"' ? strchr(p + 1, '"') : NULL;
	if (!close || *skip_blanks(close + 1))
		return bad_line(reader, err);
	if (reader->sections.count == 0)
		return error_bad_data(err, "%s:%u: no section yet; a [group] line comes first",
				      reader->label, reader->line);
	section = &reader->sections.items[reader->sections.count - 1];
	if (section_get(section, key))
		return error_bad_data(err, "%s:%u: '%s' is there twice", reader->label,
				      reader->line, key);
	if (json_object_size(section->props) >= TEMPLATE_KEYS_MAX)
		return error_bad_data(err, "%s:%u: more than %d keys", reader->label, reader->line,
				      TEMPLATE_KEYS_MAX);
	r = expand(reader, p + 1, (size_t)(close - p - 1), &value, err);
	if (r < 0)
		return r;
	section_set(section, key, value.text);
	return 0;
}

int template_parse(const char *label, const char *text, json_t *vars, struct sections *ret,
		   struct error *err)
{
	struct reader reader = { .label = label, .vars = vars };
	int r = 0;

	while (*text && r == 0) {
		size_t length = strcspn(text, "\n");
		CLEANUP_FREE char *line = xasprintf("%.*s", (int)length, text);
		const char *p = skip_blanks(line);

		reader.line++;
		text += length + (text[length] == '\n');
		while (length > 0 && isspace((unsigned char)line[length - 1]))
			line[--length] = '\0';
		if (*p == '\0' || *p == '#')
			continue;
		r = *p == '[' ? read_head(&reader, skip_blanks(p + 1), err)
			      : read_pair(&reader, p, err);
	}
	if (r < 0) {
		sections_done(&reader.sections);
		return r;
	}
	*ret = reader.sections;
	return 0;
}

/* Where a device of this kind sits is said by these keys; what is in no row is a PCI device. */
static const struct kind {
	const char *driver; /* ending in '-': the beginning of the name */
	const char *bus, *place;
} kinds[] = {
	{ "isa-" },
	{ "tpm-" },
	{ "pvpanic" },
	{ "vmcoreinfo" },
	{ "vmgenid" },
	{ "pc-dimm" },
	{ "nvdimm" },
	{ "virtserialport", "bus", "nr" },
	{ "virtconsole", "bus", "nr" },
	{ "scsi-", "bus", "lun" },
	{ "usb-ehci", "bus", "addr" },
	{ "usb-", "bus", "port" },
	{ "ide-", "bus", "unit" },
	{ "hda-", "bus", "cad" },
};
static const struct kind pci_kind = { NULL, "bus", "addr" };

static const struct kind *kind_of(const char *driver)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		const char *name = kinds[i].driver;
		size_t length = strlen(name);

		if (name[length - 1] == '-' ? strncmp(driver, name, length) == 0
					    : strcmp(driver, name) == 0)
			return &kinds[i];
	}
	return &pci_kind;
}

static int check_new_device(const struct section *device, struct error *err)
{
	const char *driver = section_get(device, "driver");
	const struct kind *kind;

	if (!driver)
		return error_refuse(err,
				    "[device \"%s\"] is none of Drover's, so it "
				    "needs a driver",
				    device->id);
	kind = kind_of(driver);
	if ((kind->bus && !section_get(device, kind->bus)) ||
	    (kind->place && !section_get(device, kind->place)))
		return error_refuse(err,
				    "[device \"%s\"] (%s) needs %s and %s, so that "
				    "the guest finds it at the same place after every start",
				    device->id, driver, kind->bus, kind->place);
	return 0;
}

static int merge_new(struct sections *into, const struct section *site, struct error *err)
{
	struct section *section;
	const char *key;
	json_t *value;
	int r;

	if (section_is(site, "device")) {
		r = check_new_device(site, err);
		if (r < 0)
			return r;
	}
	section = sections_add(into, site->group, site->id);
	json_object_foreach(site->props, key, value)
	{
		if (*json_string_value(value))
			json_object_set(section->props, key, value);
	}
	return 0;
}

static void merge_keys(struct section *section, const struct section *site)
{
	const char *key;
	json_t *value;

	json_object_foreach(site->props, key, value) section_set(
		section, key, *json_string_value(value) ? json_string_value(value) : NULL);
}

static bool says_remove(const struct section *site)
{
	const char *remove = section_get(site, "remove");

	return remove && strcmp(remove, "on") == 0 && json_object_size(site->props) == 1;
}

static int merge_one(struct sections *into, const struct section *site, struct error *err)
{
	struct section *section = sections_find(into, site->group, site->id);

	if (is_forbidden(site->group))
		return error_refuse(err, "[%s] is Drover's own and cannot be set here",
				    site->group);
	if (!site->id && section_is(site, "device"))
		return error_refuse(err, "a [device] without an id: write "
					 "[device \"NAME\"]");
	if (says_remove(site) && !section_is_list(site->group)) {
		if (!section)
			return error_refuse(err,
					    "[%s \"%s\"] cannot be removed, there "
					    "is none",
					    site->group, site->id ? site->id : "");
		sections_remove(into, site->group, site->id);
		return 0;
	}
	if (!section || section_is_list(site->group))
		return merge_new(into, site, err);
	merge_keys(section, site);
	return 0;
}

int template_merge(struct sections *into, const struct sections *site, struct error *err)
{
	for (size_t i = 0; i < site->count; i++) {
		int r = merge_one(into, &site->items[i], err);

		if (r < 0)
			return r;
	}
	return 0;
}
