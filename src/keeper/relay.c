/* SPDX-License-Identifier: Apache-2.0 */
/* Two ways, each with a pipe between its sockets: the kernel moves the bytes (splice), none is
 * copied into this process. */
#include "keeper/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"

#define CHUNK (256 * 1024)
#define TURNS 16 /* of one way before others have their turn */

struct way {
	int from, to; /* borrowed from the relay */
	int pipe[2];
	size_t held; /* bytes in the pipe */
	bool ended;  /* nothing comes any more */
	bool shut;   /* and that was passed on */
};

struct relay {
	sd_event *loop;
	int fds[2];
	struct way ways[2]; /* from the socket of that number to the other */
	sd_event_source *io[2], *last;
	bool hung[2]; /* nobody is at the other end of that socket any more */
	relay_over_fn over;
	void *ctx;
};

struct relay *relay_free(struct relay *relay)
{
	if (!relay)
		return NULL;
	for (size_t i = 0; i < 2; i++) {
		sd_event_source_disable_unref(relay->io[i]);
		cleanup_closep(&relay->ways[i].pipe[0]);
		cleanup_closep(&relay->ways[i].pipe[1]);
		cleanup_closep(&relay->fds[i]);
	}
	sd_event_source_disable_unref(relay->last);
	free(relay);
	return NULL;
}

static bool waits(ssize_t n)
{
	return n < 0 && (errno == EAGAIN || errno == EINTR);
}

/* Negative: it broke. */
static int take(struct way *way)
{
	ssize_t n;

	if (way->ended || way->held)
		return 0;
	n = splice(way->from, NULL, way->pipe[1], NULL, CHUNK, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	if (n > 0)
		way->held = (size_t)n;
	else if (n == 0)
		way->ended = true;
	else if (!waits(n))
		return -errno;
	return n > 0;
}

static int give(struct way *way)
{
	ssize_t n;

	if (!way->held)
		return 0;
	n = splice(way->pipe[0], NULL, way->to, NULL, way->held, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	if (n > 0)
		way->held -= (size_t)n;
	else if (!waits(n))
		return n < 0 ? -errno : -EPIPE;
	return n > 0;
}

static int move(struct way *way)
{
	for (int turn = 0; turn < TURNS; turn++) {
		int taken = take(way), given = taken < 0 ? 0 : give(way);

		if (taken < 0 || given < 0)
			return taken < 0 ? taken : given;
		if (!taken && !given)
			break;
	}
	if (way->ended && !way->held && !way->shut) {
		way->shut = true;
		(void)shutdown(way->to, SHUT_WR);
	}
	return 0;
}

static int on_over(sd_event_source *source, void *ctx)
{
	struct relay *relay = ctx;

	relay->over(relay->ctx);
	return 0;
}

/* What breaks one way breaks both: QEMU on either side must see it. */
static void end(struct relay *relay)
{
	if (relay->last)
		return;
	for (size_t i = 0; i < 2; i++) {
		relay->io[i] = sd_event_source_disable_unref(relay->io[i]);
		(void)shutdown(relay->fds[i], SHUT_RDWR);
	}
	if (sd_event_add_defer(relay->loop, &relay->last, on_over, relay) < 0)
		abort(); /* no memory */
}

static uint32_t wanted(const struct relay *relay, size_t i)
{
	const struct way *out = &relay->ways[i], *in = &relay->ways[!i];

	return (out->ended || out->held ? 0 : EPOLLIN) | (in->held ? EPOLLOUT : 0);
}

static bool is_over(const struct relay *relay)
{
	const struct way *ways = relay->ways;

	return (ways[0].shut && ways[1].shut) || (relay->hung[0] && ways[0].shut) ||
	       (relay->hung[1] && ways[1].shut);
}

static void look(struct relay *relay)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < 2; i++)
		r = move(&relay->ways[i]);
	if (r < 0 || is_over(relay)) {
		end(relay);
		return;
	}
	for (size_t i = 0; i < 2; i++)
		if (!relay->hung[i])
			(void)sd_event_source_set_io_events(relay->io[i], wanted(relay, i));
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct relay *relay = ctx;
	size_t i = fd == relay->fds[1];

	/* It would be said again and again, while what came from there is still passed on. */
	if (events & (EPOLLHUP | EPOLLERR)) {
		relay->hung[i] = true;
		(void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
	}
	look(relay);
	return 0;
}

int relay_new(sd_event *loop, int a, int b, relay_over_fn over, void *ctx, struct relay **ret_relay,
	      struct error *err)
{
	struct relay *relay = xcalloc(1, sizeof(*relay));
	int r = 0;

	*relay = (struct relay){ .loop = loop,
				 .fds = { a, b },
				 .ways = { { a, b, { -1, -1 } }, { b, a, { -1, -1 } } },
				 .over = over,
				 .ctx = ctx };
	for (size_t i = 0; r >= 0 && i < 2; i++) {
		r = pipe2(relay->ways[i].pipe, O_CLOEXEC | O_NONBLOCK) < 0 ? -errno : 0;
		if (r == 0 && fcntl(relay->fds[i], F_SETFL, O_NONBLOCK) < 0)
			r = -errno;
		if (r == 0)
			r = sd_event_add_io(loop, &relay->io[i], relay->fds[i], EPOLLIN, on_io,
					    relay);
	}
	if (r < 0) {
		relay_free(relay);
		return error_set(err, r, "cannot pass a connection on: %m");
	}
	*ret_relay = relay;
	return 0;
}
