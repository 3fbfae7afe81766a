/* SPDX-License-Identifier: Apache-2.0 */
/* Taps and bridges of a real kernel, in a network namespace of this test's own; what came of it is
 * read by `ip`. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "net/net.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "util/spawn.h"
#include "wire/json.h"

static bool have_namespace;

static void ip(const char *const *argv, char **ret_out)
{
	const struct spawn what = { .argv = argv,
				    .stdin_fd = -1,
				    .stdout_fd = -1,
				    .stderr_fd = -1,
				    .die_with_parent = true };
	struct tool_result result = { 0 };
	struct error err = { 0 };

	if (tool_run(&what, 30 * USEC_PER_SEC, &result, &err) < 0)
		fail_msg("%s", err.text);
	if (result.code)
		fail_msg("%s", result.err_text);
	if (ret_out)
		*ret_out = TAKE_PTR(result.out);
	tool_result_done(&result);
}

#define IP(...) ip((const char *[]){ "ip", __VA_ARGS__, NULL }, NULL)

/* What `ip -j -d link` (or `addr`) says about a device; a new reference. */
static json_t *show(const char *what, const char *name)
{
	CLEANUP_FREE char *out = NULL;
	json_auto_t *list = NULL;

	ip((const char *[]){ "ip", "-j", "-d", what, "show", "dev", name, NULL }, &out);
	list = json_loads(out, 0, NULL);
	assert_int_equal(json_array_size(list), 1);
	return json_incref(json_array_get(list, 0));
}

static bool has_flag(json_t *link, const char *flag)
{
	size_t i;
	json_t *one;

	json_array_foreach(json_object_get(link, "flags"), i,
			   one) if (!strcmp(json_string_value(one), flag)) return true;
	return false;
}

static int bridge_make(void **state)
{
	if (!have_namespace) {
		print_message("skipped: needs root and /dev/net/tun for a network of its own\n");
		skip();
	}
	IP("link", "add", "name", "brsrv", "mtu", "1400", "type", "bridge");
	IP("link", "set", "brsrv", "up");
	return 0;
}

static int bridge_remove(void **state)
{
	if (have_namespace)
		IP("link", "del", "brsrv");
	return 0;
}

static int tap_open(const char *vm, const char *card, char name[NET_NAME_SIZE])
{
	struct error err = { 0 };
	int fd = -1;

	if (net_tap_open("root1", vm, card, "brsrv", &fd, name, &err) < 0)
		fail_msg("%s", err.text);
	return fd;
}

static void names_are_short_stable_and_different(void **state)
{
	static const char *const names[][3] = {
		{ "r", "web", "srv" }, { "r", "web", "srv-1" }, { "r", "webs", "rv" },
		{ "rw", "eb", "srv" }, { "q", "web", "srv" },
	};
	char seen[ARRAY_SIZE(names)][NET_NAME_SIZE];
	char again[NET_NAME_SIZE];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		net_tap_name(names[i][0], names[i][1], names[i][2], seen[i]);
		net_tap_name(names[i][0], names[i][1], names[i][2], again);
		assert_string_equal(seen[i], again);
		assert_int_equal(strlen(seen[i]), 12);
		assert_memory_equal(seen[i], "dt", 2);
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(seen[i], seen[j]);
	}
	/* The name of a running VM's tap must survive an upgrade of Drover. */
	assert_string_equal(seen[0], "dtcc662fb955");
}

static void a_tap_is_up_on_its_bridge_with_nothing_of_the_host_on_it(void **state)
{
	char name[NET_NAME_SIZE];
	CLEANUP_FD int fd = tap_open("web", "srv", name);
	json_auto_t *link = show("link", name);
	json_auto_t *addresses = show("addr", name);
	json_t *info = json_object_get(json_object_get(link, "linkinfo"), "info_data");
	struct ifreq request = { 0 };

	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_string_equal(json_string_or(link, "ifalias", ""), "drover root1 web srv");
	assert_string_equal(json_string_or(link, "master", ""), "brsrv");
	assert_int_equal(json_int_or(link, "mtu", 0), 1400);
	assert_true(has_flag(link, "UP"));
	assert_string_equal(json_string_or(link, "inet6_addr_gen_mode", ""), "none");
	assert_int_equal(json_array_size(json_object_get(addresses, "addr_info")), 0);
	assert_memory_equal(json_string_or(link, "address", ""), "fe:", 3);
	assert_string_equal(json_string_or(info, "type", ""), "tap");
	assert_true(json_bool_or(info, "vnet_hdr", false));
	assert_false(json_bool_or(info, "pi", true));
	assert_false(json_bool_or(info, "persist", true));
	assert_false(json_bool_or(info, "multi_queue", true));
	assert_int_equal(ioctl(fd, TUNGETIFF, &request), 0);
	assert_string_equal(request.ifr_name, name);
}

static void the_bridge_keeps_its_mtu_and_address(void **state)
{
	json_auto_t *before = NULL;
	json_auto_t *after = NULL;
	char name[NET_NAME_SIZE];
	CLEANUP_FD int fd = -1;

	IP("tuntap", "add", "dev", "port0", "mode", "tap");
	IP("link", "set", "dev", "port0", "mtu", "1400", "address", "02:00:00:00:00:01", "master",
	   "brsrv");
	before = show("link", "brsrv");
	fd = tap_open("web", "srv", name);
	after = show("link", "brsrv");
	assert_string_equal(json_string_or(before, "address", "a"),
			    json_string_or(after, "address", "b"));
	assert_int_equal(json_int_or(after, "mtu", 0), 1400);
	IP("link", "del", "port0");
}

static void a_tap_ends_with_its_last_descriptor(void **state)
{
	char name[NET_NAME_SIZE];
	struct error err = { 0 };
	int fd = tap_open("web", "srv", name);

	assert_int_equal(net_link_exists(name, &err), 1);
	(void)close(fd);
	assert_int_equal(net_link_exists(name, &err), 0);
	/* At once again, under the same name. */
	fd = tap_open("web", "srv", name);
	(void)close(fd);
}

static void a_tap_that_is_still_open_elsewhere_is_not_taken(void **state)
{
	char name[NET_NAME_SIZE];
	CLEANUP_FD int fd = tap_open("web", "srv", name);
	struct error err = { 0 };
	int second = -1;

	assert_true(fd >= 0);
	assert_int_equal(net_tap_open("root1", "web", "srv", "brsrv", &second, name, &err), -EBUSY);
	assert_int_equal(err.class, ERROR_TRY_AGAIN);
	assert_int_equal(second, -1);
}

static void a_left_over_of_ours_is_taken_over_and_goes_with_us(void **state)
{
	char name[NET_NAME_SIZE];
	struct error err = { 0 };
	int fd;

	net_tap_name("root1", "web", "srv", name);
	IP("tuntap", "add", "dev", name, "mode", "tap", "vnet_hdr");
	IP("link", "set", "dev", name, "alias", "drover root1 web srv");
	fd = tap_open("web", "srv", name);
	(void)close(fd);
	assert_int_equal(net_link_exists(name, &err), 0);
}

static void what_is_somebody_elses_is_left_alone(void **state)
{
	char name[NET_NAME_SIZE];
	struct error err = { 0 };
	int fd = -1;

	net_tap_name("root1", "web", "srv", name);
	IP("tuntap", "add", "dev", name, "mode", "tap");
	IP("link", "set", "dev", name, "alias", "drover root2 web srv");
	assert_int_equal(net_tap_open("root1", "web", "srv", "brsrv", &fd, name, &err), -EPERM);
	assert_int_equal(net_tap_remove("root1", name, &err), -EPERM);
	assert_non_null(strstr(err.text, "not ours"));
	assert_int_equal(net_link_exists(name, &err), 1);
	assert_int_equal(net_tap_remove("root2", name, &err), 0);
	assert_int_equal(net_link_exists(name, &err), 0);
	assert_int_equal(net_tap_remove("root2", name, &err), 0);
	assert_int_equal(net_tap_remove("root1", "brsrv", &err), -EPERM);
}

static void a_missing_bridge_is_explained(void **state)
{
	char name[NET_NAME_SIZE];
	struct error err = { 0 };
	int fd = -1;

	assert_int_equal(net_tap_open("root1", "web", "srv", "brnone", &fd, name, &err), -ENODEV);
	assert_non_null(strstr(err.text, "ip link add name brnone type bridge"));
	assert_non_null(strstr(err.text, "network: user"));
	assert_int_equal(net_tap_open("root1", "web", "srv", "lo", &fd, name, &err), -EPERM);
	assert_non_null(strstr(err.text, "no bridge"));
	assert_int_equal(
		net_tap_open("root1", "web", "srv", "a-name-that-is-too-long", &fd, name, &err),
		-ENODEV);
}

static void a_failed_tap_leaves_nothing(void **state)
{
	char name[NET_NAME_SIZE];
	char vm[400];
	struct error err = { 0 };
	int fd = -1;

	memset(vm, 'v', sizeof(vm) - 1);
	vm[sizeof(vm) - 1] = '\0';
	assert_int_equal(net_tap_open("root1", vm, "srv", "brsrv", &fd, name, &err), -EBADMSG);
	net_tap_name("root1", vm, "srv", name);
	assert_int_equal(net_link_exists(name, &err), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, bridge_make, bridge_remove)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_short_stable_and_different),
		TEST(a_tap_is_up_on_its_bridge_with_nothing_of_the_host_on_it),
		TEST(the_bridge_keeps_its_mtu_and_address),
		TEST(a_tap_ends_with_its_last_descriptor),
		TEST(a_tap_that_is_still_open_elsewhere_is_not_taken),
		TEST(a_left_over_of_ours_is_taken_over_and_goes_with_us),
		TEST(what_is_somebody_elses_is_left_alone),
		TEST(a_missing_bridge_is_explained),
		TEST(a_failed_tap_leaves_nothing),
	};

	have_namespace = access("/dev/net/tun", R_OK | W_OK) == 0 && unshare(CLONE_NEWNET) == 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
