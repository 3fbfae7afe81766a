/* SPDX-License-Identifier: Apache-2.0 */
/* JSON, sockets, streams and peers, over real sockets.  One end is ours; the other is either a
 * second peer in the same loop or raw bytes, for what no honest peer would send. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/file.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"
#include "wire/sock.h"
#include "wire/stream.h"

#define PATIENCE (60 * USEC_PER_SEC)

static char root[] = "/tmp/drover-test-wire-XXXXXX";

static int setup(void **state)
{
	return mkdtemp(root) ? 0 : -1;
}

static int teardown(void **state)
{
	return file_remove_tree(AT_FDCWD, root, NULL);
}

/* Turns the loop until `*flag`; a loop in which nothing happens for that long is a failure. */
static void run_until(sd_event *loop, const int *flag)
{
	while (!*flag)
		assert_true(sd_event_run(loop, PATIENCE) > 0);
}

static void make_pair(int fds[2])
{
	assert_return_code(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), errno);
}

static void write_bytes(int fd, const char *bytes, size_t length)
{
	while (length > 0) {
		ssize_t n = send(fd, bytes, length, MSG_NOSIGNAL);

		assert_true(n > 0);
		bytes += n;
		length -= (size_t)n;
	}
}

static void write_text(int fd, const char *text)
{
	write_bytes(fd, text, strlen(text));
}

static void json_of_any_bytes_is_utf8(void **state)
{
	json_auto_t *text = json_text("a\xff\xc3\xa4\0z", 6);

	assert_string_equal(json_string_value(text), "a\xef\xbf\xbd\xc3\xa4\xef\xbf\xbdz");
}

static void json_is_parsed_strictly(void **state)
{
	CLEANUP(text_done) struct text deep = { 0 };
	static const char *const bad[] = {
		"",	  "{", "{} x", "{\"a\":1,\"a\":2}", "99999999999999999999", "\"\\u0000\"",
		"[\xff]",
	};
	struct error err;
	json_t *value;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(json_parse(bad[i], strlen(bad[i]), &value, &err), -EBADMSG);
	for (int i = 0; i < 65; i++)
		text_add(&deep, "[", 1);
	for (int i = 0; i < 65; i++)
		text_add(&deep, "]", 1);
	assert_int_equal(json_parse(deep.text, deep.length, &value, &err), -EBADMSG);
	assert_string_equal(err.text, "JSON is nested deeper than 64 levels");
	assert_return_code(json_parse(deep.text + 1, deep.length - 2, &value, &err), 0);
	json_decref(value);
	assert_return_code(json_parse("\"[[\\\"[\"", 7, &value, &err), 0);
	json_decref(value);
}

static void json_accessors_say_what_is_wrong(void **state)
{
	struct error err = { 0 };
	json_auto_t *object = json_build(&err, "{s:s, s:i, s:n}", "name", "x", "n", 3, "none");
	const char *text;
	int64_t number;

	assert_return_code(json_need_string(object, "name", &text, &err), 0);
	assert_string_equal(text, "x");
	assert_int_equal(json_need_int(object, "name", &number, &err), -EBADMSG);
	assert_string_equal(err.text, "'name' must be an integer");
	assert_int_equal(json_need_int(object, "gone", &number, &err), -EBADMSG);
	assert_string_equal(err.text, "'gone' is missing: it must be an integer");
	assert_int_equal(json_int_or(object, "none", 7), 7);
	assert_string_equal(json_string_or(object, "n", "y"), "y");
	assert_true(json_bool_or(NULL, "n", true));
	assert_null(json_build(&err, "{s:s}", "name", "\xff"));
	assert_non_null(strstr(err.text, "must be UTF-8"));
}

static void equal_values_give_equal_text(void **state)
{
	json_auto_t *a = json_pack("{s:i, s:[i]}", "b", 1, "a", 2);
	json_auto_t *b = json_pack("{s:[i], s:i}", "a", 2, "b", 1);
	CLEANUP_FREE char *of_a = json_print(a);
	CLEANUP_FREE char *of_b = json_print(b);

	assert_string_equal(of_a, "{\"a\":[2],\"b\":1}");
	assert_string_equal(of_a, of_b);
}

static void a_json_file_is_an_object_or_an_error(void **state)
{
	CLEANUP_FREE char *path = xasprintf("%s/f.json", root);
	json_auto_t *object = json_pack("{s:i}", "a", 1);
	json_auto_t *back = NULL;
	struct error err = { 0 };
	json_t *none;

	assert_int_equal(json_read_file(AT_FDCWD, path, &none, &err), -ENOENT);
	assert_return_code(json_write_file(AT_FDCWD, path, object, 0600, &err), 0);
	assert_return_code(json_read_file(AT_FDCWD, path, &back, &err), 0);
	assert_true(json_equal(object, back));
	assert_return_code(file_write(AT_FDCWD, path, "[]", 2, 0600, &err), 0);
	assert_int_equal(json_read_file(AT_FDCWD, path, &none, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "must hold a JSON object"));
}

static void sockets_are_reached_below_any_directory(void **state)
{
	CLEANUP(text_done) struct text long_path = { 0 };
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FD int dir = -1;
	CLEANUP_FD int listener = -1;
	CLEANUP_FD int client = -1;
	CLEANUP_FD int server = -1;
	struct error err = { 0 };
	struct stat st;
	uid_t uid;
	pid_t pid;

	text_addf(&long_path, "%s", root);
	for (int i = 0; i < 20; i++)
		text_addf(&long_path, "/a-long-directory-name");
	assert_return_code(file_make_dirs(AT_FDCWD, long_path.text, 0755, &err), 0);
	dir = open(long_path.text, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_return_code(dir, errno);
	path = xasprintf("%s/x.sock", long_path.text);

	assert_int_equal(sock_connect(dir, "x.sock", &err), -ENOENT);
	assert_int_equal(sock_connect_path(path, &err), -ENOENT);
	assert_int_equal(sock_connect_path("/no/such/directory/x.sock", &err), -ENOENT);
	listener = sock_listen(dir, "x.sock", 0660, &err);
	assert_return_code(listener, 0);
	assert_return_code(fstatat(dir, "x.sock", &st, 0), errno);
	assert_int_equal(st.st_mode & 0777, 0660);
	assert_int_equal(sock_accept(listener, &err), -EAGAIN);
	client = sock_connect_path(path, &err);
	assert_return_code(client, 0);
	server = sock_accept(listener, &err);
	assert_return_code(server, 0);
	assert_return_code(sock_peer(server, &uid, &pid, &err), 0);
	assert_int_equal(uid, getuid());
	assert_int_equal(pid, getpid());
	(void)close(TAKE_FD(listener));
	assert_int_equal(sock_connect(dir, "x.sock", &err), -ECONNREFUSED);
	assert_int_equal(err.class, ERROR_TRY_AGAIN);
	/* What a dead program left behind is replaced. */
	listener = sock_listen(dir, "x.sock", 0600, &err);
	assert_return_code(listener, 0);
	(void)close(TAKE_FD(client));
	client = sock_connect(dir, "x.sock", &err);
	assert_return_code(client, 0);
}

struct ear {
	sd_event *loop;
	struct stream *stream;
	int other; /* the raw end */
	int messages, garbage, gone;
	int close_at; /* closes the stream inside the callback of this message */
	struct error why;
	char last[256];
};

static void ear_message(void *ctx, json_t *message)
{
	CLEANUP_FREE char *text = json_print(message);
	struct ear *ear = ctx;

	assert_int_equal(ear->gone, 0);
	ear->messages++;
	(void)snprintf(ear->last, sizeof(ear->last), "%s", text);
	if (ear->messages == ear->close_at)
		ear->stream = stream_close(ear->stream);
}

static void ear_garbage(void *ctx, const char *line, size_t length)
{
	struct ear *ear = ctx;

	ear->garbage++;
	(void)snprintf(ear->last, sizeof(ear->last), "%.*s", (int)length, line);
}

static void ear_gone(void *ctx, const struct error *why)
{
	struct ear *ear = ctx;

	ear->gone++;
	ear->why = *why;
	ear->stream = stream_close(ear->stream);
}

static const struct stream_ops strict = { .message = ear_message, .gone = ear_gone };
static const struct stream_ops lenient = { .message = ear_message,
					   .garbage = ear_garbage,
					   .gone = ear_gone };

static void ear_open(struct ear *ear, const struct stream_ops *ops)
{
	struct error err = { 0 };
	int fds[2];

	*ear = (struct ear){ 0 };
	make_pair(fds);
	ear->other = fds[1];
	assert_return_code(sd_event_new(&ear->loop), 0);
	assert_return_code(stream_open(fds[0], ear->loop, ops, ear, &ear->stream, &err), 0);
}

static void ear_done(struct ear *ear)
{
	ear->stream = stream_close(ear->stream);
	ear->loop = sd_event_unref(ear->loop);
	if (ear->other >= 0)
		(void)close(ear->other);
}

static void a_message_may_come_byte_by_byte(void **state)
{
	static const char text[] = "{\"a\": \"\xc3\xa4\"}\r\n\n 7 \n";
	CLEANUP(ear_done) struct ear ear;

	ear_open(&ear, &strict);
	for (size_t i = 0; i < sizeof(text) - 1; i++) {
		write_bytes(ear.other, text + i, 1);
		assert_true(sd_event_run(ear.loop, PATIENCE) > 0);
	}
	assert_int_equal(ear.messages, 2);
	assert_string_equal(ear.last, "7");
}

static void what_came_before_the_end_is_delivered_first(void **state)
{
	CLEANUP(ear_done) struct ear ear;

	ear_open(&ear, &strict);
	write_text(ear.other, "1\n2\n3\n{\"half\":");
	(void)close(TAKE_FD(ear.other));
	run_until(ear.loop, &ear.gone);
	assert_int_equal(ear.messages, 3);
	assert_int_equal(ear.gone, 1);
	assert_string_equal(ear.why.text, "the other side closed the connection");
}

static void a_failed_write_does_not_lose_what_had_arrived(void **state)
{
	CLEANUP(ear_done) struct ear ear;
	struct error err = { 0 };
	json_auto_t *message = json_integer(1);

	ear_open(&ear, &strict);
	write_text(ear.other, "1\n2\n");
	(void)close(TAKE_FD(ear.other));
	assert_return_code(stream_send(ear.stream, message, &err), 0);
	assert_int_equal(ear.messages + ear.gone, 0); /* never from inside the call */
	assert_int_equal(stream_send(ear.stream, message, &err), -ECONNRESET);
	run_until(ear.loop, &ear.gone);
	assert_int_equal(ear.messages, 2);
}

static void a_callback_may_close_its_stream(void **state)
{
	CLEANUP(ear_done) struct ear ear;

	ear_open(&ear, &strict);
	ear.close_at = 2;
	write_text(ear.other, "1\n2\n3\n4\n");
	assert_true(sd_event_run(ear.loop, PATIENCE) > 0);
	assert_int_equal(ear.messages, 2);
	assert_int_equal(sd_event_run(ear.loop, 0), 0);
	assert_int_equal(ear.gone, 0);
}

static void garbage_ends_a_strict_stream_and_only_that(void **state)
{
	CLEANUP(ear_done) struct ear ear;
	CLEANUP(ear_done) struct ear guest;

	ear_open(&ear, &strict);
	write_text(ear.other, "1\nGET / HTTP/1.1\n2\n");
	run_until(ear.loop, &ear.gone);
	assert_int_equal(ear.messages, 1);
	assert_int_equal(ear.why.class, ERROR_BAD_DATA);
	assert_non_null(strstr(ear.why.text, "does not speak our language: not valid JSON"));

	ear_open(&guest, &lenient);
	write_text(guest.other, "\xff{\"return\": 1}\n");
	run_until(guest.loop, &guest.garbage);
	assert_string_equal(guest.last, "\xff{\"return\": 1}");
	write_text(guest.other, "2\n");
	run_until(guest.loop, &guest.messages);
}

/* Fills the socket from a child, which ends when nobody reads any more. */
static pid_t flood(struct ear *ear, const char *bytes, size_t length)
{
	pid_t child = fork();

	if (child == 0) {
		/* Else it would hold the reading end itself. */
		(void)close_range(3, (unsigned)ear->other - 1, 0);
		(void)close_range((unsigned)ear->other + 1, ~0U, 0);
		while (send(ear->other, bytes, length, MSG_NOSIGNAL) > 0)
			;
		_exit(0);
	}
	assert_return_code(child, errno);
	(void)close(TAKE_FD(ear->other));
	return child;
}

static void a_line_without_end_is_cut_off(void **state)
{
	CLEANUP_FREE char *bytes = xcalloc(1, 65536);
	CLEANUP(ear_done) struct ear ear;
	pid_t child;

	memset(bytes, 'a', 65536);
	ear_open(&ear, &lenient);
	child = flood(&ear, bytes, 65536);
	run_until(ear.loop, &ear.gone);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_string_equal(ear.why.text, "the other side sent a message longer than 16 MiB");
	assert_int_equal(ear.messages + ear.garbage, 0);
}

static int count_turn(sd_event_source *source, void *ctx)
{
	++*(int *)ctx;
	return 0;
}

static void one_who_talks_without_end_starves_nobody(void **state)
{
	CLEANUP(ear_done) struct ear ear;
	sd_event_source *other = NULL;
	int turns = 0;
	pid_t child;

	ear_open(&ear, &strict);
	child = flood(&ear, "1\n1\n1\n1\n", 8);
	assert_return_code(sd_event_add_defer(ear.loop, &other, count_turn, &turns), 0);
	assert_return_code(sd_event_source_set_enabled(other, SD_EVENT_ON), 0);
	while (turns < 100)
		assert_true(sd_event_run(ear.loop, PATIENCE) > 0);
	assert_int_equal(ear.gone, 0);
	other = sd_event_source_disable_unref(other);
	ear.stream = stream_close(ear.stream);
	assert_int_equal(waitpid(child, NULL, 0), child);
}

static void one_who_does_not_read_is_cut_off(void **state)
{
	CLEANUP(ear_done) struct ear ear;
	struct error err = { 0 };
	json_auto_t *message = NULL;
	json_auto_t *too_long = NULL;
	char *bytes = xcalloc(1, STREAM_LINE_MAX + 1);
	int sent = 0;
	int r;

	memset(bytes, 'a', STREAM_LINE_MAX);
	too_long = json_stringn(bytes, STREAM_LINE_MAX);
	message = json_stringn(bytes, 1024 * 1024);
	free(bytes);
	ear_open(&ear, &strict);
	assert_int_equal(stream_send(ear.stream, too_long, &err), -EMSGSIZE);
	while ((r = stream_send(ear.stream, message, &err)) >= 0)
		assert_true(++sent < 100);
	assert_int_equal(r, -ENOBUFS);
	assert_true(sent >= 60);
	run_until(ear.loop, &ear.gone);
	assert_string_equal(ear.why.text,
			    "the other side does not read: 64 MiB are waiting for it");
}

/* "[]," is three bytes of a line and 130 of memory: 12 MiB of it once took half a gigabyte. */
static void a_peer_trusted_less_may_say_less(void **state)
{
	CLEANUP(ear_done) struct ear many;
	CLEANUP(ear_done) struct ear wide;

	assert_int_equal(json_parts("", 0), 0);
	assert_int_equal(json_parts("{\"a,[{\\\",\": [1, \"b:\"]}", 22), 4);

	ear_open(&many, &strict);
	stream_limit(many.stream, 1024 * 1024, 9);
	write_text(many.other, "[1,2,3,[4,5,\",,,\"],[]]\n[1,2,3,4,5,6,7,8,[],9]\n");
	run_until(many.loop, &many.gone);
	assert_int_equal(many.messages, 1);
	assert_string_equal(many.why.text, "the other side sent a message of more than 9 values");

	/* Whether its end has come already or not. */
	for (int whole = 0; whole < 2; whole++) {
		CLEANUP_FREE char *bytes = xcalloc(1, 1024 * 1024 + 8);

		ear_open(&wide, &strict);
		stream_limit(wide.stream, 1024 * 1024, 9);
		write_text(wide.other, "1\n");
		run_until(wide.loop, &wide.messages);
		memset(bytes, '1', 1024 * 1024 + 8);
		if (whole)
			bytes[1024 * 1024 + 7] = '\n';
		for (size_t i = 0; i < 1024 * 1024 + 8 && !wide.gone; i += 8)
			if (write(wide.other, bytes + i, 8) == 8)
				(void)sd_event_run(wide.loop, 0);
		run_until(wide.loop, &wide.gone);
		assert_int_equal(wide.messages, 1);
		assert_string_equal(wide.why.text,
				    "the other side sent a message longer than 1 MiB");
		if (!whole)
			ear_done(&wide);
	}
}

static void what_the_socket_does_not_take_at_once_goes_out_later(void **state)
{
	CLEANUP(ear_done) struct ear ear;
	CLEANUP(ear_done) struct ear far;
	struct error err = { 0 };
	char *bytes = xcalloc(1, 1024 * 1024 + 1);
	json_auto_t *large = NULL;
	json_auto_t *small = json_string("end");

	memset(bytes, 'b', 1024 * 1024);
	large = json_string(bytes);
	free(bytes);
	ear_open(&ear, &strict);
	far = (struct ear){ .other = -1, .loop = sd_event_ref(ear.loop) };
	assert_return_code(
		stream_open(TAKE_FD(ear.other), ear.loop, &strict, &far, &far.stream, &err), 0);
	for (int i = 0; i < 8; i++)
		assert_return_code(stream_send(ear.stream, large, &err), 0);
	assert_return_code(stream_send(ear.stream, small, &err), 0);
	while (far.messages < 9)
		assert_true(sd_event_run(ear.loop, PATIENCE) > 0);
	assert_string_equal(far.last, "\"end\"");
}

struct side {
	struct peer *peer;
	struct request *held; /* the last request that was not answered at once */
	int requests, events, others, replies, gone;
	int replies_at_gone;
	bool close_in_reply;
	int r;
	struct error why;
	json_t *value;
	char last[64];
};

struct talk {
	sd_event *loop;
	struct side us, them;
	int raw; /* instead of `them` */
};

static void side_request(void *ctx, struct request *request)
{
	const char *command = request_command(request);
	struct side *side = ctx;
	struct error err;

	side->requests++;
	if (strcmp(command, "echo") == 0) {
		request_return(request, request_args(request));
	} else if (strcmp(command, "refuse") == 0) {
		(void)error_refuse(&err, "VM 'x' is running: stop it first");
		request_fail(request, &err);
	} else if (strcmp(command, "work") == 0) {
		json_auto_t *data = json_pack("{s:i}", "percent", 50);

		request_progress(request, data);
		request_return(request, NULL);
	} else {
		side->held = request;
	}
}

static void side_event(void *ctx, const char *name, json_t *data, json_t *whole)
{
	struct side *side = ctx;

	side->events++;
	assert_ptr_equal(json_object_get(whole, "data"), data);
	(void)snprintf(side->last, sizeof(side->last), "%s", name);
}

static void side_other(void *ctx, json_t *message)
{
	((struct side *)ctx)->others++;
}

static void side_gone(void *ctx, const struct error *why)
{
	struct side *side = ctx;

	side->gone++;
	side->replies_at_gone = side->replies;
	side->peer = peer_close(side->peer);
}

static const struct peer_ops side_ops = {
	.request = side_request, .event = side_event, .other = side_other, .gone = side_gone
};

static void side_reply(void *ctx, int r, json_t *value, const struct error *err)
{
	struct side *side = ctx;

	side->replies++;
	side->r = r;
	if (err)
		side->why = *err;
	json_decref(side->value);
	side->value = json_incref(value);
	if (side->close_in_reply)
		side->peer = peer_close(side->peer);
}

static void talk_open(struct talk *talk, bool raw)
{
	struct error err = { 0 };
	int fds[2];

	*talk = (struct talk){ .raw = -1 };
	make_pair(fds);
	assert_return_code(sd_event_new(&talk->loop), 0);
	assert_return_code(
		peer_open(fds[0], talk->loop, &side_ops, &talk->us, &talk->us.peer, &err), 0);
	if (raw)
		talk->raw = fds[1];
	else
		assert_return_code(peer_open(fds[1], talk->loop, &side_ops, &talk->them,
					     &talk->them.peer, &err),
				   0);
}

static void talk_done(struct talk *talk)
{
	(void)peer_close(talk->us.peer);
	(void)peer_close(talk->them.peer);
	json_decref(talk->us.value);
	json_decref(talk->them.value);
	if (talk->raw >= 0)
		(void)close(talk->raw);
	talk->loop = sd_event_unref(talk->loop);
}

static void ask(struct talk *talk, const char *command, json_t *args)
{
	struct error err = { 0 };

	if (peer_call(talk->us.peer, command, args, PATIENCE, side_reply, &talk->us, &err) < 0)
		fail_msg("%s", err.text);
}

static void both_sides_may_ask(void **state)
{
	json_auto_t *args = json_pack("{s:i}", "n", 1);
	CLEANUP(talk_done) struct talk talk;
	struct error err = { 0 };

	talk_open(&talk, false);
	ask(&talk, "echo", args);
	assert_return_code(
		peer_call(talk.them.peer, "echo", NULL, PATIENCE, side_reply, &talk.them, &err), 0);
	assert_int_equal(talk.us.replies, 0);
	run_until(talk.loop, &talk.us.replies);
	run_until(talk.loop, &talk.them.replies);
	assert_int_equal(talk.us.r, 0);
	assert_true(json_equal(talk.us.value, args));
	assert_int_equal(json_object_size(talk.them.value), 0);
}

static void a_refusal_keeps_class_and_words(void **state)
{
	CLEANUP(talk_done) struct talk talk;

	talk_open(&talk, false);
	ask(&talk, "refuse", NULL);
	run_until(talk.loop, &talk.us.replies);
	assert_int_equal(talk.us.r, -EREMOTEIO);
	assert_int_equal(talk.us.why.class, ERROR_REFUSED);
	assert_string_equal(talk.us.why.text, "VM 'x' is running: stop it first");
}

static void answers_are_matched_by_id_in_any_order(void **state)
{
	CLEANUP(talk_done) struct talk talk;

	talk_open(&talk, true);
	ask(&talk, "first", NULL);
	ask(&talk, "second", NULL);
	write_text(talk.raw, "{\"QMP\": {}}\n{\"return\": \"late\", \"id\": 99}\n"
			     "{\"return\": 2, \"id\": 2, \"new\": true}\n");
	run_until(talk.loop, &talk.us.replies);
	assert_int_equal(talk.us.others, 1);
	assert_int_equal(json_integer_value(talk.us.value), 2);
	write_text(talk.raw, "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"what?\"}, "
			     "\"id\": 1}\n");
	while (talk.us.replies < 2)
		assert_true(sd_event_run(talk.loop, PATIENCE) > 0);
	assert_int_equal(talk.us.why.class, ERROR_FAILED);
	assert_string_equal(talk.us.why.text, "what?");
}

static void a_mute_peer_costs_one_deadline(void **state)
{
	CLEANUP(talk_done) struct talk talk;
	struct error err = { 0 };

	talk_open(&talk, true);
	ask(&talk, "patient", NULL);
	assert_return_code(peer_call(talk.us.peer, "hasty", NULL, 1000, side_reply, &talk.us, &err),
			   0);
	run_until(talk.loop, &talk.us.replies);
	assert_int_equal(talk.us.r, -ETIMEDOUT);
	assert_string_equal(talk.us.why.text, "no answer to 'hasty' within 0.0 s");
	/* The answer comes after all, and another one; only that is told. */
	write_text(talk.raw, "{\"return\": {}, \"id\": 2}\n{\"return\": 5, \"id\": 1}\n");
	while (talk.us.replies < 2)
		assert_true(sd_event_run(talk.loop, PATIENCE) > 0);
	assert_int_equal(json_integer_value(talk.us.value), 5);
}

static void open_requests_are_answered_before_the_end_is_told(void **state)
{
	CLEANUP(talk_done) struct talk talk;

	talk_open(&talk, true);
	ask(&talk, "a", NULL);
	ask(&talk, "b", NULL);
	write_text(talk.raw, "{\"event\": \"SHUTDOWN\", \"data\": {}}\n");
	(void)close(TAKE_FD(talk.raw));
	run_until(talk.loop, &talk.us.gone);
	assert_int_equal(talk.us.events, 1);
	assert_int_equal(talk.us.replies_at_gone, 2);
	assert_int_equal(talk.us.r, -ECONNRESET);
	assert_null(talk.us.peer);
}

static void a_reply_may_close_the_peer(void **state)
{
	CLEANUP(talk_done) struct talk talk;

	talk_open(&talk, true);
	talk.us.close_in_reply = true;
	ask(&talk, "a", NULL);
	ask(&talk, "b", NULL);
	write_text(talk.raw, "{\"return\": {}, \"id\": 1}\n{\"return\": {}, \"id\": 2}\n");
	run_until(talk.loop, &talk.us.replies);
	assert_int_equal(sd_event_run(talk.loop, 0), 0);
	assert_int_equal(talk.us.replies, 1);
	assert_int_equal(talk.us.gone, 0);
}

static void a_request_may_outlive_who_asked(void **state)
{
	CLEANUP(talk_done) struct talk talk;

	talk_open(&talk, false);
	ask(&talk, "hold", NULL);
	run_until(talk.loop, &talk.them.requests);
	assert_false(request_abandoned(talk.them.held));
	assert_ptr_equal(request_peer(talk.them.held), talk.them.peer);
	talk.us.peer = peer_close(talk.us.peer);
	run_until(talk.loop, &talk.them.gone);
	assert_true(request_abandoned(talk.them.held));
	assert_null(request_peer(talk.them.held));
	request_progress(talk.them.held, NULL);
	request_return(talk.them.held, NULL);
	assert_int_equal(talk.us.replies, 0);
}

static void the_wire_carries_any_words(void **state)
{
	CLEANUP(talk_done) struct talk talk;
	struct error err = { 0 };

	talk_open(&talk, false);
	ask(&talk, "hold", NULL);
	run_until(talk.loop, &talk.them.requests);
	(void)error_set(&err, -EIO, "QEMU said: \xff\x01\"");
	request_fail(talk.them.held, &err);
	run_until(talk.loop, &talk.us.replies);
	assert_string_equal(talk.us.why.text, "QEMU said: \xef\xbf\xbd\x01\"");
}

static void an_answer_that_is_too_long_becomes_a_sentence(void **state)
{
	char *bytes = xcalloc(1, STREAM_LINE_MAX + 1);
	CLEANUP(talk_done) struct talk talk;
	json_auto_t *large = NULL;

	memset(bytes, 'a', STREAM_LINE_MAX);
	large = json_string(bytes);
	free(bytes);
	talk_open(&talk, false);
	ask(&talk, "hold", NULL);
	run_until(talk.loop, &talk.them.requests);
	request_return(talk.them.held, large);
	run_until(talk.loop, &talk.us.replies);
	assert_string_equal(talk.us.why.text, "the message is longer than 16 MiB");
}

static void odd_messages_harm_nobody(void **state)
{
	CLEANUP(talk_done) struct talk talk;

	talk_open(&talk, true);
	write_text(talk.raw, "[]\n7\nnull\n{}\n{\"return\": 1}\n{\"error\": 1, \"id\": \"x\"}\n"
			     "{\"event\": 3}\n{\"execute\": [], \"id\": {}}\n"
			     "{\"execute\": \"echo\", \"arguments\": 5, \"id\": [1]}\n"
			     "{\"event\": \"done\"}\n");
	run_until(talk.loop, &talk.us.events);
	assert_int_equal(talk.us.others, 8);
	assert_int_equal(talk.us.gone, 0);
	{
		char answer[256] = "";

		assert_true(recv(talk.raw, answer, sizeof(answer) - 1, 0) > 0);
		assert_string_equal(answer, "{\"error\":{\"class\":\"usage\",\"desc\":"
					    "\"'arguments' must be an object\"},\"id\":[1]}\n");
	}
}

static void one_who_only_asks_is_told_to_try_again(void **state)
{
	static const char request[] = "{\"execute\": \"refuse\", \"id\": 1}\n";
	CLEANUP(talk_done) struct talk talk;
	struct request **held = xcalloc(256, sizeof(struct request *));
	char answer[4096] = "";

	talk_open(&talk, true);
	for (int i = 0; i < 256; i++) {
		write_text(talk.raw, "{\"execute\": \"hold\", \"id\": 1}\n");
		while (talk.us.requests <= i)
			assert_true(sd_event_run(talk.loop, PATIENCE) > 0);
		held[i] = talk.us.held;
	}
	write_text(talk.raw, request);
	assert_true(sd_event_run(talk.loop, PATIENCE) > 0);
	assert_true(recv(talk.raw, answer, sizeof(answer) - 1, 0) > 0);
	assert_non_null(strstr(answer, "\"class\":\"try-again\""));
	for (int i = 0; i < 256; i++)
		request_return(held[i], NULL);
	free(held);
}

/* A child that serves one connection as `side_request` does. */
static pid_t serve(int *ret_fd)
{
	struct side side = { 0 };
	struct error err;
	sd_event *loop;
	int fds[2];
	pid_t child;

	make_pair(fds);
	child = fork();
	if (child == 0) {
		(void)close(fds[1]);
		if (sd_event_new(&loop) < 0 ||
		    peer_open(fds[0], loop, &side_ops, &side, &side.peer, &err) < 0)
			_exit(1);
		while (!side.gone)
			(void)sd_event_run(loop, PATIENCE);
		_exit(0);
	}
	assert_return_code(child, errno);
	(void)close(fds[0]);
	*ret_fd = fds[1];
	return child;
}

static void count_progress(void *ctx, const char *event, json_t *data)
{
	assert_string_equal(event, "progress");
	assert_int_equal(json_int_or(data, "percent", 0), 50);
	++*(int *)ctx;
}

static void a_question_is_asked_and_waited_for(void **state)
{
	json_auto_t *args = json_pack("{s:s}", "a", "b");
	json_t *value = NULL;
	struct error err = { 0 };
	int progress = 0;
	pid_t child;
	int fd;

	child = serve(&fd);
	assert_return_code(peer_ask(fd, "echo", args, PATIENCE, NULL, NULL, &value, &err), 0);
	assert_true(json_equal(value, args));
	json_decref(value);
	assert_return_code(
		peer_ask(fd, "work", NULL, PATIENCE, count_progress, &progress, NULL, &err), 0);
	assert_int_equal(progress, 1);
	assert_int_equal(peer_ask(fd, "refuse", NULL, PATIENCE, NULL, NULL, NULL, &err),
			 -EREMOTEIO);
	assert_int_equal(err.class, ERROR_REFUSED);
	assert_int_equal(peer_ask(fd, "hold", NULL, 1000, NULL, NULL, NULL, &err), -ETIMEDOUT);
	assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
	(void)kill(child, SIGKILL);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_int_equal(peer_ask(fd, "echo", NULL, PATIENCE, NULL, NULL, NULL, &err), -ECONNRESET);
	assert_string_equal(err.text, "the other side closed the connection");
	(void)close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(json_of_any_bytes_is_utf8),
		cmocka_unit_test(json_is_parsed_strictly),
		cmocka_unit_test(json_accessors_say_what_is_wrong),
		cmocka_unit_test(equal_values_give_equal_text),
		cmocka_unit_test(a_json_file_is_an_object_or_an_error),
		cmocka_unit_test(sockets_are_reached_below_any_directory),
		cmocka_unit_test(a_message_may_come_byte_by_byte),
		cmocka_unit_test(what_came_before_the_end_is_delivered_first),
		cmocka_unit_test(a_failed_write_does_not_lose_what_had_arrived),
		cmocka_unit_test(a_callback_may_close_its_stream),
		cmocka_unit_test(garbage_ends_a_strict_stream_and_only_that),
		cmocka_unit_test(a_line_without_end_is_cut_off),
		cmocka_unit_test(one_who_talks_without_end_starves_nobody),
		cmocka_unit_test(one_who_does_not_read_is_cut_off),
		cmocka_unit_test(a_peer_trusted_less_may_say_less),
		cmocka_unit_test(what_the_socket_does_not_take_at_once_goes_out_later),
		cmocka_unit_test(both_sides_may_ask),
		cmocka_unit_test(a_refusal_keeps_class_and_words),
		cmocka_unit_test(answers_are_matched_by_id_in_any_order),
		cmocka_unit_test(a_mute_peer_costs_one_deadline),
		cmocka_unit_test(open_requests_are_answered_before_the_end_is_told),
		cmocka_unit_test(a_reply_may_close_the_peer),
		cmocka_unit_test(a_request_may_outlive_who_asked),
		cmocka_unit_test(the_wire_carries_any_words),
		cmocka_unit_test(an_answer_that_is_too_long_becomes_a_sentence),
		cmocka_unit_test(odd_messages_harm_nobody),
		cmocka_unit_test(one_who_only_asks_is_told_to_try_again),
		cmocka_unit_test(a_question_is_asked_and_waited_for),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
