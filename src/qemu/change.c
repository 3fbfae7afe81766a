/* SPDX-License-Identifier: Apache-2.0 */
#include "qemu/change.h"

#include <stdbool.h>
#include <string.h>

#include "qemu/hardware.h"
#include "util/cleanup.h"
#include "util/mem.h"

static void change_text(const char *what, const char *before, const char *after, struct text *ret)
{
	if (strcmp(before, after) != 0)
		text_addf(ret, "%s %s -> %s\n", what, before, after);
}

static void change_number(const char *what, const char *unit, uint64_t before, uint64_t after,
			  struct text *ret)
{
	if (before != after)
		text_addf(ret, "%s %llu -> %llu%s\n", what, (unsigned long long)before,
			  (unsigned long long)after, unit);
}

static void change_fields(const struct hardware *before, const struct hardware *after,
			  struct text *ret)
{
	change_text("machine type", before->machine_type, after->machine_type, ret);
	change_text("accelerator", before->accelerator, after->accelerator, ret);
	change_text("cpu model", before->cpu_model, after->cpu_model, ret);
	change_text("uuid", before->uuid, after->uuid, ret);
	change_number("memory", " MiB", before->memory_mib, after->memory_mib, ret);
	change_number("maximum memory", " MiB", before->memory_max_mib, after->memory_max_mib, ret);
	change_number("cores", "", before->cores, after->cores, ret);
	change_number("maximum cores", "", before->cores_max, after->cores_max, ret);
	change_text("QEMU", before->qemu_version, after->qemu_version, ret);
	change_text("QEMU package", before->qemu_package, after->qemu_package, ret);
}

/* Groups that change_fields() has told about already. */
static bool is_told(const struct section *section)
{
	static const char *const told[] = { "memory", "smp-opts", "accel" };

	for (size_t i = 0; i < ARRAY_SIZE(told); i++) {
		if (section_is(section, told[i]))
			return true;
	}
	return section_is(section, "object") && section->id && strcmp(section->id, "ram") == 0;
}

static bool is_told_key(const struct section *section, const char *key)
{
	return (section_is(section, "machine") && strcmp(key, "type") == 0) ||
	       (section_is(section, "cpu") && strcmp(key, "model") == 0);
}

static void change_key(const struct section *section, const char *key, const char *before,
		       const char *after, struct text *ret)
{
	if (is_told_key(section, key) || (before && after && strcmp(before, after) == 0))
		return;
	text_addf(ret, "%s%s%s: %s %s -> %s\n", section->group, section->id ? " " : "",
		  section->id ? section->id : "", key, before ? before : "(default)",
		  after ? after : "(default)");
}

static void change_section(const struct section *before, const struct section *after,
			   struct text *ret)
{
	const char *key;
	json_t *value;

	json_object_foreach(before->props, key, value)
		change_key(before, key, json_string_value(value), section_get(after, key), ret);
	json_object_foreach(after->props, key, value)
	{
		if (!section_get(before, key))
			change_key(after, key, NULL, json_string_value(value), ret);
	}
}

static void tell_section(const struct section *section, const char *what, struct text *ret)
{
	const char *driver = section_get(section, "driver"), *bus = section_get(section, "bus");
	const char *addr = section_get(section, "addr");

	text_addf(ret, "%s%s%s %s", section->group, section->id ? " " : "",
		  section->id ? section->id : "", what);
	if (driver)
		text_addf(ret, ": %s%s%s%s%s", driver, bus ? " at " : "", bus ? bus : "",
			  addr ? " " : "", addr ? addr : "");
	text_addf(ret, "\n");
}

/* The n-th of those sections that have group and id in common (lists have no id). */
static const struct section *counterpart(const struct sections *from, size_t index,
					 const struct sections *in)
{
	const struct section *section = &from->items[index];
	size_t nth = 0;

	if (!section_is_list(section->group))
		return sections_find(in, section->group, section->id);
	for (size_t i = 0; i < index; i++)
		nth += section_is(&from->items[i], section->group);
	for (size_t i = 0; i < in->count; i++) {
		if (section_is(&in->items[i], section->group) && nth-- == 0)
			return &in->items[i];
	}
	return NULL;
}

void hardware_changes(const struct hardware *before, const struct hardware *after, struct text *ret)
{
	const struct sections *old = &before->sections, *new = &after->sections;

	change_fields(before, after, ret);
	for (size_t i = 0; i < old->count; i++) {
		if (!is_told(&old->items[i]) && !counterpart(old, i, new))
			tell_section(&old->items[i], "removed", ret);
	}
	for (size_t i = 0; i < new->count; i++) {
		const struct section *same = counterpart(new, i, old);

		if (is_told(&new->items[i]))
			continue;
		if (same)
			change_section(same, &new->items[i], ret);
		else
			tell_section(&new->items[i], "added", ret);
	}
}
