/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/dial.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "keeper/door.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/tcp.h"

struct dial {
	int fd;
	char line[DOOR_LINE_MAX];
	char address[128];
	sd_event_source *io, *deadline;
	dial_done_fn done;
	void *ctx;
};

struct dial *dial_cancel(struct dial *dial)
{
	if (!dial)
		return NULL;
	sd_event_source_disable_unref(dial->io);
	sd_event_source_disable_unref(dial->deadline);
	cleanup_closep(&dial->fd);
	free(dial);
	return NULL;
}

static void finish(struct dial *dial, int fd, const struct error *err)
{
	dial_done_fn done = dial->done;
	void *ctx = dial->ctx;

	dial_cancel(dial);
	done(ctx, fd, err);
}

static int socket_error(int fd)
{
	socklen_t length = sizeof(int);
	int code = 0;

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &length) < 0 ? -errno : -code;
}

/* A new connection's buffer takes so short a line whole. */
static int on_writable(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct dial *dial = ctx;
	size_t length = strlen(dial->line);
	struct error err = { 0 };
	int r = socket_error(fd);

	if (r == 0 && length &&
	    send(fd, dial->line, length, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)length)
		r = -EIO;
	if (r < 0) {
		(void)error_set(&err, r, "cannot connect to %s: %m", dial->address);
		finish(dial, -1, &err);
		return 0;
	}
	finish(dial, TAKE_FD(dial->fd), NULL);
	return 0;
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct dial *dial = ctx;
	struct error err = { 0 };

	(void)error_set(&err, -ETIMEDOUT, "%s does not answer", dial->address);
	finish(dial, -1, &err);
	return 0;
}

int dial_start(sd_event *loop, const char *address, const char *line, uint64_t timeout_usec,
	       dial_done_fn done, void *ctx, struct dial **ret_dial, struct error *err)
{
	int fd = tcp_connect(address, err), r;
	struct dial *dial;

	if (fd < 0)
		return fd;
	dial = xcalloc(1, sizeof(*dial));
	*dial = (struct dial){ .fd = fd, .done = done, .ctx = ctx };
	(void)snprintf(dial->line, sizeof(dial->line), "%s", line);
	(void)snprintf(dial->address, sizeof(dial->address), "%s", address);
	r = sd_event_add_io(loop, &dial->io, fd, EPOLLOUT, on_writable, dial);
	if (r >= 0)
		r = sd_event_add_time_relative(loop, &dial->deadline, CLOCK_BOOTTIME, timeout_usec,
					       0, on_deadline, dial);
	if (r < 0) {
		dial_cancel(dial);
		return error_set(err, r, "cannot watch a connection: %m");
	}
	*ret_dial = dial;
	return 0;
}
