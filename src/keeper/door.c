/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/door.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/tcp.h"

#define CONTROL_LINE "drover-control 1"
#define STREAM_WORD "drover-stream "
#define LINE_PATIENCE (5 * USEC_PER_SEC)
#define VISITORS_MAX 32 /* connections that have not said what they are for */

struct visitor {
	struct visitor *next, **link;
	struct door *door;
	int fd;
	sd_event_source *io, *deadline;
	char line[DOOR_LINE_MAX];
	size_t length;
};

struct door {
	sd_event *loop;
	int listener;
	unsigned port;
	sd_event_source *accept;
	const struct door_ops *ops;
	void *ctx;
	struct visitor *visitors;
	size_t n_visitors;
};

const char *door_control_line(void)
{
	return CONTROL_LINE "\n";
}

void door_stream_line(const char *ticket, char line[DOOR_LINE_MAX])
{
	(void)snprintf(line, DOOR_LINE_MAX, STREAM_WORD "%s\n", ticket);
}

static void visitor_free(struct visitor *visitor)
{
	*visitor->link = visitor->next;
	if (visitor->next)
		visitor->next->link = visitor->link;
	visitor->door->n_visitors--;
	sd_event_source_disable_unref(visitor->io);
	sd_event_source_disable_unref(visitor->deadline);
	cleanup_closep(&visitor->fd);
	free(visitor);
}

/* The door may be closed from inside the callback. */
static void visitor_goes_in(struct visitor *visitor)
{
	struct door *door = visitor->door;
	const struct door_ops *ops = door->ops;
	void *ctx = door->ctx;
	char line[DOOR_LINE_MAX];
	int fd = TAKE_FD(visitor->fd);

	memcpy(line, visitor->line, sizeof(line));
	visitor_free(visitor);
	if (strcmp(line, CONTROL_LINE) == 0)
		ops->control(ctx, fd);
	else if (strncmp(line, STREAM_WORD, strlen(STREAM_WORD)) == 0)
		ops->stream(ctx, line + strlen(STREAM_WORD), fd);
	else
		(void)close(fd);
}

/* Byte by byte: what follows the line is for somebody else. */
static int on_readable(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct visitor *visitor = ctx;
	char byte;
	ssize_t n;

	while ((n = recv(fd, &byte, 1, MSG_DONTWAIT)) == 1) {
		if (byte == '\n') {
			visitor_goes_in(visitor);
			return 0;
		}
		if (visitor->length + 1 >= sizeof(visitor->line))
			break;
		visitor->line[visitor->length++] = byte;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	visitor_free(visitor);
	return 0;
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *ctx)
{
	visitor_free(ctx);
	return 0;
}

/* Who says nothing keeps nobody else out. */
static struct visitor *oldest_visitor(struct door *door)
{
	struct visitor *visitor = door->visitors;

	while (visitor->next)
		visitor = visitor->next;
	return visitor;
}

static int on_accept(sd_event_source *source, int listener, uint32_t events, void *ctx)
{
	struct door *door = ctx;
	struct error err = { 0 };
	CLEANUP_FD int fd = tcp_accept(listener, &err);
	struct visitor *visitor;
	int r;

	if (fd < 0)
		return 0;
	if (door->n_visitors >= VISITORS_MAX)
		visitor_free(oldest_visitor(door));
	visitor = xcalloc(1, sizeof(*visitor));
	*visitor = (struct visitor){
		.door = door, .fd = TAKE_FD(fd), .next = door->visitors, .link = &door->visitors
	};
	if (visitor->next)
		visitor->next->link = &visitor->next;
	door->visitors = visitor;
	door->n_visitors++;
	r = sd_event_add_io(door->loop, &visitor->io, visitor->fd, EPOLLIN, on_readable, visitor);
	if (r >= 0)
		r = sd_event_add_time_relative(door->loop, &visitor->deadline, CLOCK_BOOTTIME,
					       LINE_PATIENCE, 0, on_deadline, visitor);
	if (r < 0) {
		log_error("cannot watch a connection: %s", strerror(-r));
		visitor_free(visitor);
	}
	return 0;
}

int door_open(const char *address, sd_event *loop, const struct door_ops *ops, void *ctx,
	      struct door **ret_door, struct error *err)
{
	struct door *door;
	int listener = tcp_listen(address, err), r;

	if (listener < 0)
		return listener;
	door = xcalloc(1, sizeof(*door));
	*door = (struct door){ .loop = loop,
			       .listener = listener,
			       .port = tcp_port(listener),
			       .ops = ops,
			       .ctx = ctx };
	r = sd_event_add_io(loop, &door->accept, listener, EPOLLIN, on_accept, door);
	if (r < 0) {
		(void)door_close(door);
		return error_set(err, r, "cannot watch a port: %m");
	}
	*ret_door = door;
	return 0;
}

struct door *door_close(struct door *door)
{
	if (!door)
		return NULL;
	while (door->visitors)
		visitor_free(door->visitors);
	sd_event_source_disable_unref(door->accept);
	cleanup_closep(&door->listener);
	free(door);
	return NULL;
}

unsigned door_port(const struct door *door)
{
	return door->port;
}
