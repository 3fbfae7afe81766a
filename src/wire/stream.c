/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of JSON over a stream socket.  What is sent goes out at once when the socket takes it, else
 * from the loop.  A turn of the loop reads a bounded amount, so that one peer that talks without
 * end cannot starve the others.  The flags of the descriptor are left as they are: it may be shared
 * with a process that expects them so. */
#include "wire/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/transport.h"

#define READ_CHUNK (32u * 1024)
#define READ_PER_TURN (512u * 1024)
#define KEEP_MAX (64u * 1024) /* an empty buffer larger than this is given back */

struct buffer {
	char *bytes;
	size_t start, length, capacity; /* content: bytes[start .. start + length) */
};

struct stream {
	int fd;
	struct transport *transport; /* NULL: a plain socket */
	bool beginning;		     /* it does not carry anything yet */
	sd_event_source *io;
	sd_event_source *ending; /* defer source, on once `why` is known; once: there is more */
	sd_event_source *patience;
	const struct stream_ops *ops;
	void *ctx;
	size_t line_max, parts_max;
	struct buffer in, out;
	int pass_fd; /* goes out with the byte after `pass_at` of `out`; -1: none */
	size_t pass_at;
	size_t scanned;	  /* of `in`: no newline in there */
	struct error why; /* valid while `failed` < 0 */
	int failed;	  /* nothing is written any more; what has arrived is still read */
	bool gone;	  /* told the owner */
	bool busy;	  /* inside a callback: freeing has to wait */
	bool closed;
};

static void buffer_done(struct buffer *buffer)
{
	free(buffer->bytes);
	*buffer = (struct buffer){ 0 };
}

/* Room for `more` bytes behind the content. */
static char *buffer_reserve(struct buffer *buffer, size_t more)
{
	if (buffer->capacity - buffer->start - buffer->length < more && buffer->start > 0) {
		memmove(buffer->bytes, buffer->bytes + buffer->start, buffer->length);
		buffer->start = 0;
	}
	if (buffer->capacity - buffer->length < more) {
		buffer->capacity = (buffer->length + more) * 3 / 2;
		buffer->bytes = xrealloc(buffer->bytes, buffer->capacity, 1);
	}
	return buffer->bytes + buffer->start + buffer->length;
}

static void buffer_drop(struct buffer *buffer, size_t length)
{
	buffer->start += length;
	buffer->length -= length;
	if (buffer->length > 0)
		return;
	buffer->start = 0;
	if (buffer->capacity > KEEP_MAX)
		buffer_done(buffer);
}

static void stream_free(struct stream *stream)
{
	cleanup_closep(&stream->pass_fd);
	buffer_done(&stream->in);
	buffer_done(&stream->out);
	free(stream);
}

/* From here on nothing is written; the owner hears of it from the loop. */
static void stream_fail(struct stream *stream, int code, const struct error *why)
{
	if (stream->failed < 0)
		return;
	stream->failed = code;
	stream->why = *why;
	buffer_done(&stream->out);
	(void)sd_event_source_set_io_events(stream->io, EPOLLIN);
	(void)sd_event_source_set_enabled(stream->ending, SD_EVENT_ON);
}

/* `told` has a sentence when a transport knew one. */
static void fail_socket(struct stream *stream, int code, const struct error *told)
{
	struct error why;

	if (told && told->text[0]) {
		stream_fail(stream, code, told);
		return;
	}
	if (code == -EPIPE || code == -ECONNRESET)
		code = error_set_class(&why, ERROR_TRY_AGAIN, -ECONNRESET,
				       "the other side closed the connection");
	else
		code = error_set(&why, code, "the connection failed: %m");
	stream_fail(stream, code, &why);
}

/* What stands before a descriptor that is to be passed, or the descriptor with what follows. */
static ssize_t send_some(struct stream *stream)
{
	char *bytes = stream->out.bytes + stream->out.start;
	bool with_fd = stream->pass_fd >= 0 && stream->pass_at == 0;
	size_t length = stream->pass_fd >= 0 && !with_fd ? stream->pass_at : stream->out.length;
	struct iovec part = { .iov_base = bytes, .iov_len = length };
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { .room = { 0 } };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	ssize_t n;

	if (with_fd) {
		control.align = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)),
						  .cmsg_level = SOL_SOCKET,
						  .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(&control.align), &stream->pass_fd, sizeof(int));
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
	}
	n = sendmsg(stream->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n > 0 && with_fd)
		(void)close(TAKE_FD(stream->pass_fd));
	else if (n > 0 && stream->pass_fd >= 0)
		stream->pass_at -= (size_t)n;
	return n;
}

/* Bytes that went out, or a negative errno. */
static ssize_t write_once(struct stream *stream, struct error *err)
{
	ssize_t n;

	if (stream->transport)
		return stream->transport->ops->write(stream->transport,
						     stream->out.bytes + stream->out.start,
						     stream->out.length, err);
	do
		n = send_some(stream);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static void stream_write(struct stream *stream)
{
	struct error why = { 0 };

	if (stream->beginning)
		return;
	while (stream->out.length > 0) {
		ssize_t n = write_once(stream, &why);

		if (n < 0 && n != -EAGAIN) {
			fail_socket(stream, (int)n, &why);
			return;
		}
		if (n < 0)
			break;
		buffer_drop(&stream->out, (size_t)n);
	}
	(void)sd_event_source_set_io_events(stream->io,
					    EPOLLIN | (stream->out.length > 0 ? EPOLLOUT : 0));
}

static void tell_gone(struct stream *stream)
{
	if (stream->gone || stream->closed)
		return;
	stream->gone = true;
	(void)sd_event_source_set_enabled(stream->io, SD_EVENT_OFF);
	(void)sd_event_source_set_enabled(stream->ending, SD_EVENT_OFF);
	stream->ops->gone(stream->ctx, &stream->why);
}

static void fail_long(struct stream *stream)
{
	bool large = stream->line_max >= 1 << 20;
	struct error why;
	int r = error_set(&why, -EMSGSIZE, "the other side sent a message longer than %zu %s",
			  stream->line_max >> (large ? 20 : 10), large ? "MiB" : "KiB");

	stream_fail(stream, r, &why);
}

static void deliver_line(struct stream *stream, const char *line, size_t length)
{
	json_auto_t *message = NULL;
	struct error why = { 0 };
	int r;

	while (length > 0 && strchr(" \t\r", line[length - 1]) && line[length - 1] != '\0')
		length--;
	if (length == 0)
		return;
	if (length > stream->line_max) {
		fail_long(stream);
		return;
	}
	if (json_parts(line, length) > stream->parts_max) {
		r = error_set(&why, -EMSGSIZE,
			      "the other side sent a message of more than %zu values",
			      stream->parts_max);
		stream_fail(stream, r, &why);
		return;
	}
	r = json_parse(line, length, &message, &why);
	if (r >= 0) {
		stream->ops->message(stream->ctx, message);
	} else if (stream->ops->garbage) {
		stream->ops->garbage(stream->ctx, line, length);
	} else {
		(void)error_prefix(&why, r, "the other side does not speak our language");
		stream_fail(stream, r, &why);
	}
}

/* After such an error nothing that follows in the input means anything. */
static bool input_is_lost(const struct stream *stream)
{
	return stream->failed == -EMSGSIZE || stream->failed == -EBADMSG;
}

/* All complete lines; callbacks may close the stream or make it fail. */
static void deliver_lines(struct stream *stream)
{
	struct buffer *in = &stream->in;

	while (!stream->closed && !input_is_lost(stream) && in->length > stream->scanned) {
		char *line = in->bytes + in->start;
		char *end = memchr(line + stream->scanned, '\n', in->length - stream->scanned);

		if (!end) {
			stream->scanned = in->length;
			break;
		}
		stream->scanned = 0;
		deliver_line(stream, line, (size_t)(end - line));
		buffer_drop(in, (size_t)(end - line) + 1);
	}
	if (!stream->closed && in->length > stream->line_max && !input_is_lost(stream)) {
		buffer_done(in);
		stream->scanned = 0;
		fail_long(stream);
	}
}

/* One bounded portion: 1 there may be more, 0 nothing more now, negative: it has ended. */
static int read_once(struct stream *stream, struct error *err)
{
	char *room = buffer_reserve(&stream->in, READ_CHUNK);
	ssize_t n;

	if (stream->transport)
		n = stream->transport->ops->read(stream->transport, room, READ_CHUNK, err);
	else if ((n = recv(stream->fd, room, READ_CHUNK, MSG_DONTWAIT)) < 0)
		n = -errno;
	if (n < 0)
		return n == -EINTR ? 1 : n == -EAGAIN ? 0 : (int)n;
	if (n == 0)
		return -ECONNRESET;
	stream->in.length += (size_t)n;
	return 1;
}

/* A turn of the loop. */
static void stream_turn(struct stream *stream)
{
	size_t left = READ_PER_TURN / READ_CHUNK;
	struct error why = { 0 };
	int r = 1;

	while (r > 0 && left-- > 0 && !stream->closed) {
		r = read_once(stream, &why);
		if (r > 0)
			deliver_lines(stream);
		if (input_is_lost(stream))
			break;
	}
	if (stream->closed)
		return;
	if (r < 0)
		fail_socket(stream, r, &why);
	/* After a failed write all that had arrived is delivered first: r says whether it is. */
	if (stream->failed < 0 && (r <= 0 || stream->failed != -ECONNRESET))
		tell_gone(stream);
	else if (stream->in.length == 0)
		buffer_drop(&stream->in, 0);
	if (stream->failed >= 0 && r > 0 && stream->transport &&
	    stream->transport->ops->more(stream->transport))
		(void)sd_event_source_set_enabled(stream->ending, SD_EVENT_ONESHOT);
}

/* A step of the transport's beginning; true: it carries now. */
static bool stream_begin(struct stream *stream)
{
	uint32_t events = EPOLLIN;
	struct error why = { 0 };
	int r;

	if (stream->failed < 0) {
		tell_gone(stream);
		return false;
	}
	r = stream->transport->ops->begin(stream->transport, &events, &why);
	if (r == -EAGAIN) {
		(void)sd_event_source_set_io_events(stream->io, events);
		return false;
	}
	if (r < 0) {
		stream_fail(stream, r, &why);
		return false;
	}
	stream->beginning = false;
	stream->patience = sd_event_source_disable_unref(stream->patience);
	if (stream->ops->begun)
		stream->ops->begun(stream->ctx);
	if (!stream->closed)
		stream_write(stream);
	return !stream->closed;
}

static void stream_enter(struct stream *stream, uint32_t events)
{
	stream->busy = true;
	if ((events & EPOLLOUT) && stream->failed >= 0)
		stream_write(stream);
	if (!stream->beginning || stream_begin(stream))
		stream_turn(stream);
	stream->busy = false;
	if (stream->closed)
		stream_free(stream);
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	stream_enter(ctx, events);
	return 0;
}

static int on_ending(sd_event_source *source, void *ctx)
{
	stream_enter(ctx, 0);
	return 0;
}

static int on_patience(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct stream *stream = ctx;
	struct error why;
	int r = error_set_class(&why, ERROR_TRY_AGAIN, -ETIMEDOUT,
				"no connection came about within %.1f s",
				(double)stream->transport->patience / USEC_PER_SEC);

	stream_fail(stream, r, &why);
	return 0;
}

static int stream_new(int fd, struct transport *transport, sd_event *loop,
		      const struct stream_ops *ops, void *ctx, struct stream **ret_stream,
		      struct error *err)
{
	struct stream *stream = xcalloc(1, sizeof(*stream));
	uint32_t events = transport ? EPOLLIN | EPOLLOUT : EPOLLIN;
	int r;

	*stream = (struct stream){ .fd = fd,
				   .transport = transport,
				   .beginning = transport != NULL,
				   .ops = ops,
				   .ctx = ctx,
				   .pass_fd = -1 };
	stream_limit(stream, STREAM_LINE_MAX, STREAM_PARTS_MAX);
	r = sd_event_add_io(loop, &stream->io, fd, events, on_io, stream);
	if (r >= 0)
		r = sd_event_add_defer(loop, &stream->ending, on_ending, stream);
	if (r >= 0)
		r = sd_event_source_set_enabled(stream->ending, SD_EVENT_OFF);
	if (r >= 0 && transport)
		r = sd_event_add_time_relative(loop, &stream->patience, CLOCK_BOOTTIME,
					       transport->patience, USEC_PER_MSEC, on_patience,
					       stream);
	if (r < 0) {
		(void)stream_close(stream);
		return error_set(err, r, "cannot watch a connection: %m");
	}
	*ret_stream = stream;
	return 0;
}

int stream_open(int fd, sd_event *loop, const struct stream_ops *ops, void *ctx,
		struct stream **ret_stream, struct error *err)
{
	return stream_new(fd, NULL, loop, ops, ctx, ret_stream, err);
}

int stream_open_transport(struct transport *transport, sd_event *loop, const struct stream_ops *ops,
			  void *ctx, struct stream **ret_stream, struct error *err)
{
	return stream_new(transport->fd, transport, loop, ops, ctx, ret_stream, err);
}

struct transport *stream_transport(const struct stream *stream)
{
	return stream->transport;
}

void stream_limit(struct stream *stream, size_t line_max, size_t parts_max)
{
	stream->line_max = line_max;
	stream->parts_max = parts_max;
}

struct stream *stream_close(struct stream *stream)
{
	if (!stream || stream->closed)
		return NULL;
	stream->closed = true;
	stream->io = sd_event_source_disable_unref(stream->io);
	stream->ending = sd_event_source_disable_unref(stream->ending);
	stream->patience = sd_event_source_disable_unref(stream->patience);
	if (stream->transport)
		stream->transport->ops->close(stream->transport);
	else if (stream->fd >= 0)
		(void)close(stream->fd);
	stream->transport = NULL;
	stream->fd = -1;
	if (!stream->busy)
		stream_free(stream);
	return NULL;
}

static int queue(struct stream *stream, const void *bytes, size_t length, bool newline,
		 struct error *err)
{
	size_t more = length + newline;
	bool idle = stream->out.length == 0;
	char *room;

	if (stream->failed < 0)
		return error_set_class(err, stream->why.class, -ECONNRESET, "%s", stream->why.text);
	if (stream->out.length + more > STREAM_QUEUE_MAX) {
		struct error why;

		stream_fail(stream,
			    error_set(&why, -ENOBUFS,
				      "the other side does not read: %u MiB are waiting for it",
				      STREAM_QUEUE_MAX / 1024 / 1024),
			    &why);
		return error_set(err, -ENOBUFS, "%s", why.text);
	}
	room = buffer_reserve(&stream->out, more);
	memcpy(room, bytes, length);
	if (newline)
		room[length] = '\n';
	stream->out.length += more;
	if (idle)
		stream_write(stream);
	return 0;
}

int stream_send(struct stream *stream, const json_t *message, struct error *err)
{
	CLEANUP_FREE char *text = json_dumps(message, JSON_COMPACT | JSON_ENCODE_ANY);
	size_t length;

	if (!text)
		return error_bad_data(err, "cannot print a message as JSON");
	length = strlen(text);
	if (length > STREAM_LINE_MAX)
		return error_set(err, -EMSGSIZE, "the message is longer than %u MiB",
				 STREAM_LINE_MAX / 1024 / 1024);
	return queue(stream, text, length, true, err);
}

int stream_send_fd(struct stream *stream, const json_t *message, int fd, struct error *err)
{
	int copy, r;

	if (stream->transport)
		return error_set(err, -EOPNOTSUPP, "a descriptor cannot go to another host");
	if (stream->pass_fd >= 0)
		return error_set(err, -EBUSY, "a descriptor is still on its way to the other side");
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (copy < 0)
		return error_set(err, -errno, "cannot pass a descriptor: %m");
	stream->pass_fd = copy;
	stream->pass_at = stream->out.length;
	r = stream_send(stream, message, err);
	if (r < 0)
		(void)close(TAKE_FD(stream->pass_fd));
	return r;
}

int stream_send_bytes(struct stream *stream, const void *bytes, size_t length, struct error *err)
{
	return queue(stream, bytes, length, false, err);
}
