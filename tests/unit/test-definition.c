/* SPDX-License-Identifier: Apache-2.0 */
/* Definitions: what is right is read, what is wrong gets its sentence.  tests/bad-definitions holds
 * pairs NAME.yaml and NAME.expected. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>

#include "model/cpu-model.h"
#include "model/definition.h"
#include "util/mem.h"
#include "wire/document.h"
#include "wire/json.h"
#include "written.h"

#define DOCS TEST_SOURCE_DIR "/docs/"

static void definition_freep(struct definition **definition)
{
	(void)definition_free(*definition);
}

#define DEFINITION CLEANUP(definition_freep) struct definition *definition = NULL

/* The first document of a text; what is wrong with either the YAML or the definition is in `err`.
 */
static int parse(const char *label, const char *text, struct definition **ret,
		 struct definition_notes *notes, struct error *err)
{
	struct document **documents = NULL;
	size_t count = 0;
	int r;

	r = documents_parse(label, text, strlen(text), &documents, &count, err);
	if (r < 0)
		return r;
	assert_int_equal(count, 1);
	r = definition_parse(documents[0], ret, notes, err);
	documents_free(documents, count);
	return r;
}

static struct definition *parse_good(const char *text)
{
	struct definition *definition = NULL;
	struct error err = { 0 };

	if (parse("t.yaml", text, &definition, NULL, &err) < 0)
		fail_msg("%s", err.text);
	return definition;
}

static void assert_bad(const char *text, const char *message)
{
	struct definition *definition = NULL;
	struct error err = { 0 };

	assert_int_equal(parse("t.yaml", text, &definition, NULL, &err), -EBADMSG);
	assert_null(definition);
	assert_int_equal(err.class, ERROR_BAD_DATA);
	assert_string_equal(err.text, message);
}

static void read_file(const char *path, char **ret_text)
{
	struct error err = { 0 };

	if (file_read(AT_FDCWD, path, WRITTEN_SIZE_MAX, ret_text, NULL, &err) < 0)
		fail_msg("%s", err.text);
}

static void a_name_alone_is_a_definition(void **state)
{
	DEFINITION;

	definition = parse_good("name: web01\n");
	assert_string_equal(definition->name, "web01");
	assert_true(definition->online);
	assert_false(definition->kvm_host_given);
	assert_string_equal(definition->kvm_host, "");
	assert_int_equal(definition->id, -1);
	assert_int_equal(definition->memory_mib, 512);
	assert_int_equal(definition->memory_max_mib, 512);
	assert_int_equal(definition->cores, 1);
	assert_int_equal(definition->cores_max, 1);
	assert_int_equal(definition->n_volumes, 0);
	assert_int_equal(definition->n_nics, 0);
	assert_int_equal(definition->accelerator, ACCEL_AUTO);
	assert_int_equal(definition->firmware, FIRMWARE_BIOS);
	assert_null(definition->firmware_path);
	assert_int_equal(definition->on_panic, PANIC_REPORT);
	assert_true(definition->acpi_shutdown);
	assert_false(definition->memory_private);
	assert_string_equal(definition->vga, "std");
	assert_null(definition->uuid);
	assert_null(definition->machine_type);
	assert_null(definition->cpu_model);
	assert_int_equal(definition->graceful_usec, 0);
	assert_int_equal(definition->migration_method, MIGRATE_DEFAULT);
	assert_int_equal(definition->migration_max_downtime, 0);
	assert_int_equal(definition->migration_bandwidth, 0);
}

static void the_example_of_fc_qemus_manual_loads_unchanged(void **state)
{
	DEFINITION;
	CLEANUP_FREE char *text = NULL;

	read_file(TEST_SOURCE_DIR "/examples/test00.yaml", &text);
	definition = parse_good(text);
	assert_string_equal(definition->name, "test00");
	assert_int_equal(definition->id, 12345);
	assert_true(definition->kvm_host_given);
	assert_string_equal(definition->kvm_host, "bob");
	assert_int_equal(definition->n_volumes, 1);
	assert_string_equal(definition->volumes[0].name, "root");
	assert_int_equal(definition->volumes[0].size, UINT64_C(5) << 30);
	assert_int_equal(definition->n_nics, 2);
	assert_string_equal(definition->nics[0].name, "srv");
	assert_string_equal(definition->nics[0].mac, "00:01:02:03:05:06");
	assert_string_equal(definition->nics[1].network, "fe");
	assert_string_equal(definition->nics[1].mac, "00:01:02:03:05:06");
}

static void every_example_is_right_and_has_nothing_unknown(void **state)
{
	static const char *const examples[] = { "test00", "web01", "nat" };

	for (size_t i = 0; i < ARRAY_SIZE(examples); i++) {
		DEFINITION;
		CLEANUP(definition_notes_done) struct definition_notes notes = { 0 };
		CLEANUP_FREE char *path = NULL;
		CLEANUP_FREE char *text = NULL;
		struct error err = { 0 };

		path = xasprintf(TEST_SOURCE_DIR "/examples/%s.yaml", examples[i]);
		read_file(path, &text);
		if (parse(path, text, &definition, &notes, &err) < 0)
			fail_msg("%s", err.text);
		assert_int_equal(notes.count, 0);
	}
}

static void every_key_of_a_volume_arrives(void **state)
{
	DEFINITION;
	const struct definition_volume *volume;

	definition =
		parse_good("name: a\n"
			   "parameters:\n"
			   "  boot: data\n"
			   "  volumes:\n"
			   "  - {name: root, size: 5, source: /s.img, overlay: true}\n"
			   "  - {name: data, size: 512MiB, format: qcow2, read_only: true,\n"
			   "     cache: directsync, aio: native}\n"
			   "  - {name: raw, path: /dev/vdb, aio: io_uring, cache: writeback}\n");
	assert_int_equal(definition->n_volumes, 3);
	volume = &definition->volumes[0];
	assert_int_equal(volume->size, UINT64_C(5) << 30);
	assert_true(volume->overlay);
	assert_int_equal(volume->format, 1);
	assert_string_equal(volume->source, "/s.img");
	assert_string_equal(volume->cache, "none");
	assert_string_equal(volume->aio, "threads");
	volume = &definition->volumes[1];
	assert_int_equal(volume->size, UINT64_C(512) << 20);
	assert_int_equal(volume->format, 1);
	assert_true(volume->read_only);
	assert_string_equal(volume->aio, "native");
	volume = &definition->volumes[2];
	assert_int_equal(volume->size, 0);
	assert_int_equal(volume->format, 0);
	assert_string_equal(volume->path, "/dev/vdb");
	assert_string_equal(definition->boot, "data");
}

static void disk_gives_its_size_to_a_root_that_has_none(void **state)
{
	DEFINITION;

	definition = parse_good("name: a\nparameters:\n  disk: 7\n"
				"  volumes: [{name: data, size: 1G}, {name: root}]\n");
	assert_int_equal(definition->n_volumes, 2);
	assert_int_equal(definition->volumes[1].size, UINT64_C(7) << 30);
}

static void disk_does_not_change_a_root_that_has_a_size(void **state)
{
	DEFINITION;

	definition = parse_good("name: a\nparameters:\n  disk: 7\n"
				"  volumes: [{name: root, size: 1G}]\n");
	assert_int_equal(definition->n_volumes, 1);
	assert_int_equal(definition->volumes[0].size, UINT64_C(1) << 30);
}

static void disk_puts_root_before_the_other_volumes(void **state)
{
	DEFINITION;

	definition = parse_good("name: a\nparameters:\n  disk: 7\n"
				"  volumes: [{name: data, size: 1G}]\n");
	assert_int_equal(definition->n_volumes, 2);
	assert_string_equal(definition->volumes[0].name, "root");
	assert_string_equal(definition->volumes[0].cache, "none");
	assert_string_equal(definition->volumes[1].name, "data");
}

static void nics_come_in_our_form_too(void **state)
{
	DEFINITION;

	definition = parse_good("name: a\nparameters:\n  nics:\n"
				"  - {network: srv, mac: '52:54:00:AB:CD:EF', bridge: br0}\n"
				"  - {network: user, model: e1000}\n"
				"  - {network: lab, mode: none}\n"
				"  - {mode: user}\n");
	assert_int_equal(definition->n_nics, 4);
	assert_string_equal(definition->nics[0].mac, "52:54:00:ab:cd:ef");
	assert_string_equal(definition->nics[0].bridge, "br0");
	assert_int_equal(definition->nics[0].mode, NIC_BRIDGE);
	assert_string_equal(definition->nics[0].model, "virtio-net-pci");
	assert_int_equal(definition->nics[1].mode, NIC_USER);
	assert_string_equal(definition->nics[1].model, "e1000");
	assert_null(definition->nics[1].bridge);
	assert_int_equal(definition->nics[2].mode, NIC_NONE);
	assert_string_equal(definition->nics[3].name, "user-1");
}

static void two_cards_on_one_network_have_names_and_addresses_of_their_own(void **state)
{
	DEFINITION;

	definition = parse_good("name: a\nparameters:\n"
				"  nics: [{network: srv}, {network: srv-1}, {network: srv}]\n");
	assert_string_equal(definition->nics[0].name, "srv");
	assert_string_equal(definition->nics[1].name, "srv-1");
	assert_string_equal(definition->nics[2].name, "srv-2");
	assert_string_not_equal(definition->nics[0].mac, definition->nics[2].mac);
}

static void a_made_address_is_the_same_every_time(void **state)
{
	DEFINITION;

	/* Guests remember it (udev names, DHCP leases): it must not change in a later version. */
	definition = parse_good("name: web01\nparameters: {nics: [{network: srv}]}\n");
	assert_string_equal(definition->nics[0].mac, "52:54:00:25:79:03");
}

static void interfaces_make_cards_and_their_later_keys_are_noted(void **state)
{
	DEFINITION;
	CLEANUP(definition_notes_done) struct definition_notes notes = { 0 };
	struct error err = { 0 };
	static const char text[] = "name: a\n"
				   "parameters:\n"
				   "  interfaces:\n"
				   "    fe:\n"
				   "      mac: 02-00-00-00-00-01\n"
				   "      bridged: false\n"
				   "      policy: puppet\n"
				   "      routed: true\n"
				   "      networks:\n"
				   "        10.0.0.0/8: [10.1.2.3, 10.255.255.255]\n"
				   "        2001:db8::/33: ['2001:db8:7fff::1']\n"
				   "        0.0.0.0/0: [192.0.2.1]\n"
				   "      gateways: {10.0.0.0/8: 10.0.0.1}\n"
				   "    srv: {networks: null}\n"
				   "    sto:\n";

	assert_int_equal(parse("t.yaml", text, &definition, &notes, &err), 0);
	assert_int_equal(definition->n_nics, 3);
	assert_string_equal(definition->nics[0].mac, "02:00:00:00:00:01");
	assert_string_equal(definition->nics[2].network, "sto");
	assert_true(notes.count >= 3);
	assert_string_equal(notes.lines[0],
			    "t.yaml:6:7: parameters.interfaces.fe.bridged: accepted and stored; "
			    "Drover does not act on it yet");
}

static void an_unknown_key_is_kept_and_noted_with_a_guess(void **state)
{
	DEFINITION;
	CLEANUP(definition_notes_done) struct definition_notes notes = { 0 };
	struct error err = { 0 };

	assert_int_equal(parse("t.yaml", "name: a\nparameters:\n  memroy: 7\n  colour: red\n",
			       &definition, &notes, &err),
			 0);
	assert_int_equal(notes.count, 2);
	assert_string_equal(notes.lines[0],
			    "t.yaml:3:3: parameters.memroy: unknown key, kept as it "
			    "is; did you mean 'memory'?");
	assert_string_equal(notes.lines[1],
			    "t.yaml:4:3: parameters.colour: unknown key, kept as it is");
	assert_int_equal(json_integer_value(json_object_get(
				 json_object_get(definition->tree, "parameters"), "memroy")),
			 7);
}

static void kvm_host_present_and_empty_differs_from_absent(void **state)
{
	static const char *const empty[] = { "kvm_host:", "kvm_host: ''", "kvm_host: null" };

	for (size_t i = 0; i < ARRAY_SIZE(empty); i++) {
		DEFINITION;
		CLEANUP_FREE char *text = xasprintf("name: a\nparameters:\n  %s\n", empty[i]);

		definition = parse_good(text);
		assert_true(definition->kvm_host_given);
		assert_string_equal(definition->kvm_host, "");
	}
}

static void puppet_guests_are_shut_down_by_ctrl_alt_del(void **state)
{
	DEFINITION;

	definition = parse_good("name: a\nparameters: {environment_class: PUPPET}\n");
	assert_false(definition->acpi_shutdown);
}

static void the_remaining_keys_arrive(void **state)
{
	DEFINITION;

	definition = parse_good("name: web.example.org\nparameters:\n"
				"  online: false\n  memory: 1024\n  memory_max: 4096\n"
				"  cores: 2\n  cores_max: 4\n  kernel: /k\n  initrd: /i\n"
				"  kernel_args: a=b c\n  firmware: /usr/share/qemu/qboot.rom\n"
				"  machine_type: pc-q35-7.2\n  accelerator: tcg\n"
				"  cpu_model: EPYC-v3,ibpb,pdpe1gb\n  on_panic: off\n  vga: none\n"
				"  uuid: B9E0A0F4-5F0D-4D0A-9F3D-0D6F0E6F1C2B\n"
				"  graceful_timeout: 90s\n  lease: stop\n"
				"  memory_backend: private\n  machine: virtual\n"
				"  migration_method: shutdown\n"
				"  migration_max_downtime: 2s\n  migration_bandwidth: 10M\n"
				"  migration_postcopy: true\n");
	assert_false(definition->online);
	assert_int_equal(definition->memory_max_mib, 4096);
	assert_int_equal(definition->cores_max, 4);
	assert_string_equal(definition->kernel_args, "a=b c");
	assert_int_equal(definition->firmware, FIRMWARE_PATH);
	assert_string_equal(definition->firmware_path, "/usr/share/qemu/qboot.rom");
	assert_string_equal(definition->machine_type, "pc-q35-7.2");
	assert_int_equal(definition->accelerator, ACCEL_TCG);
	assert_string_equal(definition->cpu_model, "EPYC-v3,ibpb,pdpe1gb");
	assert_int_equal(definition->on_panic, PANIC_OFF);
	assert_string_equal(definition->vga, "none");
	assert_string_equal(definition->uuid, "b9e0a0f4-5f0d-4d0a-9f3d-0d6f0e6f1c2b");
	assert_int_equal(definition->graceful_usec, 90000000);
	assert_string_equal(definition->lease, "stop");
	assert_true(definition->memory_private);
	assert_int_equal(definition->migration_method, MIGRATE_SHUTDOWN);
	assert_int_equal(definition->migration_max_downtime, 2000000);
	assert_int_equal(definition->migration_bandwidth, 10 << 20);
	assert_true(definition->migration_postcopy);
}

/* What QEMU takes for the same has one form, so that no guest gets other hardware for a matter of
 * taste. */
static void flags_of_a_cpu_model_have_one_form(void **state)
{
	static const struct {
		const char *text, *canonical;
	} rows[] = {
		{ "qemu64", "qemu64" },
		{ "host", "host" },
		{ "EPYC-v3,ibpb,pdpe1gb", "EPYC-v3,ibpb=on,pdpe1gb=on" },
		{ "EPYC-v3,+pdpe1gb,ibpb=on", "EPYC-v3,ibpb=on,pdpe1gb=on" },
		{ "qemu64,-pni", "qemu64,pni=off" },
		{ "qemu64,pni=off", "qemu64,pni=off" },
		{ "max,sse4_1=off,sse4.2,-sse4a", "max,sse4-1=off,sse4.2=on,sse4a=off" },
		{ "max,ss,sse,-s", "max,s=off,ss=on,sse=on" },
		{ "max,hv_spinlocks=0x1fff,-x2apic", "max,hv-spinlocks=0x1fff,x2apic=off" },
		{ "Nehalem,model-id=as.it_is", "Nehalem,model-id=as.it_is" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		CLEANUP_FREE char *once = NULL, *twice = NULL;

		assert_return_code(cpu_model_canonical(rows[i].text, &once, NULL), 0);
		assert_string_equal(once, rows[i].canonical);
		assert_return_code(cpu_model_canonical(once, &twice, NULL), 0);
		assert_string_equal(twice, once);
	}
}

static void firmware_bios_is_no_path(void **state)
{
	DEFINITION;

	definition = parse_good("name: a\nparameters: {firmware: bios}\n");
	assert_int_equal(definition->firmware, FIRMWARE_BIOS);
	assert_null(definition->firmware_path);
}

static void a_whole_inventory_record_is_taken(void **state)
{
	DEFINITION;
	CLEANUP(definition_notes_done) struct definition_notes notes = { 0 };
	struct error err = { 0 };
	static const char text[] =
		"name: app\n"
		"consul-generation: 4711\n"
		"classes: [role::app]\n"
		"parameters: {id: 1, resource_group: rg, online: true, kvm_host: '', machine: "
		"virtual,\n"
		"  disk: 30, memory: 1024, cores: 1, rbd_pool: rbd.ssd, iops: 0, bps: 1000,\n"
		"  burst-factor: 2, burst: 60, cpu_model: qemu64, environment_class: NixOS,\n"
		"  environment_class_type: nixos, environment: fc-24.11-production, interfaces: "
		"{},\n"
		"  name: app, location: rzob, production: true, servicing: true,\n"
		"  timezone: Europe/Berlin, profile: generic, reverses: {}, service_description: "
		"'',\n"
		"  resource_group_parent: '', directory_password: s3cret, directory_ring: 1,\n"
		"  swap_size: 1073741824, tmp_size: 5368709120, ceph_id: admin, binary_generation: "
		"3}\n";

	if (parse("t.yaml", text, &definition, &notes, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(notes.count, 23);
	for (size_t i = 0; i < notes.count; i++) {
		assert_non_null(strstr(notes.lines[i], "Drover does not act on it yet"));
		assert_null(strstr(notes.lines[i], "s3cret"));
	}
}

static void each_bad_definition_gets_its_message(void **state)
{
	const char *folder = TEST_SOURCE_DIR "/tests/bad-definitions";
	unsigned count = 0, wrong = 0;
	struct dirent *entry;
	DIR *dir = opendir(folder);

	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		DEFINITION;
		const char *end = strrchr(entry->d_name, '.');
		CLEANUP_FREE char *path = NULL;
		CLEANUP_FREE char *expected_path = NULL;
		CLEANUP_FREE char *text = NULL;
		CLEANUP_FREE char *expected = NULL;
		struct error err = { 0 };

		if (!end || strcmp(end, ".yaml") != 0)
			continue;
		path = xasprintf("%s/%s", folder, entry->d_name);
		expected_path = xasprintf("%s/%.*s.expected", folder, (int)(end - entry->d_name),
					  entry->d_name);
		read_file(path, &text);
		read_file(expected_path, &expected);
		expected[strcspn(expected, "\n")] = '\0';
		count++;
		if (parse(entry->d_name, text, &definition, NULL, &err) == -EBADMSG &&
		    err.class == ERROR_BAD_DATA && strcmp(err.text, expected) == 0)
			continue;
		wrong++;
		print_error("%s\n  expected: %s\n  got:      %s\n", entry->d_name, expected,
			    err.text);
	}
	(void)closedir(dir);
	assert_true(count >= 110);
	assert_int_equal(wrong, 0);
}

static void every_message_about_a_definition_says_what_to_write(void **state)
{
	assert_bad("name: a\nparameters:\n  memory: lots\n",
		   "t.yaml:3:11: parameters.memory: \"lots\" is not a number; write MiB as a whole "
		   "number between 16 and 16777216, as in 512");
}

static void a_record_of_the_store_is_read_without_positions(void **state)
{
	DEFINITION;
	json_auto_t *good = json_pack("{s:s, s:{s:i}}", "name", "a", "parameters", "memory", 1024);
	json_auto_t *bad = json_pack("{s:s, s:{s:s}}", "name", "a", "parameters", "memory", "x");
	struct error err = { 0 };

	assert_int_equal(definition_from_json(good, &definition, &err), 0);
	assert_int_equal(definition->memory_mib, 1024);
	definition = definition_free(definition);
	assert_int_equal(definition_from_json(bad, &definition, &err), -EBADMSG);
	assert_string_equal(err.text, "parameters.memory: \"x\" is not a number; write MiB as a "
				      "whole number between 16 and 16777216, as in 512");
}

static void what_was_read_does_not_change_with_its_source(void **state)
{
	DEFINITION;
	json_auto_t *tree = json_pack("{s:s}", "name", "a");

	assert_int_equal(definition_from_json(tree, &definition, NULL), 0);
	assert_int_equal(json_object_set_new(tree, "name", json_string("b")), 0);
	assert_string_equal(definition->name, "a");
}

static void names_of_vms_are_checked(void **state)
{
	static const char *const good[] = { "a", "0", "web01", "web.example.org", "a_b-c" };
	static const char *const bad[] = { "", ".", "..", "-a", "_a", "A", "a/b", "a b", "a\n" };
	char longest[VM_NAME_MAX + 2];

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_int_equal(definition_check_name(good[i], NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(definition_check_name(bad[i], NULL), -EBADMSG);
	memset(longest, 'a', sizeof(longest));
	longest[VM_NAME_MAX + 1] = '\0';
	assert_int_equal(definition_check_name(longest, NULL), -EBADMSG);
	longest[VM_NAME_MAX] = '\0';
	assert_int_equal(definition_check_name(longest, NULL), 0);
}

static void assert_diff(const char *before, const char *after, const char *expected)
{
	CLEANUP(text_done) struct text text = { 0 };
	json_auto_t *a = NULL;
	json_auto_t *b = NULL;

	assert_int_equal(json_parse(before, strlen(before), &a, NULL), 0);
	assert_int_equal(json_parse(after, strlen(after), &b, NULL), 0);
	definition_diff(a, b, &text);
	assert_string_equal(text.text ? text.text : "", expected);
}

static void a_diff_names_each_value_that_changed(void **state)
{
	assert_diff("{\"name\":\"a\",\"parameters\":{\"memory\":512,\"x\":[1,2]}}",
		    "{\"name\":\"a\",\"parameters\":{\"x\":[1,3,4],\"memory\":1024}}",
		    "parameters.memory: 512 -> 1024\n"
		    "parameters.x[1]: 2 -> 3\n"
		    "parameters.x[2]: (none) -> 4\n");
}

static void a_diff_of_equal_definitions_is_empty(void **state)
{
	assert_diff("{\"a\":1,\"b\":{}}", "{\"b\":{},\"a\":1}", "");
}

static void a_diff_tells_what_came_and_went(void **state)
{
	assert_diff("{\"name\":\"a\",\"old\":{\"k\":true}}", "{\"name\":\"a\",\"new\":{}}",
		    "old.k: true -> (none)\n"
		    "new: (none) -> {}\n");
}

static void a_diff_never_shows_a_password(void **state)
{
	assert_diff("{\"directory_password\":\"old\"}", "{\"directory_password\":\"new\"}",
		    "directory_password: changed (not shown)\n");
}

static char *schema_text(void)
{
	json_auto_t *schema = definition_schema();
	CLEANUP_FREE char *text = json_print_pretty(schema);

	return xasprintf("%s%s", text, text[strlen(text) - 1] == '\n' ? "" : "\n");
}

static void the_documents_are_what_the_tables_say(void **state)
{
	CLEANUP(text_done) struct text reference = { 0 };
	CLEANUP_FREE char *schema = schema_text();

	definition_reference(&reference);
	written_check(DOCS "DEFINITION.md", reference.text, "test-definition");
	written_check(DOCS "definition.schema.json", schema, "test-definition");
}

static int write_docs(void)
{
	CLEANUP(text_done) struct text reference = { 0 };
	CLEANUP_FREE char *schema = schema_text();

	definition_reference(&reference);
	return written_save(DOCS "DEFINITION.md", reference.text) ||
	       written_save(DOCS "definition.schema.json", schema);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_name_alone_is_a_definition),
		cmocka_unit_test(the_example_of_fc_qemus_manual_loads_unchanged),
		cmocka_unit_test(every_example_is_right_and_has_nothing_unknown),
		cmocka_unit_test(every_key_of_a_volume_arrives),
		cmocka_unit_test(disk_gives_its_size_to_a_root_that_has_none),
		cmocka_unit_test(disk_does_not_change_a_root_that_has_a_size),
		cmocka_unit_test(disk_puts_root_before_the_other_volumes),
		cmocka_unit_test(nics_come_in_our_form_too),
		cmocka_unit_test(two_cards_on_one_network_have_names_and_addresses_of_their_own),
		cmocka_unit_test(a_made_address_is_the_same_every_time),
		cmocka_unit_test(interfaces_make_cards_and_their_later_keys_are_noted),
		cmocka_unit_test(an_unknown_key_is_kept_and_noted_with_a_guess),
		cmocka_unit_test(kvm_host_present_and_empty_differs_from_absent),
		cmocka_unit_test(puppet_guests_are_shut_down_by_ctrl_alt_del),
		cmocka_unit_test(the_remaining_keys_arrive),
		cmocka_unit_test(flags_of_a_cpu_model_have_one_form),
		cmocka_unit_test(firmware_bios_is_no_path),
		cmocka_unit_test(a_whole_inventory_record_is_taken),
		cmocka_unit_test(each_bad_definition_gets_its_message),
		cmocka_unit_test(every_message_about_a_definition_says_what_to_write),
		cmocka_unit_test(a_record_of_the_store_is_read_without_positions),
		cmocka_unit_test(what_was_read_does_not_change_with_its_source),
		cmocka_unit_test(names_of_vms_are_checked),
		cmocka_unit_test(a_diff_names_each_value_that_changed),
		cmocka_unit_test(a_diff_of_equal_definitions_is_empty),
		cmocka_unit_test(a_diff_tells_what_came_and_went),
		cmocka_unit_test(a_diff_never_shows_a_password),
		cmocka_unit_test(the_documents_are_what_the_tables_say),
	};

	if (argc > 1 && strcmp(argv[1], "--write-docs") == 0)
		return write_docs();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
