/* SPDX-License-Identifier: Apache-2.0 */
/* The QMP client against a real QEMU, and against a peer played by the test for what a real one
 * will not do on demand. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "qmp/qmp.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "util/spawn.h"
#include "wire/json.h"

#define LONG (30 * USEC_PER_SEC)
#define GREETING                                                                                   \
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 7}, "          \
	"\"package\": \"\"}, \"capabilities\": [\"oob\"]}}\n"

/* ---- one client and what it heard ---- */

struct seen {
	sd_event *loop;
	struct qmp *qmp;
	int peer; /* the other end, when the test plays QEMU */
	int ready, gone, events, replies;
	char event_name[64];
	uint64_t event_usec;
	int reply_code;
	json_t *reply_value;
	struct error reply_error, gone_error;
	bool close_in_reply;
};

static void on_ready(void *ctx, json_t *greeting)
{
	struct seen *seen = ctx;

	assert_true(json_is_object(json_object_get(greeting, "QMP")));
	seen->ready++;
}

static void on_event(void *ctx, const char *name, json_t *data, uint64_t usec)
{
	struct seen *seen = ctx;

	seen->events++;
	(void)snprintf(seen->event_name, sizeof(seen->event_name), "%s", name);
	seen->event_usec = usec;
}

static void on_gone(void *ctx, const struct error *why)
{
	struct seen *seen = ctx;

	seen->gone++;
	seen->gone_error = *why;
}

static const struct qmp_ops ops = { .ready = on_ready, .event = on_event, .gone = on_gone };

static void on_reply(void *ctx, int r, json_t *value, const struct error *err)
{
	struct seen *seen = ctx;

	assert_true((r < 0) == (err != NULL));
	seen->replies++;
	seen->reply_code = r;
	if (err)
		seen->reply_error = *err;
	json_decref(seen->reply_value);
	seen->reply_value = json_incref(value);
	if (seen->close_in_reply)
		seen->qmp = qmp_close(seen->qmp);
}

static void spin(struct seen *seen, const int *count, int until)
{
	uint64_t deadline = clock_now() + LONG;

	while (*count < until) {
		assert_true(clock_now() < deadline);
		assert_true(sd_event_run(seen->loop, 100 * USEC_PER_MSEC) >= 0);
	}
}

/* Everything that is there to be done now. */
static void settle(struct seen *seen)
{
	while (sd_event_run(seen->loop, 0) > 0)
		;
}

static void seen_open(struct seen *seen, int fd)
{
	struct error err = { 0 };

	*seen = (struct seen){ .peer = -1 };
	assert_true(sd_event_new(&seen->loop) >= 0);
	assert_int_equal(qmp_open(fd, seen->loop, &ops, seen, &seen->qmp, &err), 0);
}

static void seen_done(struct seen *seen)
{
	seen->qmp = qmp_close(seen->qmp);
	json_decref(seen->reply_value);
	if (seen->peer >= 0)
		(void)close(seen->peer);
	sd_event_unref(seen->loop);
}

static void seen_pair(struct seen *seen)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	seen_open(seen, fds[0]);
	seen->peer = fds[1];
}

static void say(struct seen *seen, const char *text)
{
	assert_int_equal(write(seen->peer, text, strlen(text)), strlen(text));
}

/* The next request that the client wrote; its id. */
static json_int_t hear(struct seen *seen, const char *command)
{
	char line[4096];
	size_t length = 0;
	json_auto_t *message = NULL;
	json_int_t id;

	settle(seen);
	do {
		assert_int_equal(recv(seen->peer, line + length, 1, MSG_DONTWAIT), 1);
	} while (line[length++] != '\n' && length < sizeof(line));
	message = json_loadb(line, length, 0, NULL);
	assert_non_null(message);
	assert_string_equal(json_string_or(message, "execute", ""), command);
	id = json_integer_value(json_object_get(message, "id"));
	return id;
}

static void answer(struct seen *seen, json_int_t id, const char *rest)
{
	CLEANUP_FREE char *text = xasprintf("{%s, \"id\": %lld}\r\n", rest, (long long)id);

	say(seen, text);
}

static void negotiate(struct seen *seen)
{
	say(seen, GREETING);
	answer(seen, hear(seen, "qmp_capabilities"), "\"return\": {}");
	spin(seen, &seen->ready, 1);
}

/* ---- a real QEMU ---- */

struct qemu {
	pid_t pid;
	int pidfd;
	int monitor;
};

static void qemu_start(struct qemu *qemu)
{
	const char *const argv[] = { "qemu-system-x86_64",
				     "-machine",
				     "none",
				     "-nodefaults",
				     "-no-user-config",
				     "-display",
				     "none",
				     "-S",
				     "-chardev",
				     "socket,id=qmp,fd=3",
				     "-mon",
				     "chardev=qmp,mode=control",
				     NULL };
	struct error err = { 0 };
	int fds[2];
	struct spawn what = {
		.argv = argv,
		.stdin_fd = -1,
		.stdout_fd = -1,
		.stderr_fd = -1,
		.die_with_parent = true,
		.n_fds = 1,
	};

	if (access("/usr/bin/qemu-system-x86_64", X_OK) < 0) {
		print_message("skipped: no qemu-system-x86_64 (package qemu-system-x86)\n");
		skip();
	}
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	what.fds = &fds[1];
	if (spawn(&what, &qemu->pid, &qemu->pidfd, &err) < 0)
		fail_msg("%s", err.text);
	(void)close(fds[1]);
	qemu->monitor = fds[0];
}

static void qemu_end(struct qemu *qemu)
{
	struct pollfd pollfd = { .fd = qemu->pidfd, .events = POLLIN };

	(void)kill(qemu->pid, SIGKILL);
	(void)poll(&pollfd, 1, -1);
	(void)waitpid(qemu->pid, NULL, 0);
	(void)close(qemu->pidfd);
}

static void a_real_qemu_greets_answers_refuses_and_says_goodbye(void **state)
{
	struct qemu qemu;
	struct seen seen;
	struct error err = { 0 };

	qemu_start(&qemu);
	seen_open(&seen, qemu.monitor);
	assert_false(qmp_ready(seen.qmp));
	assert_int_equal(qmp_call(seen.qmp, "stop", NULL, LONG, on_reply, &seen, &err), -EAGAIN);
	spin(&seen, &seen.ready, 1);
	assert_true(qmp_ready(seen.qmp));

	assert_int_equal(qmp_call(seen.qmp, "query-status", NULL, LONG, on_reply, &seen, &err), 0);
	assert_int_equal(seen.replies, 0);
	spin(&seen, &seen.replies, 1);
	assert_int_equal(seen.reply_code, 0);
	assert_non_null(json_object_get(seen.reply_value, "running"));

	assert_int_equal(qmp_call(seen.qmp, "no-such-command", NULL, LONG, on_reply, &seen, &err),
			 0);
	spin(&seen, &seen.replies, 2);
	assert_int_equal(seen.reply_code, -EREMOTEIO);
	assert_string_equal(seen.reply_error.text,
			    "no-such-command: The command no-such-command has not been found");

	assert_int_equal(qmp_call(seen.qmp, "quit", NULL, LONG, on_reply, &seen, &err), 0);
	spin(&seen, &seen.gone, 1);
	assert_string_equal(seen.event_name, "SHUTDOWN");
	assert_true(seen.event_usec > 0);
	seen_done(&seen);
	qemu_end(&qemu);
}

/* With a queue before it, so that the descriptor has to wait for its place. */
static void a_descriptor_reaches_qemu_with_its_command(void **state)
{
	json_auto_t *name = json_pack("{s:s}", "fdname", "stream");
	struct error err = { 0 };
	struct qemu qemu;
	struct seen seen;
	int ends[2];

	assert_int_equal(pipe(ends), 0);
	qemu_start(&qemu);
	seen_open(&seen, qemu.monitor);
	spin(&seen, &seen.ready, 1);
	for (int i = 0; i < 500; i++)
		assert_int_equal(qmp_call(seen.qmp, "query-status", NULL, LONG, NULL, NULL, &err),
				 0);
	assert_int_equal(qmp_call_fd(seen.qmp, "getfd", name, ends[1], LONG, on_reply, &seen, &err),
			 0);
	spin(&seen, &seen.replies, 1);
	assert_int_equal(seen.reply_code, 0);
	(void)close(ends[1]);
	assert_int_equal(qmp_call(seen.qmp, "closefd", name, LONG, on_reply, &seen, &err), 0);
	spin(&seen, &seen.replies, 2);
	assert_int_equal(seen.reply_code, 0);
	/* QEMU's was the last one. */
	assert_int_equal(read(ends[0], &(char){ 0 }, 1), 0);
	(void)close(ends[0]);
	seen_done(&seen);
	qemu_end(&qemu);
}

static void the_waiting_form_works_with_a_real_qemu(void **state)
{
	struct qemu qemu;
	struct qmp_tool *tool = NULL;
	struct error err = { 0 };
	json_t *value = NULL;

	qemu_start(&qemu);
	assert_int_equal(qmp_tool_open(qemu.monitor, LONG, &tool, &err), 0);
	assert_int_equal(qmp_tool_call(tool, "query-qmp-schema", NULL, &value, &err), 0);
	assert_true(json_array_size(value) > 100);
	json_decref(value);
	assert_int_equal(qmp_tool_call(tool, "no-such-command", NULL, NULL, &err), -EREMOTEIO);
	assert_string_equal(err.text,
			    "no-such-command: The command no-such-command has not been found");
	assert_int_equal(qmp_tool_call(tool, "query-version", NULL, NULL, &err), 0);
	qmp_tool_close(tool);
	qemu_end(&qemu);
}

/* ---- what a real one does not do on demand ---- */

static void answers_are_matched_by_id_not_by_order(void **state)
{
	struct seen one, two = { 0 };
	struct error err = { 0 };
	json_int_t first, second;

	seen_pair(&one);
	negotiate(&one);
	assert_int_equal(qmp_call(one.qmp, "query-a", NULL, LONG, on_reply, &one, &err), 0);
	assert_int_equal(qmp_call(one.qmp, "query-b", NULL, LONG, on_reply, &two, &err), 0);
	first = hear(&one, "query-a");
	second = hear(&one, "query-b");
	assert_true(first != second);
	answer(&one, second, "\"return\": \"b\"");
	spin(&one, &two.replies, 1);
	assert_int_equal(one.replies, 0);
	assert_string_equal(json_string_value(two.reply_value), "b");
	answer(&one, first, "\"return\": \"a\"");
	spin(&one, &one.replies, 1);
	assert_string_equal(json_string_value(one.reply_value), "a");
	json_decref(two.reply_value);
	seen_done(&one);
}

static void a_late_answer_is_not_taken_for_the_next_ones(void **state)
{
	struct seen seen;
	struct error err = { 0 };
	json_int_t late, next;

	seen_pair(&seen);
	negotiate(&seen);
	assert_int_equal(qmp_call(seen.qmp, "query-a", NULL, 1, on_reply, &seen, &err), 0);
	late = hear(&seen, "query-a");
	spin(&seen, &seen.replies, 1);
	assert_int_equal(seen.reply_code, -ETIMEDOUT);
	assert_non_null(strstr(seen.reply_error.text, "no answer to 'query-a'"));
	assert_int_equal(qmp_call(seen.qmp, "query-b", NULL, LONG, on_reply, &seen, &err), 0);
	next = hear(&seen, "query-b");
	answer(&seen, late, "\"return\": \"stale\"");
	answer(&seen, next, "\"return\": \"fresh\"");
	spin(&seen, &seen.replies, 2);
	assert_string_equal(json_string_value(seen.reply_value), "fresh");
	seen_done(&seen);
}

static void a_message_may_come_in_pieces_and_with_events_between(void **state)
{
	static const char event[] = "{\"timestamp\": {\"seconds\": 1700000000, \"microseconds\": "
				    "5}, \"event\": \"STOP\"}\n";
	struct seen seen;

	seen_pair(&seen);
	for (size_t i = 0; i < strlen(GREETING); i++) {
		assert_int_equal(write(seen.peer, &GREETING[i], 1), 1);
		settle(&seen);
	}
	answer(&seen, hear(&seen, "qmp_capabilities"), "\"return\": {}");
	say(&seen, event);
	spin(&seen, &seen.events, 1);
	assert_int_equal(seen.ready, 1);
	assert_string_equal(seen.event_name, "STOP");
	assert_true(seen.event_usec == UINT64_C(1700000000000005));
	seen_done(&seen);
}

static void death_in_mid_answer_answers_all_open_requests_first(void **state)
{
	struct seen seen;
	struct error err = { 0 };

	seen_pair(&seen);
	negotiate(&seen);
	assert_int_equal(qmp_call(seen.qmp, "query-a", NULL, LONG, on_reply, &seen, &err), 0);
	assert_int_equal(qmp_call(seen.qmp, "query-b", NULL, LONG, on_reply, &seen, &err), 0);
	(void)hear(&seen, "query-a");
	say(&seen, "{\"return\": {\"half\":");
	(void)close(TAKE_FD(seen.peer));
	spin(&seen, &seen.gone, 1);
	assert_int_equal(seen.replies, 2);
	assert_int_equal(seen.reply_code, -ECONNRESET);
	assert_false(qmp_ready(seen.qmp));
	seen_done(&seen);
}

static void the_owner_may_close_inside_an_answer(void **state)
{
	struct seen seen;
	struct error err = { 0 };

	seen_pair(&seen);
	negotiate(&seen);
	seen.close_in_reply = true;
	assert_int_equal(qmp_call(seen.qmp, "query-a", NULL, LONG, on_reply, &seen, &err), 0);
	assert_int_equal(qmp_call(seen.qmp, "query-b", NULL, LONG, on_reply, &seen, &err), 0);
	answer(&seen, hear(&seen, "query-a"), "\"return\": {}");
	spin(&seen, &seen.replies, 1);
	settle(&seen);
	assert_int_equal(seen.replies, 1);
	assert_int_equal(seen.gone, 0);
	seen_done(&seen);
}

static void who_does_not_greet_is_no_monitor(void **state)
{
	struct seen seen;

	seen_pair(&seen);
	say(&seen, "{\"hello\": \"world\"}\n");
	spin(&seen, &seen.gone, 1);
	assert_int_equal(seen.ready, 0);
	assert_non_null(strstr(seen.gone_error.text, "no QEMU monitor"));
	seen_done(&seen);
}

static void a_refused_negotiation_is_the_end(void **state)
{
	struct seen seen;

	seen_pair(&seen);
	say(&seen, GREETING);
	answer(&seen, hear(&seen, "qmp_capabilities"),
	       "\"error\": {\"class\": \"GenericError\", \"desc\": \"not today\"}");
	spin(&seen, &seen.gone, 1);
	assert_string_equal(seen.gone_error.text, "qmp_capabilities: not today");
	seen_done(&seen);
}

static void the_waiting_form_gives_up_on_a_mute_monitor(void **state)
{
	struct qmp_tool *tool = NULL;
	struct error err = { 0 };
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(qmp_tool_open(fds[0], 1000, &tool, &err), -ETIMEDOUT);
	assert_null(tool);
	(void)close(fds[1]);

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	(void)close(fds[1]);
	assert_int_equal(qmp_tool_open(fds[0], LONG, &tool, &err), -ECONNRESET);
}

static void what_an_operator_may_not_say_names_what_to_use_instead(void **state)
{
	static const char *const refused[] = {
		"cont",
		"stop",
		"quit",
		"migrate",
		"migrate-incoming",
		"migrate_cancel",
		"device_add",
		"device_del",
		"netdev_add",
		"object-add",
		"blockdev-del",
		"block_resize",
		"chardev-remove",
		"snapshot-load",
		"set-action",
		"getfd",
		"add-fd",
		"system_powerdown",
		"qom-set",
		"yank",
		"transaction",
		"blockdev-set-active",
		"memsave",
		"pmemsave",
		"dump-guest-memory",
	};
	static const char *const allowed[] = {
		"query-status", "balloon",    "system_reset", "human-monitor-command",
		"qom-get",	"screendump", "send-key",     "inject-nmi",
	};

	for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
		if (!qmp_refusal(refused[i]))
			fail_msg("%s passes", refused[i]);
	for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
		if (qmp_refusal(allowed[i]))
			fail_msg("%s: %s", allowed[i], qmp_refusal(allowed[i]));
	assert_non_null(strstr(qmp_refusal("cont"), "drover resume"));
	assert_non_null(strstr(qmp_refusal("stop"), "drover pause"));
	assert_non_null(strstr(qmp_refusal("quit"), "drover stop"));
}

static void lines_of_the_human_monitor_are_cut_as_qemu_cuts_them(void **state)
{
	static const char *const refused[] = {
		"c",
		"cont",
		"  c",
		"\tcont\n",
		"c/x",
		"q",
		"quit now",
		"s",
		"stop",
		"\vstop",
		"savevm a",
		"loadvm a",
		"delvm a",
		"drive_add x",
		"migrate -d tcp:x:1",
		"migrate_set_parameter a b",
		"o /b 0x20 1",
		"qemu-io d0 \"write 0 1\"",
		"device_add x",
		"gdbserver",
		"boot_set c",
		"watchdog_action none",
		"snapshot_blkdev a",
		"eject cd",
		"commit all",
	};
	static const char *const allowed[] = {
		"",
		"   ",
		"info status",
		"info/x",
		"balloon 100",
		"stopcapture 0",
		"sum 0 1",
		"system_reset",
		"help c",
		"x /4x 0",
		"sendkey ctrl-alt-delete",
		"\"cont\"",
	};

	for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
		if (!hmp_refusal(refused[i]))
			fail_msg("'%s' passes", refused[i]);
	for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
		if (hmp_refusal(allowed[i]))
			fail_msg("'%s': %s", allowed[i], hmp_refusal(allowed[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_real_qemu_greets_answers_refuses_and_says_goodbye),
		cmocka_unit_test(a_descriptor_reaches_qemu_with_its_command),
		cmocka_unit_test(the_waiting_form_works_with_a_real_qemu),
		cmocka_unit_test(answers_are_matched_by_id_not_by_order),
		cmocka_unit_test(a_late_answer_is_not_taken_for_the_next_ones),
		cmocka_unit_test(a_message_may_come_in_pieces_and_with_events_between),
		cmocka_unit_test(death_in_mid_answer_answers_all_open_requests_first),
		cmocka_unit_test(the_owner_may_close_inside_an_answer),
		cmocka_unit_test(who_does_not_greet_is_no_monitor),
		cmocka_unit_test(a_refused_negotiation_is_the_end),
		cmocka_unit_test(the_waiting_form_gives_up_on_a_mute_monitor),
		cmocka_unit_test(what_an_operator_may_not_say_names_what_to_use_instead),
		cmocka_unit_test(lines_of_the_human_monitor_are_cut_as_qemu_cuts_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
