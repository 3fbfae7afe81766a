/* SPDX-License-Identifier: Apache-2.0 */
/* One conversation with a guest agent.  Its answers carry no id, so order is all there is: one
 * command is in flight, and whenever order may be lost (a command was given up, something came that
 * nobody asked for) the next command begins by synchronising, which throws away everything up to
 * the answer with a fresh random id. */
#include "guest/guest.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "guest/internal.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/stream.h"

#define QUEUE_MAX 64
/* Of one answer.  It is the guest that decides how much of this is used, and each VM's keeper has
 * it outside of the memory that is booked for the VM. */
#define LINE_MAX_BYTES (4u * 1024 * 1024)
#define PARTS_MAX (64u * 1024)
/* A silent agent is not sent more than one synchronisation in this time: each is 80 bytes that
 * wait in the socket, and an agent that wakes up has to answer them all. */
#define RESYNC_USEC (10 * USEC_PER_SEC)
#define RESET_BYTE 0xff /* ends any half message in the agent's parser */

enum guest_state {
	GUEST_LOST,    /* what comes next is not known to be an answer of ours */
	GUEST_SYNCING, /* for the sake of the first in the queue */
	GUEST_IDLE,
	GUEST_BUSY, /* the first in the queue has been sent */
};

struct call {
	struct guest *guest;
	struct call *next;
	char *command;
	json_t *args;
	peer_reply_fn reply;
	void *ctx;
	sd_event_source *timer;
};

struct guest {
	struct stream *stream;
	sd_event *loop;
	void (*gone)(void *ctx);
	void *ctx;
	enum guest_state state;
	struct call *queue; /* the first is the current one */
	size_t n_queue;
	struct follow *follows;
	sd_event_source *kick; /* begins the first command from the loop */
	int64_t sync_id;
	uint64_t sync_sent; /* when; 0: none is waiting for an answer */
	bool ended;	    /* nothing can be sent any more */
	bool ending;	    /* inside on_gone(): freeing has to wait */
	bool closed;
};

void follow_add(struct guest *guest, struct follow *follow)
{
	follow->guest = guest;
	follow->previous = NULL;
	follow->next = guest->follows;
	if (guest->follows)
		guest->follows->previous = follow;
	guest->follows = follow;
}

void follow_remove(struct follow *follow)
{
	if (follow->previous)
		follow->previous->next = follow->next;
	else
		follow->guest->follows = follow->next;
	if (follow->next)
		follow->next->previous = follow->previous;
}

sd_event *guest_loop(const struct guest *guest)
{
	return guest->loop;
}

/* ---- the queue ---- */

static struct call *call_free(struct call *call)
{
	sd_event_source_disable_unref(call->timer);
	json_decref(call->args);
	free(call->command);
	free(call);
	return NULL;
}

static void call_unlink(struct call *call)
{
	struct call **place = &call->guest->queue;

	while (*place != call)
		place = &(*place)->next;
	*place = call->next;
	call->guest->n_queue--;
}

/* Takes the call.  The guest may be closed when this returns. */
static void call_answer(struct call *call, int r, json_t *value, const struct error *err)
{
	peer_reply_fn reply = call->reply;
	void *ctx = call->ctx;

	call_free(call);
	if (reply)
		reply(ctx, r, value, err);
}

static void guest_kick(struct guest *guest)
{
	if (guest->queue && guest->state != GUEST_BUSY && guest->state != GUEST_SYNCING)
		(void)sd_event_source_set_enabled(guest->kick, SD_EVENT_ONESHOT);
}

/* Answers the first in the queue and goes on with the next. */
static void guest_finish(struct guest *guest, enum guest_state state, int r, json_t *value,
			 const struct error *err)
{
	struct call *call = guest->queue;

	guest->state = state;
	call_unlink(call);
	/* Before the answer, in which the owner may close us. */
	guest_kick(guest);
	call_answer(call, r, value, err);
}

static int on_timeout(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct call *call = ctx;
	struct guest *guest = call->guest;
	struct error err = { 0 };
	int r = -ETIMEDOUT;

	(void)error_set_class(&err, ERROR_TRY_AGAIN, r, "%s: the guest agent %s", call->command,
			      call != guest->queue	   ? "is busy with another command"
			      : guest->state == GUEST_BUSY ? "did not answer in time"
							   : "does not answer; is it installed and "
							     "running in the guest?");
	if (call == guest->queue) {
		guest_finish(guest, GUEST_LOST, r, NULL, &err);
		return 0;
	}
	call_unlink(call);
	call_answer(call, r, NULL, &err);
	return 0;
}

/* ---- what is sent ---- */

/* These answer only when they fail (QEMU qga/qapi-schema.json, 'success-response': false), so a
 * question is sent right behind: its answer says that the command was taken. */
static bool command_is_mute(const char *command)
{
	static const char *const mute[] = {
		"guest-shutdown",
		"guest-suspend-disk",
		"guest-suspend-ram",
		"guest-suspend-hybrid",
	};

	for (size_t i = 0; i < ARRAY_SIZE(mute); i++)
		if (!strcmp(command, mute[i]))
			return true;
	return false;
}

static int64_t random_id(void)
{
	uint64_t id = 0;

	while (id == 0) {
		/* Never fails once the kernel has booted (getrandom(2)). */
		if (getrandom(&id, sizeof(id), 0) != sizeof(id))
			abort();
		id >>= 11; /* fits a double, should the agent be of another make */
	}
	return (int64_t)id;
}

static int send_sync(struct guest *guest, const char *command, struct error *err)
{
	json_auto_t *message = NULL;
	int64_t id = random_id();
	int r;

	message = json_build(err, "{s:s, s:{s:I}}", "execute", command, "arguments", "id",
			     (json_int_t)id);
	if (!message)
		return -EINVAL;
	r = stream_send(guest->stream, message, err);
	if (r == 0)
		guest->sync_id = id;
	return r;
}

static int guest_sync(struct guest *guest, struct error *err)
{
	static const unsigned char reset = RESET_BYTE;
	uint64_t now = clock_now();
	int r;

	/* The answer to the last one may still come, and is as good. */
	if (guest->sync_sent && now - guest->sync_sent < RESYNC_USEC) {
		guest->state = GUEST_SYNCING;
		return 0;
	}
	r = stream_send_bytes(guest->stream, &reset, 1, err);
	if (r == 0)
		r = send_sync(guest, "guest-sync-delimited", err);
	if (r < 0)
		return r;
	guest->sync_sent = now;
	guest->state = GUEST_SYNCING;
	return 0;
}

static int guest_send(struct guest *guest, struct error *err)
{
	struct call *call = guest->queue;
	json_auto_t *message = NULL;
	int r;

	message = json_build(err, "{s:s, s:O*}", "execute", call->command, "arguments", call->args);
	if (!message)
		return -EINVAL;
	r = stream_send(guest->stream, message, err);
	if (r == 0 && command_is_mute(call->command))
		r = send_sync(guest, "guest-sync", err);
	if (r < 0)
		return r;
	guest->state = GUEST_BUSY;
	return 0;
}

/* Does what the first in the queue needs next. */
static void guest_step(struct guest *guest)
{
	struct error err = { 0 };
	int r;

	if (!guest->queue)
		return;
	r = guest->state == GUEST_IDLE ? guest_send(guest, &err) : guest_sync(guest, &err);
	if (r < 0)
		guest_finish(guest, GUEST_LOST, r, NULL, &err);
}

static int on_kick(sd_event_source *source, void *ctx)
{
	struct guest *guest = ctx;

	if (guest->state == GUEST_LOST || guest->state == GUEST_IDLE)
		guest_step(guest);
	return 0;
}

/* ---- what is heard ---- */

static bool is_sync_answer(const struct guest *guest, json_t *message)
{
	json_t *value = json_object_get(message, "return");

	return json_is_integer(value) && json_integer_value(value) == guest->sync_id;
}

static void on_answer(struct guest *guest, json_t *message)
{
	struct call *call = guest->queue;
	json_t *refusal = json_object_get(message, "error");
	json_t *value = json_object_get(message, "return");
	bool mute = command_is_mute(call->command);
	struct error err = { 0 };
	int r;

	if (mute && is_sync_answer(guest, message)) {
		json_auto_t *nothing = json_object();

		guest_finish(guest, GUEST_IDLE, 0, nothing, NULL);
	} else if (json_is_object(refusal)) {
		r = error_set(&err, -EREMOTEIO, "%s: %s", call->command,
			      json_string_or(refusal, "desc", "refused without a reason"));
		/* Of a mute one the answer to the question behind it is still to come. */
		guest_finish(guest, mute ? GUEST_LOST : GUEST_IDLE, r, NULL, &err);
	} else if (value && !mute) {
		guest_finish(guest, GUEST_IDLE, 0, value, NULL);
	} else {
		r = error_set(&err, -EBADMSG,
			      "%s: the guest agent sent something that is no answer",
			      call->command);
		guest_finish(guest, GUEST_LOST, r, NULL, &err);
	}
}

static void on_message(void *ctx, json_t *message)
{
	struct guest *guest = ctx;

	switch (guest->state) {
	case GUEST_SYNCING:
		if (!is_sync_answer(guest, message))
			return;
		guest->sync_sent = 0;
		guest->state = GUEST_IDLE;
		guest_step(guest);
		return;
	case GUEST_BUSY:
		on_answer(guest, message);
		return;
	case GUEST_IDLE:
	case GUEST_LOST:
		/* A late answer to the last synchronisation leaves nothing before it; anything else
		 * was not asked for, so there may be more of it. */
		if (guest->state == GUEST_LOST && guest->sync_sent &&
		    is_sync_answer(guest, message)) {
			guest->sync_sent = 0;
			guest->state = GUEST_IDLE;
		} else {
			guest->state = GUEST_LOST;
		}
		return;
	}
}

/* No JSON.  The answer to guest-sync-delimited is one of these: whatever stood in the line before,
 * 0xFF, the answer. */
static void on_garbage(void *ctx, const char *line, size_t length)
{
	struct guest *guest = ctx;
	const char *mark = length ? memrchr(line, RESET_BYTE, length) : NULL;
	json_auto_t *message = NULL;
	struct error err = { 0 };

	if (guest->state == GUEST_BUSY) {
		(void)error_set(&err, -EBADMSG,
				"%s: the guest agent sent something that is no "
				"JSON",
				guest->queue->command);
		guest_finish(guest, GUEST_LOST, -EBADMSG, NULL, &err);
		return;
	}
	if (mark && json_parse(mark + 1, length - (size_t)(mark + 1 - line), &message, NULL) == 0)
		on_message(guest, message);
	else if (guest->state == GUEST_IDLE)
		guest->state = GUEST_LOST;
}

/* ---- its end ---- */

static struct guest *guest_free(struct guest *guest)
{
	stream_close(guest->stream);
	sd_event_source_disable_unref(guest->kick);
	sd_event_unref(guest->loop);
	free(guest);
	return NULL;
}

/* All that is open is answered; each answer may open more, which is refused, or close us. */
static void on_gone(void *ctx, const struct error *why)
{
	struct guest *guest = ctx;
	struct error err = { 0 };

	(void)error_set_class(&err, ERROR_TRY_AGAIN, -ECONNRESET,
			      "the connection to the guest agent has ended: %s", why->text);
	guest->ended = true;
	guest->ending = true;
	while (guest->queue && !guest->closed) {
		struct call *call = guest->queue;

		call_unlink(call);
		call_answer(call, -ECONNRESET, NULL, &err);
	}
	while (guest->follows && !guest->closed)
		guest->follows->end(guest->follows, &err);
	guest->ending = false;
	if (guest->closed)
		guest_free(guest);
	else
		guest->gone(guest->ctx);
}

static const struct stream_ops stream_ops = {
	.message = on_message,
	.garbage = on_garbage,
	.gone = on_gone,
};

int guest_open(int fd, sd_event *loop, void (*gone)(void *ctx), void *ctx, struct guest **ret_guest,
	       struct error *err)
{
	struct guest *guest = xcalloc(1, sizeof(*guest));
	int r;

	*guest = (struct guest){ .loop = sd_event_ref(loop), .gone = gone, .ctx = ctx };
	r = stream_open(fd, loop, &stream_ops, guest, &guest->stream, err);
	if (r >= 0) {
		stream_limit(guest->stream, LINE_MAX_BYTES, PARTS_MAX);
		r = sd_event_add_defer(loop, &guest->kick, on_kick, guest);
		if (r >= 0)
			r = sd_event_source_set_enabled(guest->kick, SD_EVENT_OFF);
		if (r < 0)
			error_set(err, r, "cannot enter the event loop: %m");
	}
	if (r < 0) {
		guest_free(guest);
		return error_prefix(err, r, "guest agent");
	}
	*ret_guest = guest;
	return 0;
}

struct guest *guest_close(struct guest *guest)
{
	if (!guest)
		return NULL;
	while (guest->queue) {
		struct call *call = guest->queue;

		call_unlink(call);
		call_free(call);
	}
	while (guest->follows)
		guest->follows->end(guest->follows, NULL);
	guest->closed = true;
	return guest->ending ? NULL : guest_free(guest);
}

int guest_call(struct guest *guest, const char *command, json_t *args, uint64_t timeout_usec,
	       peer_reply_fn reply, void *ctx, struct error *err)
{
	struct call **place = &guest->queue;
	struct call *call;
	int r;

	if (guest->ended)
		return error_set_class(err, ERROR_TRY_AGAIN, -ECONNRESET,
				       "%s: the connection to the guest agent has ended", command);
	if (args && !json_is_object(args))
		return error_bad_data(err, "%s: the arguments are no JSON object", command);
	if (guest->n_queue == QUEUE_MAX)
		return error_try_again(err, "%s: %d commands are waiting for the guest agent",
				       command, QUEUE_MAX);
	call = xcalloc(1, sizeof(*call));
	*call = (struct call){
		.guest = guest,
		.command = xstrdup(command),
		.args = json_incref(args),
		.reply = reply,
		.ctx = ctx,
	};
	r = sd_event_add_time_relative(guest->loop, &call->timer, CLOCK_BOOTTIME, timeout_usec, 0,
				       on_timeout, call);
	if (r < 0) {
		call_free(call);
		return error_set(err, r, "%s: cannot set a deadline: %m", command);
	}
	while (*place)
		place = &(*place)->next;
	*place = call;
	guest->n_queue++;
	guest_kick(guest);
	return 0;
}
