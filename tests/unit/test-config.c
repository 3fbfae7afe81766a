/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration of a node, read from real directories below /tmp. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <limits.h>
#include <sys/stat.h>

#include "model/config.h"
#include "model/definition.h"
#include "util/mem.h"
#include "written.h"

#define DOC TEST_SOURCE_DIR "/docs/CONFIGURATION.md"

static void config_freep(struct config **config)
{
	(void)config_free(*config);
}

#define CONFIG CLEANUP(config_freep) struct config *config = NULL

static int make_root(void **state)
{
	char root[] = "/tmp/test-config-XXXXXX";
	CLEANUP_FREE char *real = NULL;

	if (!mkdtemp(root))
		return -1;
	real = realpath(root, NULL);
	*state = TAKE_PTR(real);
	return unsetenv("DROVER_ROOT");
}

static int remove_root(void **state)
{
	CLEANUP_FREE char *root = *state;

	return file_remove_tree(AT_FDCWD, root, NULL);
}

static void write_config(const char *root, const char *text)
{
	CLEANUP_FREE char *dir = xasprintf("%s/etc/drover", root);
	CLEANUP_FREE char *path = xasprintf("%s/drover.yaml", dir);
	struct error err = { 0 };

	if (file_make_dirs(AT_FDCWD, dir, 0755, &err) < 0 ||
	    file_write(AT_FDCWD, path, text, strlen(text), 0644, &err) < 0)
		fail_msg("%s", err.text);
}

static struct config *load_good(const char *root)
{
	struct config *config = NULL;
	struct error err = { 0 };

	if (config_load(root, &config, &err) < 0)
		fail_msg("%s", err.text);
	return config;
}

static void assert_bad(const char *root, const char *text, const char *message)
{
	CLEANUP_FREE char *expected = xasprintf("%s/etc/drover/drover.yaml:%s", root, message);
	struct config *config = NULL;
	struct error err = { 0 };

	write_config(root, text);
	assert_int_equal(config_load(root, &config, &err), -EBADMSG);
	assert_int_equal(err.class, ERROR_BAD_DATA);
	assert_null(config);
	assert_string_equal(err.text, expected);
}

static void without_a_file_the_defaults_hold(void **state)
{
	CLEANUP_FREE char *store = xasprintf("local:%s/lib/drover/store.db", (char *)*state);
	CONFIG;

	config = load_good(*state);
	assert_string_equal(config->paths.root, *state);
	assert_string_equal(config->store, store);
	assert_true(strlen(config->node) > 0);
	assert_null(strchr(config->node, '.'));
	assert_string_equal(config->qemu_binary, "qemu-system-x86_64");
	assert_string_equal(config->qemu_data, "");
	assert_non_null(strstr(config->probe_rom, "accel-probe.rom"));
	assert_string_equal(config->accelerator, "auto");
	assert_string_equal(config->machine_type, "q35");
	assert_string_equal(config->cpu_model, "qemu64");
	assert_int_equal(config->memory_limit_mib, 0);
	assert_int_equal(config->memory_overhead_mib, 512);
	assert_string_equal(config->host_dir, "/run/drover-host");
	assert_string_equal(config->log_level, "info");
	assert_true(config->log_to_file);
	assert_int_equal(config->serial_log_max, 16 << 20);
	assert_string_equal(config->bridge_prefix, "br");
	assert_int_equal(config->migration_outgoing, 1);
	assert_int_equal(config->migration_incoming, 1);
	assert_int_equal(config->migration_port, 0);
	assert_string_equal(config->migration_address, "127.0.0.1");
	assert_false(config->storage_shared);
	assert_int_equal(config->timers.graceful_stop, 60000000);
	assert_int_equal(config->timers.store_retry, 200000);
	assert_int_equal(config->timers.volume, UINT64_C(3600000000));
	assert_int_equal(config->timers.backoff_max, 300000000);
	assert_int_equal(config->timers.settle_files, 100000);
	assert_int_equal(json_object_size(config->networks), 0);
}

static void every_timer_has_a_default(void **state)
{
	CONFIG;
	const uint64_t *timers;

	config = load_good(*state);
	timers = (const uint64_t *)&config->timers;
	for (size_t i = 0; i < sizeof(config->timers) / sizeof(*timers); i++)
		assert_true(timers[i] > 0);
}

static void an_empty_file_is_fine(void **state)
{
	static const char *const texts[] = { "", "# nothing\n", "---\n" };

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		CONFIG;

		write_config(*state, texts[i]);
		config = load_good(*state);
		assert_string_equal(config->machine_type, "q35");
	}
}

static void the_file_overrides_the_defaults(void **state)
{
	CONFIG;

	write_config(*state, "node: alpha\n"
			     "store: local:/srv/drover/store.db\n"
			     "host_dir: /run/other\n"
			     "qemu:\n  binary: /opt/qemu/bin/qemu-system-x86_64\n"
			     "  data_dir: /opt/qemu/share\n  probe_rom: /x.rom\n"
			     "  uid_base: 5000\n  uid_count: 10\n"
			     "defaults: {accelerator: tcg, machine_type: pc, cpu_model: max}\n"
			     "memory: {limit_mib: 1024, overhead_mib: 64}\n"
			     "log: {level: debug, file: false, serial_max_bytes: 1MiB}\n"
			     "network: {bridge_prefix: vmbr}\n"
			     "timers: {qmp: 1min, probe: 500ms, volume: 2h}\n");
	config = load_good(*state);
	assert_string_equal(config->node, "alpha");
	assert_string_equal(config->store, "local:/srv/drover/store.db");
	assert_string_equal(config->host_dir, "/run/other");
	assert_string_equal(config->qemu_binary, "/opt/qemu/bin/qemu-system-x86_64");
	assert_string_equal(config->qemu_data, "/opt/qemu/share");
	assert_string_equal(config->probe_rom, "/x.rom");
	assert_int_equal(config->qemu_uid_base, 5000);
	assert_int_equal(config->qemu_uid_count, 10);
	assert_string_equal(config->accelerator, "tcg");
	assert_int_equal(config->memory_limit_mib, 1024);
	assert_string_equal(config->log_level, "debug");
	assert_false(config->log_to_file);
	assert_int_equal(config->serial_log_max, 1 << 20);
	assert_int_equal(config->timers.qmp, 60000000);
	assert_int_equal(config->timers.probe, 500000);
	assert_int_equal(config->timers.volume, UINT64_C(7200000000));
	assert_int_equal(config->timers.kill, 15000000);
}

static void wrong_values_get_their_line_and_what_is_right(void **state)
{
	const char *root = *state;

	assert_bad(root, "timers:\n  qpm: 10s\n",
		   "2:3: timers.qpm: unknown key; did you mean 'qmp'?");
	assert_bad(root, "nodes: alpha\n", "1:1: nodes: unknown key; did you mean 'node'?");
	assert_bad(root, "log: {colour: red}\n",
		   "1:7: log.colour: unknown key; known here are level, file and serial_max_bytes");
	assert_bad(
		root, "timers: {qmp: 10}\n",
		"1:15: timers.qmp: 10 has no unit; write a time with ms, s, min or h between 1ms "
		"and 720h, as in 10s");
	assert_bad(
		root, "timers: {qmp: 0s}\n",
		"1:15: timers.qmp: \"0s\" is too short; write a time with ms, s, min or h between "
		"1ms and 720h, as in 10s");
	assert_bad(
		root, "node: Alpha.example.org\n",
		"1:7: node: \"Alpha.example.org\" is not valid; write 1 to 63 of a-z, 0-9, '.' and "
		"'-', beginning with a letter or digit, as in alpha");
	assert_bad(root, "log: {file: yes}\n",
		   "1:13: log.file: \"yes\" is text, neither true nor false; write true without "
		   "quotes");
	assert_bad(
		root, "log: {level: verbose}\n",
		"1:14: log.level: \"verbose\" is not known; write error, warning, info or debug");
	assert_bad(root, "log: {serial_max_bytes: 1}\n",
		   "1:25: log.serial_max_bytes: 1 is too small; write a size with K, M, G or T "
		   "between "
		   "64K and 1T, as in 16MiB");
	assert_bad(root, "networks: {srv: br0}\n",
		   "1:17: networks.srv: \"br0\" is not a map; write `key: value` lines");
	assert_bad(root, "networks: {srv: {brigde: br0}}\n",
		   "1:18: networks.srv.brigde: unknown key; did you mean 'bridge'?");
	assert_bad(root, "store: /srv/store.db\n",
		   "1:8: store: \"/srv/store.db\" is not valid; write SCHEME:ADDRESS, as in "
		   "local:/var/lib/drover/store.db");
	assert_bad(
		root, "host_dir: run\n",
		"1:11: host_dir: \"run\" is not an absolute path; write an absolute path without "
		"'..', as in /run/drover-host");
	assert_bad(root, "- node\n", "1:1: a list is not a map; write `key: value` lines");
	assert_bad(root, "node: a\n---\nnode: b\n",
		   " there are 2 documents in it; write one, without '---'");
	assert_bad(root, "timers: {backoff_first: 1h}\n",
		   " timers.backoff_max is shorter than timers.backoff_first; write at least the "
		   "same");
}

static void a_file_that_cannot_be_read_is_an_error(void **state)
{
	CLEANUP_FREE char *dir = xasprintf("%s/etc/drover/drover.yaml", (char *)*state);
	struct config *config = NULL;
	struct error err = { 0 };

	assert_int_equal(file_make_dirs(AT_FDCWD, dir, 0755, NULL), 0);
	assert_true(config_load(*state, &config, &err) < 0);
	assert_non_null(strstr(err.text, "drover.yaml"));
}

static void effective_values_name_their_source(void **state)
{
	CLEANUP_FREE char *source = xasprintf("%s/etc/drover/drover.yaml:2", (char *)*state);
	CONFIG;
	json_auto_t *all = NULL;
	const json_t *entry;

	write_config(*state, "timers:\n  qmp: 90s\n");
	config = load_good(*state);
	all = config_json(config);
	entry = json_object_get(all, "timers.qmp");
	assert_string_equal(json_string_value(json_object_get(entry, "value")), "90s");
	assert_string_equal(json_string_value(json_object_get(entry, "source")), source);
	entry = json_object_get(all, "timers.backoff_max");
	assert_string_equal(json_string_value(json_object_get(entry, "value")), "5min");
	assert_string_equal(json_string_value(json_object_get(entry, "source")), "default");
	entry = json_object_get(all, "node");
	assert_string_equal(json_string_value(json_object_get(entry, "source")), "host name");
	entry = json_object_get(all, "log.serial_max_bytes");
	assert_string_equal(json_string_value(json_object_get(entry, "value")), "16M");
	assert_string_equal(json_object_iter_key(json_object_iter(all)), "node");
}

static void without_a_root_the_system_directories_are_used(void **state)
{
	CLEANUP(paths_done) struct paths paths = { 0 };

	assert_int_equal(paths_init(NULL, &paths, NULL), 0);
	assert_string_equal(paths.root, "");
	assert_string_equal(paths.etc, "/etc/drover");
	assert_string_equal(paths.run, "/run/drover");
	assert_string_equal(paths.lib, "/var/lib/drover");
	assert_string_equal(paths.log, "/var/log/drover");
}

static void the_root_comes_from_the_environment_too(void **state)
{
	CLEANUP(paths_done) struct paths paths = { 0 };
	CLEANUP_FREE char *run = xasprintf("%s/run/drover", (char *)*state);

	assert_int_equal(setenv("DROVER_ROOT", *state, 1), 0);
	assert_int_equal(paths_init(NULL, &paths, NULL), 0);
	assert_int_equal(unsetenv("DROVER_ROOT"), 0);
	assert_string_equal(paths.run, run);
}

static void each_spelling_of_a_root_is_one_root(void **state)
{
	static const char *const spellings[] = { "%s/", "%s//.", "%s/new/..", "%s/new/../" };
	CLEANUP_FREE char *new = xasprintf("%s/new", (char *)*state);
	CLEANUP_FREE char *link = xasprintf("%s/link", (char *)*state);

	assert_int_equal(mkdir(new, 0755), 0);
	for (size_t i = 0; i < ARRAY_SIZE(spellings); i++) {
		CLEANUP(paths_done) struct paths paths = { 0 };
		char spelling[PATH_MAX];

		(void)strcpy(spelling, *state);
		(void)strcat(spelling, spellings[i] + 2);
		assert_int_equal(paths_init(spelling, &paths, NULL), 0);
		assert_string_equal(paths.root, *state);
	}
	assert_int_equal(symlink(*state, link), 0);
	{
		CLEANUP(paths_done) struct paths paths = { 0 };

		assert_int_equal(paths_init(link, &paths, NULL), 0);
		assert_string_equal(paths.root, *state);
	}
}

static void a_root_may_be_relative_and_need_not_exist_yet(void **state)
{
	static const char *const spellings[] = { "a/b", "./a/b", "a//b/", "a/./b/." };
	CLEANUP_FREE char *expected = xasprintf("%s/a/b", (char *)*state);
	char before[PATH_MAX];

	assert_non_null(getcwd(before, sizeof(before)));
	assert_int_equal(chdir(*state), 0);
	for (size_t i = 0; i < ARRAY_SIZE(spellings); i++) {
		CLEANUP(paths_done) struct paths paths = { 0 };

		assert_int_equal(paths_init(spellings[i], &paths, NULL), 0);
		assert_string_equal(paths.root, expected);
	}
	assert_int_equal(chdir(before), 0);
}

static void a_root_that_goes_up_from_nowhere_is_refused(void **state)
{
	CLEANUP_FREE char *root = xasprintf("%s/nowhere/../x", (char *)*state);
	struct paths paths = { 0 };

	assert_int_equal(paths_init(root, &paths, NULL), -ENOENT);
}

static void a_card_is_plugged_in_where_the_node_says(void **state)
{
	CONFIG;
	enum nic_mode mode;
	char bridge[16];
	const struct {
		struct definition_nic nic;
		enum nic_mode mode;
		const char *bridge;
	} cases[] = {
		{ { .network = "srv" }, NIC_BRIDGE, "vmbr7" },
		{ { .network = "srv", .bridge = "br0" }, NIC_BRIDGE, "br0" },
		{ { .network = "srv", .mode = NIC_NONE, .mode_given = true }, NIC_NONE, "" },
		{ { .network = "fe" }, NIC_BRIDGE, "brfe" },
		{ { .network = "lab" }, NIC_USER, "" },
		{ { .network = "lab", .mode_given = true }, NIC_BRIDGE, "brlab" },
		{ { .network = "user", .mode = NIC_USER }, NIC_USER, "" },
	};

	write_config(*state, "networks:\n  srv: {bridge: vmbr7}\n  lab: {mode: user}\n");
	config = load_good(*state);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(config_nic(config, &cases[i].nic, &mode, bridge, NULL), 0);
		assert_int_equal(mode, cases[i].mode);
		assert_string_equal(bridge, cases[i].bridge);
	}
}

static void a_bridge_whose_name_is_too_long_is_refused_with_a_way_out(void **state)
{
	const struct definition_nic nic = { .network = "a-network-of-many-letters" };
	struct error err = { 0 };
	enum nic_mode mode;
	char bridge[16];
	CONFIG;

	config = load_good(*state);
	assert_int_equal(config_nic(config, &nic, &mode, bridge, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "networks.a-network-of-many-letters.bridge"));
}

static void the_document_is_what_the_table_says(void **state)
{
	CLEANUP(text_done) struct text reference = { 0 };

	config_reference(&reference);
	written_check(DOC, reference.text, "test-config");
}

static int write_docs(void)
{
	CLEANUP(text_done) struct text reference = { 0 };

	config_reference(&reference);
	return written_save(DOC, reference.text);
}

#define IN_ROOT(test) cmocka_unit_test_setup_teardown(test, make_root, remove_root)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		IN_ROOT(without_a_file_the_defaults_hold),
		IN_ROOT(every_timer_has_a_default),
		IN_ROOT(an_empty_file_is_fine),
		IN_ROOT(the_file_overrides_the_defaults),
		IN_ROOT(wrong_values_get_their_line_and_what_is_right),
		IN_ROOT(a_file_that_cannot_be_read_is_an_error),
		IN_ROOT(effective_values_name_their_source),
		IN_ROOT(without_a_root_the_system_directories_are_used),
		IN_ROOT(the_root_comes_from_the_environment_too),
		IN_ROOT(each_spelling_of_a_root_is_one_root),
		IN_ROOT(a_root_may_be_relative_and_need_not_exist_yet),
		IN_ROOT(a_root_that_goes_up_from_nowhere_is_refused),
		IN_ROOT(a_card_is_plugged_in_where_the_node_says),
		IN_ROOT(a_bridge_whose_name_is_too_long_is_refused_with_a_way_out),
		cmocka_unit_test(the_document_is_what_the_table_says),
	};

	if (argc > 1 && strcmp(argv[1], "--write-docs") == 0)
		return write_docs();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
