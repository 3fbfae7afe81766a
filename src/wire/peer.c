/* SPDX-License-Identifier: Apache-2.0 */
/* Requests, answers and events over a stream.  Every callback may close the peer, so whoever calls
 * one holds a reference and looks afterwards whether the peer is still open. */
#include "wire/peer.h"

#include <errno.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/stream.h"

#define TIMER_ACCURACY USEC_PER_MSEC
#define REQUESTS_MAX 256 /* of theirs at once; more are told to try again */

/* A request of ours that waits for its answer. */
struct call {
	struct call *next;
	int64_t id;
	char *command;
	uint64_t timeout, deadline;
	peer_reply_fn reply;
	void *ctx;
};

struct peer {
	unsigned refs;
	struct stream *stream;
	sd_event_source *timer;
	const struct peer_ops *ops;
	void *ctx;
	struct call *calls; /* oldest first */
	int64_t last_id;
	struct request *requests; /* theirs, not yet answered */
	size_t n_requests;
	bool ended; /* the stream has ended */
	bool closed;
};

struct request {
	struct request *next;
	struct peer *peer; /* NULL once it was closed */
	json_t *message;
	json_t *args;
};

static void peer_unref(struct peer *peer)
{
	if (--peer->refs == 0)
		free(peer);
}

static void call_free(struct call *call)
{
	free(call->command);
	free(call);
}

/* Takes `link`'s call out of the list and tells its owner. */
static void call_finish(struct call **link, int r, json_t *value, const struct error *err)
{
	struct call *call = *link;

	*link = call->next;
	if (call->reply)
		call->reply(call->ctx, r, value, err);
	call_free(call);
}

static void set_timer(struct peer *peer)
{
	uint64_t first = UINT64_MAX;

	for (struct call *call = peer->calls; call; call = call->next)
		if (call->deadline < first)
			first = call->deadline;
	if (first == UINT64_MAX) {
		(void)sd_event_source_set_enabled(peer->timer, SD_EVENT_OFF);
		return;
	}
	(void)sd_event_source_set_time(peer->timer, first);
	(void)sd_event_source_set_enabled(peer->timer, SD_EVENT_ONESHOT);
}

static struct call **find_overdue(struct peer *peer, uint64_t now)
{
	for (struct call **link = &peer->calls; *link; link = &(*link)->next)
		if ((*link)->deadline <= now)
			return link;
	return NULL;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *ctx)
{
	uint64_t now = clock_now();
	struct peer *peer = ctx;
	struct call **overdue;

	peer->refs++;
	while (!peer->closed && (overdue = find_overdue(peer, now)) != NULL) {
		struct error why;
		int r = error_set_class(&why, ERROR_TRY_AGAIN, -ETIMEDOUT,
					"no answer to '%s' within %.1f s", (*overdue)->command,
					(double)(*overdue)->timeout / USEC_PER_SEC);

		call_finish(overdue, r, NULL, &why);
	}
	if (!peer->closed)
		set_timer(peer);
	peer_unref(peer);
	return 0;
}

static void on_answer(struct peer *peer, json_t *message)
{
	int64_t id = json_integer_value(json_object_get(message, "id"));
	json_t *value = json_object_get(message, "return");
	json_t *error = json_object_get(message, "error");
	struct call **link = &peer->calls;
	struct error why;

	while (*link && (*link)->id != id)
		link = &(*link)->next;
	if (!*link)
		return; /* came after its deadline */
	if (value) {
		call_finish(link, 0, value, NULL);
	} else {
		(void)error_set_class(&why, error_class_of(json_string_or(error, "class", NULL)),
				      -EREMOTEIO, "%s",
				      json_string_or(error, "desc", "refused without a word"));
		call_finish(link, -EREMOTEIO, NULL, &why);
	}
	if (!peer->closed)
		set_timer(peer);
}

static void on_request(struct peer *peer, json_t *message)
{
	struct request *request = xcalloc(1, sizeof(*request));
	json_t *args = json_object_get(message, "arguments");
	struct error why = { 0 };

	request->peer = peer;
	request->message = json_incref(message);
	request->args = json_is_object(args) ? json_incref(args) : json_object();
	request->next = peer->requests;
	peer->requests = request;
	peer->n_requests++;
	if (!peer->ops->request)
		(void)error_refuse(&why, "nobody takes requests here");
	else if (args && !json_is_object(args) && !json_is_null(args))
		(void)error_usage(&why, "'arguments' must be an object");
	else if (peer->n_requests > REQUESTS_MAX)
		(void)error_try_again(&why, "more than %d requests are open on this connection",
				      REQUESTS_MAX);
	else
		peer->ops->request(peer->ctx, request);
	if (why.text[0])
		request_fail(request, &why);
}

static void on_message(void *ctx, json_t *message)
{
	const char *event = json_string_or(message, "event", NULL);
	bool answers = json_object_get(message, "return") || json_object_get(message, "error");
	struct peer *peer = ctx;

	peer->refs++;
	if (answers && json_is_integer(json_object_get(message, "id")))
		on_answer(peer, message);
	else if (json_is_string(json_object_get(message, "execute")))
		on_request(peer, message);
	else if (event && peer->ops->event)
		peer->ops->event(peer->ctx, event, json_object_get(message, "data"), message);
	else if (!event && peer->ops->other)
		peer->ops->other(peer->ctx, message);
	peer_unref(peer);
}

static void on_gone(void *ctx, const struct error *why)
{
	struct peer *peer = ctx;

	peer->refs++;
	peer->ended = true;
	(void)sd_event_source_set_enabled(peer->timer, SD_EVENT_OFF);
	while (!peer->closed && peer->calls)
		call_finish(&peer->calls, -ECONNRESET, NULL, why);
	if (!peer->closed && peer->ops->gone)
		peer->ops->gone(peer->ctx, why);
	peer_unref(peer);
}

static void on_begun(void *ctx)
{
	struct peer *peer = ctx;

	peer->refs++;
	if (peer->ops->begun)
		peer->ops->begun(peer->ctx);
	peer_unref(peer);
}

static const struct stream_ops stream_ops = { .message = on_message,
					      .begun = on_begun,
					      .gone = on_gone };

/* The rest of opening, once there is a stream or `r` says why not. */
static int peer_finish(struct peer *peer, int r, sd_event *loop, struct peer **ret_peer,
		       struct error *err)
{
	if (r < 0) {
		(void)peer_close(peer);
		return r;
	}
	if (peer->ops->line_max)
		stream_limit(peer->stream, peer->ops->line_max, peer->ops->parts_max);
	r = sd_event_add_time(loop, &peer->timer, CLOCK_BOOTTIME, UINT64_MAX, TIMER_ACCURACY,
			      on_timer, peer);
	if (r < 0) {
		(void)peer_close(peer);
		return error_set(err, r, "cannot make a timer for a connection: %m");
	}
	*ret_peer = peer;
	return 0;
}

static struct peer *peer_new(const struct peer_ops *ops, void *ctx)
{
	struct peer *peer = xcalloc(1, sizeof(*peer));

	*peer = (struct peer){ .refs = 1, .ops = ops, .ctx = ctx };
	return peer;
}

int peer_open(int fd, sd_event *loop, const struct peer_ops *ops, void *ctx, struct peer **ret_peer,
	      struct error *err)
{
	struct peer *peer = peer_new(ops, ctx);
	int r = stream_open(fd, loop, &stream_ops, peer, &peer->stream, err);

	return peer_finish(peer, r, loop, ret_peer, err);
}

int peer_open_transport(struct transport *transport, sd_event *loop, const struct peer_ops *ops,
			void *ctx, struct peer **ret_peer, struct error *err)
{
	struct peer *peer = peer_new(ops, ctx);
	int r = stream_open_transport(transport, loop, &stream_ops, peer, &peer->stream, err);

	return peer_finish(peer, r, loop, ret_peer, err);
}

void peer_limit(struct peer *peer, size_t line_max, size_t parts_max)
{
	if (peer->stream)
		stream_limit(peer->stream, line_max, parts_max);
}

struct transport *peer_transport(const struct peer *peer)
{
	return peer->stream ? stream_transport(peer->stream) : NULL;
}

struct peer *peer_close(struct peer *peer)
{
	if (!peer || peer->closed)
		return NULL;
	peer->closed = true;
	peer->stream = stream_close(peer->stream);
	peer->timer = sd_event_source_disable_unref(peer->timer);
	for (struct request *request = peer->requests; request; request = request->next)
		request->peer = NULL;
	while (peer->calls) {
		struct call *call = peer->calls;

		peer->calls = call->next;
		call_free(call);
	}
	peer_unref(peer);
	return NULL;
}

/* `how`: the key under which the other side reads the command. */
static int ask(struct peer *peer, const char *how, const char *command, json_t *args, int fd,
	       uint64_t timeout_usec, peer_reply_fn reply, void *ctx, struct error *err)
{
	json_auto_t *message = json_object();
	struct call **last = &peer->calls;
	uint64_t now = clock_now();
	struct call *call;
	int r;

	json_set_string(message, how, command);
	if (args)
		(void)json_object_set(message, "arguments", args);
	(void)json_object_set_new(message, "id", json_integer(++peer->last_id));
	r = fd >= 0 ? stream_send_fd(peer->stream, message, fd, err)
		    : stream_send(peer->stream, message, err);
	if (r < 0)
		return error_prefix(err, r, "cannot ask '%s'", command);
	call = xcalloc(1, sizeof(*call));
	*call = (struct call){ .id = peer->last_id,
			       .command = xstrdup(command),
			       .timeout = timeout_usec,
			       .deadline =
				       now + timeout_usec < now ? UINT64_MAX : now + timeout_usec,
			       .reply = reply,
			       .ctx = ctx };
	while (*last)
		last = &(*last)->next;
	*last = call;
	set_timer(peer);
	return 0;
}

int peer_call_fd(struct peer *peer, const char *command, json_t *args, int fd,
		 uint64_t timeout_usec, peer_reply_fn reply, void *ctx, struct error *err)
{
	return ask(peer, "execute", command, args, fd, timeout_usec, reply, ctx, err);
}

int peer_call(struct peer *peer, const char *command, json_t *args, uint64_t timeout_usec,
	      peer_reply_fn reply, void *ctx, struct error *err)
{
	return ask(peer, "execute", command, args, -1, timeout_usec, reply, ctx, err);
}

int peer_call_oob(struct peer *peer, const char *command, json_t *args, uint64_t timeout_usec,
		  peer_reply_fn reply, void *ctx, struct error *err)
{
	return ask(peer, "exec-oob", command, args, -1, timeout_usec, reply, ctx, err);
}

int peer_event(struct peer *peer, const char *name, json_t *data)
{
	json_auto_t *message = json_object();

	json_set_string(message, "event", name);
	(void)json_object_set_new(message, "data", data ? json_incref(data) : json_object());
	return stream_send(peer->stream, message, NULL);
}

const char *request_command(const struct request *request)
{
	return json_string_value(json_object_get(request->message, "execute"));
}

json_t *request_args(const struct request *request)
{
	return request->args;
}

struct peer *request_peer(const struct request *request)
{
	return request->peer;
}

bool request_abandoned(const struct request *request)
{
	return !request->peer || request->peer->ended;
}

static void request_free(struct request *request)
{
	json_decref(request->message);
	json_decref(request->args);
	free(request);
}

static void request_unlink(struct request *request)
{
	struct request **link = &request->peer->requests;

	while (*link != request)
		link = &(*link)->next;
	*link = request->next;
	request->peer->n_requests--;
}

static json_t *make_failure(const struct error *err)
{
	json_t *error = json_object();

	json_set_string(error, "class", error_class_name(err->class));
	json_set_string(error, "desc", err->text);
	return error;
}

/* Takes `value`. */
static int request_send(const struct request *request, const char *key, json_t *value,
			struct error *err)
{
	json_t *id = json_object_get(request->message, "id");
	json_auto_t *message = json_object();

	(void)json_object_set_new(message, key, value);
	if (id)
		(void)json_object_set(message, "id", id);
	return stream_send(request->peer->stream, message, err);
}

void request_return(struct request *request, json_t *value)
{
	struct error err;

	if (!request_abandoned(request) &&
	    request_send(request, "return", value ? json_incref(value) : json_object(), &err) < 0)
		/* Too long, most likely: a sentence still fits. */
		(void)request_send(request, "error", make_failure(&err), NULL);
	if (request->peer)
		request_unlink(request);
	request_free(request);
}

void request_fail(struct request *request, const struct error *err)
{
	if (!request_abandoned(request))
		(void)request_send(request, "error", make_failure(err), NULL);
	if (request->peer)
		request_unlink(request);
	request_free(request);
}

void request_progress(struct request *request, json_t *data)
{
	json_auto_t *copy = data ? json_copy(data) : json_object();
	json_t *id = json_object_get(request->message, "id");

	if (request_abandoned(request))
		return;
	if (id)
		(void)json_object_set(copy, "id", id);
	(void)peer_event(request->peer, "progress", copy);
}
