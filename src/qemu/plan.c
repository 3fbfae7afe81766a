/* SPDX-License-Identifier: Apache-2.0 */
/* The hardware of the next cold start: what the definition asks for, unless the guest already knows
 * better from its last one.  Everything that QEMU would decide by version or by host is written
 * out, so that the record and not a default is the truth. */
#include "qemu/hardware.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-id128.h>

#include "model/config.h"
#include "model/cpu-model.h"
#include "model/definition.h"
#include "qemu/address.h"
#include "qemu/build.h"
#include "qemu/change.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"

#define MEMORY_SLOTS 16 /* for memory that comes while the guest runs */
#define SERIAL_MAX 20	/* VIRTIO_BLK_ID_BYTES */
#define QUEUES_MAX 16u

struct plan {
	const struct hardware_input *input;
	struct hardware *hardware;
	enum board board;
	const struct sections *last; /* of the same board, or NULL */
	struct sections site;	     /* of the template */
};

static void hardwarep(struct hardware **hardware)
{
	hardware_free(*hardware);
}

static int plan_board(struct plan *plan, struct error *err)
{
	const struct hardware *last = plan->input->last;
	const char *type = plan->hardware->machine_type;

	if (strncmp(type, "pc-q35-", 7) == 0)
		plan->board = BOARD_Q35;
	else if (strncmp(type, "pc-", 3) == 0)
		plan->board = BOARD_PC;
	else
		return error_refuse(err,
				    "machine type '%s' is of no kind that Drover can lay out: "
				    "use q35 or pc",
				    type);
	if (last && (strncmp(last->machine_type, "pc-q35-", 7) == 0) == (plan->board == BOARD_Q35))
		plan->last = &last->sections;
	return 0;
}

/* What the definition does not say stays as it was: the defaults of a node are for new VMs. */
static const char *asked_or(const char *asked, const char *last, const char *fallback)
{
	if (asked)
		return asked;
	return last ? last : fallback;
}

/* The type of the last start stays as long as it answers what is asked: a new QEMU brings a newer
 * one, and a guest is not moved to it by an upgrade of its host. */
static int plan_machine(struct plan *plan, struct error *err)
{
	const struct hardware_input *input = plan->input;
	const struct hardware *last = input->last;
	const char *asked =
		asked_or(input->definition->machine_type, last ? last->machine_asked : NULL,
			 input->config->machine_type);
	const char *kept =
		last && qemu_machine_matches(asked, last->machine_type) ? last->machine_type : NULL;
	const char *type;
	int r;

	r = qemu_machine_resolve(input->build, kept ? kept : asked, &type, err);
	if (r < 0 && kept)
		return error_prefix(err, r,
				    "this VM's hardware is of machine type %s; to give it newer "
				    "hardware name another in machine_type",
				    kept);
	if (r < 0)
		return r;
	plan->hardware->machine_type = xstrdup(type);
	plan->hardware->machine_asked = xstrdup(asked);
	return plan_board(plan, err);
}

static void plan_accelerator(struct plan *plan)
{
	const struct hardware_input *input = plan->input;
	const char *accelerator = input->accelerator;

	if (input->last && input->definition->accelerator == ACCEL_AUTO)
		accelerator = input->last->accelerator;
	plan->hardware->accelerator = xstrdup(accelerator);
}

static int plan_cpu(struct plan *plan, struct error *err)
{
	const struct hardware_input *input = plan->input;
	const char *asked =
		asked_or(input->definition->cpu_model, input->last ? input->last->cpu_model : NULL,
			 input->config->cpu_model);
	CLEANUP_FREE char *model = NULL, *name = NULL;
	int r = cpu_model_canonical(asked, &model, err);

	if (r < 0)
		return error_prefix(err, r, "cpu_model '%s'", asked);
	name = xasprintf("%.*s", (int)cpu_model_name_length(model), model);
	if (strcmp(name, "host") == 0 && strcmp(plan->hardware->accelerator, "kvm") != 0)
		return error_refuse(err,
				    "cpu_model 'host' needs the accelerator kvm, this VM has "
				    "%s: use 'max' or a named model",
				    plan->hardware->accelerator);
	if (!qemu_build_has_cpu_model(input->build, name))
		return error_refuse(err, "QEMU %s has no CPU model '%s'; `%s -cpu help` lists them",
				    input->build->version, name, input->build->binary);
	plan->hardware->cpu_model = TAKE_PTR(model);
	return 0;
}

static int plan_uuid(struct plan *plan, struct error *err)
{
	const struct hardware_input *input = plan->input;
	sd_id128_t random;
	int r;

	if (input->definition->uuid) {
		plan->hardware->uuid = xstrdup(input->definition->uuid);
		return 0;
	}
	if (input->last) {
		plan->hardware->uuid = xstrdup(input->last->uuid);
		return 0;
	}
	r = sd_id128_randomize(&random);
	if (r < 0)
		return error_set(err, r, "cannot make a uuid: %m");
	plan->hardware->uuid = xasprintf(SD_ID128_UUID_FORMAT_STR, SD_ID128_FORMAT_VAL(random));
	return 0;
}

/* A maximum that was not asked for is the last one. */
static uint64_t maximum(uint64_t now, uint64_t asked, uint64_t last)
{
	if (asked > now)
		return asked;
	return last > now ? last : now;
}

static void plan_sizes(struct plan *plan)
{
	const struct hardware *last = plan->input->last;
	const struct definition *definition = plan->input->definition;
	struct hardware *hardware = plan->hardware;

	hardware->memory_mib = definition->memory_mib;
	hardware->memory_max_mib = maximum(definition->memory_mib, definition->memory_max_mib,
					   last ? last->memory_max_mib : 0);
	hardware->cores = definition->cores;
	hardware->cores_max = (unsigned)maximum(definition->cores, definition->cores_max,
						last ? last->cores_max : 0);
}

static void plan_origin(struct plan *plan)
{
	char now[CLOCK_TEXT_SIZE];

	plan->hardware->qemu_version = xstrdup(plan->input->build->version);
	plan->hardware->qemu_package = xstrdup(plan->input->build->package);
	plan->hardware->born = xstrdup(clock_text(clock_wall(), now));
	plan->hardware->generation = plan->input->generation;
	plan->hardware->rest = json_object();
}

static struct section *add(struct plan *plan, const char *group, const char *id)
{
	return sections_add(&plan->hardware->sections, group, id);
}

static void add_memory(struct plan *plan)
{
	const struct hardware *hardware = plan->hardware;
	bool private = plan->input->definition->memory_private;
	struct section *section = add(plan, "memory", NULL);

	section_setf(section, "size", "%" PRIu64 "M", hardware->memory_mib);
	if (hardware->memory_max_mib > hardware->memory_mib) {
		section_setf(section, "slots", "%d", MEMORY_SLOTS);
		section_setf(section, "maxmem", "%" PRIu64 "M", hardware->memory_max_mib);
	}
	section = add(plan, "object", "ram");
	section_set(section, "qom-type", private ? "memory-backend-ram" : "memory-backend-memfd");
	section_setf(section, "size", "%" PRIu64 "M", hardware->memory_mib);
	section_set(section, "share", private ? "off" : "on");
}

/* The record's model is in its canonical form: each flag has a value. */
static void set_cpu_model(struct section *section, const char *model)
{
	size_t length = cpu_model_name_length(model);

	section_setf(section, "model", "%.*s", (int)length, model);
	for (const char *flag = model + length; *flag; flag += length) {
		CLEANUP_FREE char *name = NULL;
		size_t named = strcspn(++flag, "=");

		length = strcspn(flag, ",");
		name = xasprintf("%.*s", (int)named, flag);
		section_setf(section, name, "%.*s", (int)(length - named - 1), flag + named + 1);
	}
}

static void add_cpu(struct plan *plan)
{
	const struct hardware *hardware = plan->hardware;
	struct section *section = add(plan, "cpu", NULL);

	set_cpu_model(section, hardware->cpu_model);
	if (qemu_cpu_is_named(hardware->cpu_model))
		section_set(section, "enforce", "on");
	section = add(plan, "smp-opts", NULL);
	section_setf(section, "cpus", "%u", hardware->cores);
	section_set(section, "sockets", "1");
	section_setf(section, "cores", "%u", hardware->cores_max);
	section_set(section, "threads", "1");
	section_setf(section, "maxcpus", "%u", hardware->cores_max);
}

/* System management mode is there or not depending on the host's KVM unless it is said. */
static void add_board(struct plan *plan)
{
	const struct definition *definition = plan->input->definition;
	struct section *section = add(plan, "machine", NULL);

	section_set(section, "type", plan->hardware->machine_type);
	section_set(section, "memory-backend", "ram");
	section_set(section, "smm", "off");
	section_set(section, "usb", "off");
	section_set(add(plan, "accel", NULL), "accel", plan->hardware->accelerator);
	add_cpu(plan);
	add_memory(plan);
	section_set(add(plan, "rtc", NULL), "base", "utc");
	section = add(plan, "boot-opts", NULL);
	section_set(section, "menu", "off");
	section_set(section, "strict", "on");
	if (definition->kernel && definition->kernel_args && *definition->kernel_args)
		section_set(add(plan, "kernel", NULL), "append", definition->kernel_args);
}

static void set_virtio(struct plan *plan, struct section *device)
{
	/* Behind a root port modern only; on pc's bus both, as the machine type has it. */
	section_set(device, "disable-legacy", plan->board == BOARD_Q35 ? "on" : "off");
	section_set(device, "disable-modern", "off");
}

static struct section *add_device(struct sections *devices, const char *id, const char *driver)
{
	struct section *device = sections_add(devices, "device", id);

	section_set(device, "driver", driver);
	return device;
}

static void add_disk(struct plan *plan, const struct definition_volume *volume, bool boots,
		     struct sections *devices)
{
	CLEANUP_FREE char *id = xasprintf("disk-%s", volume->name);
	unsigned cores = plan->hardware->cores;
	struct section *device = add_device(devices, id, "virtio-blk-pci");

	set_virtio(plan, device);
	section_setf(device, "drive", "vol-%s", volume->name);
	section_setf(device, "serial", "%.*s", SERIAL_MAX, volume->name);
	section_setf(device, "num-queues", "%u", cores < QUEUES_MAX ? cores : QUEUES_MAX);
	section_set(device, "write-cache", strcmp(volume->cache, "directsync") == 0 ? "off" : "on");
	section_set(device, "logical_block_size", "512");
	section_set(device, "physical_block_size", "512");
	if (boots)
		section_set(device, "bootindex", "1");
}

static int add_disks(struct plan *plan, struct sections *devices, struct error *err)
{
	const struct definition *definition = plan->input->definition;
	bool found = !definition->boot || definition->n_volumes == 0;

	for (size_t i = 0; i < definition->n_volumes; i++) {
		const struct definition_volume *volume = &definition->volumes[i];
		bool boots =
			definition->boot ? strcmp(volume->name, definition->boot) == 0 : i == 0;

		found |= boots;
		add_disk(plan, volume, boots, devices);
	}
	if (!found)
		return error_refuse(err, "boot names the volume '%s', there is none",
				    definition->boot);
	return 0;
}

static void add_nic(struct plan *plan, const struct definition_nic *nic, struct sections *devices)
{
	CLEANUP_FREE char *id = xasprintf("nic-%s", nic->name);
	struct section *device = add_device(devices, id, nic->model);

	if (strncmp(nic->model, "virtio-", 7) == 0)
		set_virtio(plan, device);
	section_setf(device, "netdev", "net-%s", nic->name);
	section_set(device, "mac", nic->mac);
	/* Its size is in the migration stream, its content depends on the package. */
	section_set(device, "romfile", "");
}

static void add_entropy(struct plan *plan, struct sections *devices)
{
	struct section *device = add_device(devices, "rng0", "virtio-rng-pci");

	set_virtio(plan, device);
	section_set(device, "rng", "entropy");
	section_set(device, "max-bytes", "1024"); /* 1 KiB each 100 ms (fc-qemu P19) */
	section_set(device, "period", "100");
	section_set(add(plan, "object", "entropy"), "qom-type", "rng-builtin");
}

/* Those with a place of their own, the same in every VM. */
static int add_fixed(struct plan *plan, struct error *err)
{
	static const struct {
		const char *vga, *driver;
	} cards[] = {
		{ "std", "VGA" },     { "virtio", "virtio-vga" },  { "cirrus", "cirrus-vga" },
		{ "qxl", "qxl-vga" }, { "vmware", "vmware-svga" },
	};
	const char *vga = plan->input->definition->vga, *driver = NULL;
	const char *bus = plan->board == BOARD_Q35 ? "pcie.0" : "pci.0";
	struct section *device;

	for (size_t i = 0; vga && i < ARRAY_SIZE(cards); i++) {
		if (strcmp(vga, cards[i].vga) == 0)
			driver = cards[i].driver;
	}
	if (vga && !driver && strcmp(vga, "none") != 0)
		return error_refuse(
			err, "no such vga '%s': use std, virtio, cirrus, qxl, vmware or none", vga);
	if (driver) {
		device = add(plan, "device", "vga");
		section_set(device, "driver", driver);
		section_set(device, "bus", bus);
		section_set(device, "addr", plan->board == BOARD_Q35 ? "0x1" : "0x2");
	}
	device = add(plan, "device", "panic0");
	section_set(device, "driver", "pvpanic-pci");
	section_set(device, "bus", bus);
	section_set(device, "addr", "0x3");
	device = add(plan, "device", "serial0");
	section_set(device, "driver", "isa-serial");
	section_set(device, "bus", "isa.0");
	section_set(device, "index", "0");
	section_set(device, "chardev", "serial0");
	return 0;
}

static void add_agent_port(struct plan *plan)
{
	struct section *device = add(plan, "device", "agent0");

	section_set(device, "driver", "virtserialport");
	section_set(device, "bus", "vserial0.0");
	section_set(device, "nr", "1");
	section_set(device, "name", "org.qemu.guest_agent.0");
	section_set(device, "chardev", "agent0");
}

static void add_all(struct plan *plan, const struct sections *from)
{
	for (size_t i = 0; i < from->count; i++)
		sections_copy(&plan->hardware->sections, &from->items[i]);
}

static int plan_devices(struct plan *plan, struct error *err)
{
	const struct definition *definition = plan->input->definition;
	CLEANUP(sections_done) struct sections devices = { 0 };
	CLEANUP(sections_done) struct sections ports = { 0 };
	struct section *serial;
	int r;

	r = add_disks(plan, &devices, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < definition->n_nics; i++)
		add_nic(plan, &definition->nics[i], &devices);
	serial = add_device(&devices, "vserial0", "virtio-serial-pci");
	set_virtio(plan, serial);
	section_set(serial, "max_ports", "31");
	add_entropy(plan, &devices);
	r = address_assign(plan->board, &devices, plan->last, &plan->site, &ports, err);
	if (r < 0)
		return r;
	add_all(plan, &ports);
	r = add_fixed(plan, err);
	if (r < 0)
		return r;
	add_all(plan, &devices);
	add_agent_port(plan);
	return 0;
}

/* What a template may use: the plan, and every plain parameter of the definition. */
static json_t *template_vars(const struct plan *plan)
{
	const struct hardware *hardware = plan->hardware;
	const struct definition *definition = plan->input->definition;
	json_t *vars = json_object(), *value;
	const char *key;
	struct section holder = { .props = vars };

	section_set(&holder, "name", definition->name);
	section_setf(&holder, "id", "%" PRId64, definition->id);
	section_set(&holder, "uuid", hardware->uuid);
	section_set(&holder, "machine_type", hardware->machine_type);
	section_set(&holder, "accelerator", hardware->accelerator);
	section_set(&holder, "cpu_model", hardware->cpu_model);
	section_setf(&holder, "memory", "%" PRIu64, hardware->memory_mib);
	section_setf(&holder, "memory_max", "%" PRIu64, hardware->memory_max_mib);
	section_setf(&holder, "cores", "%u", hardware->cores);
	section_setf(&holder, "cores_max", "%u", hardware->cores_max);
	section_set(&holder, "pci_bus", plan->board == BOARD_Q35 ? "pcie.0" : "pci.0");
	json_object_foreach(json_object_get(definition->tree, "parameters"), key, value)
	{
		if (section_get(&holder, key))
			continue;
		if (json_is_string(value))
			section_set(&holder, key, json_string_value(value));
		else if (json_is_integer(value))
			section_setf(&holder, key, "%lld", (long long)json_integer_value(value));
		else if (json_is_boolean(value))
			section_set(&holder, key, json_is_true(value) ? "on" : "off");
	}
	return vars;
}

/* Hardware sections stay in plan->site, the others go to the caller for the binding. */
static int plan_template(struct plan *plan, struct error *err)
{
	CLEANUP(sections_done) struct sections all = { 0 };
	json_auto_t *vars = NULL;
	int r;

	if (!plan->input->template_text)
		return 0;
	vars = template_vars(plan);
	r = template_parse(plan->input->template_label, plan->input->template_text, vars, &all,
			   err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < all.count; i++) {
		if (section_is_hardware(all.items[i].group))
			sections_copy(&plan->site, &all.items[i]);
		else if (plan->input->ret_template_binding)
			sections_copy(plan->input->ret_template_binding, &all.items[i]);
	}
	return 0;
}

/* What other parts of Drover count on: the definition says these, and nobody else. */
static const struct {
	const char *group, *id, *key, *parameter;
} pinned[] = {
	{ "machine", NULL, "type", "machine_type" },
	{ "machine", NULL, "memory-backend", "memory_backend" },
	{ "accel", NULL, "accel", "accelerator" },
	{ "cpu", NULL, "model", "cpu_model" },
	{ "smp-opts", NULL, "cpus", "cores" },
	{ "smp-opts", NULL, "maxcpus", "cores_max" },
	{ "memory", NULL, "size", "memory" },
	{ "memory", NULL, "maxmem", "memory_max" },
	{ "object", "ram", "size", "memory" },
};

static const char *get(const struct sections *sections, size_t i)
{
	const struct section *section = sections_find(sections, pinned[i].group, pinned[i].id);
	const char *value = section ? section_get(section, pinned[i].key) : NULL;

	return value ? value : "";
}

static int merge_template(struct plan *plan, struct error *err)
{
	CLEANUP(sections_done) struct sections merged = { 0 };
	struct sections *sections = &plan->hardware->sections;
	int r;

	for (size_t i = 0; i < sections->count; i++)
		sections_copy(&merged, &sections->items[i]);
	r = template_merge(&merged, &plan->site, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(pinned); i++) {
		if (strcmp(get(&merged, i), get(sections, i)) != 0)
			return error_refuse(err,
					    "[%s] %s = \"%s\" cannot be set here; it comes "
					    "from the definition (%s: \"%s\")",
					    pinned[i].group, pinned[i].key, get(&merged, i),
					    pinned[i].parameter, get(sections, i));
	}
	sections_done(sections);
	*sections = merged;
	merged = (struct sections){ 0 };
	return 0;
}

static int plan_all(struct plan *plan, struct error *err)
{
	int r;

	r = plan_machine(plan, err);
	if (r < 0)
		return r;
	plan_accelerator(plan);
	r = plan_cpu(plan, err);
	if (r < 0)
		return r;
	r = plan_uuid(plan, err);
	if (r < 0)
		return r;
	plan_sizes(plan);
	plan_origin(plan);
	r = plan_template(plan, err);
	if (r < 0)
		return r;
	add_board(plan);
	r = plan_devices(plan, err);
	if (r < 0)
		return r;
	r = merge_template(plan, err);
	if (r < 0)
		return error_prefix(err, r, "%s", plan->input->template_label);
	return address_check(&plan->hardware->sections, err);
}

int hardware_plan(const struct hardware_input *input, struct hardware **ret, struct text *notes,
		  struct error *err)
{
	CLEANUP(hardwarep) struct hardware *hardware = xcalloc(1, sizeof(*hardware));
	struct plan plan = { .input = input, .hardware = hardware };
	int r = plan_all(&plan, err);

	sections_done(&plan.site);
	if (r < 0)
		return r;
	if (input->last && notes)
		hardware_changes(input->last, hardware, notes);
	*ret = TAKE_PTR(hardware);
	return 0;
}
