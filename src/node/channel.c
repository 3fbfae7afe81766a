/* SPDX-License-Identifier: Apache-2.0 */
#include "node/channel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "node/console.h"
#include "node/control.h"
#include "node/credentials.h"
#include "node/enrol.h"
#include "node/events.h"
#include "node/membership.h"
#include "node/node.h"
#include "node/renewal.h"
#include "tls/tls.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/peer.h"
#include "wire/stream.h"
#include "wire/tcp.h"

#define CALLERS_MAX 512
#define UNKNOWN_MAX 32 /* of them whose name is not known (yet) */
#define UNKNOWN_PATIENCE (30 * USEC_PER_SEC)
/* What one may say before it is known as a member. */
#define UNKNOWN_LINE (64u * 1024)
#define UNKNOWN_PARTS 256
#define LISTEN_AGAIN (5 * USEC_PER_SEC)

struct caller {
	struct caller *next, **link;
	struct channel *channel;
	struct peer *peer;
	sd_event_source *deadline; /* until it is a member */
	char name[TLS_NAME_SIZE];  /* "": a stranger, or not begun */
	char host[TCP_HOST_SIZE];
	struct caller_console *console;
};

struct channel {
	struct node *node;
	int listener;
	sd_event_source *accept, *again;
	struct caller *callers;
	size_t count, unknown;
	char trouble[256];
};

/* ---- the table ---- */

enum who { STRANGER, MEMBER };

static void on_ping(struct node *node, struct request *request, const char *member)
{
	request_return(request, NULL);
}

static const struct {
	const char *name;
	enum who who;
	void (*run)(struct node *node, struct request *request, const char *member);
} requests[] = {
	{ "join", STRANGER, enrol_serve },
	{ "renew", MEMBER, renewal_serve },
	{ "ping", MEMBER, on_ping },
};

/* One for each connection, which is made for it. */
static void serve_console(struct caller *caller, struct request *request)
{
	struct error err = { 0 };

	if (caller->console)
		(void)error_refuse(&err, "a console is attached to this connection already");
	else if (console_attach(caller->channel->node, request, &caller->console, &err) >= 0)
		return;
	request_fail(request, &err);
}

static void on_event(void *ctx, const char *name, json_t *data, json_t *whole)
{
	const struct caller *caller = ctx;

	if (caller->console && strcmp(name, "input") == 0)
		console_input(caller->console, data);
}

static void on_request(void *ctx, struct request *request)
{
	struct caller *caller = ctx;
	const char *name = request_command(request);
	enum who who = caller->name[0] ? MEMBER : STRANGER;
	struct error err = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		if (strcmp(requests[i].name, name) == 0 && requests[i].who == who) {
			requests[i].run(caller->channel->node, request, caller->name);
			return;
		}
	}
	if (who == MEMBER && strcmp(name, "console-attach") == 0) {
		serve_console(caller, request);
		return;
	}
	if (who == MEMBER && control_serve_member(caller->channel->node, request, caller->name))
		return;
	(void)error_refuse(&err, "an agent (%s) does not answer '%s' to %s", DROVER_VERSION, name,
			   who == MEMBER ? "another node" : "one that is no member");
	request_fail(request, &err);
}

/* ---- callers ---- */

static struct caller *caller_free(struct caller *caller)
{
	struct channel *channel = caller->channel;

	*caller->link = caller->next;
	if (caller->next)
		caller->next->link = caller->link;
	channel->count--;
	if (!caller->name[0])
		channel->unknown--;
	sd_event_source_disable_unref(caller->deadline);
	peer_close(caller->peer);
	console_detach(caller->console);
	free(caller);
	return NULL;
}

static void on_gone(void *ctx, const struct error *why)
{
	struct caller *caller = ctx;

	struct node *node = caller->channel->node;

	if (!caller->name[0])
		log_debug("a caller on the cluster's port has gone: %s", why->text);
	caller_free(caller);
	events_forget(node);
}

static void on_begun(void *ctx)
{
	struct caller *caller = ctx;
	struct node *node = caller->channel->node;
	const char *name = tls_peer_name(peer_transport(caller->peer));

	if (!*name)
		return;
	if (!membership_has(node, name)) {
		log_warning("node '%s' has a certificate and is no member of the cluster", name);
		caller_free(caller);
		return;
	}
	(void)snprintf(caller->name, sizeof(caller->name), "%s", name);
	caller->channel->unknown--;
	caller->deadline = sd_event_source_disable_unref(caller->deadline);
	peer_limit(caller->peer, STREAM_LINE_MAX, STREAM_PARTS_MAX);
}

static const struct peer_ops caller_ops = { .request = on_request,
					    .event = on_event,
					    .begun = on_begun,
					    .gone = on_gone,
					    .line_max = UNKNOWN_LINE,
					    .parts_max = UNKNOWN_PARTS };

static int on_deadline(sd_event_source *source, uint64_t usec, void *ctx)
{
	caller_free(ctx);
	return 0;
}

static size_t unknown_from(const struct channel *channel, const char *host)
{
	size_t n = 0;

	for (const struct caller *caller = channel->callers; caller; caller = caller->next)
		n += !caller->name[0] && strcmp(caller->host, host) == 0;
	return n;
}

/* Whoever opens connections and says nothing loses the oldest of them, and keeps nobody else out:
 * of the host that has the most, the one that has been here longest. */
static void make_room(struct channel *channel)
{
	struct caller *worst = NULL;
	size_t most = 0;

	for (struct caller *caller = channel->callers; caller; caller = caller->next) {
		size_t n = caller->name[0] ? 0 : unknown_from(channel, caller->host);

		if (n > 0 && n >= most) {
			most = n;
			worst = caller;
		}
	}
	if (worst)
		caller_free(worst);
}

/* Takes `fd`. */
static int caller_new(struct channel *channel, int fd, struct error *err)
{
	struct node *node = channel->node;
	struct transport *transport;
	char host[TCP_HOST_SIZE];
	struct caller *caller;
	int r;

	if (channel->unknown >= UNKNOWN_MAX)
		make_room(channel);
	if (channel->count >= CALLERS_MAX) {
		(void)close(fd);
		return error_try_again(err, "too many are connected");
	}
	tcp_peer_host(fd, host);
	r = tls_accept(fd, membership_identity(node), credentials_authority(node, NULL) > 0,
		       &transport, err);
	if (r < 0)
		return r;
	caller = xcalloc(1, sizeof(*caller));
	caller->channel = channel;
	memcpy(caller->host, host, sizeof(host));
	caller->next = channel->callers;
	caller->link = &channel->callers;
	if (caller->next)
		caller->next->link = &caller->next;
	channel->callers = caller;
	channel->count++;
	channel->unknown++;
	node_timer(node, &caller->deadline, UNKNOWN_PATIENCE, on_deadline, caller);
	r = peer_open_transport(transport, node->loop, &caller_ops, caller, &caller->peer, err);
	if (r < 0)
		caller_free(caller);
	return r;
}

void channel_sift(struct node *node)
{
	struct channel *channel = node->channel;

	for (struct caller *caller = channel ? channel->callers : NULL, *next; caller;
	     caller = next) {
		next = caller->next;
		if (caller->name[0] && !membership_has(node, caller->name))
			caller_free(caller);
	}
}

/* ---- listening ---- */

static int on_again(sd_event_source *source, uint64_t usec, void *userdata)
{
	const struct channel *channel = userdata;

	if (channel->accept)
		(void)sd_event_source_set_enabled(channel->accept, SD_EVENT_ON);
	else
		channel_look(channel->node);
	return 0;
}

static int on_accept(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct channel *channel = userdata;
	struct error err = { 0 };
	int caller = tcp_accept(fd, &err);

	if (caller == -EMFILE || caller == -ENFILE) {
		/* It stays in the queue; asking again at once would only burn time. */
		(void)sd_event_source_set_enabled(channel->accept, SD_EVENT_OFF);
		node_timer(channel->node, &channel->again, USEC_PER_SEC, on_again, channel);
	} else if (caller >= 0 && caller_new(channel, caller, &err) < 0) {
		log_warning("a caller on the cluster's port was not let in: %s", err.text);
	}
	return 0;
}

static void stop(struct channel *channel)
{
	channel->accept = sd_event_source_disable_unref(channel->accept);
	while (channel->callers)
		caller_free(channel->callers);
	if (channel->listener >= 0)
		(void)close(channel->listener);
	channel->listener = -1;
}

static int listen_there(struct channel *channel, struct error *err)
{
	const char *address = membership_address(channel->node);
	int r;

	if (!*address)
		return error_refuse(err, "no other node reaches this one: 'cluster.address' is not "
					 "in drover.yaml");
	channel->listener = tcp_listen(address, err);
	if (channel->listener < 0)
		return channel->listener;
	r = sd_event_add_io(channel->node->loop, &channel->accept, channel->listener, EPOLLIN,
			    on_accept, channel);
	if (r < 0) {
		stop(channel);
		return error_set(err, r, "cannot serve %s: %m", address);
	}
	log_info("agents of other nodes are served at %s", address);
	return 0;
}

void channel_look(struct node *node)
{
	struct channel *channel = node->channel;
	struct error err = { 0 };

	if (!channel) {
		channel = node->channel = xcalloc(1, sizeof(*channel));
		channel->node = node;
		channel->listener = -1;
	}
	if (!membership_identity(node)) {
		stop(channel);
		(void)snprintf(channel->trouble, sizeof(channel->trouble), "it is in no cluster");
		return;
	}
	if (channel->listener >= 0)
		return;
	if (listen_there(channel, &err) >= 0) {
		channel->trouble[0] = '\0';
		return;
	}
	if (strcmp(channel->trouble, err.text) != 0)
		log_error("other nodes are not served: %s", err.text);
	(void)snprintf(channel->trouble, sizeof(channel->trouble), "%.255s", err.text);
	node_timer(node, &channel->again, LISTEN_AGAIN, on_again, channel);
}

const char *channel_trouble(const struct node *node)
{
	return node->channel->trouble[0] ? node->channel->trouble : NULL;
}

struct channel *channel_close(struct channel *channel)
{
	if (!channel)
		return NULL;
	stop(channel);
	sd_event_source_disable_unref(channel->again);
	free(channel);
	return NULL;
}
