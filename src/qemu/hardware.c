/* SPDX-License-Identifier: Apache-2.0 */
/* The hardware record as data: to JSON, from JSON, to a table. */
#include "qemu/hardware.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"

#define RECORD_VERSION 1
#define CORES_LIMIT 4096
#define MEMORY_LIMIT_MIB (INT64_C(1) << 34)

/* What we write; everything else in a record is a newer Drover's and is carried along. */
static const char *const own_keys[] = {
	"v",	     "machine_type", "machine_asked", "accelerator",
	"cpu_model", "uuid",	     "memory_mib",    "memory_max_mib",
	"cores",     "cores_max",    "qemu_version",  "qemu_package",
	"born",	     "generation",   "sections",
};

static void hardwarep(struct hardware **hardware)
{
	hardware_free(*hardware);
}

struct hardware *hardware_free(struct hardware *hardware)
{
	if (!hardware)
		return NULL;
	free(hardware->machine_type);
	free(hardware->machine_asked);
	free(hardware->accelerator);
	free(hardware->cpu_model);
	free(hardware->uuid);
	free(hardware->qemu_version);
	free(hardware->qemu_package);
	free(hardware->born);
	sections_done(&hardware->sections);
	json_decref(hardware->rest);
	free(hardware);
	return NULL;
}

json_t *hardware_json(const struct hardware *hardware)
{
	json_t *value = json_object();

	json_object_set_new(value, "v", json_integer(RECORD_VERSION));
	json_set_string(value, "machine_type", hardware->machine_type);
	json_set_string(value, "machine_asked", hardware->machine_asked);
	json_set_string(value, "accelerator", hardware->accelerator);
	json_set_string(value, "cpu_model", hardware->cpu_model);
	json_set_string(value, "uuid", hardware->uuid);
	json_object_set_new(value, "memory_mib", json_integer((json_int_t)hardware->memory_mib));
	json_object_set_new(value, "memory_max_mib",
			    json_integer((json_int_t)hardware->memory_max_mib));
	json_object_set_new(value, "cores", json_integer(hardware->cores));
	json_object_set_new(value, "cores_max", json_integer(hardware->cores_max));
	json_set_string(value, "qemu_version", hardware->qemu_version);
	json_set_string(value, "qemu_package", hardware->qemu_package);
	json_set_string(value, "born", hardware->born);
	json_object_set_new(value, "generation", json_integer((json_int_t)hardware->generation));
	json_object_set_new(value, "sections", sections_json(&hardware->sections));
	if (hardware->rest)
		json_object_update_missing(value, hardware->rest);
	return value;
}

static int need_text(const json_t *value, const char *key, char **ret, struct error *err)
{
	const char *text;
	int r = json_need_string(value, key, &text, err);

	if (r < 0)
		return r;
	*ret = xstrdup(text);
	return 0;
}

static int need_number(const json_t *value, const char *key, int64_t min, int64_t max,
		       uint64_t *ret, struct error *err)
{
	int64_t number;
	int r = json_need_int(value, key, &number, err);

	if (r < 0)
		return r;
	if (number < min || number > max)
		return error_bad_data(err, "'%s' is out of range", key);
	*ret = (uint64_t)number;
	return 0;
}

static int parse_texts(const json_t *value, struct hardware *hardware, struct error *err)
{
	const struct {
		const char *key;
		char **to;
	} texts[] = {
		{ "machine_type", &hardware->machine_type },
		{ "machine_asked", &hardware->machine_asked },
		{ "accelerator", &hardware->accelerator },
		{ "cpu_model", &hardware->cpu_model },
		{ "uuid", &hardware->uuid },
		{ "qemu_version", &hardware->qemu_version },
		{ "qemu_package", &hardware->qemu_package },
		{ "born", &hardware->born },
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		int r = need_text(value, texts[i].key, texts[i].to, err);

		if (r < 0)
			return r;
	}
	return 0;
}

static int parse_numbers(const json_t *value, struct hardware *hardware, struct error *err)
{
	uint64_t cores = 0, cores_max = 0;
	const struct {
		const char *key;
		int64_t min, max;
		uint64_t *to;
	} numbers[] = {
		{ "memory_mib", 1, MEMORY_LIMIT_MIB, &hardware->memory_mib },
		{ "memory_max_mib", 1, MEMORY_LIMIT_MIB, &hardware->memory_max_mib },
		{ "cores", 1, CORES_LIMIT, &cores },
		{ "cores_max", 1, CORES_LIMIT, &cores_max },
		{ "generation", 0, INT64_MAX, &hardware->generation },
	};

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		int r = need_number(value, numbers[i].key, numbers[i].min, numbers[i].max,
				    numbers[i].to, err);

		if (r < 0)
			return r;
	}
	hardware->cores = (unsigned)cores;
	hardware->cores_max = (unsigned)cores_max;
	return 0;
}

static int parse_record(json_t *value, struct hardware *hardware, struct error *err)
{
	int64_t version;
	int r;

	r = json_need_int(value, "v", &version, err);
	if (r < 0)
		return r;
	if (version != RECORD_VERSION)
		return error_bad_data(err,
				      "version %lld is not known here; a newer Drover wrote it",
				      (long long)version);
	r = parse_texts(value, hardware, err);
	if (r < 0)
		return r;
	r = parse_numbers(value, hardware, err);
	if (r < 0)
		return r;
	r = sections_parse(json_object_get(value, "sections"), &hardware->sections, err);
	if (r < 0)
		return r;
	hardware->rest = json_copy(value);
	for (size_t i = 0; i < ARRAY_SIZE(own_keys); i++)
		json_object_del(hardware->rest, own_keys[i]);
	return 0;
}

int hardware_parse(json_t *value, struct hardware **ret, struct error *err)
{
	CLEANUP(hardwarep) struct hardware *hardware = xcalloc(1, sizeof(*hardware));
	int r;

	if (!json_is_object(value))
		return error_bad_data(err, "hardware record: an object is needed");
	r = parse_record(value, hardware, err);
	if (r < 0)
		return error_prefix(err, r, "hardware record");
	*ret = TAKE_PTR(hardware);
	return 0;
}

static void print_props(const struct section *section, const char *const *leave_out,
			struct text *ret)
{
	const char *key;
	json_t *value;

	json_object_foreach(section->props, key, value)
	{
		bool left_out = false;

		for (const char *const *out = leave_out; *out; out++)
			left_out |= strcmp(*out, key) == 0;
		if (!left_out)
			text_addf(ret, " %s=%s", key, json_string_value(value));
	}
}

static void print_device(const struct section *section, struct text *ret)
{
	static const char *const columns[] = { "driver", "bus", "addr", NULL };
	const char *driver = section_get(section, "driver"), *bus = section_get(section, "bus");
	const char *addr = section_get(section, "addr");
	CLEANUP_FREE char *place =
		xasprintf("%s%s%s", bus ? bus : "-", addr ? " " : "", addr ? addr : "");

	text_addf(ret, "%-16s %-20s %-16s", section->id ? section->id : "-", driver ? driver : "-",
		  place);
	print_props(section, columns, ret);
	text_addf(ret, "\n");
}

void hardware_print(const struct hardware *hardware, struct text *ret)
{
	static const char *const none[] = { NULL };

	text_addf(ret, "machine      %s (asked: %s)\n", hardware->machine_type,
		  hardware->machine_asked);
	text_addf(ret, "accelerator  %s\n", hardware->accelerator);
	text_addf(ret, "cpu          %s, %u cores (maximum %u)\n", hardware->cpu_model,
		  hardware->cores, hardware->cores_max);
	text_addf(ret, "memory       %llu MiB (maximum %llu)\n",
		  (unsigned long long)hardware->memory_mib,
		  (unsigned long long)hardware->memory_max_mib);
	text_addf(ret, "uuid         %s\n", hardware->uuid);
	text_addf(ret, "born         %s on QEMU %s%s%s%s, definition %llu\n\n", hardware->born,
		  hardware->qemu_version, *hardware->qemu_package ? " (" : "",
		  hardware->qemu_package, *hardware->qemu_package ? ")" : "",
		  (unsigned long long)hardware->generation);
	for (size_t i = 0; i < hardware->sections.count; i++) {
		const struct section *section = &hardware->sections.items[i];

		if (section_is(section, "device"))
			continue;
		text_addf(ret, "%s%s%s:", section->group, section->id ? " " : "",
			  section->id ? section->id : "");
		print_props(section, none, ret);
		text_addf(ret, "\n");
	}
	text_addf(ret, "\n%-16s %-20s %-16s PROPERTIES\n", "DEVICE", "DRIVER", "BUS");
	for (size_t i = 0; i < hardware->sections.count; i++) {
		if (section_is(&hardware->sections.items[i], "device"))
			print_device(&hardware->sections.items[i], ret);
	}
}
