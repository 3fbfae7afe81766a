/* SPDX-License-Identifier: Apache-2.0 */
/* Sections, their way to a command line and back from JSON, and what a site's template may do. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "qemu/section.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"

static char *join(const struct strv *argv)
{
	struct text text = { 0 };

	text_add(&text, "", 0);
	for (size_t i = 0; i < argv->count; i++)
		text_addf(&text, "%s%s", i > 0 ? " " : "", argv->items[i]);
	return text.text;
}

static void assert_argv(const struct sections *sections, const char *expected)
{
	CLEANUP(strv_done) struct strv argv = { 0 };
	CLEANUP_FREE char *text = NULL;
	struct error err = { 0 };

	assert_return_code(sections_argv(sections, &argv, &err), 0);
	text = join(&argv);
	assert_string_equal(text, expected);
}

static void parse(const char *text, struct sections *ret)
{
	json_auto_t *vars = json_pack("{s:s, s:s}", "name", "web01", "memory", "512");
	struct error err = { 0 };
	int r = template_parse("qemu.cfg.in", text, vars, ret, &err);

	assert_string_equal(err.text, "");
	assert_return_code(r, 0);
}

static void assert_parse_fails(const char *text, const char *message)
{
	json_auto_t *vars = json_pack("{s:s, s:s}", "name", "web01", "memory", "512");
	struct sections sections = { 0 };
	struct error err = { 0 };

	assert_int_equal(template_parse("qemu.cfg.in", text, vars, &sections, &err), -EBADMSG);
	assert_string_equal(err.text, message);
}

static void assert_merge_fails(const struct sections *into, const char *text, const char *message)
{
	CLEANUP(sections_done) struct sections copy = { 0 };
	CLEANUP(sections_done) struct sections site = { 0 };
	struct error err = { 0 };

	for (size_t i = 0; i < into->count; i++)
		sections_copy(&copy, &into->items[i]);
	parse(text, &site);
	assert_int_equal(template_merge(&copy, &site, &err), -EPERM);
	assert_string_equal(err.text, message);
}

static void one_disk(struct sections *sections)
{
	struct section *disk = sections_add(sections, "device", "disk-root");

	section_set(disk, "driver", "virtio-blk-pci");
	section_set(disk, "drive", "vol-root");
	section_set(disk, "bus", "rp0");
	section_set(disk, "addr", "0x0");
}

static void what_others_refer_to_comes_first(void **state)
{
	CLEANUP(sections_done) struct sections sections = { 0 };
	struct section *section;

	one_disk(&sections);
	section = sections_add(&sections, "blockdev", "vol-root");
	section_set(section, "driver", "raw");
	section_set(section, "file", "vol-root-file");
	section_set(sections_add(&sections, "machine", NULL), "type", "pc-q35-7.2");
	assert_argv(&sections, "-machine pc-q35-7.2 -blockdev raw,node-name=vol-root,"
			       "file=vol-root-file -device virtio-blk-pci,id=disk-root,addr=0x0,"
			       "bus=rp0,drive=vol-root");
}

static void the_text_does_not_depend_on_the_order_of_the_keys(void **state)
{
	CLEANUP(sections_done) struct sections a = { 0 };
	CLEANUP(sections_done) struct sections b = { 0 };
	struct section *disk = sections_add(&b, "device", "disk-root");

	one_disk(&a);
	section_set(disk, "addr", "0x0");
	section_set(disk, "bus", "rp0");
	section_set(disk, "drive", "vol-root");
	section_set(disk, "driver", "virtio-blk-pci");
	assert_argv(&a, "-device virtio-blk-pci,id=disk-root,addr=0x0,bus=rp0,drive=vol-root");
	assert_argv(&b, "-device virtio-blk-pci,id=disk-root,addr=0x0,bus=rp0,drive=vol-root");
}

static void a_comma_in_a_value_cannot_become_another_property(void **state)
{
	CLEANUP(sections_done) struct sections sections = { 0 };

	section_set(sections_add(&sections, "name", NULL), "guest", "a,process=b");
	section_set(sections_add(&sections, "device", "x"), "driver", "a=b,c");
	assert_argv(&sections, "-name guest=a,,process=b -device id=x,driver=a=b,,c");
}

static void a_cpu_has_no_way_to_say_a_comma(void **state)
{
	CLEANUP(sections_done) struct sections sections = { 0 };
	CLEANUP(strv_done) struct strv argv = { 0 };
	struct error err = { 0 };

	section_set(sections_add(&sections, "cpu", NULL), "model", "max,-x2apic");
	assert_int_equal(sections_argv(&sections, &argv, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "[cpu] model = \"max,-x2apic\""));
}

static void a_key_must_be_a_name(void **state)
{
	CLEANUP(sections_done) struct sections sections = { 0 };
	CLEANUP(strv_done) struct strv argv = { 0 };
	struct error err = { 0 };

	section_set(sections_add(&sections, "global", NULL), "a,b", "1");
	assert_int_equal(sections_argv(&sections, &argv, &err), -EBADMSG);
}

static void a_null_makes_a_blockdev_json(void **state)
{
	CLEANUP(sections_done) struct sections sections = { 0 };
	struct section *section = sections_add(&sections, "blockdev", "vol");

	section_set(section, "driver", "qcow2");
	section_set(section, "cache.direct", "on");
	section_set(section, "cache.no-flush", "off");
	json_object_set_new(section->props, "backing", json_null());
	assert_argv(&sections,
		    "-blockdev {\"backing\":null,\"cache\":{\"direct\":true,\"no-flush\":"
		    "false},\"driver\":\"qcow2\",\"node-name\":\"vol\"}");
}

static void kernel_arguments_go_as_they_are(void **state)
{
	CLEANUP(sections_done) struct sections sections = { 0 };

	section_set(sections_add(&sections, "kernel", NULL), "append", "console=ttyS0,115200 a=b");
	assert_argv(&sections, "-append console=ttyS0,115200 a=b");
}

static void a_section_survives_json(void **state)
{
	CLEANUP(sections_done) struct sections sections = { 0 };
	CLEANUP(sections_done) struct sections back = { 0 };
	json_auto_t *json = NULL;
	struct error err = { 0 };

	one_disk(&sections);
	section_set(sections_add(&sections, "rtc", NULL), "base", "utc");
	json = sections_json(&sections);
	assert_return_code(sections_parse(json, &back, &err), 0);
	assert_argv(&back, "-rtc base=utc -device virtio-blk-pci,id=disk-root,addr=0x0,bus=rp0,"
			   "drive=vol-root");
}

static void records_of_the_wrong_shape_are_refused(void **state)
{
	static const char *const bad[] = {
		"{}",
		"[1]",
		"[{}]",
		"[{\"group\": \"device\"}]",
		"[{\"group\": 1, \"props\": {}}]",
		"[{\"group\": \"device\", \"props\": {\"a\": 1}}]",
		"[{\"group\": \"device\", \"props\": {\"a\": null}}]",
		"[{\"group\": \"rtc\", \"props\": {}}, {\"group\": \"rtc\"}]",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		json_auto_t *json = json_loads(bad[i], 0, NULL);
		struct sections sections = { 0 };
		struct error err = { 0 };

		assert_int_equal(sections_parse(json, &sections, &err), -EBADMSG);
		assert_int_equal(sections.count, 0);
	}
}

static void a_template_is_read_with_its_variables(void **state)
{
	CLEANUP(sections_done) struct sections sections = { 0 };

	parse("# comment\r\n\n[smbios]\n  type = \"1\"\n\tserial=\"{name}-{memory}{{}}\"  \r\n"
	      "[ device \"x-{name}\" ]\n driver = \"isa-debugcon\"",
	      &sections);
	assert_argv(&sections, "-smbios serial=web01-512{},type=1 -device isa-debugcon,id=x-web01");
}

static void a_template_speaks_with_file_and_line(void **state)
{
	assert_parse_fails("[smbios]\nserial = \"{nmae}\"\n",
			   "qemu.cfg.in:2: no variable {nmae}; there are: name, memory");
	assert_parse_fails("\n[smbios]\nserial = \"{name\"\n",
			   "qemu.cfg.in:3: '{' without '}'; a brace itself is {{");
	assert_parse_fails("a = \"b\"\n",
			   "qemu.cfg.in:1: no section yet; a [group] line comes first");
	assert_parse_fails("[mon]\n",
			   "qemu.cfg.in:1: [mon] is Drover's own and cannot be set here");
	assert_parse_fails("[devise \"x\"]\n", "qemu.cfg.in:1: no group [devise]");
	assert_parse_fails("[rtc]\n[rtc]\n", "qemu.cfg.in:2: this section is there twice");
	assert_parse_fails("[rtc]\nbase = \"utc\"\nbase = \"utc\"\n",
			   "qemu.cfg.in:3: 'base' is there twice");
	assert_parse_fails("[rtc]\nbase = utc\n",
			   "qemu.cfg.in:2: cannot read this line; lines are [group \"id\"], "
			   "key = \"value\" or # comment");
	assert_parse_fails("[rtc\n",
			   "qemu.cfg.in:1: cannot read this line; lines are [group \"id\"], "
			   "key = \"value\" or # comment");
}

static void a_template_changes_adds_and_removes(void **state)
{
	CLEANUP(sections_done) struct sections sections = { 0 };
	CLEANUP(sections_done) struct sections site = { 0 };
	struct error err = { 0 };

	one_disk(&sections);
	section_set(sections_add(&sections, "device", "panic0"), "driver", "pvpanic-pci");
	parse("[device \"disk-root\"]\n drive = \"\"\n serial = \"S1\"\n"
	      "[device \"panic0\"]\n remove = \"on\"\n"
	      "[device \"tpm\"]\n driver = \"tpm-tis\"\n"
	      "[global]\n driver = \"a\"\n property = \"b\"\n value = \"c\"\n"
	      "[global]\n driver = \"d\"\n property = \"e\"\n value = \"f\"\n",
	      &site);
	assert_return_code(template_merge(&sections, &site, &err), 0);
	assert_argv(&sections,
		    "-global driver=a,property=b,value=c -global driver=d,property=e,value=f "
		    "-device virtio-blk-pci,id=disk-root,addr=0x0,bus=rp0,serial=S1 "
		    "-device tpm-tis,id=tpm");
}

static void a_template_cannot_break_what_the_keeper_promises(void **state)
{
	CLEANUP(sections_done) struct sections sections = { 0 };

	one_disk(&sections);
	assert_merge_fails(&sections, "[device]\n driver = \"virtio-rng-pci\"\n",
			   "a [device] without an id: write [device \"NAME\"]");
	assert_merge_fails(&sections,
			   "[device \"x\"]\n driver = \"virtio-rng-pci\"\n bus = \"a\"\n",
			   "[device \"x\"] (virtio-rng-pci) needs bus and addr, so that "
			   "the guest finds it at the same place after every start");
	assert_merge_fails(&sections, "[device \"x\"]\n serial = \"1\"\n",
			   "[device \"x\"] is none of Drover's, so it needs a driver");
	assert_merge_fails(&sections, "[device \"x\"]\n remove = \"on\"\n",
			   "[device \"x\"] cannot be removed, there is none");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_others_refer_to_comes_first),
		cmocka_unit_test(the_text_does_not_depend_on_the_order_of_the_keys),
		cmocka_unit_test(a_comma_in_a_value_cannot_become_another_property),
		cmocka_unit_test(a_cpu_has_no_way_to_say_a_comma),
		cmocka_unit_test(a_key_must_be_a_name),
		cmocka_unit_test(a_null_makes_a_blockdev_json),
		cmocka_unit_test(kernel_arguments_go_as_they_are),
		cmocka_unit_test(a_section_survives_json),
		cmocka_unit_test(records_of_the_wrong_shape_are_refused),
		cmocka_unit_test(a_template_is_read_with_its_variables),
		cmocka_unit_test(a_template_speaks_with_file_and_line),
		cmocka_unit_test(a_template_changes_adds_and_removes),
		cmocka_unit_test(a_template_cannot_break_what_the_keeper_promises),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
