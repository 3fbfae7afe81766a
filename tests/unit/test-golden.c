/* SPDX-License-Identifier: Apache-2.0 */
/* tests/golden: a definition goes in, command line and hardware record beside it must come out.
 *
 *	NAME.yaml	definition of a first start
 *	NAME.cfg.in	the site's template, if there is one
 *	NAME.args	expected command line, one option to a line
 *	NAME.json	expected hardware record
 *	NAME.error	or the expected refusal
 *	NAME.after	this is not a first start: name of the one before it
 *	NAME.notes	and what it is told to have changed
 *
 * DROVER_GOLDEN=write writes what came out; `git diff` then shows what changed. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/config.h"
#include "model/definition.h"
#include "qemu/build.h"
#include "qemu/hardware.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"
#include "util/mem.h"
#include "wire/document.h"
#include "wire/json.h"

#define FOLDER TEST_SOURCE_DIR "/tests/golden"
#define FILE_MAX (1024 * 1024)

/* A build of no real QEMU: the expectations must not change with the host. */
static struct qemu_build build = {
	.binary = (char *)"/usr/bin/qemu-system-x86_64",
	.version = (char *)"10.0.2",
	.package = (char *)"Golden 10.0.2",
	.identity = (char *)"golden",
};

struct golden {
	struct definition *definition;
	struct hardware *hardware;
	struct sections template_binding;
	struct text notes;
};

static void goldenp(struct golden *golden)
{
	definition_free(golden->definition);
	hardware_free(golden->hardware);
	sections_done(&golden->template_binding);
	text_done(&golden->notes);
}

static char *path_of(const char *name, const char *ending)
{
	return xasprintf(FOLDER "/%s.%s", name, ending);
}

/* NULL when there is no such file. */
static char *read_text(const char *name, const char *ending)
{
	CLEANUP_FREE char *path = path_of(name, ending);
	char *text;

	return file_read(AT_FDCWD, path, FILE_MAX, &text, NULL, NULL) < 0 ? NULL : text;
}

static void expect(const char *name, const char *ending, const char *came)
{
	const char *mode = getenv("DROVER_GOLDEN");
	CLEANUP_FREE char *path = path_of(name, ending);
	CLEANUP_FREE char *expected = NULL;

	if (mode && strcmp(mode, "write") == 0) {
		assert_return_code(file_write(AT_FDCWD, path, came, strlen(came), 0644, NULL), 0);
		return;
	}
	expected = read_text(name, ending);
	if (!expected || strcmp(expected, came) != 0)
		print_error("%s is not what came out; DROVER_GOLDEN=write writes it anew\n", path);
	assert_string_equal(came, expected ? expected : "");
}

static struct definition *read_definition(const char *name)
{
	CLEANUP_FREE char *text = read_text(name, "yaml");
	struct document **documents = NULL;
	struct definition *definition = NULL;
	struct definition_notes notes = { 0 };
	struct error err = { 0 };
	size_t count = 0;

	assert_non_null(text);
	assert_return_code(documents_parse(name, text, strlen(text), &documents, &count, &err), 0);
	assert_int_equal(count, 1);
	(void)definition_parse(documents[0], &definition, &notes, &err);
	assert_string_equal(err.text, "");
	definition_notes_done(&notes);
	documents_free(documents, count);
	return definition;
}

static int plan(const char *name, struct golden *ret, struct error *err)
{
	CLEANUP_FREE char *template = read_text(name, "cfg.in");
	CLEANUP_FREE char *before = read_text(name, "after");
	CLEANUP(goldenp) struct golden last = { 0 };
	struct config config = { .machine_type = (char *)"q35", .cpu_model = (char *)"qemu64" };
	struct hardware_input input = { .build = &build,
					.config = &config,
					.generation = 1,
					.template_text = template,
					.template_label = "qemu.cfg.in",
					.ret_template_binding = &ret->template_binding };

	if (before) {
		before[strcspn(before, "\n")] = '\0';
		assert_return_code(plan(before, &last, err), 0);
		input.last = last.hardware;
		input.generation = 2;
	}
	ret->definition = read_definition(name);
	input.definition = ret->definition;
	input.accelerator = ret->definition->accelerator == ACCEL_TCG ? "tcg" : "kvm";
	return hardware_plan(&input, &ret->hardware, &ret->notes, err);
}

/* As the keeper hands them over: 3 and up, in this order. */
static int bind(const struct golden *golden, struct strv *argv, struct error *err)
{
	const struct definition *definition = golden->definition;
	struct binding_volume volumes[DEFINITION_VOLUMES_MAX];
	struct binding_nic nics[DEFINITION_NICS_MAX];
	int fd = 7;
	struct binding_input input = { .hardware = golden->hardware,
				       .definition = definition,
				       .binary = build.binary,
				       .data_dir = "",
				       .vm = definition->name,
				       .token = "drover:TOKEN",
				       .monitor_fd = 3,
				       .agent_fd = 4,
				       .serial_fd = 5,
				       .serial_log_fd = 6,
				       .kernel_path = definition->kernel,
				       .initrd_path = definition->initrd,
				       .firmware_path = definition->firmware_path,
				       .volumes = volumes,
				       .n_volumes = definition->n_volumes,
				       .nics = nics,
				       .n_nics = definition->n_nics,
				       .template_binding = &golden->template_binding };

	for (size_t i = 0; i < definition->n_volumes; i++) {
		const struct definition_volume *volume = &definition->volumes[i];
		const char *format = volume->format == 1 ? "qcow2" : "raw";

		volumes[i] = (struct binding_volume){ .name = volume->name,
						      .fds = { fd, fd + 1 },
						      .formats = { format, "qcow2" },
						      .n_layers = volume->overlay ? 2 : 1,
						      .read_only = volume->read_only,
						      .cache = volume->cache,
						      .aio = volume->aio };
		fd += (int)volumes[i].n_layers;
	}
	for (size_t i = 0; i < definition->n_nics; i++) {
		const struct definition_nic *nic = &definition->nics[i];

		nics[i] = (struct binding_nic){ .name = nic->name,
						.user = nic->mode == NIC_USER,
						.tap_fd = nic->mode == NIC_BRIDGE ? fd++ : -1 };
	}
	return qemu_command_line(&input, argv, err);
}

static void print_args(const struct strv *argv, struct text *ret)
{
	for (size_t i = 0; i < argv->count; i++)
		text_addf(ret, "%s%s",
			  i == 0		     ? ""
			  : argv->items[i][0] == '-' ? " \\\n"
						     : " ",
			  argv->items[i]);
	text_addf(ret, "\n");
}

static void print_record(struct hardware *hardware, struct text *ret)
{
	CLEANUP_FREE char *text = NULL;
	json_auto_t *record = NULL;

	free(hardware->born);
	hardware->born = xstrdup("2026-11-20T09:30:00Z");
	record = hardware_json(hardware);
	text = json_print_pretty(record);
	text_addf(ret, "%s%s", text, text[strlen(text) - 1] == '\n' ? "" : "\n");
}

/* What is stored says the same after it was read again. */
static void assert_survives_json(const struct golden *golden, const struct strv *argv)
{
	CLEANUP(strv_done) struct strv again = { 0 };
	CLEANUP_FREE char *text = NULL;
	json_auto_t *record = hardware_json(golden->hardware), *back = NULL;
	struct golden copy = *golden;
	struct error err = { 0 };

	text = json_print(record);
	assert_return_code(json_parse(text, strlen(text), &back, &err), 0);
	assert_return_code(hardware_parse(back, &copy.hardware, &err), 0);
	assert_return_code(bind(&copy, &again, &err), 0);
	assert_int_equal(again.count, argv->count);
	for (size_t i = 0; i < again.count; i++)
		assert_string_equal(again.items[i], argv->items[i]);
	hardware_free(copy.hardware);
}

static void run_golden(void **state)
{
	const char *name = *state;
	CLEANUP(goldenp) struct golden golden = { 0 };
	CLEANUP(strv_done) struct strv argv = { 0 };
	CLEANUP(text_done) struct text args = { 0 };
	CLEANUP(text_done) struct text record = { 0 };
	struct error err = { 0 };
	int r = plan(name, &golden, &err);

	if (r == 0)
		r = bind(&golden, &argv, &err);
	if (r < 0) {
		text_addf(&args, "%s\n", err.text);
		expect(name, "error", args.text);
		return;
	}
	print_args(&argv, &args);
	expect(name, "args", args.text);
	assert_survives_json(&golden, &argv);
	print_record(golden.hardware, &record);
	expect(name, "json", record.text);
	if (golden.notes.text)
		expect(name, "notes", golden.notes.text);
}

static int is_definition(const struct dirent *entry)
{
	const char *dot = strrchr(entry->d_name, '.');

	return dot && strcmp(dot, ".yaml") == 0;
}

static void fill_build(void)
{
	static const char *const types[] = { "pc-i440fx-7.2", "pc-i440fx-10.0", "pc-q35-9.2",
					     "pc-q35-7.2",    "pc-q35-10.0",	"microvm" };
	static const char *const models[] = { "qemu64", "host", "max", "Haswell-v4" };

	build.machines = json_array();
	build.cpu_models = json_array();
	build.commands = json_array();
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		json_array_append_new(build.machines, json_pack("{s:s}", "name", types[i]));
	for (size_t i = 0; i < ARRAY_SIZE(models); i++)
		json_array_append_new(build.cpu_models, json_string(models[i]));
}

int main(void)
{
	struct dirent **entries;
	struct CMUnitTest *tests;
	int n, failed;

	fill_build();
	n = scandir(FOLDER, &entries, is_definition, alphasort);
	if (n <= 0) {
		(void)fprintf(stderr, "no definitions in " FOLDER "\n");
		return 1;
	}
	tests = xcalloc((size_t)n, sizeof(*tests));
	for (int i = 0; i < n; i++) {
		*strrchr(entries[i]->d_name, '.') = '\0';
		tests[i] = (struct CMUnitTest){ .name = entries[i]->d_name,
						.test_func = run_golden,
						.initial_state = entries[i]->d_name };
	}
	failed = _cmocka_run_group_tests("golden", tests, (size_t)n, NULL, NULL);
	for (int i = 0; i < n; i++)
		free(entries[i]);
	free(entries);
	free(tests);
	json_decref(build.machines);
	json_decref(build.cpu_models);
	json_decref(build.commands);
	return failed;
}
