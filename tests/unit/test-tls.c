/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates and mutual TLS, over real sockets: both ends in one loop, or raw bytes at the other
 * end for what no honest peer would send. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "tls/authority.h"
#include "tls/tls.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/file.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"
#include "wire/tcp.h"

#define PATIENCE (60 * USEC_PER_SEC)
#define DAY 86400

static char root[] = "/tmp/drover-test-tls-XXXXXX";
/* Of one cluster: alpha (with the authority) and beta; of another: gamma; of the first, but not any
 * more: old; not yet: early. */
static char *alpha_dir, *beta_dir, *gamma_dir, *old_dir, *early_dir;
static struct tls_identity *alpha, *beta, *gamma_, *old, *early;

static struct period around_now(long from, long until)
{
	time_t now = time(NULL);

	return (struct period){ .from = now + from, .until = now + until };
}

/* Enrols a node: what a join does, without the network. */
static struct tls_identity *enrol(const char *authority, const char *dir, const char *node,
				  struct period period)
{
	CLEANUP_FREE char *key = NULL, *request = NULL, *certificate = NULL, *ca = NULL;
	struct tls_identity *identity = NULL;
	struct error err = { 0 };

	if (request_make(node, &key, &request, &err) < 0 ||
	    authority_sign(authority, request, node, &period, &certificate, &err) < 0 ||
	    authority_certificate(authority, &ca, &err) < 0 ||
	    tls_identity_write(dir, ca, key, certificate, &err) < 0 ||
	    tls_identity_load(dir, &identity, &err) < 0)
		fail_msg("%s", err.text);
	return identity;
}

static int setup(void **state)
{
	struct period ca = around_now(-400 * DAY, 4000L * DAY), good = around_now(-DAY, 90 * DAY);

	if (!mkdtemp(root))
		return -1;
	alpha_dir = xasprintf("%s/alpha/tls", root);
	beta_dir = xasprintf("%s/beta/tls", root);
	gamma_dir = xasprintf("%s/gamma/tls", root);
	old_dir = xasprintf("%s/old/tls", root);
	early_dir = xasprintf("%s/early/tls", root);
	if (authority_make(alpha_dir, &ca, NULL) < 0 || authority_make(gamma_dir, &ca, NULL) < 0)
		return -1;
	alpha = enrol(alpha_dir, alpha_dir, "alpha", good);
	beta = enrol(alpha_dir, beta_dir, "beta", good);
	gamma_ = enrol(gamma_dir, gamma_dir, "beta", good);
	old = enrol(alpha_dir, old_dir, "beta", around_now(-20 * DAY, -10 * DAY));
	early = enrol(alpha_dir, early_dir, "beta", around_now(10 * DAY, 20 * DAY));
	return 0;
}

static int teardown(void **state)
{
	tls_identity_unref(alpha);
	tls_identity_unref(beta);
	tls_identity_unref(gamma_);
	tls_identity_unref(old);
	tls_identity_unref(early);
	free(alpha_dir);
	free(beta_dir);
	free(gamma_dir);
	free(old_dir);
	free(early_dir);
	return file_remove_tree(AT_FDCWD, root, NULL);
}

/* ---- two ends in one loop ---- */

struct end {
	struct peer *peer;
	int begun, requests, replies, gone, r;
	struct error why;
	json_t *value;
	char name[TLS_NAME_SIZE];
};

struct talk {
	sd_event *loop;
	struct end client, server;
	int raw; /* instead of the client */
};

static void end_request(void *ctx, struct request *request)
{
	struct end *end = ctx;

	end->requests++;
	(void)snprintf(end->name, sizeof(end->name), "%s",
		       tls_peer_name(peer_transport(request_peer(request))));
	request_return(request, request_args(request));
}

static void end_begun(void *ctx)
{
	struct end *end = ctx;

	end->begun++;
	(void)snprintf(end->name, sizeof(end->name), "%s",
		       tls_peer_name(peer_transport(end->peer)));
}

static void end_gone(void *ctx, const struct error *why)
{
	struct end *end = ctx;

	end->gone++;
	end->why = *why;
}

static const struct peer_ops end_ops = { .request = end_request,
					 .begun = end_begun,
					 .gone = end_gone };

static void end_reply(void *ctx, int r, json_t *value, const struct error *err)
{
	struct end *end = ctx;

	end->replies++;
	end->r = r;
	if (err)
		end->why = *err;
	json_decref(end->value);
	end->value = json_incref(value);
}

static void run_until(sd_event *loop, const int *flag)
{
	while (!*flag)
		assert_true(sd_event_run(loop, PATIENCE) > 0);
}

static void open_end(struct talk *talk, struct end *end, struct transport *transport)
{
	struct error err = { 0 };

	if (peer_open_transport(transport, talk->loop, &end_ops, end, &end->peer, &err) < 0)
		fail_msg("%s", err.text);
}

static void talk_open(struct talk *talk, int fds[2])
{
	*talk = (struct talk){ .raw = -1 };
	assert_return_code(sd_event_new(&talk->loop), 0);
	assert_return_code(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), errno);
}

static void serve(struct talk *talk, int fd, struct tls_identity *identity, bool strangers)
{
	struct transport *transport;

	assert_return_code(tls_accept(fd, identity, strangers, &transport, NULL), 0);
	open_end(talk, &talk->server, transport);
}

/* Server `server`, client `client` which expects `node`. */
static void talk_begin(struct talk *talk, struct tls_identity *server, struct tls_identity *client,
		       const char *node)
{
	struct transport *transport;
	int fds[2];

	talk_open(talk, fds);
	serve(talk, fds[0], server, false);
	assert_return_code(tls_connect(fds[1], client, node, &transport, NULL), 0);
	open_end(talk, &talk->client, transport);
}

static void talk_done(struct talk *talk)
{
	(void)peer_close(talk->client.peer);
	(void)peer_close(talk->server.peer);
	json_decref(talk->client.value);
	json_decref(talk->server.value);
	if (talk->raw >= 0)
		(void)close(talk->raw);
	talk->loop = sd_event_unref(talk->loop);
}

static void ask(struct end *end, json_t *args)
{
	struct error err = { 0 };

	if (peer_call(end->peer, "echo", args, PATIENCE, end_reply, end, &err) < 0)
		fail_msg("%s", err.text);
}

/* ---- tests ---- */

static void both_know_each_other_and_both_may_ask(void **state)
{
	json_auto_t *args = json_pack("{s:s}", "say", "hello");
	CLEANUP(talk_done) struct talk talk;

	talk_begin(&talk, alpha, beta, "alpha");
	assert_string_equal(tls_peer_name(peer_transport(talk.client.peer)), "");
	ask(&talk.client, args); /* waits until it may go out */
	run_until(talk.loop, &talk.client.replies);
	assert_int_equal(talk.client.r, 0);
	assert_true(json_equal(talk.client.value, args));
	assert_string_equal(talk.client.name, "alpha");
	assert_string_equal(talk.server.name, "beta");
	assert_int_equal(talk.client.begun, 1);
	assert_int_equal(talk.server.begun, 1);
	ask(&talk.server, args);
	run_until(talk.loop, &talk.server.replies);
	assert_int_equal(talk.server.r, 0);
}

static void a_large_message_arrives_whole(void **state)
{
	const size_t size = 12u * 1024 * 1024;
	CLEANUP_FREE char *large = xcalloc(1, size + 1);
	CLEANUP(talk_done) struct talk talk;
	json_auto_t *args = NULL;

	for (size_t i = 0; i < size; i++)
		large[i] = (char)('a' + i % 23);
	args = json_pack("{s:s}", "say", large);
	talk_begin(&talk, alpha, beta, "alpha");
	ask(&talk.client, args);
	ask(&talk.server, args); /* in both directions at once */
	run_until(talk.loop, &talk.client.replies);
	run_until(talk.loop, &talk.server.replies);
	assert_int_equal(talk.client.r, 0);
	assert_true(json_equal(talk.client.value, args));
	assert_true(json_equal(talk.server.value, args));
}

static void many_small_messages_arrive_in_one_turn_or_more(void **state)
{
	json_auto_t *args = json_pack("{s:s}", "say", "x");
	CLEANUP(talk_done) struct talk talk;

	talk_begin(&talk, alpha, beta, "alpha");
	for (int i = 0; i < 200; i++)
		ask(&talk.client, args);
	while (talk.client.replies < 200)
		assert_true(sd_event_run(talk.loop, PATIENCE) > 0);
	assert_int_equal(talk.server.requests, 200);
	assert_int_equal(talk.client.r, 0);
}

/* Client and server, the name that the client expects, and what each is told. */
static void refused(struct tls_identity *server, struct tls_identity *client, const char *node,
		    const char *client_why, const char *server_why)
{
	CLEANUP(talk_done) struct talk talk;

	talk_begin(&talk, server, client, node);
	ask(&talk.client, NULL);
	run_until(talk.loop, &talk.client.gone);
	run_until(talk.loop, &talk.server.gone);
	assert_int_equal(talk.client.r, -ECONNRESET);
	if (client_why)
		assert_string_equal(talk.client.why.text, client_why);
	if (server_why)
		assert_string_equal(talk.server.why.text, server_why);
	assert_int_equal(talk.server.requests, 0);
}

static void another_name_than_expected_is_refused(void **state)
{
	refused(alpha, beta, "delta", "the other side is node 'alpha' and not 'delta'", NULL);
}

static void another_authority_is_refused_by_both_sides(void **state)
{
	const char *why =
		"the certificate of the other side is not of this cluster's certificate authority";

	refused(gamma_, alpha, "beta", why, NULL);
	refused(alpha, gamma_, "alpha", why, NULL);
}

static void a_certificate_out_of_its_time_is_refused(void **state)
{
	const char *expired = "the certificate of the other side has expired";

	refused(old, alpha, "beta", expired, NULL);
	refused(alpha, old, "alpha", NULL, expired);
	refused(early, alpha, "beta",
		"the certificate of the other side is not valid yet: compare the clocks of both "
		"hosts",
		NULL);
}

static void one_without_a_certificate_is_no_member(void **state)
{
	CLEANUP(talk_done) struct talk talk;
	struct transport *transport;
	int fds[2];

	talk_open(&talk, fds);
	serve(&talk, fds[0], alpha, false);
	assert_return_code(tls_connect_pinned(fds[1], tls_identity_ca(alpha), &transport, NULL), 0);
	open_end(&talk, &talk.client, transport);
	ask(&talk.client, NULL);
	run_until(talk.loop, &talk.client.gone);
	run_until(talk.loop, &talk.server.gone);
	assert_int_equal(talk.server.requests, 0);
}

static void a_stranger_is_let_in_where_that_is_wanted_and_has_no_name(void **state)
{
	CLEANUP(talk_done) struct talk talk;
	struct transport *transport;
	int fds[2];

	talk_open(&talk, fds);
	serve(&talk, fds[0], alpha, true);
	assert_return_code(tls_connect_pinned(fds[1], tls_identity_ca(alpha), &transport, NULL), 0);
	open_end(&talk, &talk.client, transport);
	ask(&talk.client, NULL);
	run_until(talk.loop, &talk.client.replies);
	assert_int_equal(talk.client.r, 0);
	assert_string_equal(talk.client.name, "alpha");
	assert_string_equal(talk.server.name, "");
}

static void a_member_of_elsewhere_is_no_stranger(void **state)
{
	CLEANUP(talk_done) struct talk talk;
	struct transport *transport;
	int fds[2];

	talk_open(&talk, fds);
	serve(&talk, fds[0], alpha, true);
	assert_return_code(tls_connect(fds[1], old, "alpha", &transport, NULL), 0);
	open_end(&talk, &talk.client, transport);
	ask(&talk.client, NULL);
	run_until(talk.loop, &talk.client.gone);
	assert_int_equal(talk.server.requests, 0);
}

static void only_the_authority_of_the_fingerprint_is_believed(void **state)
{
	CLEANUP(talk_done) struct talk talk;
	struct transport *transport;
	int fds[2];

	talk_open(&talk, fds);
	serve(&talk, fds[0], alpha, true);
	assert_return_code(tls_connect_pinned(fds[1], tls_identity_ca(gamma_), &transport, NULL),
			   0);
	open_end(&talk, &talk.client, transport);
	ask(&talk.client, NULL);
	run_until(talk.loop, &talk.client.gone);
	assert_string_equal(talk.client.why.text,
			    "the other side is of another cluster than the token");
	assert_int_equal(talk.server.requests, 0);
}

static void garbage_instead_of_tls_ends_the_connection(void **state)
{
	static const char text[] = "{\"execute\": \"echo\", \"id\": 1}\n";
	CLEANUP(talk_done) struct talk talk;
	int fds[2];

	talk_open(&talk, fds);
	talk.raw = fds[1];
	serve(&talk, fds[0], alpha, true);
	assert_int_equal(send(talk.raw, text, strlen(text), MSG_NOSIGNAL), strlen(text));
	run_until(talk.loop, &talk.server.gone);
	assert_int_equal(talk.server.requests, 0);
	assert_non_null(strstr(talk.server.why.text, "does not speak our TLS"));
}

static void one_that_never_says_anything_is_not_waited_for_without_end(void **state)
{
	CLEANUP(talk_done) struct talk talk;
	struct transport *transport;
	int fds[2];

	talk_open(&talk, fds);
	talk.raw = fds[0];
	assert_return_code(tls_connect(fds[1], beta, "alpha", &transport, NULL), 0);
	tls_set_patience(transport, 50 * USEC_PER_MSEC);
	open_end(&talk, &talk.client, transport);
	ask(&talk.client, NULL);
	run_until(talk.loop, &talk.client.gone);
	assert_int_equal(talk.client.begun, 0);
	assert_non_null(strstr(talk.client.why.text, "no connection came about within"));
}

static void a_connection_that_breaks_off_in_the_handshake_has_ended(void **state)
{
	CLEANUP(talk_done) struct talk talk;
	int fds[2];

	talk_open(&talk, fds);
	serve(&talk, fds[0], alpha, true);
	assert_int_equal(send(fds[1], "\x16\x03\x01", 3, MSG_NOSIGNAL), 3);
	(void)close(fds[1]);
	run_until(talk.loop, &talk.server.gone);
	assert_string_equal(talk.server.why.text, "the other side closed the connection");
}

static void who_closes_is_heard_and_what_was_said_before_too(void **state)
{
	CLEANUP(talk_done) struct talk talk;

	talk_begin(&talk, alpha, beta, "alpha");
	ask(&talk.client, NULL);
	run_until(talk.loop, &talk.client.replies);
	assert_return_code(peer_event(talk.client.peer, "bye", NULL), 0);
	talk.client.peer = peer_close(talk.client.peer);
	run_until(talk.loop, &talk.server.gone);
	assert_string_equal(talk.server.why.text, "the other side closed the connection");
}

static void a_key_that_others_may_read_is_not_used(void **state)
{
	CLEANUP_FREE char *dir = xasprintf("%s/open/tls", root);
	CLEANUP_FREE char *file = xasprintf("%s/node.pem", dir);
	struct period good = around_now(-DAY, DAY);
	struct tls_identity *identity;
	struct error err = { 0 };
	struct stat info;

	tls_identity_unref(enrol(alpha_dir, dir, "delta", good));
	assert_return_code(stat(file, &info), errno);
	assert_int_equal(info.st_mode & 0777, 0600);
	assert_return_code(chmod(file, 0640), errno);
	assert_int_equal(tls_identity_load(dir, &identity, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "others may read the key"));
}

static void without_files_one_is_in_no_cluster(void **state)
{
	CLEANUP_FREE char *dir = xasprintf("%s/nowhere", root);
	struct tls_identity *identity;
	struct error err = { 0 };

	assert_int_equal(tls_identity_load(dir, &identity, &err), -ENOENT);
	assert_non_null(strstr(err.text, "drover cluster join"));
}

static void an_identity_says_what_its_certificate_says(void **state)
{
	time_t from, until, now = time(NULL);

	tls_identity_period(beta, &from, &until);
	assert_true(from < now && until > now + 89 * (time_t)DAY);
	assert_string_equal(tls_identity_name(beta), "beta");
	assert_string_equal(tls_identity_ca(beta), tls_identity_ca(alpha));
	assert_string_not_equal(tls_identity_ca(beta), tls_identity_ca(gamma_));
	assert_int_equal(strlen(tls_identity_ca(beta)), TLS_FINGERPRINT_SIZE - 1);
}

static void an_authority_is_made_once_and_signs_only_requests(void **state)
{
	struct period good = around_now(-DAY, DAY);
	CLEANUP_FREE char *certificate = NULL;
	struct error err = { 0 };

	assert_int_equal(authority_make(alpha_dir, &good, &err), -EPERM);
	assert_int_equal(authority_sign(alpha_dir, "nonsense", "x", &good, &certificate, &err),
			 -EBADMSG);
	assert_true(authority_here(alpha_dir));
	assert_false(authority_here(beta_dir));
	assert_int_equal(authority_sign(beta_dir, "nonsense", "x", &good, &certificate, &err),
			 -EPERM);
	assert_non_null(strstr(err.text, "drover cluster init"));
}

/* ---- TCP ---- */

static void addresses_are_numbers(void **state)
{
	static const char *const good[] = { "127.0.0.1:8441", "[::1]:1", "0.0.0.0:65535" };
	static const char *const bad[] = { "",	       "localhost:1", "127.0.0.1",
					   "::1:8441", "[::1]",	      "127.0.0.1:http",
					   ":1",       "[]:1",	      "1.2.3.4:" };
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_return_code(tcp_check(good[i], &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_true(tcp_check(bad[i], &err) < 0);
		assert_non_null(strstr(err.text, "is no address"));
	}
}

/* A port of this host that somebody listens on. */
static int listen_anywhere(char address[32])
{
	struct sockaddr_in where = { 0 };
	socklen_t size = sizeof(where);
	struct error err = { 0 };
	int fd = tcp_listen("127.0.0.1:0", &err);

	if (fd < 0)
		fail_msg("%s", err.text);
	assert_return_code(getsockname(fd, (struct sockaddr *)&where, &size), errno);
	(void)snprintf(address, 32, "127.0.0.1:%u", ntohs(where.sin_port));
	return fd;
}

static int on_accept(sd_event_source *source, int fd, uint32_t revents, void *ctx)
{
	struct talk *talk = ctx;

	serve(talk, tcp_accept(fd, NULL), alpha, false);
	return 0;
}

static void it_works_over_tcp_while_still_connecting(void **state)
{
	CLEANUP(talk_done) struct talk talk = { .raw = -1 };
	struct transport *transport;
	char address[32];

	assert_return_code(sd_event_new(&talk.loop), 0);
	talk.raw = listen_anywhere(address);
	assert_return_code(sd_event_add_io(talk.loop, NULL, talk.raw, EPOLLIN, on_accept, &talk),
			   0);
	assert_return_code(tls_connect(tcp_connect(address, NULL), beta, "alpha", &transport, NULL),
			   0);
	open_end(&talk, &talk.client, transport);
	ask(&talk.client, NULL);
	run_until(talk.loop, &talk.client.replies);
	assert_int_equal(talk.client.r, 0);
	assert_string_equal(talk.server.name, "beta");
}

static void where_nobody_listens_that_is_said(void **state)
{
	CLEANUP(talk_done) struct talk talk = { .raw = -1 };
	struct transport *transport;
	char address[32];

	assert_return_code(sd_event_new(&talk.loop), 0);
	(void)close(listen_anywhere(address));
	assert_return_code(tls_connect(tcp_connect(address, NULL), beta, "alpha", &transport, NULL),
			   0);
	open_end(&talk, &talk.client, transport);
	run_until(talk.loop, &talk.client.gone);
	assert_string_equal(talk.client.why.text, "nobody listens there");
	assert_int_equal(talk.client.why.class, ERROR_TRY_AGAIN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_know_each_other_and_both_may_ask),
		cmocka_unit_test(a_large_message_arrives_whole),
		cmocka_unit_test(many_small_messages_arrive_in_one_turn_or_more),
		cmocka_unit_test(another_name_than_expected_is_refused),
		cmocka_unit_test(another_authority_is_refused_by_both_sides),
		cmocka_unit_test(a_certificate_out_of_its_time_is_refused),
		cmocka_unit_test(one_without_a_certificate_is_no_member),
		cmocka_unit_test(a_stranger_is_let_in_where_that_is_wanted_and_has_no_name),
		cmocka_unit_test(a_member_of_elsewhere_is_no_stranger),
		cmocka_unit_test(only_the_authority_of_the_fingerprint_is_believed),
		cmocka_unit_test(garbage_instead_of_tls_ends_the_connection),
		cmocka_unit_test(one_that_never_says_anything_is_not_waited_for_without_end),
		cmocka_unit_test(a_connection_that_breaks_off_in_the_handshake_has_ended),
		cmocka_unit_test(who_closes_is_heard_and_what_was_said_before_too),
		cmocka_unit_test(a_key_that_others_may_read_is_not_used),
		cmocka_unit_test(without_files_one_is_in_no_cluster),
		cmocka_unit_test(an_identity_says_what_its_certificate_says),
		cmocka_unit_test(an_authority_is_made_once_and_signs_only_requests),
		cmocka_unit_test(addresses_are_numbers),
		cmocka_unit_test(it_works_over_tcp_while_still_connecting),
		cmocka_unit_test(where_nobody_listens_that_is_said),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
