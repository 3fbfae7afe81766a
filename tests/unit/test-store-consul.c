/* SPDX-License-Identifier: Apache-2.0 */
/* What the store in Consul promises beside the contract (test-store.c): its own deadlines, its
 * servers, its token, and what it makes of odd answers. */
#include "store-consul.h"
#include "store-harness.h"
#include "store-server.h"

#include <netinet/in.h>
#include <sys/epoll.h>

#include "wire/sock.h"

#define TOKEN "11111111-2222-3333-4444-555555555555"

static struct store_server plain, guarded; /* started once */
static int tests;			   /* each has keys of its own */

static char *address_of(const struct store_server *server, const char *options)
{
	return xasprintf("consul:http://127.0.0.1:%d/test/%d%s", server->port, ++tests, options);
}

static struct store *address_open(struct scene *s, const char *address)
{
	struct store *store = NULL;
	struct error err = { 0 };

	if (store_open(address, NULL, s->loop, &store, &err) < 0)
		fail_msg("%s", err.text);
	return store;
}

static void the_parts_of_an_address_are_checked(void **state)
{
	static const char *const bad[] = {
		"consul:",
		"consul:127.0.0.1:8500",
		"consul:ftp://127.0.0.1:8500",
		"consul:http:/127.0.0.1:8500",
		"consul:http://127.0.0.1",
		"consul:http://127.0.0.1:",
		"consul:http://127.0.0.1:85oo",
		"consul:http://consul.example:8500",
		"consul:http://[::1:8500",
		"consul:http://127.0.0.1:8500,x:1",
		"consul:http:///x",
		"consul:http://127.0.0.1:8500/../x",
		"consul:http://127.0.0.1:8500/a b",
		"consul:http://127.0.0.1:8500/x?token=abc",
		"consul:http://127.0.0.1:8500/x?token-file=here",
		"consul:http://127.0.0.1:8500/x?token-file=/none/there",
	};
	static const char *const good[] = {
		"consul:http://127.0.0.1:1",
		"consul:http://127.0.0.1:1/",
		"consul:http://[::1]:1,127.0.0.1:2/a/b-c/d.e_f/",
		"consul:https://localhost:1/x?ca-file=/etc/ssl/x.pem",
	};
	struct scene *s = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct store *store = NULL;
		struct error err = { 0 };

		if (store_open(bad[i], NULL, s->loop, &store, &err) >= 0 || !err.text[0])
			fail_msg("taken: %s", bad[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		(void)store_close(address_open(s, good[i]));
}

static char *token_file(const struct scene *s, const char *token, mode_t mode)
{
	char *path = xasprintf("%s/token", s->dir);

	assert_return_code(file_write(AT_FDCWD, path, token, strlen(token), mode, NULL), 0);
	return path;
}

static void a_token_that_others_can_read_is_refused(void **state)
{
	struct scene *s = *state;
	CLEANUP_FREE char *path = token_file(s, TOKEN "\n", 0640);
	CLEANUP_FREE char *address = xasprintf("consul:http://127.0.0.1:1/x?token-file=%s", path);
	struct store *store = NULL;
	struct error err = { 0 };

	assert_true(store_open(address, NULL, s->loop, &store, &err) < 0);
	assert_non_null(strstr(err.text, "chmod 600"));
	assert_null(strstr(err.text, TOKEN));
	free(token_file(s, "\n", 0600));
	assert_true(store_open(address, NULL, s->loop, &store, &err) < 0);
}

static void a_wrong_token_says_which_rights_are_needed(void **state)
{
	struct scene *s = *state;
	CLEANUP_FREE char *path = token_file(s, "99999999-2222-3333-4444-555555555555", 0600);
	CLEANUP_FREE char *option = xasprintf("?token-file=%s", path);
	CLEANUP_FREE char *address = address_of(&guarded, option);
	struct session session = { 0 };
	ANSWER answer = { 0 };
	int r = -1;

	s->store = address_open(s, address);
	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ANY, 1, &answer), -EACCES);
	assert_int_equal(answer.err.class, ERROR_REFUSED);
	assert_non_null(strstr(answer.err.text, "key_prefix"));
	assert_non_null(strstr(answer.err.text, path));
	assert_null(strstr(answer.err.text, "99999999"));
	assert_int_equal(ask_get(s->loop, s->store, "/k", &answer), -EACCES);
	assert_int_equal(
		store_session_open(s->store, NULL, USEC_PER_SEC, on_session, &session, NULL), 0);
	session_await(s->loop, &session, STORE_LOST);

	free(token_file(s, TOKEN, 0600)); /* the next refusal has it read again */
	for (int i = 0; i < 2 && r != 0; i++)
		r = ask_put(s->loop, s->store, "/k", STORE_ANY, 1, &answer);
	assert_int_equal(r, 0);
	assert_int_equal(
		store_session_open(s->store, NULL, USEC_PER_SEC, on_session, &session, NULL), 0);
	session_await(s->loop, &session, STORE_CONNECTED);
}

static void a_server_that_is_gone_is_passed_over(void **state)
{
	struct scene *s = *state;
	CLEANUP_FREE char *address = NULL;
	int gone[2];

	server_ports(gone, 2);
	address = xasprintf("consul:http://127.0.0.1:%d,127.0.0.1:%d,127.0.0.1:%d/test/%d", gone[0],
			    gone[1], plain.port, ++tests);
	s->store = address_open(s, address);
	assert_int_equal(ask_number(s->loop, s->store, "/k"), -1);
}

static void without_any_server_the_outcome_is_unknown(void **state)
{
	struct scene *s = *state;
	CLEANUP_FREE char *address = NULL;
	ANSWER answer = { 0 };
	int gone[2];

	server_ports(gone, 2);
	address = xasprintf("consul:http://127.0.0.1:%d,127.0.0.1:%d", gone[0], gone[1]);
	s->store = address_open(s, address);
	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ANY, 1, &answer), -EAGAIN);
	assert_int_equal(answer.err.class, ERROR_TRY_AGAIN);
	assert_int_equal(ask_get(s->loop, s->store, "/k", &answer), -EAGAIN);
	assert_int_equal(ask_list(s->loop, s->store, "/", &answer), -EAGAIN);
}

static void the_time_out_of_a_session_is_what_consul_makes_of_it(void **state)
{
	struct scene *s = *state;
	CLEANUP_FREE char *address = address_of(&plain, "");
	struct session session = { 0 };
	struct store_timing timing = { 0 };

	s->store = address_open(s, address);
	assert_int_equal(
		store_session_open(s->store, NULL, 20 * USEC_PER_MSEC, on_session, &session, NULL),
		0);
	session_await(s->loop, &session, STORE_CONNECTED);
	assert_int_equal(store_session_timing(s->store, &timing), 0);
	assert_true(timing.earliest_usec == 1 * USEC_PER_SEC);
	assert_true(timing.latest_usec == 2 * USEC_PER_SEC);
}

static void a_cut_off_client_loses_its_session_by_its_own_deadline(void **state)
{
	struct scene *s = *state;
	struct store_server server = { 0 };
	struct session session = { 0 };
	CLEANUP_FREE char *address = NULL;
	ANSWER answer = { 0 };

	assert_true(consul_start(&server));
	address = address_of(&server, "");
	s->store = address_open(s, address);
	assert_int_equal(
		store_session_open(s->store, NULL, USEC_PER_SEC, on_session, &session, NULL), 0);
	session_await(s->loop, &session, STORE_CONNECTED);
	assert_return_code(kill(server.pid, SIGSTOP), 0);
	session_await(s->loop, &session, STORE_SUSPENDED);
	assert_non_null(store_session_id(s->store));
	session_await(s->loop, &session, STORE_LOST);
	assert_null(store_session_id(s->store));
	assert_int_equal(ask_get(s->loop, s->store, "/k", &answer), -EAGAIN);

	assert_return_code(kill(server.pid, SIGCONT), 0);
	assert_int_equal(
		store_session_open(s->store, NULL, USEC_PER_SEC, on_session, &session, NULL), 0);
	session_await(s->loop, &session, STORE_CONNECTED);
	server_end(&server);
}

static void a_session_of_somebody_else_is_not_resumed(void **state)
{
	static const char body[] = "{\"Name\":\"other\",\"Behavior\":\"release\",\"TTL\":\"60s\"}";
	struct scene *s = *state;
	CLEANUP_FREE char *address = address_of(&plain, "");
	CLEANUP_FREE char *question = xasprintf("PUT /v1/session/create HTTP/1.0\r\n"
						"Content-Length: %zu\r\n\r\n%s",
						strlen(body), body);
	struct session session = { 0 };
	char answer[1024], *id;

	assert_true(server_asks(plain.port, question, answer, sizeof(answer)));
	id = strstr(answer, "\"ID\": \"");
	assert_non_null(id);
	id += strlen("\"ID\": \"");
	id[strcspn(id, "\"")] = '\0';
	s->store = address_open(s, address);
	assert_int_equal(store_session_open(s->store, id, USEC_PER_SEC, on_session, &session, NULL),
			 0);
	session_await(s->loop, &session, STORE_LOST);
}

static void session_begin(struct scene *s, struct store *store, struct session *session)
{
	assert_int_equal(store_session_open(store, NULL, DEADLINE_USEC, on_session, session, NULL),
			 0);
	session_await(s->loop, session, STORE_CONNECTED);
}

static void a_key_passes_from_session_to_session_and_to_nobody(void **state)
{
	struct scene *s = *state;
	CLEANUP_FREE char *address = address_of(&plain, "");
	struct session sessions[2] = { 0 };
	struct store *other = NULL;
	ANSWER answer = { 0 }, again = { 0 };

	s->store = address_open(s, address);
	other = address_open(s, address);
	session_begin(s, s->store, &sessions[0]);
	session_begin(s, other, &sessions[1]);
	assert_int_equal(put_ephemeral(s, s->store, "/k/a"), 0);
	assert_int_equal(put_ephemeral(s, s->store, "/k/b"), 0);
	assert_int_equal(put_ephemeral(s, other, "/k/a"), 0); /* now it is his */
	assert_int_equal(ask_get(s->loop, s->store, "/k/b", &answer), 0);
	assert_int_equal(ask_put(s->loop, other, "/k/b", answer.entry.version, 7, &again), 0);
	assert_int_equal(ask_put(s->loop, other, "/k/b", again.versions[0], 8, &answer), 0);

	assert_int_equal(store_session_close(s->store, NULL), 0);
	session_await(s->loop, &sessions[0], STORE_LOST);
	s->store = store_close(s->store);
	loop_drain(s->loop);
	assert_int_equal(ask_number(s->loop, other, "/k/a"), 1);
	assert_int_equal(ask_number(s->loop, other, "/k/b"), 8);
	(void)store_close(other);
}

static void a_transaction_that_consul_would_not_take_is_refused(void **state)
{
	struct scene *s = *state;
	CLEANUP_FREE char *address = address_of(&plain, "");
	CLEANUP_FREE char *text = xcalloc(1, STORE_VALUE_MAX / 2);
	json_auto_t *value = NULL;
	ANSWER answer = { 0 };

	memset(text, 'x', STORE_VALUE_MAX / 2 - 1);
	value = json_pack("{s:s}", "t", text);
	const struct store_op ops[] = {
		{ STORE_PUT, "/a", STORE_ANY, value, false },
		{ STORE_PUT, "/b", STORE_ANY, value, false },
	};
	s->store = address_open(s, address);
	assert_int_equal(ask_write(s->loop, s->store, ops, 2, &answer), -EINVAL);
	assert_int_equal(answer.err.class, ERROR_USAGE);
	assert_int_equal(ask_write(s->loop, s->store, ops, 1, &answer), 0);
	assert_int_equal(ask_number(s->loop, s->store, "/b"), -1);
}

static json_t *value_large(int number)
{
	CLEANUP_FREE char *text = xcalloc(1, STORE_VALUE_MAX - 100);

	memset(text, 'x', STORE_VALUE_MAX - 101);
	return json_pack("{s:i, s:s}", "n", number, "t", text);
}

static void large_values_have_versions_too(void **state)
{
	struct scene *s = *state;
	CLEANUP_FREE char *address = address_of(&plain, "");
	json_auto_t *first = value_large(1), *second = value_large(2);
	struct store_op op = { STORE_PUT, "/k", STORE_ABSENT, first, false };
	ANSWER answer = { 0 };

	s->store = address_open(s, address);
	assert_int_equal(ask_write(s->loop, s->store, &op, 1, &answer), 0);
	op.value = second;
	op.expected = answer.versions[0];
	assert_int_equal(ask_write(s->loop, s->store, &op, 1, &answer), 0);
	assert_true(answer.versions[0] > op.expected);
	assert_int_equal(ask_write(s->loop, s->store, &op, 1, &answer), -ESTALE);
	op.expected = STORE_ABSENT;
	assert_int_equal(ask_write(s->loop, s->store, &op, 1, &answer), -ESTALE);
	assert_int_equal(ask_number(s->loop, s->store, "/k"), 2);
}

static void a_damaged_value_is_named(void **state)
{
	struct scene *s = *state;
	CLEANUP_FREE char *address = address_of(&plain, "");
	CLEANUP_FREE char *question = xasprintf(
		"PUT /v1/kv/test/%d/k HTTP/1.0\r\nContent-Length: 5\r\n\r\n{\"a\":", tests);
	char words[1024];
	ANSWER answer = { 0 };

	assert_true(server_asks(plain.port, question, words, sizeof(words)));
	s->store = address_open(s, address);
	assert_int_equal(ask_get(s->loop, s->store, "/k", &answer), -EUCLEAN);
	assert_non_null(strstr(answer.err.text, "consul kv delete test/"));
	assert_int_equal(ask_list(s->loop, s->store, "/", &answer), -EUCLEAN);
}

/* A peer that gives every question the same answer. */
struct peer {
	int fd, port;
	const char *answer;
	bool mute; /* it answers nothing, and does not say so */
	bool keep; /* the connection, for this many answers; then it is closed without one */
	int answers, questions;
	sd_event_source *source;
};

static int on_question(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct peer *peer = userdata;
	char question[16384];

	if (read(fd, question, sizeof(question)) > 0) {
		peer->questions++;
		if (peer->mute)
			return 0;
		if (!peer->keep || peer->questions <= peer->answers)
			(void)send(fd, peer->answer, strlen(peer->answer), MSG_NOSIGNAL);
		if (peer->keep && peer->questions <= peer->answers)
			return 0;
	}
	(void)sd_event_source_disable_unref(source); /* closes it */
	return 0;
}

static int on_client(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	int client = sock_accept(fd, NULL);
	sd_event_source *questions = NULL;

	assert_return_code(client, errno);
	assert_return_code(sd_event_add_io(sd_event_source_get_event(source), &questions, client,
					   EPOLLIN, on_question, userdata),
			   0);
	assert_return_code(sd_event_source_set_io_fd_own(questions, true), 0);
	/* It goes with the loop if the other side is still connected at the end. */
	assert_return_code(sd_event_source_set_floating(questions, true), 0);
	sd_event_source_unref(questions);
	return 0;
}

static void peer_start(struct scene *s, struct peer *peer)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(address);

	peer->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_return_code(bind(peer->fd, (struct sockaddr *)&address, length), 0);
	assert_return_code(listen(peer->fd, 16), 0);
	assert_return_code(getsockname(peer->fd, (struct sockaddr *)&address, &length), 0);
	peer->port = ntohs(address.sin_port);
	assert_return_code(
		sd_event_add_io(s->loop, &peer->source, peer->fd, EPOLLIN, on_client, peer), 0);
}

#define HTTP(status, body) "HTTP/1.0 " status "\r\nX-Consul-Index: 7\r\n\r\n" body

static void odd_answers_have_an_outcome(void **state)
{
	static const struct {
		const char *answer;
		int get, put;
	} rows[] = {
		{ HTTP("500 x", "No cluster leader"), -EAGAIN, -EAGAIN },
		{ HTTP("500 x", "rpc error making call: EOF"), -EAGAIN, -EAGAIN },
		{ HTTP("500 x", "Permission denied"), -EACCES, -EACCES },
		{ HTTP("429 x", "slow down"), -EAGAIN, -EAGAIN },
		{ HTTP("403 x", "ACL not found"), -EACCES, -EACCES },
		{ HTTP("301 x\r\nLocation: http://127.0.0.1:1/", ""), -EIO, -EIO },
		{ HTTP("400 x", "bad request"), -EIO, -EIO },
		{ HTTP("404 x", ""), -ENOENT, -EIO },
		{ HTTP("409 x", "{\"Errors\":[{\"What\":\"key \\\"a\\\" exists\"}]}"), -EIO,
		  -ESTALE },
		{ HTTP("409 x", "{\"Errors\":[{\"What\":\"invalid session \\\"a\\\"\"}]}"), -EIO,
		  -ENOTCONN },
		{ HTTP("409 x", "{\"Errors\":[{\"What\":\"Permission denied\"}]}"), -EACCES,
		  -EACCES },
		{ HTTP("200 x", ""), -EBADMSG, -EBADMSG },
		{ HTTP("200 x", "[[[[}"), -EBADMSG, -EBADMSG },
		{ HTTP("200 x", "[{}]"), -EUCLEAN, -EAGAIN },
		{ HTTP("200 x", "{\"Results\":null}"), -ENOENT, -EAGAIN },
		{ "", -EAGAIN, -EAGAIN },
		{ "no HTTP\r\n\r\n", -EAGAIN, -EAGAIN },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[", -EAGAIN, -EAGAIN },
	};
	struct scene *s = *state;
	struct peer peer = { 0 };
	CLEANUP_FREE char *address = NULL;

	peer_start(s, &peer);
	address = xasprintf("consul:http://127.0.0.1:%d/t", peer.port);
	s->store = address_open(s, address);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		ANSWER answer = { 0 };
		int r;

		peer.answer = rows[i].answer;
		r = ask_get(s->loop, s->store, "/k", &answer);
		if (r != rows[i].get || !answer.err.text[0])
			fail_msg("get %zu: %d %s", i, r, answer.err.text);
		r = ask_put(s->loop, s->store, "/k", STORE_ANY, 1, &answer);
		if (r != rows[i].put || !answer.err.text[0])
			fail_msg("put %zu: %d %s", i, r, answer.err.text);
	}
	(void)sd_event_source_disable_unref(peer.source);
	(void)close(peer.fd);
}

static void a_write_that_was_sent_is_not_sent_again_by_itself(void **state)
{
	struct scene *s = *state;
	struct peer peer = { .keep = true, .answers = 1 };
	CLEANUP_FREE char *address = NULL;
	ANSWER answer = { 0 };

	peer.answer = "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"Results\":null}";
	peer_start(s, &peer);
	address = xasprintf("consul:http://127.0.0.1:%d,127.0.0.1:%d/t", peer.port, peer.port);
	s->store = address_open(s, address);
	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ANY, 1, &answer), -EAGAIN);
	assert_int_equal(peer.questions, 1);
	/* The connection that was kept is closed when the next one has been read. */
	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ANY, 1, &answer), -EAGAIN);
	assert_int_equal(peer.questions, 2);
	(void)sd_event_source_disable_unref(peer.source);
	(void)close(peer.fd);
}

static void of_a_server_that_hangs_no_answer_is_waited_for(void **state)
{
	struct scene *s = *state;
	struct peer mute = { .mute = true }, other = { .answer = HTTP("404 x", "") };
	CLEANUP_FREE char *address = NULL;
	struct session session = { 0 };
	ANSWER answer = { 0 };

	peer_start(s, &mute);
	peer_start(s, &other);
	address = xasprintf("consul:http://127.0.0.1:%d,127.0.0.1:%d/t", mute.port, other.port);
	s->store = address_open(s, address);
	/* It finds out first: it waits for the shortest time. */
	assert_int_equal(
		store_session_open(s->store, NULL, USEC_PER_SEC, on_session, &session, NULL), 0);
	assert_int_equal(ask_list(s->loop, s->store, "/", &answer), 0);
	assert_int_equal(mute.questions, 2);
	for (struct peer *peer = &mute; peer; peer = peer == &mute ? &other : NULL) {
		(void)sd_event_source_disable_unref(peer->source);
		(void)close(peer->fd);
	}
}

#define WATCHES 300 /* Consul takes 200 connections of one address, unless it is told otherwise */

struct crowd {
	struct crowd_watch {
		struct crowd *crowd;
		struct store_watch *watch;
		bool looked;
	} watches[WATCHES];
	size_t looked;
	bool all;
};

static void on_crowd_look(void *ctx)
{
	struct crowd_watch *it = ctx;

	it->crowd->looked += !it->looked;
	it->looked = true;
	it->crowd->all = it->crowd->looked == WATCHES;
}

static void crowd_forget(struct crowd *crowd)
{
	for (size_t i = 0; i < WATCHES; i++)
		crowd->watches[i].looked = false;
	crowd->looked = 0;
	crowd->all = false;
}

static void more_is_watched_than_consul_takes_connections(void **state)
{
	struct scene *s = *state;
	CLEANUP_FREE char *address = address_of(&plain, "");
	struct crowd crowd = { 0 };
	struct session session = { 0 };
	char key[32];

	s->store = address_open(s, address);
	session_begin(s, s->store, &session);
	for (size_t i = 0; i < WATCHES; i++) {
		struct crowd_watch *it = &crowd.watches[i];

		it->crowd = &crowd;
		(void)snprintf(key, sizeof(key), "/w/%zu/", i);
		assert_int_equal(store_watch(s->store, key, on_crowd_look, it, &it->watch, NULL),
				 0);
	}
	assert_true(loop_until(s->loop, &crowd.all));
	crowd_forget(&crowd);
	for (size_t i = 0; i < WATCHES; i++) {
		ANSWER answer = { 0 };

		(void)snprintf(key, sizeof(key), "/w/%zu/k", i);
		assert_int_equal(ask_put(s->loop, s->store, key, STORE_ABSENT, 1, &answer), 0);
	}
	assert_true(loop_until(s->loop, &crowd.all));
	assert_int_equal(session.state, STORE_CONNECTED);
	for (size_t i = 0; i < WATCHES; i++)
		store_unwatch(crowd.watches[i].watch);
}

static int setup(void **state)
{
	struct scene *scene = xcalloc(1, sizeof(*scene));

	scene_init(scene, "");
	*state = scene;
	return 0;
}

static int teardown(void **state)
{
	scene_done(*state);
	free(*state);
	return 0;
}

static void no_consul_here(void **state)
{
	skip();
}

#define TEST(function)                                                                             \
	{                                                                                          \
#function, function, setup, teardown, NULL                                         \
	}

int main(void)
{
	struct CMUnitTest all[] = {
		TEST(the_parts_of_an_address_are_checked),
		TEST(a_token_that_others_can_read_is_refused),
		TEST(without_any_server_the_outcome_is_unknown),
		TEST(odd_answers_have_an_outcome),
		TEST(a_write_that_was_sent_is_not_sent_again_by_itself),
		TEST(of_a_server_that_hangs_no_answer_is_waited_for),
		/* from here on with a real Consul */
		TEST(a_wrong_token_says_which_rights_are_needed),
		TEST(a_server_that_is_gone_is_passed_over),
		TEST(the_time_out_of_a_session_is_what_consul_makes_of_it),
		TEST(a_cut_off_client_loses_its_session_by_its_own_deadline),
		TEST(a_session_of_somebody_else_is_not_resumed),
		TEST(a_key_passes_from_session_to_session_and_to_nobody),
		TEST(a_transaction_that_consul_would_not_take_is_refused),
		TEST(large_values_have_versions_too),
		TEST(a_damaged_value_is_named),
		TEST(more_is_watched_than_consul_takes_connections),
	};
	int failed;

	if (!consul_start(&plain) ||
	    !consul_start_with(&guarded,
			       "\"acl\":{\"enabled\":true,\"default_policy\":\"deny\","
			       "\"tokens\":{\"master\":\"" TOKEN "\",\"agent\":\"" TOKEN "\"}},"))
		for (size_t i = 6; i < ARRAY_SIZE(all); i++)
			all[i].test_func = no_consul_here;
	failed = cmocka_run_group_tests_name("store-consul", all, NULL, NULL);
	server_end(&plain);
	server_end(&guarded);
	return failed;
}
