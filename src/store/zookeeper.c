/* SPDX-License-Identifier: Apache-2.0 */
/* The store in a ZooKeeper ensemble.  Calls wait in one queue and are carried out one after the
 * other, so answers come in the order of the calls and each call sees what those before it did.
 * All that has to be done is done in `turn`, one thing at a time, because each callback may close
 * the store. */
#include "store/zookeeper.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/mem.h"

#define QUEUE_MAX 10000
#define CALL_USEC (5 * USEC_PER_SEC)
/* The servers take requests of up to 1 MiB (jute.maxbuffer), in which each key is several times. */
#define LIMIT_BYTES (STORE_VALUE_MAX + 8 * 1024)

void zk_turn(struct zk *zk)
{
	if (!zk->closing)
		(void)sd_event_source_set_enabled(zk->turn, SD_EVENT_ONESHOT);
}

static void deadline_set(struct zk *zk)
{
	if (!zk->first) {
		(void)sd_event_source_set_enabled(zk->deadline, SD_EVENT_OFF);
		return;
	}
	(void)sd_event_source_set_time(zk->deadline, zk->first->deadline);
	(void)sd_event_source_set_enabled(zk->deadline, SD_EVENT_ONESHOT);
}

int zk_queue(struct zk *zk, struct zk_call *call, struct error *err)
{
	if (zk->queued >= QUEUE_MAX) {
		call->free(call);
		return error_try_again(err, "%d calls are waiting for ZooKeeper already",
				       QUEUE_MAX);
	}
	call->zk = zk;
	call->next = NULL;
	call->deadline = clock_now() + CALL_USEC;
	*zk->last = call;
	zk->last = &call->next;
	if (zk->queued++ == 0)
		deadline_set(zk);
	zk_turn(zk);
	return 0;
}

void zk_call_progress(struct zk_call *call)
{
	call->deadline = clock_now() + CALL_USEC;
}

static struct zk_call *queue_pop(struct zk *zk)
{
	struct zk_call *call = zk->first;

	zk->first = call->next;
	if (!zk->first)
		zk->last = &zk->first;
	zk->queued--;
	return call;
}

static void queue_answer(struct zk *zk, int r, const struct error *err)
{
	struct zk_call *call = queue_pop(zk);

	zk_forget(zk, call);
	if (zk->first && r != -EAGAIN)
		zk_call_progress(zk->first); /* it waited for its turn, not for the servers */
	deadline_set(zk);
	zk_turn(zk);
	call->answer(call, r, err); /* may close the store */
	call->free(call);
}

/* What got lost is first told to the call, which then may wait for the connection. */
static bool queue_ready(const struct zk *zk)
{
	const struct zk_call *call = zk->first;

	return call && call->waiting == 0 &&
	       (call->lost || (zk->link.connected && zk->session.phase != ZK_SESSION_CLOSING));
}

/* True: a call was answered, the store may be gone. */
static bool queue_run(struct zk *zk)
{
	struct zk_call *call = zk->first;
	struct error err = { 0 };
	bool lost;
	int r;

	if (!queue_ready(zk))
		return false;
	lost = call->lost;
	call->begun = true;
	call->lost = false;
	r = call->step(call, lost, &err);
	if (r == ZK_AGAIN) {
		call->begun = false;
		return false;
	}
	if (r == ZK_WAIT)
		return false;
	queue_answer(zk, r, &err);
	return true;
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct zk *zk = userdata;
	struct error err = { 0 };

	if (!zk->first)
		return 0;
	if (clock_now() < zk->first->deadline) {
		deadline_set(zk);
		return 0;
	}
	queue_answer(zk,
		     error_try_again(&err, "ZooKeeper (%s) has not answered for %d s",
				     zk->address.servers, (int)(CALL_USEC / USEC_PER_SEC)),
		     &err);
	return 0;
}

static bool at_work(const struct zk *zk)
{
	return zk->first && zk->first->begun;
}

/* A handle is opened with the session that it shall have; the last one must be done with. */
static void session_switch(struct zk *zk)
{
	struct zk_session *session = &zk->session;

	if (at_work(zk))
		return;
	if (session->phase == ZK_SESSION_OPENING && session->reopen) {
		zk_link_drop(zk);
		zk->link.not_before = 0;
		session->reopen = false;
	} else if (session->phase == ZK_SESSION_CLOSING && zk->link.handle && !zk->link.writing) {
		zk_link_farewell(zk);
	}
}

static int turn_due(sd_event_source *source, void *userdata)
{
	struct zk *zk = userdata;

	if (zk->link.expired)
		zk_session_expired(zk);
	session_switch(zk);
	if (zk->link.fresh) {
		zk->link.fresh = false;
		zk_session_connected(zk);
		zk_watch_all(zk);
	}
	zk_turn(zk); /* if one of these calls somebody */
	if (zk_session_tell(zk) || queue_run(zk))
		return 0;
	(void)sd_event_source_set_enabled(zk->turn, SD_EVENT_OFF);
	if (queue_ready(zk))
		zk_turn(zk);
	zk_link_service(zk);
	return 0;
}

static void zk_close(struct store *store)
{
	struct zk *zk = container_of(store, struct zk, store);

	zk->closing = true;
	for (struct zk_request *request = zk->link.requests; request; request = request->next) {
		request->call = NULL;
		request->done = NULL;
	}
	zk_link_done(zk);
	while (zk->first) {
		struct zk_call *call = queue_pop(zk);

		call->free(call);
	}
	zk_watch_done(zk);
	zk_session_done(zk);
	zk_cache_clear(zk);
	(void)sd_event_source_disable_unref(zk->turn);
	(void)sd_event_source_disable_unref(zk->deadline);
	(void)sd_event_unref(zk->loop);
	zk_address_done(&zk->address);
	free(zk);
}

static int queue_start(struct zk *zk, struct error *err)
{
	int r = sd_event_add_defer(zk->loop, &zk->turn, turn_due, zk);

	zk->last = &zk->first;
	if (r >= 0)
		r = sd_event_add_time(zk->loop, &zk->deadline, CLOCK_BOOTTIME, 0, 1, on_deadline,
				      zk);
	if (r >= 0)
		r = sd_event_source_set_enabled(zk->deadline, SD_EVENT_OFF);
	if (r < 0)
		return error_set(err, r, "cannot serve ZooKeeper from the event loop: %m");
	return 0;
}

static int zk_open(const char *address, const char *base_dir, sd_event *loop,
		   struct store **ret_store, struct error *err)
{
	struct zk *zk = xcalloc(1, sizeof(*zk));
	int r;

	zk->loop = sd_event_ref(loop);
	zk->link.fd = zk->link.farewell_fd = -1;
	r = zk_address_parse(address, &zk->address, err);
	if (r == 0)
		r = queue_start(zk, err);
	if (r == 0)
		r = zk_link_start(zk, err);
	if (r == 0)
		r = zk_session_start(zk, err);
	if (r < 0) {
		zk_close(&zk->store);
		return r;
	}
	*ret_store = &zk->store;
	return 0;
}

static struct store_limits zk_limits(const struct store *store)
{
	return (struct store_limits){ .ops = STORE_OPS_MAX, .bytes = LIMIT_BYTES };
}

const struct store_ops store_zookeeper = {
	.scheme = "zookeeper",
	.open = zk_open,
	.close = zk_close,
	.get = zk_entry_get,
	.list = zk_list,
	.write = zk_write,
	.watch = zk_watch,
	.unwatch = zk_unwatch,
	.session_open = zk_session_open,
	.session_close = zk_session_close,
	.session_id = zk_session_id,
	.session_timing = zk_session_timing,
	.session_renew = zk_session_renew,
	.limits = zk_limits,
};
