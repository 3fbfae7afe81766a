/* SPDX-License-Identifier: Apache-2.0 */
/* From a YAML document to a `struct definition`: the tables read each key, then come the checks
 * that need more than one.  What is wrong is refused with its position; what is only unknown or
 * early is kept and noted. */
#include "model/definition.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/definition-internal.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/document.h"

static const struct key_place root_place;

static void definition_freep(struct definition **definition)
{
	(void)definition_free(*definition);
}

struct definition *definition_free(struct definition *definition)
{
	if (!definition)
		return NULL;
	json_decref(definition->tree);
	json_decref(definition->made);
	free(definition);
	return NULL;
}

void definition_notes_done(struct definition_notes *notes)
{
	for (size_t i = 0; i < notes->count; i++)
		free(notes->lines[i]);
	free(notes->lines);
	*notes = (struct definition_notes){ 0 };
}

const char *definition_keep(struct definition *definition, char *text)
{
	CLEANUP_FREE char *owned = text;
	json_t *kept = json_string(owned);

	assert(kept); /* made from checked names */
	(void)json_array_append_new(definition->made, kept);
	return json_string_value(kept);
}

int definition_read_uuid(const struct key_reader *reader, const struct key_place *place,
			 json_t *value, void *target, struct error *err)
{
	struct definition *definition = target;
	char *uuid = xstrdup(json_string_value(value));

	for (char *c = uuid; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	definition->uuid = definition_keep(definition, uuid);
	if (strspn(definition->uuid, "0-") == strlen(definition->uuid))
		return key_wrong(
			reader, place, err,
			"a uuid of all zeros is nobody's; write another, or leave out uuid and "
			"one is made");
	return 0;
}

int definition_read_firmware(const struct key_reader *reader, const struct key_place *place,
			     json_t *value, void *target, struct error *err)
{
	static const struct key path_key[] = {
		{ .name = "firmware",
		  .type = KEY_PATH,
		  .example = "/usr/share/qemu/qboot.rom",
		  .right = "bios, or the absolute path of a ROM image" },
		{ 0 },
	};
	struct definition *definition = target;
	json_auto_t *alone = NULL;

	if (strcmp(json_string_value(value), "bios") == 0) {
		definition->firmware = FIRMWARE_BIOS;
		definition->firmware_path = NULL;
		return 0;
	}
	definition->firmware = FIRMWARE_PATH;
	alone = json_pack("{s:O}", "firmware", value);
	return key_read_map(reader, place->up, path_key, alone, target, err);
}

int definition_read_environment_class(const struct key_reader *reader,
				      const struct key_place *place, json_t *value, void *target,
				      struct error *err)
{
	struct definition *definition = target;

	definition->acpi_shutdown = strcasecmp(json_string_value(value), "puppet") != 0;
	return 0;
}

static int check_maxima(const struct key_reader *reader, const struct key_place *parameters,
			struct definition *definition, struct error *err)
{
	const struct key_place at_memory = { .up = parameters, .name = "memory_max" };
	const struct key_place at_cores = { .up = parameters, .name = "cores_max" };

	if (definition->memory_max_mib == 0)
		definition->memory_max_mib = definition->memory_mib;
	if (definition->cores_max == 0)
		definition->cores_max = definition->cores;
	if (definition->memory_max_mib < definition->memory_mib)
		return key_wrong(reader, &at_memory, err,
				 "%llu MiB is less than memory; write at least %llu",
				 (unsigned long long)definition->memory_max_mib,
				 (unsigned long long)definition->memory_mib);
	if (definition->cores_max < definition->cores)
		return key_wrong(reader, &at_cores, err, "%u is less than cores; write at least %u",
				 definition->cores_max, definition->cores);
	return 0;
}

static int check_kernel(const struct key_reader *reader, const struct key_place *parameters,
			const struct definition *definition, struct error *err)
{
	const struct key_place at_initrd = { .up = parameters, .name = "initrd" };
	const struct key_place at_args = { .up = parameters, .name = "kernel_args" };

	if (definition->kernel)
		return 0;
	if (definition->initrd)
		return key_wrong(reader, &at_initrd, err,
				 "an initrd is loaded together with a kernel only; write kernel: "
				 "/path beside it");
	if (definition->kernel_args)
		return key_wrong(
			reader, &at_args, err,
			"there is no kernel to give them to; write kernel: /path beside it "
			"(a kernel on a disk has its own boot loader)");
	return 0;
}

/* Machines that are not VMs share the inventory's format. */
static int check_machine(const struct key_reader *reader, const struct key_place *parameters,
			 const struct definition *definition, struct error *err)
{
	const json_t *tree = json_object_get(definition->tree, "parameters");
	const char *machine = json_string_value(json_object_get(tree, "machine"));
	const struct key_place at_machine = { .up = parameters, .name = "machine" };

	if (machine && strcmp(machine, "physical") == 0)
		return key_wrong(
			reader, &at_machine, err,
			"'%s' is a physical machine, not a VM; write virtual, or leave this "
			"file out",
			definition->name);
	return 0;
}

static int definition_finish(const struct key_reader *reader, struct definition *definition,
			     struct error *err)
{
	static int (*const checks[])(const struct key_reader *, const struct key_place *,
				     struct definition *, struct error *) = {
		check_maxima,
		definition_finish_volumes,
		definition_finish_nics,
	};
	const json_t *tree = json_object_get(definition->tree, "parameters");
	const struct key_place parameters = { .up = &root_place, .name = "parameters" };
	int r;

	if (!definition->name)
		return key_wrong(reader, &root_place, err,
				 "the definition has no name; write name: web01 at its top");
	definition->kvm_host_given = json_object_get(tree, "kvm_host") != NULL;
	if (!definition->kvm_host)
		definition->kvm_host = "";
	r = check_machine(reader, &parameters, definition, err);
	if (r < 0)
		return r;
	r = check_kernel(reader, &parameters, definition, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
		r = checks[i](reader, &parameters, definition, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int definition_read(const struct key_reader *reader, json_t *tree,
			   struct definition **ret_definition, struct error *err)
{
	CLEANUP(definition_freep) struct definition *definition = NULL;
	char quoted[KEY_QUOTE_SIZE];
	int r;

	if (!json_is_object(tree))
		return key_wrong(reader, &root_place, err,
				 "%s is no definition; write a map with name and parameters",
				 json_is_null(tree) ? "nothing" : key_quote(tree, quoted));
	definition = xcalloc(1, sizeof(*definition));
	*definition = (struct definition){
		.tree = json_deep_copy(tree), .made = json_array(), .id = -1, .acpi_shutdown = true
	};
	assert(definition->tree && definition->made);
	key_defaults(definition_keys, definition);
	r = key_read_map(reader, &root_place, definition_keys, definition->tree, definition, err);
	if (r < 0)
		return r;
	r = definition_finish(reader, definition, err);
	if (r < 0)
		return r;
	*ret_definition = TAKE_PTR(definition);
	return 0;
}

int definition_parse(const struct document *document, struct definition **ret_definition,
		     struct definition_notes *ret_notes, struct error *err)
{
	CLEANUP(strv_done) struct strv notes = { 0 };
	const struct key_reader reader = { .document = document, .notes = &notes };
	int r;

	r = definition_read(&reader, document_root(document), ret_definition, err);
	if (r < 0)
		return r;
	if (ret_notes) {
		*ret_notes =
			(struct definition_notes){ .lines = notes.items, .count = notes.count };
		notes = (struct strv){ 0 };
	}
	return 0;
}

int definition_from_json(json_t *tree, struct definition **ret_definition, struct error *err)
{
	const struct key_reader reader = { 0 };

	return definition_read(&reader, tree, ret_definition, err);
}

int definition_check_name(const char *name, struct error *err)
{
	static const char first[] = "abcdefghijklmnopqrstuvwxyz0123456789";
	static const char more[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";
	size_t length = strnlen(name, VM_NAME_MAX + 1);

	if (length > 0 && length <= VM_NAME_MAX && strspn(name, first) > 0 &&
	    strspn(name, more) == length)
		return 0;
	return error_bad_data(err,
			      "'%.80s' is no name of a VM; write 1 to %d of a-z, 0-9, '.', '_' and "
			      "'-', beginning with a letter or digit, as in web01",
			      name, VM_NAME_MAX);
}
