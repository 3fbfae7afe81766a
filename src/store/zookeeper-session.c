/* SPDX-License-Identifier: Apache-2.0 */
/* Our session.  ZooKeeper tells a client that its session is over only when the client comes back,
 * so a client that is cut off is never told: the end is when our own clock says so, counted from
 * the moment at which the last request was sent that the leader has answered.  That must be a
 * request that goes through the leader (a write or a sync): a follower that has lost its leader
 * still answers reads for a while, but our session is not renewed by them. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "store/zookeeper.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/mem.h"

#define FAREWELL_USEC (2 * USEC_PER_SEC)

static bool id_parse(const char *text, clientid_t *ret)
{
	static const char digits[] = "0123456789abcdef";
	const char *password = text + 17;

	if (strlen(text) != 17 + 2 * sizeof(ret->passwd) || strspn(text, digits) != 16 ||
	    text[16] != ':' || strspn(password, digits) != 2 * sizeof(ret->passwd))
		return false;
	*ret = (clientid_t){ 0 };
	for (const char *at = text; *at; at++) {
		unsigned digit = *at == ':' ? 0 : (unsigned)(strchr(digits, *at) - digits);
		size_t byte = at < password ? 0 : (size_t)(at - password) / 2;

		if (at < text + 16)
			ret->client_id = (int64_t)((uint64_t)ret->client_id << 4 | digit);
		else if (*at != ':')
			ret->passwd[byte] = (char)((unsigned char)ret->passwd[byte] << 4 | digit);
	}
	return true;
}

static void id_print(const clientid_t *client, char *text)
{
	char *at = text + sprintf(text, "%016" PRIx64 ":", (uint64_t)client->client_id);

	for (size_t i = 0; i < sizeof(client->passwd); i++)
		at += sprintf(at, "%02x", (unsigned char)client->passwd[i]);
}

/* From completions of the library, which must not lose its handle inside them. */
static void clock_soon(struct zk *zk)
{
	(void)sd_event_source_set_time(zk->session.clock, 0);
	(void)sd_event_source_set_enabled(zk->session.clock, SD_EVENT_ONESHOT);
}

static void session_gone(struct zk *zk)
{
	zk->session.phase = ZK_SESSION_GONE;
	zk->session.reopen = false;
	zk_cache_clear(zk);
	zk_turn(zk);
}

static void on_beat(struct zk_request *request, const struct zk_reply *reply)
{
	request->zk->session.beating = false;
	clock_soon(request->zk);
}

static void beat(struct zk *zk)
{
	if (zk->session.beating || !zk->link.connected)
		return;
	zk->session.beating = true;
	zk_sync(zk, NULL, NULL, on_beat);
	zk_turn(zk); /* the library may have something to send now */
}

static void live_look(struct zk *zk, uint64_t now, uint64_t *ret_next)
{
	struct zk_session *session = &zk->session;
	uint64_t timeout = session->negotiated_usec;
	uint64_t age = now > session->acked ? now - session->acked : 0;
	uint64_t end = session->acked + timeout + zk->address.tick_usec;

	if (now >= end) {
		log_warning("ZooKeeper has not answered for %" PRIu64 " ms: our session counts as "
			    "over",
			    age / USEC_PER_MSEC);
		zk_link_drop(zk);
		session_gone(zk);
		return;
	}
	if (session->suspended != (age >= timeout / 2)) {
		session->suspended = !session->suspended;
		zk_turn(zk);
	}
	*ret_next = end;
	if (!session->suspended)
		*ret_next = session->acked + timeout / 2;
	if (age < timeout / 4)
		*ret_next = session->acked + timeout / 4;
	else
		beat(zk);
}

/* What is due by our own clock? */
static void clock_look(struct zk *zk)
{
	struct zk_session *session = &zk->session;
	uint64_t now = clock_now(), next = UINT64_MAX;

	if (session->phase == ZK_SESSION_LIVE) {
		live_look(zk, now, &next);
	} else if (session->phase == ZK_SESSION_OPENING || session->phase == ZK_SESSION_CLOSING) {
		next = session->give_up;
		if (now >= next) {
			if (session->phase == ZK_SESSION_OPENING)
				log_warning("no ZooKeeper server of '%s' has opened a session",
					    zk->address.servers);
			zk_link_drop(zk);
			session_gone(zk);
			next = UINT64_MAX;
		}
	}
	(void)sd_event_source_set_enabled(session->clock,
					  next == UINT64_MAX ? SD_EVENT_OFF : SD_EVENT_ONESHOT);
	(void)sd_event_source_set_time(session->clock, next);
}

static int on_clock(sd_event_source *source, uint64_t usec, void *userdata)
{
	clock_look(userdata);
	return 0;
}

void zk_session_acked(struct zk *zk, uint64_t sent)
{
	struct zk_session *session = &zk->session;

	if (sent > session->acked)
		session->acked = sent;
	if (session->phase == ZK_SESSION_LIVE && session->suspended)
		clock_soon(zk);
}

static void on_first_beat(struct zk_request *request, const struct zk_reply *reply)
{
	struct zk *zk = request->zk;
	struct zk_session *session = &zk->session;

	session->beating = false;
	if (reply->rc != ZOK || session->phase != ZK_SESSION_OPENING || !zk->link.handle)
		return;
	id_print(zoo_client_id(zk->link.handle), session->id);
	session->negotiated_usec = (uint64_t)zoo_recv_timeout(zk->link.handle) * USEC_PER_MSEC;
	session->acked = request->sent;
	session->phase = ZK_SESSION_LIVE;
	session->suspended = session->told = false;
	clock_soon(zk);
	zk_turn(zk);
}

/* There is a connection, a first one or once more. */
void zk_session_connected(struct zk *zk)
{
	struct zk_session *session = &zk->session;

	if (session->phase == ZK_SESSION_OPENING && !session->reopen && !session->beating) {
		session->beating = true;
		zk_sync(zk, NULL, NULL, on_first_beat);
	} else if (session->phase == ZK_SESSION_LIVE) {
		beat(zk);
	}
}

void zk_session_expired(struct zk *zk)
{
	struct zk_session *session = &zk->session;

	zk_link_drop(zk);
	if (session->phase == ZK_SESSION_LIVE || session->phase == ZK_SESSION_CLOSING ||
	    (session->phase == ZK_SESSION_OPENING && !session->reopen))
		session_gone(zk);
}

void zk_session_farewell_done(struct zk *zk)
{
	if (zk->session.phase == ZK_SESSION_CLOSING)
		session_gone(zk);
}

int zk_session_open(struct store *store, const char *resume, uint64_t timeout_usec,
		    store_session_fn changed, void *ctx, struct error *err)
{
	struct zk *zk = container_of(store, struct zk, store);
	struct zk_session *session = &zk->session;

	if (session->phase != ZK_SESSION_NONE)
		return error_refuse(err, "there is a session already: close it first");
	session->phase = ZK_SESSION_OPENING;
	session->wanted_usec = timeout_usec;
	session->give_up = clock_now() + timeout_usec + zk->address.tick_usec;
	session->changed = changed;
	session->ctx = ctx;
	session->resuming = resume;
	session->reopen = true;
	if (resume && !id_parse(resume, &session->resume))
		session_gone(zk);
	clock_look(zk);
	zk_turn(zk);
	return 0;
}

int zk_session_close(struct store *store, struct error *err)
{
	struct zk *zk = container_of(store, struct zk, store);
	struct zk_session *session = &zk->session;

	if (session->phase != ZK_SESSION_LIVE)
		return error_refuse(err, "there is no session to close");
	session->phase = ZK_SESSION_CLOSING;
	session->give_up = clock_now() + FAREWELL_USEC;
	clock_look(zk);
	zk_turn(zk);
	return 0;
}

const char *zk_session_id(const struct store *store)
{
	const struct zk *zk = container_of((struct store *)(uintptr_t)store, struct zk, store);

	return zk->session.phase == ZK_SESSION_LIVE ? zk->session.id : NULL;
}

/* A follower may die before it passes on that it heard us, which it does each tick. */
int zk_session_timing(const struct store *store, struct store_timing *ret_timing)
{
	const struct zk *zk = container_of((struct store *)(uintptr_t)store, struct zk, store);
	uint64_t timeout = zk->session.negotiated_usec, tick = zk->address.tick_usec;

	if (zk->session.phase != ZK_SESSION_LIVE)
		return -ENOTCONN;
	*ret_timing = (struct store_timing){
		.earliest_usec = timeout > tick ? timeout - tick : 0,
		.latest_usec = timeout + tick,
	};
	return 0;
}

struct zk_renewal {
	struct zk_renewal *next;
	bool known;
	int r;
	struct error err;
	store_renew_fn reply;
	void *ctx;
};

static void on_renewed(struct zk_request *request, const struct zk_reply *reply)
{
	struct zk_renewal *renewal = request->subject;

	renewal->known = true;
	if (reply->rc != ZOK)
		renewal->r = zk_fail(reply->rc, &renewal->err, "the session was not renewed");
	zk_turn(request->zk);
}

/* It does not wait for the calls before it: a lease hangs on it. */
int zk_session_renew(struct store *store, store_renew_fn reply, void *ctx, struct error *err)
{
	struct zk *zk = container_of(store, struct zk, store);
	struct zk_session *session = &zk->session;
	struct zk_renewal *renewal;

	if (session->phase != ZK_SESSION_LIVE)
		return error_set(err, -ENOTCONN, "there is no session with ZooKeeper");
	renewal = xcalloc(1, sizeof(*renewal));
	renewal->reply = reply;
	renewal->ctx = ctx;
	*session->last = renewal;
	session->last = &renewal->next;
	if (zk->link.connected) {
		zk_sync(zk, NULL, renewal, on_renewed);
	} else {
		renewal->known = true;
		renewal->r = error_try_again(&renewal->err, "there is no connection to ZooKeeper");
	}
	zk_turn(zk);
	return 0;
}

static struct zk_renewal *renewal_pop(struct zk_session *session)
{
	struct zk_renewal *renewal = session->first;

	session->first = renewal->next;
	if (!session->first)
		session->last = &session->first;
	return renewal;
}

bool zk_session_tell(struct zk *zk)
{
	struct zk_session *session = &zk->session;

	if (session->phase == ZK_SESSION_GONE) {
		session->phase = ZK_SESSION_NONE;
		session->changed(session->ctx, STORE_LOST);
		return true;
	}
	if (session->phase == ZK_SESSION_LIVE &&
	    (!session->told || session->told_suspended != session->suspended)) {
		session->told = true;
		session->told_suspended = session->suspended;
		session->changed(session->ctx,
				 session->suspended ? STORE_SUSPENDED : STORE_CONNECTED);
		return true;
	}
	if (session->first && session->first->known) {
		struct zk_renewal *renewal = renewal_pop(session);

		if (session->phase != ZK_SESSION_LIVE)
			renewal->r = error_set(&renewal->err, -ENOTCONN,
					       "the session with ZooKeeper is over");
		renewal->reply(renewal->ctx, renewal->r, &renewal->err);
		free(renewal);
		return true;
	}
	return false;
}

int zk_session_start(struct zk *zk, struct error *err)
{
	int r = sd_event_add_time(zk->loop, &zk->session.clock, CLOCK_BOOTTIME, 0, 1, on_clock, zk);

	zk->session.last = &zk->session.first;
	if (r >= 0)
		r = sd_event_source_set_enabled(zk->session.clock, SD_EVENT_OFF);
	if (r < 0)
		return error_set(err, r, "cannot make a timer for the ZooKeeper session: %m");
	return 0;
}

void zk_session_done(struct zk *zk)
{
	while (zk->session.first)
		free(renewal_pop(&zk->session));
	zk->session.clock = sd_event_source_disable_unref(zk->session.clock);
}
