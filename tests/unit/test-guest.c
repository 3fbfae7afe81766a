/* SPDX-License-Identifier: Apache-2.0 */
/* The client of the guest agent against an agent played by the test, line by line, with all the bad
 * manners that a guest may have. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "guest/guest.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"

#define LONG (30 * USEC_PER_SEC)

struct bench {
	sd_event *loop;
	struct guest *guest;
	int agent; /* the guest's end */
	int gone;
	bool close_in_reply;
};

struct answer {
	struct bench *bench;
	int count, code;
	json_t *value;
	struct error error;
};

static void on_gone(void *ctx)
{
	struct bench *bench = ctx;

	bench->gone++;
}

static int bench_open(void **state)
{
	struct bench *bench = xcalloc(1, sizeof(*bench));
	struct error err = { 0 };
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_true(sd_event_new(&bench->loop) >= 0);
	assert_int_equal(guest_open(fds[0], bench->loop, on_gone, bench, &bench->guest, &err), 0);
	bench->agent = fds[1];
	*state = bench;
	return 0;
}

static int bench_close(void **state)
{
	struct bench *bench = *state;

	guest_close(bench->guest);
	if (bench->agent >= 0)
		(void)close(bench->agent);
	sd_event_unref(bench->loop);
	free(bench);
	return 0;
}

static void on_reply(void *ctx, int r, json_t *value, const struct error *err)
{
	struct answer *answer = ctx;

	assert_true((r < 0) == (err != NULL));
	answer->count++;
	answer->code = r;
	json_decref(answer->value);
	answer->value = json_incref(value);
	if (err)
		answer->error = *err;
	if (answer->bench->close_in_reply)
		answer->bench->guest = guest_close(answer->bench->guest);
}

static void answer_done(struct answer *answer)
{
	json_decref(answer->value);
}

static void call(struct bench *bench, const char *command, uint64_t timeout, struct answer *answer)
{
	struct error err = { 0 };

	answer->bench = bench;
	if (guest_call(bench->guest, command, NULL, timeout, on_reply, answer, &err) < 0)
		fail_msg("%s", err.text);
}

static void spin(struct bench *bench, const int *count, int until)
{
	uint64_t deadline = clock_now() + LONG;

	while (*count < until) {
		assert_true(clock_now() < deadline);
		assert_true(sd_event_run(bench->loop, 100 * USEC_PER_MSEC) >= 0);
	}
}

static void settle(struct bench *bench)
{
	while (sd_event_run(bench->loop, 0) > 0)
		;
}

static void say_bytes(struct bench *bench, const char *bytes, size_t length)
{
	assert_int_equal(send(bench->agent, bytes, length, MSG_NOSIGNAL), length);
	settle(bench);
}

static void say(struct bench *bench, const char *text)
{
	say_bytes(bench, text, strlen(text));
}

/* The next byte that the client sent; waits for it, since timers may have to fire first. */
static char hear_byte(struct bench *bench)
{
	uint64_t deadline = clock_now() + LONG;
	char byte;

	while (recv(bench->agent, &byte, 1, MSG_DONTWAIT) != 1) {
		assert_int_equal(errno, EAGAIN);
		assert_true(clock_now() < deadline);
		assert_true(sd_event_run(bench->loop, 20 * USEC_PER_MSEC) >= 0);
	}
	return byte;
}

static bool is_silent(struct bench *bench)
{
	char byte;

	settle(bench);
	return recv(bench->agent, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0;
}

/* The next command; 0xFF before it is skipped.  A new reference. */
static json_t *hear(struct bench *bench, const char *command)
{
	struct text line = { 0 };
	json_t *message;
	char byte;

	while ((byte = hear_byte(bench)) != '\n')
		if (line.length > 0 || byte != '\xff')
			text_add(&line, &byte, 1);
	message = json_loadb(line.text, line.length, 0, NULL);
	text_done(&line);
	assert_non_null(message);
	assert_string_equal(json_string_or(message, "execute", ""), command);
	return message;
}

static void hear_only(struct bench *bench, const char *command)
{
	json_decref(hear(bench, command));
}

/* The synchronisation that the client begins with; its id. */
static json_int_t hear_sync(struct bench *bench)
{
	json_auto_t *message = NULL;

	assert_int_equal((unsigned char)hear_byte(bench), 0xff);
	message = hear(bench, "guest-sync-delimited");
	return json_integer_value(json_object_get(json_object_get(message, "arguments"), "id"));
}

/* As qemu-ga does it: a complaint about the 0xFF first. */
static void answer_sync(struct bench *bench, json_int_t id)
{
	CLEANUP_FREE char *text = xasprintf("{\"error\": {\"class\": \"GenericError\", \"desc\": "
					    "\"JSON parse error, stray '\\\\xff'\"}}\n"
					    "\xff{\"return\": %lld}\n",
					    (long long)id);

	say(bench, text);
}

/* Synchronised, and one command answered. */
static void warm_up(struct bench *bench)
{
	CLEANUP(answer_done) struct answer answer = { 0 };

	call(bench, "guest-ping", LONG, &answer);
	answer_sync(bench, hear_sync(bench));
	hear_only(bench, "guest-ping");
	say(bench, "{\"return\": {}}\n");
	spin(bench, &answer.count, 1);
	assert_int_equal(answer.code, 0);
}

static void the_first_command_synchronises_and_the_next_does_not(void **state)
{
	struct bench *bench = *state;
	CLEANUP(answer_done) struct answer answer = { 0 };

	warm_up(bench);
	call(bench, "guest-info", LONG, &answer);
	assert_int_equal(answer.count, 0);
	hear_only(bench, "guest-info");
	say(bench, "{\"return\": {\"version\": \"7.2\"}}\n");
	spin(bench, &answer.count, 1);
	assert_string_equal(json_string_or(answer.value, "version", ""), "7.2");
}

static void all_before_the_answer_to_the_synchronisation_is_thrown_away(void **state)
{
	struct bench *bench = *state;
	CLEANUP(answer_done) struct answer answer = { 0 };
	CLEANUP_FREE char *text = NULL;
	json_int_t id;

	/* Said to an earlier client, half of it, then noise with all kinds of bytes. */
	say(bench, "{\"return\": \"stale\"}\n{\"return\": 4711}\n");
	say_bytes(bench, "\0\1\2\xff\xfe\xc0\n\n\n[1, 2]\nnull\n", 21);
	call(bench, "guest-info", LONG, &answer);
	id = hear_sync(bench);
	text = xasprintf("{\"return\": {\"half\": \xff{\"return\": %lld}\n"
			 "{\"return\": {\"ha\xff\xff{\"return\": %lld}\n",
			 (long long)id + 1, (long long)id);
	say(bench, text);
	hear_only(bench, "guest-info");
	assert_int_equal(answer.count, 0);
	say(bench, "{\"return\": \"fresh\"}\n");
	spin(bench, &answer.count, 1);
	assert_string_equal(json_string_value(answer.value), "fresh");
}

static void a_refusal_comes_in_the_agents_own_words(void **state)
{
	struct bench *bench = *state;
	CLEANUP(answer_done) struct answer answer = { 0 };

	warm_up(bench);
	call(bench, "guest-exec", LONG, &answer);
	hear_only(bench, "guest-exec");
	say(bench,
	    "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"Command guest-exec has "
	    "been disabled: the agent is in frozen state\"}}\n");
	spin(bench, &answer.count, 1);
	assert_int_equal(answer.code, -EREMOTEIO);
	assert_string_equal(answer.error.text, "guest-exec: Command guest-exec has been disabled: "
					       "the agent is in frozen state");
	call(bench, "guest-ping", LONG, &answer);
	hear_only(bench, "guest-ping"); /* no new synchronisation: all is in order */
}

static void the_late_answer_of_a_command_that_was_given_up_reaches_nobody(void **state)
{
	struct bench *bench = *state;
	CLEANUP(answer_done) struct answer slow = { 0 };
	CLEANUP(answer_done) struct answer next = { 0 };
	json_int_t id;

	warm_up(bench);
	call(bench, "guest-fsfreeze-freeze", 1000, &slow);
	hear_only(bench, "guest-fsfreeze-freeze");
	spin(bench, &slow.count, 1);
	assert_int_equal(slow.code, -ETIMEDOUT);
	assert_int_equal(slow.error.class, ERROR_TRY_AGAIN);

	call(bench, "guest-fsfreeze-status", LONG, &next);
	id = hear_sync(bench);
	say(bench, "{\"return\": 2}\n"); /* of the freeze */
	assert_int_equal(next.count, 0);
	answer_sync(bench, id);
	hear_only(bench, "guest-fsfreeze-status");
	say(bench, "{\"return\": \"frozen\"}\n");
	spin(bench, &next.count, 1);
	assert_string_equal(json_string_value(next.value), "frozen");
	assert_int_equal(slow.count, 1);
}

static void a_silent_agent_is_not_asked_again_and_again(void **state)
{
	struct bench *bench = *state;
	CLEANUP(answer_done) struct answer answer = { 0 };
	json_int_t id;

	call(bench, "guest-ping", 1000, &answer);
	id = hear_sync(bench);
	spin(bench, &answer.count, 1);
	assert_int_equal(answer.code, -ETIMEDOUT);
	assert_non_null(strstr(answer.error.text, "installed"));
	/* The second does not add to what waits, and the late answer to the first serves it. */
	call(bench, "guest-ping", LONG, &answer);
	assert_true(is_silent(bench));
	answer_sync(bench, id);
	hear_only(bench, "guest-ping");
	say(bench, "{\"return\": {}}\n");
	spin(bench, &answer.count, 2);
	assert_int_equal(answer.code, 0);
}

static void what_nobody_asked_for_leads_to_a_new_synchronisation(void **state)
{
	static const char *const noise[] = { "{\"return\": {}}\n", "hello\n", "{\"event\": 1}\n" };
	struct bench *bench = *state;
	CLEANUP(answer_done) struct answer answer = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(noise); i++) {
		warm_up(bench);
		say(bench, noise[i]);
	}
	call(bench, "guest-ping", LONG, &answer);
	(void)hear_sync(bench);
}

static void nonsense_instead_of_an_answer_fails_at_once(void **state)
{
	static const char *const nonsense[] = { "{\"return\": {\"ha\n", "[]\n", "{\"huh\": 1}\n",
						"Kernel panic\n" };
	struct bench *bench = *state;
	CLEANUP(answer_done) struct answer answer = { 0 };

	for (int i = 0; i < (int)ARRAY_SIZE(nonsense); i++) {
		call(bench, "guest-info", LONG, &answer);
		answer_sync(bench, hear_sync(bench));
		hear_only(bench, "guest-info");
		say(bench, nonsense[i]);
		spin(bench, &answer.count, i + 1);
		assert_int_equal(answer.code, -EBADMSG);
	}
}

static void one_command_is_in_flight_and_the_rest_wait_in_order(void **state)
{
	struct bench *bench = *state;
	CLEANUP(answer_done) struct answer first = { 0 };
	CLEANUP(answer_done) struct answer second = { 0 };
	CLEANUP(answer_done) struct answer third = { 0 };

	warm_up(bench);
	call(bench, "guest-one", LONG, &first);
	call(bench, "guest-two", 1000, &second);
	call(bench, "guest-three", LONG, &third);
	hear_only(bench, "guest-one");
	assert_true(is_silent(bench));
	spin(bench, &second.count, 1); /* waiting counts */
	assert_int_equal(second.code, -ETIMEDOUT);
	say(bench, "{\"return\": 1}\n");
	hear_only(bench, "guest-three");
	say(bench, "{\"return\": 3}\n");
	spin(bench, &third.count, 1);
	assert_int_equal(json_integer_value(first.value), 1);
	assert_int_equal(json_integer_value(third.value), 3);
}

static void the_queue_has_an_end(void **state)
{
	struct bench *bench = *state;
	CLEANUP(answer_done) struct answer answer = { 0 };
	struct error err = { 0 };
	int r = 0, sent = 0;

	answer.bench = bench;
	while (r == 0 && sent < 1000) {
		r = guest_call(bench->guest, "guest-ping", NULL, LONG, on_reply, &answer, &err);
		sent += r == 0;
	}
	assert_int_equal(r, -EAGAIN);
	assert_int_equal(sent, 64);
	(void)close(TAKE_FD(bench->agent));
	spin(bench, &bench->gone, 1);
	assert_int_equal(answer.count, 64);
	assert_int_equal(answer.code, -ECONNRESET);
	assert_int_equal(
		guest_call(bench->guest, "guest-ping", NULL, LONG, on_reply, &answer, &err),
		-ECONNRESET);
}

static void an_endless_line_ends_the_conversation(void **state)
{
	struct bench *bench = *state;
	CLEANUP(answer_done) struct answer answer = { 0 };
	CLEANUP_FREE char *chunk = xcalloc(1, 65536);
	uint64_t deadline = clock_now() + LONG;

	memset(chunk, 'x', 65536);
	call(bench, "guest-ping", LONG, &answer);
	while (!bench->gone) {
		assert_true(clock_now() < deadline);
		(void)send(bench->agent, chunk, 65536, MSG_DONTWAIT | MSG_NOSIGNAL);
		assert_true(sd_event_run(bench->loop, 0) >= 0);
	}
	assert_int_equal(answer.count, 1);
	assert_int_equal(answer.code, -ECONNRESET);
	assert_non_null(strstr(answer.error.text, "longer than"));
}

static void the_owner_may_close_inside_any_answer(void **state)
{
	struct bench *bench = *state;
	CLEANUP(answer_done) struct answer answer = { 0 };

	warm_up(bench);
	call(bench, "guest-one", LONG, &answer);
	call(bench, "guest-two", LONG, &answer);
	hear_only(bench, "guest-one");
	bench->close_in_reply = true;
	say(bench, "{\"return\": 1}\n{\"return\": 2}\n");
	assert_int_equal(answer.count, 1);
	assert_null(bench->guest);
}

static void the_owner_may_close_while_the_end_is_told(void **state)
{
	struct bench *bench = *state;
	CLEANUP(answer_done) struct answer answer = { 0 };

	call(bench, "guest-one", LONG, &answer);
	call(bench, "guest-two", LONG, &answer);
	bench->close_in_reply = true;
	(void)close(TAKE_FD(bench->agent));
	spin(bench, &answer.count, 1);
	settle(bench);
	assert_int_equal(answer.count, 1);
	assert_int_equal(bench->gone, 0);
	assert_null(bench->guest);
}

static void a_command_without_an_answer_is_done_when_the_agent_goes_on(void **state)
{
	struct bench *bench = *state;
	CLEANUP(answer_done) struct answer answer = { 0 };
	json_auto_t *question = NULL;
	CLEANUP_FREE char *text = NULL;

	warm_up(bench);
	call(bench, "guest-shutdown", LONG, &answer);
	hear_only(bench, "guest-shutdown");
	question = hear(bench, "guest-sync");
	text = xasprintf("{\"return\": %lld}\n",
			 (long long)json_integer_value(
				 json_object_get(json_object_get(question, "arguments"), "id")));
	say(bench, text);
	spin(bench, &answer.count, 1);
	assert_int_equal(answer.code, 0);
	assert_true(json_is_object(answer.value));

	call(bench, "guest-shutdown", LONG, &answer);
	hear_only(bench, "guest-shutdown");
	hear_only(bench, "guest-sync");
	say(bench, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such mode\"}}\n");
	spin(bench, &answer.count, 2);
	assert_string_equal(answer.error.text, "guest-shutdown: no such mode");
	warm_up(bench); /* synchronises, for the answer to the question may still come */
}

/* ---- guest-exec ---- */

static void exec(struct bench *bench, const void *input, size_t length, uint64_t timeout,
		 struct answer *answer)
{
	static const char *const argv[] = { "/bin/cat", "-n", "/etc/hostname", NULL };
	struct error err = { 0 };

	answer->bench = bench;
	if (guest_exec(bench->guest, argv, input, length, timeout, on_reply, answer, &err) < 0)
		fail_msg("%s", err.text);
}

static void a_program_is_followed_to_its_end(void **state)
{
	struct bench *bench = *state;
	CLEANUP(answer_done) struct answer answer = { 0 };
	json_auto_t *message = NULL;
	json_t *args;

	warm_up(bench);
	exec(bench, "\0\377ab", 4, LONG, &answer);
	message = hear(bench, "guest-exec");
	args = json_object_get(message, "arguments");
	assert_string_equal(json_string_or(args, "path", ""), "/bin/cat");
	assert_int_equal(json_array_size(json_object_get(args, "arg")), 2);
	assert_string_equal(json_string_or(args, "input-data", ""), "AP9hYg==");
	assert_true(json_bool_or(args, "capture-output", false));
	say(bench, "{\"return\": {\"pid\": 815}}\n");
	for (int i = 0; i < 3; i++) {
		json_auto_t *status = hear(bench, "guest-exec-status");

		assert_int_equal(json_int_or(json_object_get(status, "arguments"), "pid", 0), 815);
		assert_int_equal(answer.count, 0);
		say(bench, i < 2 ? "{\"return\": {\"exited\": false}}\n"
				 : "{\"return\": {\"exited\": true, \"exitcode\": 3, \"out-data\": "
				   "\"aGk=\", \"err-truncated\": true}}\n");
	}
	spin(bench, &answer.count, 1);
	assert_int_equal(answer.code, 0);
	assert_int_equal(json_int_or(answer.value, "exitcode", -1), 3);
	assert_string_equal(json_string_or(answer.value, "out", ""), "aGk=");
	assert_string_equal(json_string_or(answer.value, "err", "?"), "");
	assert_false(json_bool_or(answer.value, "out-truncated", true));
	assert_true(json_bool_or(answer.value, "err-truncated", false));
}

static void a_program_that_ends_by_a_signal_says_so(void **state)
{
	struct bench *bench = *state;
	CLEANUP(answer_done) struct answer answer = { 0 };

	warm_up(bench);
	exec(bench, NULL, 0, LONG, &answer);
	hear_only(bench, "guest-exec");
	say(bench, "{\"return\": {\"pid\": 815}}\n");
	hear_only(bench, "guest-exec-status");
	say(bench, "{\"return\": {\"exited\": true, \"signal\": 9}}\n");
	spin(bench, &answer.count, 1);
	assert_int_equal(json_int_or(answer.value, "signal", -1), 9);
	assert_null(json_object_get(answer.value, "exitcode"));
}

static void a_program_that_never_ends_runs_out_of_time(void **state)
{
	struct bench *bench = *state;
	CLEANUP(answer_done) struct answer answer = { 0 };

	warm_up(bench);
	exec(bench, NULL, 0, 200 * USEC_PER_MSEC, &answer);
	hear_only(bench, "guest-exec");
	say(bench, "{\"return\": {\"pid\": 815}}\n");
	spin(bench, &answer.count, 1);
	assert_int_equal(answer.code, -ETIMEDOUT);
	assert_string_equal(answer.error.text,
			    "/bin/cat still runs in the guest (pid 815) after its time");
}

static void a_program_that_cannot_start_says_why(void **state)
{
	struct bench *bench = *state;
	CLEANUP(answer_done) struct answer answer = { 0 };

	warm_up(bench);
	exec(bench, NULL, 0, LONG, &answer);
	hear_only(bench, "guest-exec");
	say(bench, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"Failed to execute child "
		   "process\"}}\n");
	spin(bench, &answer.count, 1);
	assert_int_equal(answer.code, -EREMOTEIO);
	assert_string_equal(answer.error.text,
			    "/bin/cat: guest-exec: Failed to execute child process");
	exec(bench, NULL, 0, LONG, &answer);
	hear_only(bench, "guest-exec");
	say(bench, "{\"return\": {\"pid\": \"evil\"}}\n");
	spin(bench, &answer.count, 2);
	assert_int_equal(answer.code, -EBADMSG);
}

static void the_end_of_the_conversation_reaches_every_program(void **state)
{
	struct bench *bench = *state;
	CLEANUP(answer_done) struct answer answer = { 0 };

	warm_up(bench);
	exec(bench, NULL, 0, LONG, &answer);
	exec(bench, NULL, 0, LONG, &answer);
	hear_only(bench, "guest-exec");
	say(bench,
	    "{\"return\": {\"pid\": 815}}\n"); /* one waits for its timer, one for an answer */
	(void)close(TAKE_FD(bench->agent));
	spin(bench, &bench->gone, 1);
	assert_int_equal(answer.count, 2);
	assert_int_equal(answer.code, -ECONNRESET);
}

static void programs_are_forgotten_when_the_owner_closes(void **state)
{
	struct bench *bench = *state;
	CLEANUP(answer_done) struct answer answer = { 0 };

	warm_up(bench);
	exec(bench, NULL, 0, LONG, &answer);
	exec(bench, NULL, 0, LONG, &answer);
	hear_only(bench, "guest-exec");
	say(bench, "{\"return\": {\"pid\": 815}}\n");
	bench->guest = guest_close(bench->guest);
	settle(bench);
	assert_int_equal(answer.count, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, bench_open, bench_close)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_first_command_synchronises_and_the_next_does_not),
		TEST(all_before_the_answer_to_the_synchronisation_is_thrown_away),
		TEST(a_refusal_comes_in_the_agents_own_words),
		TEST(the_late_answer_of_a_command_that_was_given_up_reaches_nobody),
		TEST(a_silent_agent_is_not_asked_again_and_again),
		TEST(what_nobody_asked_for_leads_to_a_new_synchronisation),
		TEST(nonsense_instead_of_an_answer_fails_at_once),
		TEST(one_command_is_in_flight_and_the_rest_wait_in_order),
		TEST(the_queue_has_an_end),
		TEST(an_endless_line_ends_the_conversation),
		TEST(the_owner_may_close_inside_any_answer),
		TEST(the_owner_may_close_while_the_end_is_told),
		TEST(a_command_without_an_answer_is_done_when_the_agent_goes_on),
		TEST(a_program_is_followed_to_its_end),
		TEST(a_program_that_ends_by_a_signal_says_so),
		TEST(a_program_that_never_ends_runs_out_of_time),
		TEST(a_program_that_cannot_start_says_why),
		TEST(the_end_of_the_conversation_reaches_every_program),
		TEST(programs_are_forgotten_when_the_owner_closes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
