/* SPDX-License-Identifier: Apache-2.0 */
/* Machine types by version order; and a real QEMU asked what it can do and what it runs on. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "qemu/build.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/file.h"
#include "wire/json.h"

#define QEMU "qemu-system-x86_64"

static bool have_qemu(void)
{
	return access("/usr/bin/" QEMU, X_OK) == 0;
}

static int make_dir(void **state)
{
	static char name[64];

	(void)snprintf(name, sizeof(name), "/tmp/drover-test-build.XXXXXX");
	*state = mkdtemp(name);
	/* Programs in it are run by somebody else. */
	return *state ? chmod(*state, 0711) : -1;
}

static int remove_dir(void **state)
{
	return file_remove_tree(AT_FDCWD, *state, NULL);
}

/* In QEMU's own order, which is that of text. */
static struct qemu_build fake(void)
{
	static const char *const types[] = { "pc-q35-9.2",	"pc-q35-10.0.1", "pc-q35-10.0",
					     "pc-q35-2.9",	"pc-q35-2.12",	 "pc-i440fx-9.2",
					     "pc-i440fx-10.0",	"microvm",	 "none",
					     "pc-q35-noble-v2", "pc-q35-noble" };
	struct qemu_build build = { .binary = (char *)"/usr/bin/" QEMU,
				    .version = (char *)"10.0.1",
				    .machines = json_array() };

	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		json_array_append_new(build.machines, json_pack("{s:s}", "name", types[i]));
	return build;
}

static void the_newest_type_is_found_by_number(void **state)
{
	static const struct {
		const char *asked, *type;
	} cases[] = {
		{ "q35", "pc-q35-10.0.1" },	  { "pc-q35", "pc-q35-10.0.1" },
		{ "pc", "pc-i440fx-10.0" },	  { "pc-i440fx", "pc-i440fx-10.0" },
		{ "pc-q35-2", "pc-q35-2.12" },	  { "pc-q35-9.2", "pc-q35-9.2" },
		{ "pc-q35-10.0", "pc-q35-10.0" }, { "pc-q35-noble", "pc-q35-noble" },
		{ "microvm", "microvm" },
	};
	struct qemu_build build = fake();
	struct error err = { 0 };
	const char *type;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_return_code(qemu_machine_resolve(&build, cases[i].asked, &type, &err), 0);
		assert_string_equal(type, cases[i].type);
	}
	json_decref(build.machines);
}

static void a_type_that_is_not_there_is_refused_with_those_that_are(void **state)
{
	struct qemu_build build = fake();
	const char *type;

	for (size_t i = 0; i < 4; i++) {
		const char *asked =
			(const char *const[]){ "pc-q35-1", "pc-q35-11.0", "virt", "" }[i];
		struct error err = { 0 };

		assert_int_equal(qemu_machine_resolve(&build, asked, &type, &err), -EPERM);
		assert_non_null(strstr(err.text, "pc-q35-10.0.1 (newest of 'q35')"));
		assert_non_null(strstr(err.text, "pc-i440fx-10.0 (newest of 'pc')"));
	}
	json_decref(build.machines);
}

static void types_are_ordered_part_by_part(void **state)
{
	assert_true(qemu_machine_compare("pc-q35-9.2", "pc-q35-10.0") < 0);
	assert_true(qemu_machine_compare("pc-q35-4.0.1", "pc-q35-4.0") > 0);
	assert_true(qemu_machine_compare("pc-q35-2.12", "pc-q35-2.9") > 0);
	assert_true(qemu_machine_compare("pc-i440fx-9.0", "pc-q35-2.9") < 0);
	assert_int_equal(qemu_machine_compare("pc-q35-7.2", "pc-q35-7.2"), 0);
	assert_int_equal(qemu_machine_compare("microvm", "microvm"), 0);
}

static void a_real_qemu_says_what_it_has(void **state)
{
	struct qemu_build *build = NULL, *again = NULL;
	struct error err = { 0 };
	const char *type;

	if (!have_qemu())
		skip();
	assert_return_code(qemu_build_probe(QEMU, "", *state, &build, &err), 0);
	assert_int_equal(*build->binary, '/');
	assert_true(*build->version >= '1' && *build->version <= '9');
	assert_true(qemu_build_has_command(build, "query-machines"));
	assert_false(qemu_build_has_command(build, "no-such-command"));
	assert_true(qemu_build_has_cpu_model(build, "qemu64"));
	assert_return_code(qemu_machine_resolve(build, "q35", &type, &err), 0);
	assert_true(strncmp(type, "pc-q35-", 7) == 0);
	assert_return_code(qemu_build_probe(QEMU, "", *state, &again, &err), 0);
	assert_true(json_equal(build->machines, again->machines));
	assert_true(json_equal(build->cpu_models, again->cpu_models));
	assert_string_equal(build->package, again->package);
	qemu_build_free(build);
	qemu_build_free(again);
}

static void write_program(const char *path, const char *text)
{
	FILE *file = fopen(path, "we");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
	assert_return_code(chmod(path, 0755), 0);
}

static void a_missing_binary_names_the_package(void **state)
{
	struct qemu_build *build = NULL;
	struct error err = { 0 };

	assert_int_equal(qemu_build_probe("/no/qemu", NULL, NULL, &build, &err), -ENOENT);
	assert_non_null(strstr(err.text, "'/no/qemu': install the package qemu-system-x86"));
	assert_int_equal(qemu_build_probe("no-such-qemu", NULL, NULL, &build, &err), -ENOENT);
}

static void a_binary_that_cannot_start_is_heard(void **state)
{
	CLEANUP_FREE char *path = NULL;
	struct qemu_build *build = NULL;
	struct error err = { 0 };

	assert_true(asprintf(&path, "%s/broken", (char *)*state) > 0);
	write_program(path,
		      "#!/bin/sh\necho 'first' >&2\necho 'libfoo.so.1 is missing' >&2\nexit 1\n");
	assert_true(qemu_build_probe(path, NULL, *state, &build, &err) < 0);
	assert_non_null(strstr(err.text, "libfoo.so.1 is missing"));
}

/* Not even one that has no guest. */
static void no_probe_runs_as_root(void **state)
{
	struct qemu_build build = { 0 };
	CLEANUP_FREE char *path = NULL, *why = NULL;
	struct qemu_build *asked = NULL;
	const char *rom = getenv("DROVER_PROBE_ROM");
	struct error err = { 0 };
	bool works;

	if (geteuid() != 0 || !rom)
		skip();
	assert_true(asprintf(&path, "%s/tell", (char *)*state) > 0);
	write_program(path,
		      "#!/bin/sh\n"
		      "set -- $(id -u) $(id -G) $(grep NoNewPrivs: /proc/self/status) /dev/[!k]*\n"
		      "echo $* $(head -c 1 /proc/self/fd/3 | wc -c) >&2\nexit 1\n");
	assert_true(qemu_build_probe(path, NULL, NULL, &asked, &err) < 0);
	assert_non_null(strstr(err.text, "65534 65534 NoNewPrivs: 1"));
	build.binary = build.identity = path;
	assert_return_code(qemu_accel_probe(&build, "tcg", "max", rom, 10 * USEC_PER_SEC, NULL,
					    &works, &why, &err),
			   0);
	assert_false(works);
	assert_non_null(
		strstr(why, "65534 65534 NoNewPrivs: 1 /dev/null /dev/urandom /dev/zero 1"));
}

static void a_cache_of_another_file_is_not_believed(void **state)
{
	CLEANUP_FREE char *path = NULL;
	struct qemu_build *build = NULL;
	struct error err = { 0 };

	if (!have_qemu())
		skip();
	assert_true(asprintf(&path, "%s/qemu", (char *)*state) > 0);
	write_program(path, "#!/bin/sh\nexec /usr/bin/" QEMU " \"$@\"\n");
	assert_return_code(qemu_build_probe(path, NULL, *state, &build, &err), 0);
	qemu_build_free(build);
	write_program(path, "#!/bin/sh\necho gone >&2; exit 1\n");
	assert_true(qemu_build_probe(path, NULL, *state, &build, &err) < 0);
	assert_non_null(strstr(err.text, "gone"));
}

static bool names(const json_t *list, const char *name)
{
	json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		if (strcmp(json_string_value(item), name) == 0)
			return true;
	}
	return false;
}

/* TCG has no model with features that it does not make, and whoever runs this has `qemu64`. */
static void qemu_says_which_cpu_models_lack_nothing(void **state)
{
	json_auto_t *models = NULL, *again = NULL, *none = NULL;
	struct qemu_build *build = NULL;
	struct error err = { 0 };

	if (!have_qemu())
		skip();
	assert_return_code(qemu_build_probe(QEMU, "", *state, &build, &err), 0);
	assert_return_code(qemu_build_cpus(build, "", "tcg", *state, &models, &err), 0);
	assert_true(names(models, "qemu64"));
	assert_true(names(models, "max"));
	assert_false(names(models, "host"));
	assert_true(json_array_size(models) < json_array_size(build->cpu_models));
	assert_return_code(qemu_build_cpus(build, "", "tcg", *state, &again, &err), 0);
	assert_true(json_equal(models, again));
	assert_true(qemu_build_cpus(build, "", "no-such", *state, &none, &err) < 0);
	assert_null(none);
	qemu_build_free(build);
}

static void tcg_runs_the_probe_guest_and_the_answer_is_kept(void **state)
{
	CLEANUP_FREE char *why = NULL, *again = NULL;
	struct qemu_build *build = NULL;
	struct error err = { 0 };
	bool works = false;
	const char *rom = getenv("DROVER_PROBE_ROM");

	if (!have_qemu() || !rom)
		skip();
	assert_return_code(qemu_build_probe(QEMU, "", *state, &build, &err), 0);
	assert_return_code(qemu_accel_probe(build, "tcg", "max", rom, 60 * USEC_PER_SEC, *state,
					    &works, &why, &err),
			   0);
	assert_true(works);
	assert_non_null(strstr(why, "tcg: ran the probe guest in "));
	assert_return_code(
		qemu_accel_probe(build, "tcg", "max", rom, 0, *state, &works, &again, &err), 0);
	assert_string_equal(why, again);
	qemu_build_free(build);
}

/* What a guest with this CPU would meet is found out, not what one with another would. */
static void the_probe_guest_has_the_cpu_of_the_guest_to_be(void **state)
{
	struct qemu_build build = { 0 };
	CLEANUP_FREE char *path = NULL, *named = NULL, *host = NULL;
	const char *rom = getenv("DROVER_PROBE_ROM");
	struct error err = { 0 };
	bool works = true;

	if (!rom)
		skip();
	assert_true(asprintf(&path, "%s/tell", (char *)*state) > 0);
	write_program(path, "#!/bin/sh\necho \"$*\" >&2\nkill -ABRT $$\n");
	build.binary = build.identity = path;
	assert_return_code(qemu_accel_probe(&build, "tcg", "EPYC-v3", rom, 10 * USEC_PER_SEC,
					    *state, &works, &named, &err),
			   0);
	assert_false(works);
	assert_non_null(strstr(named, "status 134 for CPU model 'EPYC-v3': "));
	assert_non_null(strstr(named, " -cpu EPYC-v3,enforce=on "));
	works = true;
	assert_return_code(qemu_accel_probe(&build, "tcg", "host", rom, 10 * USEC_PER_SEC, *state,
					    &works, &host, &err),
			   0);
	assert_false(works);
	assert_non_null(strstr(host, " -cpu host "));
}

static void the_answer_for_one_cpu_is_not_given_for_another(void **state)
{
	CLEANUP_FREE char *whole = NULL, *small = NULL, *kept = NULL;
	struct qemu_build *build = NULL;
	struct error err = { 0 };
	bool works = false;
	const char *rom = getenv("DROVER_PROBE_ROM");

	if (!have_qemu() || !rom)
		skip();
	assert_return_code(qemu_build_probe(QEMU, "", *state, &build, &err), 0);
	assert_return_code(qemu_accel_probe(build, "tcg", "qemu64", rom, 60 * USEC_PER_SEC, *state,
					    &works, &whole, &err),
			   0);
	assert_true(works);
	works = true;
	assert_return_code(qemu_accel_probe(build, "tcg", "no-such-model", rom, 60 * USEC_PER_SEC,
					    *state, &works, &small, &err),
			   0);
	assert_false(works);
	assert_non_null(strstr(small, "no-such-model"));
	assert_return_code(
		qemu_accel_probe(build, "tcg", "qemu64", rom, 0, *state, &works, &kept, &err), 0);
	assert_string_equal(whole, kept);
	qemu_build_free(build);
}

static void a_cpu_of_32_bits_is_not_asked_for_more(void **state)
{
	static const char *const models[] = { "qemu32", "486" };
	struct qemu_build *build = NULL;
	struct error err = { 0 };
	const char *rom = getenv("DROVER_PROBE_ROM");

	if (!have_qemu() || !rom)
		skip();
	assert_return_code(qemu_build_probe(QEMU, "", *state, &build, &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(models); i++) {
		CLEANUP_FREE char *why = NULL;
		bool works = false;

		assert_return_code(qemu_accel_probe(build, "tcg", models[i], rom, 60 * USEC_PER_SEC,
						    *state, &works, &why, &err),
				   0);
		if (!works)
			fail_msg("%s: %s", models[i], why);
	}
	qemu_build_free(build);
}

/* The verdict differs from machine to machine, but it is given, with a reason. */
static void kvm_gets_a_verdict_with_a_reason(void **state)
{
	CLEANUP_FREE char *why = NULL;
	struct qemu_build *build = NULL;
	struct error err = { 0 };
	bool works = false;
	const char *rom = getenv("DROVER_PROBE_ROM");

	if (!have_qemu() || !rom)
		skip();
	assert_return_code(qemu_build_probe(QEMU, "", *state, &build, &err), 0);
	assert_return_code(qemu_accel_probe(build, "kvm", "max", rom, 10 * USEC_PER_SEC, *state,
					    &works, &why, &err),
			   0);
	assert_int_equal(strncmp(why, "kvm: ", 5), 0);
	print_message("%s\n", why);
	qemu_build_free(build);
}

static void a_guest_that_is_late_is_named_and_not_remembered(void **state)
{
	CLEANUP_FREE char *why = NULL, *again = NULL;
	struct qemu_build *build = NULL;
	struct error err = { 0 };
	bool works = true;
	const char *rom = getenv("DROVER_PROBE_ROM");

	if (!have_qemu() || !rom)
		skip();
	assert_return_code(qemu_build_probe(QEMU, "", NULL, &build, &err), 0);
	assert_return_code(
		qemu_accel_probe(build, "tcg", "max", rom, 0, *state, &works, &why, &err), 0);
	assert_false(works);
	assert_string_equal(why,
			    "tcg: the probe guest was still at its first instruction after 0 ms");
	assert_return_code(qemu_accel_probe(build, "tcg", "max", rom, 60 * USEC_PER_SEC, *state,
					    &works, &again, &err),
			   0);
	assert_true(works);
	qemu_build_free(build);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_newest_type_is_found_by_number),
		cmocka_unit_test(a_type_that_is_not_there_is_refused_with_those_that_are),
		cmocka_unit_test(types_are_ordered_part_by_part),
		cmocka_unit_test_setup_teardown(a_real_qemu_says_what_it_has, make_dir, remove_dir),
		cmocka_unit_test(a_missing_binary_names_the_package),
		cmocka_unit_test_setup_teardown(a_binary_that_cannot_start_is_heard, make_dir,
						remove_dir),
		cmocka_unit_test_setup_teardown(no_probe_runs_as_root, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(a_cache_of_another_file_is_not_believed, make_dir,
						remove_dir),
		cmocka_unit_test_setup_teardown(qemu_says_which_cpu_models_lack_nothing, make_dir,
						remove_dir),
		cmocka_unit_test_setup_teardown(tcg_runs_the_probe_guest_and_the_answer_is_kept,
						make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(the_probe_guest_has_the_cpu_of_the_guest_to_be,
						make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(the_answer_for_one_cpu_is_not_given_for_another,
						make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(a_cpu_of_32_bits_is_not_asked_for_more, make_dir,
						remove_dir),
		cmocka_unit_test_setup_teardown(kvm_gets_a_verdict_with_a_reason, make_dir,
						remove_dir),
		cmocka_unit_test_setup_teardown(a_guest_that_is_late_is_named_and_not_remembered,
						make_dir, remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
