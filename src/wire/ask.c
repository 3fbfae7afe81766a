/* SPDX-License-Identifier: Apache-2.0 */
/* One question, waited for: a private loop around a peer, for the CLI and tests. */
#include "wire/peer.h"

#include <errno.h>
#include <fcntl.h>

#include "util/cleanup.h"
#include "util/error.h"

struct ask {
	sd_event *loop;
	peer_progress_fn progress;
	void *ctx;
	json_t *value;
	struct error *err;
};

static void on_event(void *ctx, const char *name, json_t *data, json_t *whole)
{
	struct ask *ask = ctx;

	if (ask->progress)
		ask->progress(ask->ctx, name, data);
}

static void on_reply(void *ctx, int r, json_t *value, const struct error *err)
{
	struct ask *ask = ctx;

	if (r < 0 && ask->err)
		*ask->err = *err;
	if (r >= 0)
		ask->value = json_incref(value);
	(void)sd_event_exit(ask->loop, r);
}

static const struct peer_ops ask_ops = { .event = on_event };

int peer_ask(int fd, const char *command, json_t *args, uint64_t timeout_usec,
	     peer_progress_fn progress, void *ctx, json_t **ret_value, struct error *err)
{
	CLEANUP(sd_event_unrefp) sd_event *loop = NULL;
	struct ask ask = { .progress = progress, .ctx = ctx, .err = err };
	struct peer *peer;
	int own, r;

	own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (own < 0)
		return error_set(err, -errno, "cannot use the connection: %m");
	r = sd_event_new(&loop);
	if (r < 0) {
		(void)close(own);
		return error_set(err, r, "cannot make an event loop: %m");
	}
	ask.loop = loop;
	r = peer_open(own, loop, &ask_ops, &ask, &peer, err);
	if (r < 0)
		return r;
	r = peer_call(peer, command, args, timeout_usec, on_reply, &ask, err);
	if (r >= 0)
		r = sd_event_loop(loop);
	peer = peer_close(peer);
	if (ret_value && r >= 0)
		*ret_value = TAKE_PTR(ask.value);
	json_decref(ask.value);
	return r;
}
