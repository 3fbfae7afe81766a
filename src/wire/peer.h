/* SPDX-License-Identifier: Apache-2.0 */
/* One conversation in the manner of QMP, in which both sides may ask:
 *
 *	{"execute": "start", "arguments": {...}, "id": 7}	a request
 *	{"return": {...}, "id": 7}				its answer, or
 *	{"error": {"class": "refused", "desc": "..."}, "id": 7}
 *	{"event": "state", "data": {...}}			said to whom it may concern
 *
 * Answers are matched by id, never by order.  Every request has a deadline; an answer that comes
 * after it is dropped.  Unknown keys are ignored: newer peers may say more. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

struct error;
struct peer;
struct request;
struct transport;

struct peer_ops {
	/* A request from the other side.  It is owned by the callee, which answers it exactly once,
	 * now or later, with request_return() or request_fail().  NULL: requests are refused. */
	void (*request)(void *ctx, struct request *request);
	/* An event; name and data borrowed, data may be NULL.  May be NULL. */
	void (*event)(void *ctx, const char *name, json_t *data, json_t *whole);
	/* Anything else (QMP's greeting).  May be NULL. */
	void (*other)(void *ctx, json_t *message);
	/* Called once, before anything of theirs: the transport has begun.  Not for plain sockets;
	 * may be NULL. */
	void (*begun)(void *ctx);
	/* Called once, from the loop, after the conversation ended; all requests of ours that were
	 * open have been answered with -ECONNRESET before.  The owner then calls peer_close(). */
	void (*gone)(void *ctx, const struct error *why);
	/* What one message of theirs may hold; 0: as much as any stream takes. */
	size_t line_max, parts_max;
};

/* Takes `fd` in every case. */
int peer_open(int fd, sd_event *loop, const struct peer_ops *ops, void *ctx, struct peer **ret_peer,
	      struct error *err);
/* The same over another transport, which it takes in every case. */
int peer_open_transport(struct transport *transport, sd_event *loop, const struct peer_ops *ops,
			void *ctx, struct peer **ret_peer, struct error *err);
struct transport *peer_transport(const struct peer *peer); /* NULL: a plain socket */
/* As stream_limit(), from the next message on. */
void peer_limit(struct peer *peer, size_t line_max, size_t parts_max);
/* Open requests of ours are not answered any more; requests of theirs that are still being worked
 * on may be answered later, into the void.  Takes NULL, returns NULL. */
struct peer *peer_close(struct peer *peer);

/* `r` is 0 with `value` (borrowed), or negative with `err`: -EREMOTEIO the other side said no,
 * -ETIMEDOUT, -ECONNRESET. */
typedef void (*peer_reply_fn)(void *ctx, int r, json_t *value, const struct error *err);

/* Asks.  `args` is borrowed, may be NULL.  `reply` (may be NULL) is called exactly once, from the
 * loop, never from inside this call.  A negative result means that it was not sent, and `reply`
 * will not be called. */
int peer_call(struct peer *peer, const char *command, json_t *args, uint64_t timeout_usec,
	      peer_reply_fn reply, void *ctx, struct error *err);
/* The same with a descriptor (borrowed; -1: none) over a unix socket: -EBUSY while another one is
 * on its way. */
int peer_call_fd(struct peer *peer, const char *command, json_t *args, int fd,
		 uint64_t timeout_usec, peer_reply_fn reply, void *ctx, struct error *err);
/* The same out of band: QEMU's monitor then does not wait for its main loop. */
int peer_call_oob(struct peer *peer, const char *command, json_t *args, uint64_t timeout_usec,
		  peer_reply_fn reply, void *ctx, struct error *err);
int peer_event(struct peer *peer, const char *name, json_t *data);

const char *request_command(const struct request *request);
json_t *request_args(const struct request *request); /* borrowed; an empty object when none came */
struct peer *request_peer(const struct request *request); /* NULL once the peer is closed */
/* Each frees the request.  `value` is borrowed; NULL means {}. */
void request_return(struct request *request, json_t *value);
void request_fail(struct request *request, const struct error *err);
/* An event about this request: {"event": "progress", "data": {..., "id": 7}}. */
void request_progress(struct request *request, json_t *data);
/* The client has gone: nobody waits for the answer any more. */
bool request_abandoned(const struct request *request);

/* A client that waits: for the CLI and tests.  Runs a private loop; `progress` may be NULL and
 * hears all events until the answer.  `fd` is borrowed, its flags stay; what the other side says
 * right behind its answer may be lost. */
typedef void (*peer_progress_fn)(void *ctx, const char *event, json_t *data);
int peer_ask(int fd, const char *command, json_t *args, uint64_t timeout_usec,
	     peer_progress_fn progress, void *ctx, json_t **ret_value, struct error *err);
