/* SPDX-License-Identifier: Apache-2.0 */
#include "node/remote.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "node/job.h"
#include "node/membership.h"
#include "node/node.h"
#include "tls/tls.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"
#include "wire/tcp.h"

#define PATIENCE (5 * USEC_PER_SEC) /* to be connected and known */
#define PING_EVERY (5 * USEC_PER_SEC)
#define PING_PATIENCE (15 * USEC_PER_SEC)

struct remote {
	struct job job;
	struct peer *peer;
	sd_event_source *ping;
	char *whom;  /* for people */
	bool member; /* it knows us as one */
	const struct remote_ops *ops;
	void *ctx;
};

static struct remote *remote_of(struct job *job)
{
	return container_of(job, struct remote, job);
}

static void remote_done(struct job *job)
{
	struct remote *remote = remote_of(job);

	sd_event_source_disable_unref(remote->ping);
	remote->peer = peer_close(remote->peer);
	free(remote->whom);
}

static int on_ping(sd_event_source *source, uint64_t usec, void *ctx);

static void on_reply(void *ctx, int r, json_t *value, const struct error *err)
{
	struct remote *remote = ctx;
	const struct remote_ops *ops = remote->ops;
	void *theirs = remote->ctx;
	struct error why = { 0 };

	if (r < 0) {
		why = *err;
		/* What the other agent says needs no prefix, that it says nothing does. */
		if (r != -EREMOTEIO)
			(void)error_prefix(&why, r, "%s does not answer", remote->whom);
	}
	json_incref(value);
	job_end(&remote->job);
	ops->reply(theirs, r, value, &why);
	json_decref(value);
}

/* An answer may take its time, the agent that works on it does not fall silent. */
static void on_pong(void *ctx, int r, json_t *value, const struct error *err)
{
	struct remote *remote = ctx;

	if (r == -ETIMEDOUT)
		on_reply(remote, r, NULL, err);
	else if (r >= 0)
		node_timer(remote->job.node, &remote->ping, PING_EVERY, on_ping, remote);
}

static int on_ping(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct remote *remote = ctx;
	struct error err;

	/* When it cannot be sent the connection is over, and the question is answered with that. */
	(void)peer_call(remote->peer, "ping", NULL, PING_PATIENCE, on_pong, remote, &err);
	return 0;
}

static void on_event(void *ctx, const char *name, json_t *data, json_t *whole)
{
	struct remote *remote = ctx;

	if (remote->ops->progress && data && strcmp(name, "progress") == 0)
		remote->ops->progress(remote->ctx, data);
}

/* Pinging begins once the other one is known: what is before that has its own deadline. */
static void on_begun(void *ctx)
{
	struct remote *remote = ctx;

	if (remote->member)
		node_timer(remote->job.node, &remote->ping, PING_EVERY, on_ping, remote);
}

/* The open question was answered with that before. */
static const struct peer_ops remote_peer_ops = { .event = on_event, .begun = on_begun };

/* A connection that begins to come about. */
static int reach(struct node *node, const struct remote_question *question, struct transport **ret,
		 struct error *err)
{
	struct tls_identity *identity = membership_identity(node);
	int fd, r;

	if (!question->pin && !identity)
		return error_refuse(err, "this node is in no cluster; 'drover cluster init' makes "
					 "one, 'drover cluster join' enters one");
	fd = tcp_connect(question->address, err);
	if (fd < 0)
		return fd;
	r = question->pin ? tls_connect_pinned(fd, question->pin, ret, err)
			  : tls_connect(fd, identity, question->node, ret, err);
	if (r >= 0)
		tls_set_patience(*ret, PATIENCE);
	return r;
}

int remote_ask(struct node *node, const struct remote_question *question,
	       const struct remote_ops *ops, void *ctx, struct remote **ret, struct error *err)
{
	struct transport *transport;
	struct remote *remote;
	int r;

	r = reach(node, question, &transport, err);
	if (r < 0)
		return r;
	remote = xcalloc(1, sizeof(*remote));
	remote->ops = ops;
	remote->ctx = ctx;
	remote->member = !question->pin;
	remote->whom = question->node
			       ? xasprintf("node '%s' (%s)", question->node, question->address)
			       : xasprintf("the agent at %s", question->address);
	job_begin(&remote->job, node, remote_done);
	r = peer_open_transport(transport, node->loop, &remote_peer_ops, remote, &remote->peer,
				err);
	if (r >= 0)
		r = peer_call(remote->peer, question->command, question->args,
			      question->timeout_usec, on_reply, remote, err);
	if (r < 0) {
		job_end(&remote->job);
		return r;
	}
	*ret = remote;
	return 0;
}

void remote_tell(struct remote *remote, const char *event, json_t *data)
{
	(void)peer_event(remote->peer, event, data);
}

struct remote *remote_cancel(struct remote *remote)
{
	if (remote)
		job_end(&remote->job);
	return NULL;
}
