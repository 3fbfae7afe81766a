/* SPDX-License-Identifier: Apache-2.0 */
/* Our session in Consul.  Consul promises not to end it before its TTL has passed since a renewal,
 * and ends it after twice that time at the latest; after a change of the leader the new one counts
 * anew.  So whoever is cut off has lost it 2 TTL after he sent the last renewal that was answered:
 * nobody will tell him.
 *
 * LockDelay is none: who took over after a fence must not wait because Consul thinks so. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store/consul.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

#define ASK_USEC (2 * USEC_PER_SEC)
#define RETRY_MAX_USEC (1 * USEC_PER_SEC)
#define LATEST 2 /* times the TTL: measured, and what Consul's documentation names as greatest */

static struct consul *consul_of(struct consul_session *session)
{
	return container_of(session, struct consul, session);
}

static bool id_valid(const char *id)
{
	return strlen(id) == CONSUL_ID_SIZE - 1 && strspn(id, "0123456789abcdef-") == strlen(id);
}

/* "1h2m3.5s", "3600000ms": a duration as Go writes it.  0: none. */
static uint64_t duration_parse(const char *text)
{
	static const struct {
		const char *unit;
		double usec;
	} units[] = { { "ms", 1e3 }, { "us", 1 }, { "h", 3600e6 }, { "m", 60e6 }, { "s", 1e6 } };
	double sum = 0;

	while (*text >= '0' && *text <= '9') {
		char *end;
		double number = strtod(text, &end);
		size_t i = 0;

		while (i < ARRAY_SIZE(units) &&
		       strncmp(end, units[i].unit, strlen(units[i].unit)) != 0)
			i++;
		if (i == ARRAY_SIZE(units) || number > 1e9)
			return 0;
		sum += number * units[i].usec;
		text = end + strlen(units[i].unit);
	}
	return *text && *text != '=' ? 0 : (uint64_t)sum;
}

static void timer_at(sd_event_source *timer, uint64_t usec)
{
	(void)sd_event_source_set_time(timer, usec);
	(void)sd_event_source_set_enabled(timer, SD_EVENT_ONESHOT);
}

static void session_tell(struct consul_session *session, enum store_session_state state)
{
	session->truth = state;
	(void)sd_event_source_set_enabled(session->tell, SD_EVENT_ONESHOT);
}

static void session_lost(struct consul_session *session)
{
	consul_ask_cancel(&session->ask);
	(void)sd_event_source_set_enabled(session->step, SD_EVENT_OFF);
	(void)sd_event_source_set_enabled(session->over, SD_EVENT_OFF);
	session->phase = CONSUL_OVER;
	session_tell(session, STORE_LOST);
}

static void session_trouble(struct consul_session *session, const char *words)
{
	if (!session->trouble[0])
		log_warning("%s; retrying", words);
	(void)snprintf(session->trouble, sizeof(session->trouble), "%s", words);
}

static void step_in(struct consul_session *session, uint64_t usec)
{
	timer_at(session->step, clock_now() + usec);
}

/* The store had our session after `sent`. */
static void session_renewed(struct consul_session *session, uint64_t sent)
{
	if (sent > session->sent)
		session->sent = sent;
	session->trouble[0] = '\0';
	timer_at(session->over, session->sent + LATEST * session->ttl_usec);
	timer_at(session->step, session->sent + session->ttl_usec / 6);
	if (session->truth == STORE_SUSPENDED || session->told == STORE_SUSPENDED)
		session_tell(session, STORE_CONNECTED);
}

static void ask_again_later(struct consul_session *session)
{
	uint64_t usec = session->ttl_usec / 12;

	step_in(session, usec < RETRY_MAX_USEC ? usec : RETRY_MAX_USEC);
	if (session->phase == CONSUL_CONNECTED && session->truth == STORE_CONNECTED)
		session_tell(session, STORE_SUSPENDED);
}

static const struct {
	const char *path; /* %s: the id */
	bool id;
} questions[] = {
	[CONSUL_REGISTER] = { "catalog/register", false },
	[CONSUL_CREATE] = { "session/create", false },
	[CONSUL_PROVE] = { "session/renew/", true },
	[CONSUL_RESUME] = { "session/renew/", true },
	[CONSUL_CONNECTED] = { "session/renew/", true },
	[CONSUL_CLOSE] = { "session/destroy/", true },
};

static char *question_body(const struct consul_session *session)
{
	if (session->phase == CONSUL_REGISTER)
		return xasprintf("{\"Node\":\"%s\",\"Address\":\"127.0.0.1\"}", CONSUL_NODE);
	if (session->phase != CONSUL_CREATE)
		return NULL;
	return xasprintf("{\"Name\":\"drover\",\"Node\":\"%s\",\"Checks\":[],\"NodeChecks\":[],"
			 "\"LockDelay\":\"0s\",\"Behavior\":\"delete\",\"TTL\":\"%llums\"}",
			 CONSUL_NODE, (unsigned long long)(session->ttl_usec / USEC_PER_MSEC));
}

static int step_due(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct consul_session *session = userdata;
	CLEANUP_FREE char *path = xasprintf("%s%s", questions[session->phase].path,
					    questions[session->phase].id ? session->id : "");
	CLEANUP_FREE char *body = question_body(session);
	struct error err = { 0 };
	const struct consul_question question = {
		.method = "PUT",
		.path = path,
		.body = body ? body : "",
		.length = body ? strlen(body) : 0,
		.timeout_usec =
			session->phase == CONSUL_CONNECTED && session->ttl_usec / 3 < ASK_USEC
				? session->ttl_usec / 3
				: ASK_USEC,
		.limit = CONSUL_SMALL_MAX,
	};

	session->asked = clock_now();
	if (consul_ask(&session->ask, &question, &err) < 0) {
		session_trouble(session, err.text);
		ask_again_later(session);
	}
	return 0;
}

/* "Invalid Session TTL '50000000', must be between [10s=24h0m0s]": the least that Consul allows. */
static bool ttl_raised(struct consul_session *session, const struct http_answer *answer)
{
	const char *least = strstr(answer->body, "Invalid Session TTL");
	uint64_t usec;

	least = least ? strchr(least, '[') : NULL;
	usec = least ? duration_parse(least + 1) : 0;
	if (usec <= session->ttl_usec)
		return false;
	session->ttl_usec = usec;
	return true;
}

/* What a renewal answers: the session as it is.  Only one that we made is ours: another would keep
 * its keys, or end with a node. */
static int renewal_read(struct consul_session *session, const struct http_answer *answer,
			struct error *err)
{
	json_auto_t *list = NULL;
	const json_t *item;
	uint64_t ttl;
	int r;

	r = consul_parse(answer->body, answer->length, &list, err);
	if (r < 0)
		return r;
	item = json_array_get(list, 0);
	ttl = duration_parse(json_string_or(item, "TTL", ""));
	if (strcmp(json_string_or(item, "Node", ""), CONSUL_NODE) != 0 ||
	    strcmp(json_string_or(item, "Behavior", ""), "delete") != 0 || ttl == 0)
		return error_set(err, -ENOTCONN, "the session '%s' in Consul is not one of ours",
				 session->id);
	session->ttl_usec = ttl;
	return 0;
}

static int created(struct consul_session *session, const struct http_answer *answer,
		   struct error *err)
{
	json_auto_t *json = NULL;
	const char *id;
	int r;

	r = consul_parse(answer->body, answer->length, &json, err);
	if (r < 0)
		return r;
	id = json_string_or(json, "ID", "");
	if (!id_valid(id))
		return error_bad_data(err, "Consul made a session with the strange id '%.64s'", id);
	(void)snprintf(session->id, sizeof(session->id), "%s", id);
	return 0;
}

/* The next phase, after this one's question was answered with 200. */
static int phase_done(struct consul_session *session, const struct http_answer *answer,
		      struct error *err)
{
	int r = 0;

	switch (session->phase) {
	case CONSUL_REGISTER:
		session->phase = CONSUL_CREATE;
		break;
	case CONSUL_CREATE:
		r = created(session, answer, err);
		if (r == 0)
			session->phase = CONSUL_PROVE;
		break;
	case CONSUL_PROVE:
	case CONSUL_RESUME:
		r = renewal_read(session, answer, err);
		if (r < 0)
			return r;
		session->phase = CONSUL_CONNECTED;
		session_tell(session, STORE_CONNECTED);
		session_renewed(session, session->asked);
		return 0;
	case CONSUL_CONNECTED:
		session_renewed(session, session->asked);
		return 0;
	default: /* closed */
		session_lost(session);
		return 0;
	}
	if (r == 0)
		step_in(session, 0);
	return r;
}

static void on_answer(struct consul_ask *ask, const struct http_answer *answer)
{
	struct consul_session *session = container_of(ask, struct consul_session, ask);
	struct error err = { 0 };
	int r;

	if (answer->status == 404 && questions[session->phase].id) {
		session_lost(session); /* it is over, as sessions end: no words for the log */
		return;
	}
	if (session->phase == CONSUL_CREATE && ttl_raised(session, answer)) {
		step_in(session, 0);
		return;
	}
	r = answer->status == 200 ? phase_done(session, answer, &err)
				  : consul_trouble(ask, answer, &err);
	if (r < 0 && r != -EAGAIN && session->phase != CONSUL_CONNECTED) {
		log_warning("%s", err.text);
		session_lost(session);
		return;
	}
	if (r < 0) {
		session_trouble(session, err.text);
		ask_again_later(session);
	}
}

/* Nobody answered in time.  While it was opened: it cannot be told apart from one that was ended.
 */
static int over_due(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct consul_session *session = userdata;

	log_warning("the session with the store '%s' is lost: no answer since %llu s%s%s",
		    consul_of(session)->store.address,
		    (unsigned long long)((clock_now() - session->sent) / USEC_PER_SEC),
		    session->trouble[0] ? ": " : "", session->trouble);
	session_lost(session);
	return 0;
}

static int tell_due(sd_event_source *source, void *userdata)
{
	struct consul_session *session = userdata;
	enum store_session_state state = session->truth;

	session->told = state;
	if (state == STORE_LOST)
		session->phase = CONSUL_NONE;
	session->changed(session->ctx, state);
	return 0;
}

int consul_session_open(struct store *store, const char *resume, uint64_t timeout_usec,
			store_session_fn changed, void *ctx, struct error *err)
{
	struct consul_session *session = &container_of(store, struct consul, store)->session;

	if (session->phase != CONSUL_NONE)
		return error_refuse(err, "there is a session already: close it first");
	session->changed = changed;
	session->ctx = ctx;
	session->ttl_usec = timeout_usec;
	session->told = session->truth = STORE_LOST;
	session->trouble[0] = '\0';
	if (resume && !id_valid(resume)) {
		session_lost(session);
		return 0;
	}
	session->phase = resume ? CONSUL_RESUME : CONSUL_REGISTER;
	(void)snprintf(session->id, sizeof(session->id), "%s", resume ? resume : "");
	session->sent = clock_now();
	timer_at(session->over, session->sent + LATEST * timeout_usec + 5 * USEC_PER_SEC);
	step_in(session, 0);
	return 0;
}

int consul_session_close(struct store *store, struct error *err)
{
	struct consul_session *session = &container_of(store, struct consul, store)->session;

	if (session->phase != CONSUL_CONNECTED)
		return error_refuse(err, "there is no session to close");
	consul_ask_cancel(&session->ask);
	session->phase = CONSUL_CLOSE;
	step_in(session, 0);
	return 0;
}

const char *consul_session_id(const struct store *store)
{
	const struct consul *consul = container_of(store, const struct consul, store);

	return consul->session.phase == CONSUL_CONNECTED ? consul->session.id : NULL;
}

int consul_session_timing(const struct store *store, struct store_timing *ret_timing)
{
	const struct consul *consul = container_of(store, const struct consul, store);

	if (consul->session.phase != CONSUL_CONNECTED)
		return -ENOTCONN;
	*ret_timing = (struct store_timing){ consul->session.ttl_usec,
					     LATEST * consul->session.ttl_usec };
	return 0;
}

struct renew_call {
	struct consul_call call;
	store_renew_fn reply;
	char id[CONSUL_ID_SIZE];
	uint64_t sent;
};

static int renew_start(struct consul_call *call, struct error *err)
{
	struct renew_call *renew = container_of(call, struct renew_call, call);
	CLEANUP_FREE char *path = xasprintf("session/renew/%s", renew->id);

	renew->sent = clock_now();
	return consul_call_ask(call, "PUT", path, "", CONSUL_SMALL_MAX, err);
}

static int renew_answered(struct consul_call *call, const struct http_answer *answer,
			  struct error *err)
{
	struct renew_call *renew = container_of(call, struct renew_call, call);
	struct consul_session *session = &call->ask.consul->session;
	bool present = session->phase == CONSUL_CONNECTED && strcmp(session->id, renew->id) == 0;

	if (answer->status == 404 && present)
		session_lost(session);
	if (answer->status == 404 || !present)
		return error_set(err, -ENOTCONN, "our session in the store '%s' is over",
				 call->ask.consul->store.address);
	if (answer->status != 200)
		return consul_trouble(&call->ask, answer, err);
	session_renewed(session, renew->sent);
	return 0;
}

static void renew_reply(struct consul_call *call)
{
	container_of(call, struct renew_call, call)->reply(call->ctx, call->r, &call->err);
}

static void renew_free(struct consul_call *call)
{
	free(container_of(call, struct renew_call, call));
}

int consul_session_renew(struct store *store, store_renew_fn reply, void *ctx, struct error *err)
{
	struct consul *consul = container_of(store, struct consul, store);
	struct renew_call *renew;

	if (consul->session.phase != CONSUL_CONNECTED)
		return error_set(err, -ENOTCONN, "there is no session in the store '%s'",
				 store->address);
	renew = xcalloc(1, sizeof(*renew));
	renew->call.kind = CONSUL_RENEW;
	renew->call.ctx = ctx;
	renew->call.start = renew_start;
	renew->call.answered = renew_answered;
	renew->call.reply = renew_reply;
	renew->call.free = renew_free;
	renew->reply = reply;
	memcpy(renew->id, consul->session.id, sizeof(renew->id));
	return consul_call_add(consul, &renew->call, ASK_USEC, err);
}

int consul_session_start(struct consul *consul, struct error *err)
{
	struct consul_session *session = &consul->session;
	int r;

	session->ask = (struct consul_ask){ .consul = consul, .answer = on_answer };
	r = sd_event_add_time(consul->loop, &session->step, CLOCK_BOOTTIME, 0, 1, step_due,
			      session);
	if (r >= 0)
		r = sd_event_source_set_enabled(session->step, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_time(consul->loop, &session->over, CLOCK_BOOTTIME, 0, 1, over_due,
				      session);
	if (r >= 0)
		r = sd_event_source_set_enabled(session->over, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_defer(consul->loop, &session->tell, tell_due, session);
	if (r >= 0)
		r = sd_event_source_set_enabled(session->tell, SD_EVENT_OFF);
	if (r < 0)
		return error_set(err, r, "cannot make timers for a store: %m");
	return 0;
}

void consul_session_done(struct consul *consul)
{
	struct consul_session *session = &consul->session;

	consul_ask_cancel(&session->ask);
	(void)sd_event_source_disable_unref(session->step);
	(void)sd_event_source_disable_unref(session->over);
	(void)sd_event_source_disable_unref(session->tell);
}
