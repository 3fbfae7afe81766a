/* SPDX-License-Identifier: Apache-2.0 */
/* Is what QEMU built what the record says?  A default that changed, an option that a package
 * patched or a template that means something else shows here, before the guest has seen it.
 *
 * QEMU reads its monitor byte by byte, so the questions are few and short, and all are sent before
 * the first answer. */
#include "qemu/hardware.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "model/cpu-model.h"
#include "qemu/address.h"
#include "qemu/tree.h"
#include "qmp/qmp.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"

/* 0, or -EBADE with the difference in words. */
typedef int (*compare_fn)(const struct hardware *hardware, json_t *answer, struct error *err);

static int differs(struct error *err, const char *what, const char *built, const char *recorded)
{
	return error_set(err, -EBADE, "%s is '%s' in QEMU, but '%s' in the hardware record", what,
			 built, recorded);
}

static int compare_machine(const struct hardware *hardware, json_t *answer, struct error *err)
{
	const char *type = json_is_string(answer) ? json_string_value(answer) : "";
	CLEANUP_FREE char *class = xasprintf("%s-machine", hardware->machine_type);

	return strcmp(type, class) == 0
		       ? 0
		       : differs(err, "the machine type", type, hardware->machine_type);
}

static int compare_uuid(const struct hardware *hardware, json_t *answer, struct error *err)
{
	const char *uuid = json_string_or(answer, "UUID", "");

	return strcasecmp(uuid, hardware->uuid) == 0
		       ? 0
		       : differs(err, "the uuid", uuid, hardware->uuid);
}

static int compare_accelerator(const struct hardware *hardware, json_t *answer, struct error *err)
{
	const char *built = json_bool_or(answer, "enabled", false) ? "kvm" : "tcg";

	return strcmp(built, hardware->accelerator) == 0
		       ? 0
		       : differs(err, "the accelerator", built, hardware->accelerator);
}

static int compare_memory(const struct hardware *hardware, json_t *answer, struct error *err)
{
	int64_t base = json_int_or(answer, "base-memory", 0);

	if (base == (int64_t)(hardware->memory_mib << 20))
		return 0;
	return error_set(err, -EBADE,
			 "memory is %" PRId64 " MiB in QEMU, but %" PRIu64
			 " MiB in the hardware record",
			 base >> 20, hardware->memory_mib);
}

static int compare_cpus(const struct hardware *hardware, json_t *answer, struct error *err)
{
	CLEANUP_FREE char *class =
		xasprintf("%.*s-x86_64-cpu", (int)cpu_model_name_length(hardware->cpu_model),
			  hardware->cpu_model);
	unsigned present = 0, all = 0;
	size_t i;
	json_t *cpu;

	json_array_foreach(answer, i, cpu)
	{
		const char *type = json_string_or(cpu, "type", "");
		unsigned count = (unsigned)json_int_or(cpu, "vcpus-count", 0);

		if (strcmp(type, class) != 0)
			return differs(err, "the CPU", type, hardware->cpu_model);
		all += count;
		present += json_object_get(cpu, "qom-path") ? count : 0;
	}
	if (present != hardware->cores || all != hardware->cores_max)
		return error_set(err, -EBADE,
				 "QEMU has %u vcpus of at most %u, the hardware record %u of %u",
				 present, all, hardware->cores, hardware->cores_max);
	return 0;
}

/* -device takes short names for some types. */
static bool same_type(const char *driver, const char *type)
{
	size_t length = strlen(driver);

	if (strcmp(driver, type) == 0)
		return true;
	if (strcmp(driver, "ahci") == 0)
		return strcmp(type, "ich9-ahci") == 0;
	return strncmp(driver, type, length) == 0 && strcmp(type + length, "-pci") == 0;
}

/* Names of things that only the host sees, and keys that say where and what. */
static bool is_comparable(const char *key)
{
	static const char *const not [] = { "driver", "bus",	 "addr", "drive",
					    "netdev", "chardev", "rng" };

	for (size_t i = 0; i < ARRAY_SIZE(not ); i++) {
		if (strcmp(key, not [i]) == 0)
			return false;
	}
	return true;
}

static int compare_place(const struct section *device, json_t *built, struct error *err)
{
	const char *bus = section_get(device, "bus"), *addr = section_get(device, "addr");
	const char *built_bus = json_string_or(built, "bus", "");
	const char *built_addr = json_string_or(json_object_get(built, "props"), "addr", "absent");
	CLEANUP_FREE char *what = xasprintf("device '%s': the bus", device->id);

	if (bus && strcmp(bus, built_bus) != 0)
		return differs(err, what, built_bus, bus);
	if (addr && address_of(addr) != address_of(built_addr))
		return error_set(err, -EBADE,
				 "device '%s': the address is %s in QEMU, but %s in the "
				 "hardware record",
				 device->id, built_addr, addr);
	return 0;
}

static int compare_device(const struct section *device, json_t *built, struct error *err)
{
	const char *driver = section_get(device, "driver"), *key;
	json_t *value;
	int r;

	if (!built)
		return error_set(err, -EBADE, "QEMU has no device '%s' (%s)", device->id,
				 driver ? driver : "?");
	if (!driver || !same_type(driver, json_string_or(built, "type", ""))) {
		CLEANUP_FREE char *what = xasprintf("device '%s'", device->id);

		return differs(err, what, json_string_or(built, "type", ""), driver ? driver : "");
	}
	r = compare_place(device, built, err);
	if (r < 0)
		return r;
	json_object_foreach(device->props, key, value)
	{
		const char *has = json_string_or(json_object_get(built, "props"), key, NULL);

		if (has && is_comparable(key) && !tree_value_equal(has, json_string_value(value))) {
			CLEANUP_FREE char *what = xasprintf("device '%s': %s", device->id, key);

			return differs(err, what, has, json_string_value(value));
		}
	}
	return 0;
}

static int compare_devices(const struct hardware *hardware, json_t *answer, struct error *err)
{
	json_auto_t *devices = NULL;
	const char *id;
	json_t *built;
	int r;

	r = tree_parse(json_is_string(answer) ? json_string_value(answer) : "", &devices, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < hardware->sections.count; i++) {
		const struct section *section = &hardware->sections.items[i];

		if (!section_is(section, "device") || !section->id)
			continue;
		r = compare_device(section, json_object_get(devices, section->id), err);
		if (r < 0)
			return r;
	}
	json_object_foreach(devices, id, built)
	{
		if (!sections_find(&hardware->sections, "device", id))
			return error_set(err, -EBADE,
					 "QEMU has a device '%s' (%s) that is not in the hardware "
					 "record",
					 id, json_string_or(built, "type", ""));
	}
	return 0;
}

static const struct {
	const char *command;
	const char *keys[2], *values[2];
	compare_fn compare;
} questions[] = {
	{ "qom-get", { "path", "property" }, { "/machine", "type" }, compare_machine },
	{ "query-uuid", { NULL }, { NULL }, compare_uuid },
	{ "query-kvm", { NULL }, { NULL }, compare_accelerator },
	{ "query-hotpluggable-cpus", { NULL }, { NULL }, compare_cpus },
	{ "query-memory-size-summary", { NULL }, { NULL }, compare_memory },
	{ "human-monitor-command", { "command-line" }, { "info qtree" }, compare_devices },
};
#define QUESTIONS ARRAY_SIZE(questions)

struct hardware_check {
	const struct hardware *hardware; /* borrowed until `reply` was called or it was cancelled */
	hardware_verified_fn reply;	 /* NULL: cancelled */
	void *ctx;
	size_t open;   /* questions without an answer */
	size_t failed; /* the first in the table's order; QUESTIONS: none */
	int r;
	struct error err;
	struct question {
		struct hardware_check *check;
		size_t index;
	} questions[QUESTIONS];
};

static void check_finish(struct hardware_check *check)
{
	hardware_verified_fn reply = check->reply;

	if (reply)
		reply(check->ctx, check->r, check->r < 0 ? &check->err : NULL);
	free(check);
}

static void on_answer(void *ctx, int r, json_t *answer, const struct error *why)
{
	struct question *question = ctx;
	struct hardware_check *check = question->check;
	struct error err = { 0 };

	if (r < 0 && why)
		err = *why;
	if (r == 0 && check->reply)
		r = questions[question->index].compare(check->hardware, answer, &err);
	if (r < 0 && question->index < check->failed) {
		check->failed = question->index;
		check->r = r;
		check->err = err;
	}
	if (--check->open == 0)
		check_finish(check);
}

static int ask(struct hardware_check *check, struct qmp *qmp, size_t index, uint64_t timeout_usec,
	       struct error *err)
{
	json_auto_t *args = NULL;
	int r;

	for (size_t i = 0; i < 2 && questions[index].keys[i]; i++) {
		if (!args)
			args = json_object();
		json_set_string(args, questions[index].keys[i], questions[index].values[i]);
	}
	check->questions[index] = (struct question){ check, index };
	r = qmp_call(qmp, questions[index].command, args, timeout_usec, on_answer,
		     &check->questions[index], err);
	if (r == 0)
		check->open++;
	return r;
}

int hardware_verify(struct qmp *qmp, const struct hardware *hardware, uint64_t timeout_usec,
		    hardware_verified_fn reply, void *ctx, struct hardware_check **ret_check,
		    struct error *err)
{
	struct hardware_check *check = xcalloc(1, sizeof(*check));

	check->hardware = hardware;
	check->reply = reply;
	check->ctx = ctx;
	check->failed = QUESTIONS;
	for (size_t i = 0; i < QUESTIONS; i++) {
		int r = ask(check, qmp, i, timeout_usec, err);

		if (r < 0) {
			hardware_verify_cancel(check);
			return r;
		}
	}
	*ret_check = check;
	return 0;
}

struct hardware_check *hardware_verify_cancel(struct hardware_check *check)
{
	if (!check)
		return NULL;
	check->reply = NULL;
	check->hardware = NULL;
	if (check->open == 0)
		free(check);
	return NULL;
}
