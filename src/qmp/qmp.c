/* SPDX-License-Identifier: Apache-2.0 */
/* QMP on top of wire/peer, which already knows requests, ids, deadlines and events.  What QMP adds
 * is the greeting, the negotiation after it, time stamps of events, and the name of the command in
 * front of QEMU's own words. */
#include "qmp/qmp.h"

#include <errno.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"

/* A stopped QEMU answers the negotiation when it goes on, in an hour or next week. */
#define NEGOTIATION_USEC (UINT64_C(365) * 24 * 3600 * USEC_PER_SEC)

/* One open request: the peer keeps its id and deadline, this the name for the error text. */
struct call {
	struct qmp *qmp;
	struct call *previous, *next;
	char *command;
	peer_reply_fn reply;
	void *ctx;
};

struct qmp {
	struct peer *peer;
	const struct qmp_ops *ops;
	void *ctx;
	struct call *calls;
	json_t *greeting;
	bool ready;
	bool over; /* the owner has been told */
};

static struct call *call_free(struct call *call)
{
	if (call->previous)
		call->previous->next = call->next;
	else
		call->qmp->calls = call->next;
	if (call->next)
		call->next->previous = call->previous;
	free(call->command);
	free(call);
	return NULL;
}

static struct call *call_new(struct qmp *qmp, const char *command, peer_reply_fn reply, void *ctx)
{
	struct call *call = xcalloc(1, sizeof(*call));

	*call = (struct call){
		.qmp = qmp,
		.next = qmp->calls,
		.command = xstrdup(command),
		.reply = reply,
		.ctx = ctx,
	};
	if (qmp->calls)
		qmp->calls->previous = call;
	qmp->calls = call;
	return call;
}

static void on_reply(void *ctx, int r, json_t *value, const struct error *err)
{
	struct call *call = ctx;
	peer_reply_fn reply = call->reply;
	void *reply_ctx = call->ctx;
	struct error why = { 0 };

	if (r < 0 && err) {
		why = *err;
		(void)error_prefix(&why, r, "%s", r == -EREMOTEIO ? call->command : "QEMU monitor");
	}
	/* Gone before the owner is called, which may close us from inside. */
	call_free(call);
	if (reply)
		reply(reply_ctx, r, value, r < 0 ? &why : NULL);
}

static void qmp_end(struct qmp *qmp, const struct error *why)
{
	if (qmp->over)
		return;
	qmp->over = true;
	qmp->ready = false;
	qmp->ops->gone(qmp->ctx, why);
}

static void on_negotiated(void *ctx, int r, json_t *value, const struct error *err)
{
	struct qmp *qmp = ctx;

	/* -ECONNRESET is followed by the peer's own `gone`, with the reason. */
	if (r == -ECONNRESET || qmp->over)
		return;
	if (r < 0) {
		qmp_end(qmp, err);
		return;
	}
	qmp->ready = true;
	qmp->ops->ready(qmp->ctx, qmp->greeting);
}

static int note_sent(struct call *call, int r, struct error *err)
{
	if (r == 0)
		return 0;
	call_free(call);
	return error_prefix(err, r, "QEMU monitor");
}

static int qmp_send(struct qmp *qmp, const char *command, json_t *args, int fd,
		    uint64_t timeout_usec, peer_reply_fn reply, void *ctx, struct error *err)
{
	struct call *call = call_new(qmp, command, reply, ctx);

	return note_sent(
		call, peer_call_fd(qmp->peer, command, args, fd, timeout_usec, on_reply, call, err),
		err);
}

/* With out-of-band execution on, QEMU goes on reading while it works on a command; without it, it
 * stops reading after each, which costs a turn of its main loop for every one (QEMU 7.2, measured:
 * a third of the time of the comparison at each start).  And the target of a postcopy whose stream
 * broke may answer nothing else. */
static json_t *wanted_capabilities(const json_t *greeting)
{
	json_t *offered = json_object_get(json_object_get(greeting, "QMP"), "capabilities");
	json_t *name;
	size_t i;

	json_array_foreach(offered, i, name)
	{
		if (json_is_string(name) && strcmp(json_string_value(name), "oob") == 0)
			return json_pack("{s:[s]}", "enable", "oob");
	}
	return NULL;
}

/* Before the negotiation this is the greeting.  Later it can only be a complaint without an id,
 * about a message that was not ours to begin with: the request it may belong to has its deadline.
 */
static void on_other(void *ctx, json_t *message)
{
	struct qmp *qmp = ctx;
	json_auto_t *args = NULL;
	struct error err = { 0 };
	int r;

	if (qmp->greeting || qmp->over)
		return;
	if (!json_is_object(json_object_get(message, "QMP"))) {
		(void)error_set(&err, -EPROTO,
				"this is no QEMU monitor: it does not open with a QMP greeting");
		qmp_end(qmp, &err);
		return;
	}
	qmp->greeting = json_incref(message);
	args = wanted_capabilities(message);
	r = qmp_send(qmp, "qmp_capabilities", args, -1, NEGOTIATION_USEC, on_negotiated, qmp, &err);
	if (r < 0)
		qmp_end(qmp, &err);
}

static void on_event(void *ctx, const char *name, json_t *data, json_t *whole)
{
	struct qmp *qmp = ctx;
	json_t *stamp = json_object_get(whole, "timestamp");
	int64_t seconds = json_int_or(stamp, "seconds", -1);
	int64_t usec = json_int_or(stamp, "microseconds", 0);
	uint64_t when = 0;

	if (qmp->over || !qmp->ops->event)
		return;
	/* QEMU says -1 when it could not read the clock. */
	if (seconds > 0 && seconds < INT64_MAX / (int64_t)USEC_PER_SEC - 1 && usec >= 0 &&
	    usec < (int64_t)USEC_PER_SEC)
		when = (uint64_t)seconds * USEC_PER_SEC + (uint64_t)usec;
	qmp->ops->event(qmp->ctx, name, data, when);
}

static void on_gone(void *ctx, const struct error *why)
{
	qmp_end(ctx, why);
}

static const struct peer_ops peer_ops = {
	.event = on_event,
	.other = on_other,
	.gone = on_gone,
	.line_max = QMP_LINE_MAX,
	.parts_max = QMP_PARTS_MAX,
};

int qmp_open(int fd, sd_event *loop, const struct qmp_ops *ops, void *ctx, struct qmp **ret_qmp,
	     struct error *err)
{
	CLEANUP_FREE struct qmp *qmp = xcalloc(1, sizeof(*qmp));
	int r;

	*qmp = (struct qmp){ .ops = ops, .ctx = ctx };
	r = peer_open(fd, loop, &peer_ops, qmp, &qmp->peer, err);
	if (r < 0)
		return r;
	*ret_qmp = TAKE_PTR(qmp);
	return 0;
}

struct qmp *qmp_close(struct qmp *qmp)
{
	if (!qmp)
		return NULL;
	peer_close(qmp->peer);
	while (qmp->calls)
		call_free(qmp->calls);
	json_decref(qmp->greeting);
	free(qmp);
	return NULL;
}

bool qmp_ready(const struct qmp *qmp)
{
	return qmp->ready;
}

static json_t *greeted_version(const struct qmp *qmp)
{
	return json_object_get(json_object_get(json_object_get(qmp->greeting, "QMP"), "version"),
			       "qemu");
}

void qmp_version(const struct qmp *qmp, int *ret_major, int *ret_minor)
{
	json_t *version = greeted_version(qmp);

	*ret_major = (int)json_int_or(version, "major", 0);
	*ret_minor = (int)json_int_or(version, "minor", 0);
}

bool qmp_version_text(const struct qmp *qmp, char *buffer, size_t size)
{
	json_t *version = greeted_version(qmp);

	(void)snprintf(buffer, size, "%d.%d.%d", (int)json_int_or(version, "major", 0),
		       (int)json_int_or(version, "minor", 0),
		       (int)json_int_or(version, "micro", 0));
	return version != NULL;
}

int qmp_call_fd(struct qmp *qmp, const char *command, json_t *args, int fd, uint64_t timeout_usec,
		peer_reply_fn reply, void *ctx, struct error *err)
{
	if (!qmp->ready)
		return error_try_again(err, "%s: the QEMU monitor has not greeted yet", command);
	return qmp_send(qmp, command, args, fd, timeout_usec, reply, ctx, err);
}

int qmp_call(struct qmp *qmp, const char *command, json_t *args, uint64_t timeout_usec,
	     peer_reply_fn reply, void *ctx, struct error *err)
{
	return qmp_call_fd(qmp, command, args, -1, timeout_usec, reply, ctx, err);
}

int qmp_call_oob(struct qmp *qmp, const char *command, json_t *args, uint64_t timeout_usec,
		 peer_reply_fn reply, void *ctx, struct error *err)
{
	struct call *call;

	if (!qmp->ready)
		return error_try_again(err, "%s: the QEMU monitor has not greeted yet", command);
	call = call_new(qmp, command, reply, ctx);
	return note_sent(call,
			 peer_call_oob(qmp->peer, command, args, timeout_usec, on_reply, call, err),
			 err);
}
