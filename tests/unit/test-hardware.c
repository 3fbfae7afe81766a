/* SPDX-License-Identifier: Apache-2.0 */
/* The hardware record, and a real QEMU that must be what the record says. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/config.h"
#include "model/definition.h"
#include "qemu/build.h"
#include "qemu/hardware.h"
#include "qemu/tree.h"
#include "qmp/qmp.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/file.h"
#include "util/mem.h"
#include "util/process.h"
#include "util/spawn.h"
#include "wire/json.h"
#include "wire/sock.h"

#define QEMU "qemu-system-x86_64"
#define LONG (60 * USEC_PER_SEC)

/* ---- a QEMU made from a definition ---- */

struct machine {
	char dir[64];
	int dir_fd;
	struct qemu_build *build;
	struct definition *definition;
	struct hardware *hardware;
	sd_event *loop;
	struct qmp *qmp;
	int pidfd;
	bool ready, gone;
	int replies, code;
	struct error error;
};

static void on_ready(void *ctx, json_t *greeting)
{
	struct machine *machine = ctx;

	machine->ready = true;
}

static void on_gone(void *ctx, const struct error *why)
{
	struct machine *machine = ctx;

	machine->gone = true;
}

static const struct qmp_ops ops = { .ready = on_ready, .gone = on_gone };

static void on_verified(void *ctx, int r, const struct error *err)
{
	struct machine *machine = ctx;

	machine->replies++;
	machine->code = r;
	if (err)
		machine->error = *err;
}

static const char definition_text[] =
	"{\"name\": \"test\", \"parameters\": {\"memory\": 64, \"memory_max\": 128, \"cores\": 2,"
	" \"cores_max\": 4, \"cpu_model\": \"max\", \"accelerator\": \"tcg\", \"volumes\":"
	" [{\"name\": \"root\", \"size\": \"1M\"}, {\"name\": \"data\", \"format\": \"qcow2\","
	" \"size\": \"1M\"}], \"nics\": [{\"network\": \"user\", \"mac\": \"52:54:00:00:00:01\"},"
	" {\"network\": \"lan\", \"mode\": \"none\", \"mac\": \"52:54:00:00:00:02\"}]}}";

static void plan(struct machine *machine, const char *machine_type)
{
	struct config config = { .machine_type = (char *)machine_type, .cpu_model = (char *)"max" };
	struct hardware_input input = { .build = machine->build,
					.config = &config,
					.accelerator = "tcg" };
	json_auto_t *tree = json_loads(definition_text, 0, NULL);
	struct error err = { 0 };

	(void)definition_from_json(tree, &machine->definition, &err);
	assert_string_equal(err.text, "");
	input.definition = machine->definition;
	(void)hardware_plan(&input, &machine->hardware, NULL, &err);
	assert_string_equal(err.text, "");
}

static int listen_at(struct machine *machine, const char *name)
{
	int fd = sock_listen(machine->dir_fd, name, 0600, NULL);

	assert_true(fd >= 0);
	return fd;
}

/* An overlay on a base, as `qemu-img` makes it. */
static void make_chain(struct machine *machine)
{
	CLEANUP_FREE char *base = xasprintf("%s/base", machine->dir);
	CLEANUP_FREE char *top = xasprintf("%s/top", machine->dir);
	const char *const make_base[] = { "qemu-img", "create", "-q", "-f",
					  "qcow2",    base,	"1M", NULL };
	const char *const make_top[] = { "qemu-img", "create", "-q",	"-f", "qcow2", "-b",
					 base,	     "-F",     "qcow2", top,  NULL };
	const char *const *const commands[] = { make_base, make_top };

	for (size_t i = 0; i < 2; i++) {
		struct spawn what = {
			.argv = commands[i], .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1
		};
		struct tool_result result = { 0 };

		assert_return_code(tool_run(&what, LONG, &result, NULL), 0);
		assert_int_equal(result.code, 0);
		tool_result_done(&result);
	}
}

static int open_file(struct machine *machine, const char *name, int flags)
{
	int fd = openat(machine->dir_fd, name, flags | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	return fd;
}

static void launch(struct machine *machine)
{
	const int fds[] = { listen_at(machine, "qmp"),
			    listen_at(machine, "agent"),
			    listen_at(machine, "serial"),
			    open_file(machine, "log", O_WRONLY | O_APPEND | O_CREAT),
			    open_file(machine, "root", O_RDWR | O_CREAT),
			    open_file(machine, "top", O_RDWR),
			    open_file(machine, "base", O_RDONLY) };
	const struct binding_volume volumes[] = {
		{ "root", { 7 }, { "raw" }, 1, false, "writeback", "threads" },
		{ "data", { 8, 9 }, { "qcow2", "qcow2" }, 2, false, "writeback", "threads" },
	};
	const struct binding_nic nics[] = { { "user", -1, true }, { "lan", -1, false } };
	struct binding_input input = { .hardware = machine->hardware,
				       .definition = machine->definition,
				       .binary = machine->build->binary,
				       .data_dir = "",
				       .vm = "test",
				       .token = "drover:test",
				       .monitor_fd = 3,
				       .agent_fd = 4,
				       .serial_fd = 5,
				       .serial_log_fd = 6,
				       .volumes = volumes,
				       .n_volumes = 2,
				       .nics = nics,
				       .n_nics = 2 };
	struct spawn what = { .fds = fds,
			      .n_fds = ARRAY_SIZE(fds),
			      .stdin_fd = -1,
			      .stdout_fd = -1,
			      .stderr_fd = 2,
			      .die_with_parent = true };
	CLEANUP(strv_done) struct strv argv = { 0 };
	struct error err = { 0 };
	pid_t pid;

	assert_return_code(ftruncate(fds[4], 1024 * 1024), 0);
	assert_return_code(qemu_command_line(&input, &argv, &err), 0);
	what.argv = (const char *const *)argv.items;
	(void)spawn(&what, &pid, &machine->pidfd, &err);
	assert_string_equal(err.text, "");
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		(void)close(fds[i]);
}

static void run_until(struct machine *machine, const bool *flag, const int *count)
{
	uint64_t deadline = clock_now() + LONG;

	while (!(flag && *flag) && !(count && *count > 0)) {
		assert_true(clock_now() < deadline);
		assert_return_code(sd_event_run(machine->loop, USEC_PER_SEC), 0);
	}
}

static int start(void **state, const char *machine_type)
{
	struct machine *machine = xcalloc(1, sizeof(*machine));
	struct error err = { 0 };
	int fd;

	machine->pidfd = -1;
	if (access("/usr/bin/" QEMU, X_OK) < 0 || access("/usr/bin/qemu-img", X_OK) < 0) {
		*state = NULL;
		free(machine);
		return 0;
	}
	strcpy(machine->dir, "/tmp/drover-test-hardware.XXXXXX");
	assert_non_null(mkdtemp(machine->dir));
	machine->dir_fd = open(machine->dir, O_DIRECTORY | O_CLOEXEC);
	assert_return_code(sd_event_new(&machine->loop), 0);
	assert_return_code(qemu_build_probe(QEMU, "", NULL, &machine->build, &err), 0);
	plan(machine, machine_type);
	make_chain(machine);
	launch(machine);
	fd = sock_connect(machine->dir_fd, "qmp", &err);
	assert_true(fd >= 0);
	assert_return_code(qmp_open(fd, machine->loop, &ops, machine, &machine->qmp, &err), 0);
	run_until(machine, &machine->ready, NULL);
	*state = machine;
	return 0;
}

static int start_q35(void **state)
{
	return start(state, "q35");
}

static int start_pc(void **state)
{
	return start(state, "pc");
}

static int stop(void **state)
{
	struct machine *machine = *state;
	siginfo_t info;

	if (!machine)
		return 0;
	(void)process_signal(machine->pidfd, SIGKILL, NULL);
	(void)waitid(P_PIDFD, (id_t)machine->pidfd, &info, WEXITED);
	run_until(machine, &machine->gone, NULL);
	qmp_close(machine->qmp);
	sd_event_unref(machine->loop);
	(void)close(machine->pidfd);
	(void)close(machine->dir_fd);
	(void)file_remove_tree(AT_FDCWD, machine->dir, NULL);
	hardware_free(machine->hardware);
	definition_free(machine->definition);
	qemu_build_free(machine->build);
	free(machine);
	return 0;
}

static void verify(struct machine *machine)
{
	struct hardware_check *check = NULL;
	struct error err = { 0 };

	machine->replies = 0;
	machine->error = (struct error){ 0 };
	assert_return_code(hardware_verify(machine->qmp, machine->hardware, LONG, on_verified,
					   machine, &check, &err),
			   0);
	run_until(machine, NULL, &machine->replies);
	assert_int_equal(machine->replies, 1);
}

static void assert_difference(struct machine *machine, const char *words)
{
	verify(machine);
	assert_string_equal(machine->error.text, words);
	assert_int_equal(machine->code, -EBADE);
}

static struct section *device(struct machine *machine, const char *id)
{
	struct section *section = sections_find(&machine->hardware->sections, "device", id);

	assert_non_null(section);
	return section;
}

static void qemu_builds_what_the_record_says(void **state)
{
	struct machine *machine = *state;
	uint64_t began;

	if (!machine)
		skip();
	began = clock_now();
	verify(machine);
	print_message("verified in %llu us\n", (unsigned long long)(clock_now() - began));
	assert_string_equal(machine->error.text, "");
	assert_int_equal(machine->code, 0);
}

static void the_first_difference_is_told_in_words(void **state)
{
	struct machine *machine = *state;
	struct hardware *hardware;

	if (!machine)
		skip();
	hardware = machine->hardware;
	section_set(device(machine, "nic-user"), "mac", "52:54:00:00:00:09");
	assert_difference(machine, "device 'nic-user': mac is '52:54:00:00:00:01' in QEMU, but "
				   "'52:54:00:00:00:09' in the hardware record");
	section_set(device(machine, "disk-root"), "bus", "rp9");
	assert_difference(machine, "device 'disk-root': the bus is 'rp0' in QEMU, but 'rp9' in the "
				   "hardware record");
	section_set(device(machine, "vga"), "addr", "0x2");
	assert_difference(machine, "device 'vga': the address is 01.0 in QEMU, but 0x2 in the "
				   "hardware record");
	sections_remove(&hardware->sections, "device", "vga");
	section_set(device(machine, "disk-root"), "bus", "rp0");
	section_set(device(machine, "nic-user"), "mac", "52:54:00:00:00:01");
	assert_difference(machine,
			  "QEMU has a device 'vga' (VGA) that is not in the hardware record");
	hardware->memory_mib = 65;
	assert_difference(machine, "memory is 64 MiB in QEMU, but 65 MiB in the hardware record");
	hardware->cores = 1;
	assert_difference(machine, "QEMU has 2 vcpus of at most 4, the hardware record 1 of 4");
	hardware->accelerator[0] = 'k';
	assert_difference(machine,
			  "the accelerator is 'tcg' in QEMU, but 'kcg' in the hardware record");
}

static void a_cancelled_check_says_nothing(void **state)
{
	struct machine *machine = *state;
	struct hardware_check *check = NULL;

	if (!machine)
		skip();
	machine->replies = 0;
	assert_return_code(hardware_verify(machine->qmp, machine->hardware, LONG, on_verified,
					   machine, &check, NULL),
			   0);
	assert_null(hardware_verify_cancel(check));
	hardware_free(machine->hardware);
	machine->hardware = NULL;
	assert_return_code(sd_event_run(machine->loop, USEC_PER_SEC), 0);
	assert_int_equal(machine->replies, 0);
	assert_null(hardware_verify_cancel(NULL));
}

static void the_death_of_qemu_is_no_difference(void **state)
{
	struct machine *machine = *state;
	struct hardware_check *check = NULL;

	if (!machine)
		skip();
	machine->replies = 0;
	assert_return_code(hardware_verify(machine->qmp, machine->hardware, LONG, on_verified,
					   machine, &check, NULL),
			   0);
	(void)process_signal(machine->pidfd, SIGKILL, NULL);
	run_until(machine, &machine->gone, NULL);
	assert_int_equal(machine->replies, 1);
	assert_int_equal(machine->code, -ECONNRESET);
}

/* ---- the record as data ---- */

static json_t *record(void)
{
	return json_loads(
		"{\"v\": 1, \"machine_type\": \"pc-q35-7.2\", \"machine_asked\": \"q35\","
		"\"accelerator\": \"kvm\", \"cpu_model\": \"host\", \"uuid\": \"u\","
		"\"memory_mib\": 512, \"memory_max_mib\": 512, \"cores\": 1,"
		"\"cores_max\": 2, \"qemu_version\": \"7.2.22\", \"qemu_package\": \"D\","
		"\"born\": \"2026-11-20T09:30:00Z\", \"generation\": 3, \"sections\":"
		"[{\"group\": \"device\", \"id\": \"vga\", \"props\": {\"driver\": \"VGA\"}}],"
		"\"from_the_future\": {\"a\": [1]}}",
		0, NULL);
}

static void keys_of_a_newer_drover_are_carried(void **state)
{
	json_auto_t *before = record(), *after = NULL;
	struct hardware *hardware = NULL;
	struct error err = { 0 };

	assert_return_code(hardware_parse(before, &hardware, &err), 0);
	after = hardware_json(hardware);
	assert_true(json_equal(before, after));
	hardware_free(hardware);
}

static void a_damaged_record_is_refused_and_says_where(void **state)
{
	static const struct {
		const char *key, *value, *message;
	} cases[] = {
		{ "v", "2",
		  "hardware record: version 2 is not known here; a newer Drover wrote it" },
		{ "v", NULL, NULL },
		{ "uuid", "1", NULL },
		{ "memory_mib", "0", "hardware record: 'memory_mib' is out of range" },
		{ "cores", "-1", "hardware record: 'cores' is out of range" },
		{ "cores_max", "99999999999", "hardware record: 'cores_max' is out of range" },
		{ "sections", "{}", NULL },
		{ "sections", NULL, NULL },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		json_auto_t *value = record();
		struct hardware *hardware = NULL;
		struct error err = { 0 };

		json_object_del(value, cases[i].key);
		if (cases[i].value)
			json_object_set_new(value, cases[i].key,
					    json_loads(cases[i].value, JSON_DECODE_ANY, NULL));
		assert_int_equal(hardware_parse(value, &hardware, &err), -EBADMSG);
		if (cases[i].message)
			assert_string_equal(err.text, cases[i].message);
	}
	assert_int_equal(hardware_parse(NULL, NULL, NULL), -EBADMSG);
}

static void a_record_prints_as_a_table(void **state)
{
	CLEANUP(text_done) struct text text = { 0 };
	json_auto_t *value = record();
	struct hardware *hardware = NULL;

	assert_return_code(hardware_parse(value, &hardware, NULL), 0);
	hardware_print(hardware, &text);
	assert_non_null(strstr(text.text, "machine      pc-q35-7.2 (asked: q35)\n"));
	assert_non_null(strstr(text.text, "cpu          host, 1 cores (maximum 2)\n"));
	assert_non_null(strstr(text.text, "\nvga              VGA "));
	hardware_free(hardware);
}

static void a_tree_in_another_form_is_an_error(void **state)
{
	static const char *const bad[] = {
		"",	     "bus: x\n",	"dev: a, id \"x\n", "        a = b\n",
		", id \"\"", "dev: , id \"\"\n"
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		json_t *devices = NULL;

		assert_int_equal(tree_parse(bad[i], &devices, NULL), -EBADMSG);
	}
}

static void values_of_a_tree_are_compared_by_meaning(void **state)
{
	assert_true(tree_value_equal("srv", "srv"));
	assert_true(tree_value_equal("", ""));
	assert_true(tree_value_equal("true", "on"));
	assert_true(tree_value_equal("off", "off"));
	assert_true(tree_value_equal("133 (0x85)", "0x85"));
	assert_true(tree_value_equal("512 (512 B)", "512"));
	assert_false(tree_value_equal("true", "off"));
	assert_false(tree_value_equal("512 (512 B)", "4096"));
	assert_false(tree_value_equal("root", "data"));
	assert_false(tree_value_equal("1 (0x1)", "1k"));
}

#define WITH_QEMU(test, start) cmocka_unit_test_setup_teardown(test, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		{ "q35: qemu_builds_what_the_record_says", qemu_builds_what_the_record_says,
		  start_q35, stop, NULL },
		{ "pc: qemu_builds_what_the_record_says", qemu_builds_what_the_record_says,
		  start_pc, stop, NULL },
		WITH_QEMU(the_first_difference_is_told_in_words, start_q35),
		WITH_QEMU(a_cancelled_check_says_nothing, start_q35),
		WITH_QEMU(the_death_of_qemu_is_no_difference, start_q35),
		cmocka_unit_test(keys_of_a_newer_drover_are_carried),
		cmocka_unit_test(a_damaged_record_is_refused_and_says_where),
		cmocka_unit_test(a_record_prints_as_a_table),
		cmocka_unit_test(a_tree_in_another_form_is_an_error),
		cmocka_unit_test(values_of_a_tree_are_compared_by_meaning),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
