/* SPDX-License-Identifier: Apache-2.0 */
/* JSON values, one a line, over a stream socket: the reader and writer under everything that
 * Drover says or hears (CLI, keeper, QMP, guest agent).  A line has a maximum, the queue of what is
 * not yet written has a maximum, a peer that exceeds either is cut off with a sentence. */
#pragma once
#include <jansson.h>
#include <stdint.h>
#include <systemd/sd-event.h>

struct error;
struct stream;
struct transport;

#define STREAM_LINE_MAX (16u * 1024 * 1024)  /* bytes of one message */
#define STREAM_PARTS_MAX (1024u * 1024)	     /* values and separators in it */
#define STREAM_QUEUE_MAX (64u * 1024 * 1024) /* bytes waiting to be written */

struct stream_ops {
	/* One message, borrowed. */
	void (*message)(void *ctx, json_t *message);
	/* A line that is no JSON value, borrowed.  NULL: such a line ends the stream. */
	void (*garbage)(void *ctx, const char *line, size_t length);
	/* Called once, before any message: the transport has begun.  Not for plain sockets; may be
	 * NULL. */
	void (*begun)(void *ctx);
	/* Called once, from the loop, when the other side closed, broke a limit or the socket
	 * failed; no other callback follows.  The owner then calls stream_close(). */
	void (*gone)(void *ctx, const struct error *why);
};

/* Takes `fd` in every case.  Callbacks come from the loop only, never from inside a call; each may
 * close the stream. */
int stream_open(int fd, sd_event *loop, const struct stream_ops *ops, void *ctx,
		struct stream **ret_stream, struct error *err);
/* The same over another transport, which it takes in every case.  What is sent before the transport
 * has begun waits. */
int stream_open_transport(struct transport *transport, sd_event *loop, const struct stream_ops *ops,
			  void *ctx, struct stream **ret_stream, struct error *err);
struct transport *stream_transport(const struct stream *stream); /* NULL: a plain socket */
/* For a peer that is trusted less: smaller limits of what it may send.  Both count, because as
 * values of C "[]," is a hundred times as long. */
void stream_limit(struct stream *stream, size_t line_max, size_t parts_max);
/* Takes NULL, returns NULL.  What the socket did not take yet is lost. */
struct stream *stream_close(struct stream *stream);

/* Queues one message and a newline. `message` is borrowed. -ENOBUFS: the other side does not read
 * and the queue is full, which ends the stream.  -EMSGSIZE: no line may be that long; nothing was
 * queued.  -ECONNRESET: the stream has ended. */
int stream_send(struct stream *stream, const json_t *message, struct error *err);
/* The same over a unix socket, with a descriptor (SCM_RIGHTS, a copy of it), one at a time: -EBUSY
 * while another is on its way. */
int stream_send_fd(struct stream *stream, const json_t *message, int fd, struct error *err);
/* Queues bytes as they are: the guest agent needs 0xFF. */
int stream_send_bytes(struct stream *stream, const void *bytes, size_t length, struct error *err);
