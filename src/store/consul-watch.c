/* SPDX-License-Identifier: Apache-2.0 */
/* Changes in Consul are told by blocking queries: "answer when the index of this prefix is above
 * N".  Values are of no interest, so keys are asked for, one level deep, and thrown away.  The
 * first look comes after the first answer: who reads then reads all that its index tells of.  After
 * each trouble the index is asked for anew, and that is a look too.
 *
 * Each question that waits has a connection, of which Consul takes 200 from one address
 * (http_max_conns_per_client), and then resets also that of the session.  So the first watches wait
 * as long as they like, and those beyond take turns: a change is told a little later. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store/consul.h"
#include "util/cleanup.h"
#include "util/mem.h"

#define WAIT_SEC 30 /* Consul adds a sixteenth */
#define RESIDENTS_MAX 64
#define TURNS_MAX 32 /* at the same time */
#define TURN_SEC 1
#define ANSWER_USEC ((WAIT_SEC + WAIT_SEC / 16 + 8) * USEC_PER_SEC)
#define RETRY_FIRST_USEC (100 * USEC_PER_MSEC)
#define RETRY_LAST_USEC (3200 * USEC_PER_MSEC)

struct consul_watch {
	struct store_watch watch;
	struct consul_watch *next;
	struct consul_ask ask;
	char *prefix;
	store_look_fn look;
	void *ctx;
	bool resident;
	enum { TURN_NONE, TURN_AWAITED, TURN_TAKEN } turn;
	struct consul_watch *next_turn;
	uint64_t index; /* 0: not known */
	bool empty;	/* there was nothing at `index` */
	uint64_t retry_usec;
	sd_event_source *due;	/* enabled: `look` has to be called */
	sd_event_source *retry; /* enabled: ask then */
};

static void retry_later(struct consul_watch *watch)
{
	/* Not all agents at once, when Consul is back. */
	uint64_t usec = watch->retry_usec / 2 + (uint64_t)random() % watch->retry_usec;

	(void)sd_event_source_set_time_relative(watch->retry, usec);
	(void)sd_event_source_set_enabled(watch->retry, SD_EVENT_ONESHOT);
	if (watch->retry_usec < RETRY_LAST_USEC)
		watch->retry_usec *= 2;
}

/* ---- turns ---- */

static void watch_send(struct consul_watch *watch);

static void turns_go(struct consul *consul)
{
	while (consul->turns_taken < TURNS_MAX && consul->turns) {
		struct consul_watch *watch = consul->turns;

		consul->turns = watch->next_turn;
		watch->turn = TURN_TAKEN;
		consul->turns_taken++;
		watch_send(watch);
	}
}

static void watch_ask(struct consul_watch *watch)
{
	struct consul_watch **at = &watch->ask.consul->turns;

	if (watch->resident) {
		watch_send(watch);
		return;
	}
	while (*at)
		at = &(*at)->next_turn;
	*at = watch;
	watch->next_turn = NULL;
	watch->turn = TURN_AWAITED;
	turns_go(watch->ask.consul);
}

/* It neither asks nor waits for its turn any more. */
static void turn_end(struct consul_watch *watch)
{
	struct consul *consul = watch->ask.consul;
	struct consul_watch **at = &consul->turns;

	if (watch->turn == TURN_TAKEN)
		consul->turns_taken--;
	while (watch->turn == TURN_AWAITED && *at != watch)
		at = &(*at)->next_turn;
	if (watch->turn == TURN_AWAITED)
		*at = watch->next_turn;
	watch->turn = TURN_NONE;
}

/* ---- questions ---- */

static void watch_send(struct consul_watch *watch)
{
	CLEANUP_FREE char *kv = consul_kv_path(watch->ask.consul, watch->prefix);
	CLEANUP_FREE char *path =
		watch->index ? xasprintf("%s?keys&separator=/&index=%" PRIu64 "&wait=%ds", kv,
					 watch->index, watch->resident ? WAIT_SEC : TURN_SEC)
			     : xasprintf("%s?keys&separator=/", kv);
	const struct consul_question question = {
		.method = "GET",
		.path = path,
		.timeout_usec = ANSWER_USEC,
	};

	if (consul_ask(&watch->ask, &question, NULL) < 0) {
		turn_end(watch);
		retry_later(watch);
	}
}

static void take_answer(struct consul_watch *watch, const struct http_answer *answer)
{
	bool empty = answer->status == 404;

	if ((answer->status != 200 && !empty) || answer->index == 0) {
		/* Who looks is told what is wrong; of silence he hears by himself. */
		if (consul_trouble(&watch->ask, answer, NULL) != -EAGAIN)
			(void)sd_event_source_set_enabled(watch->due, SD_EVENT_ONESHOT);
		watch->index = 0;
		retry_later(watch);
		return;
	}
	/* Writes elsewhere wake one who waits for a prefix that has no keys. */
	if (watch->index == 0 || (answer->index != watch->index && !(empty && watch->empty)))
		(void)sd_event_source_set_enabled(watch->due, SD_EVENT_ONESHOT);
	/* An index that fell (a restored cluster) must be asked for anew. */
	watch->index = answer->index < watch->index ? 0 : answer->index;
	watch->empty = empty;
	watch->retry_usec = RETRY_FIRST_USEC;
	watch_ask(watch);
}

static void on_answer(struct consul_ask *ask, const struct http_answer *answer)
{
	struct consul_watch *watch = container_of(ask, struct consul_watch, ask);

	turn_end(watch);
	take_answer(watch, answer);
	turns_go(ask->consul);
}

static int retry_due(sd_event_source *source, uint64_t usec, void *userdata)
{
	watch_ask(userdata);
	return 0;
}

static int look_due(sd_event_source *source, void *userdata)
{
	struct consul_watch *watch = userdata;

	watch->look(watch->ctx);
	return 0;
}

void consul_watch_again(struct consul *consul)
{
	for (struct consul_watch *watch = consul->watches; watch; watch = watch->next) {
		if (!watch->ask.transfer || watch->ask.server == consul->server)
			continue;
		consul_ask_cancel(&watch->ask);
		turn_end(watch);
		watch->index = 0;
		(void)sd_event_source_set_time_relative(watch->retry, 0);
		(void)sd_event_source_set_enabled(watch->retry, SD_EVENT_ONESHOT);
	}
}

static void watch_free(struct consul_watch *watch)
{
	consul_ask_cancel(&watch->ask);
	(void)sd_event_source_disable_unref(watch->due);
	(void)sd_event_source_disable_unref(watch->retry);
	free(watch->prefix);
	free(watch);
}

void consul_watch_done(struct consul *consul)
{
	while (consul->watches) {
		struct consul_watch *watch = consul->watches;

		consul->watches = watch->next;
		watch_free(watch);
	}
}

int consul_watch(struct store *store, const char *prefix, store_look_fn look, void *ctx,
		 struct store_watch **ret_watch, struct error *err)
{
	struct consul *consul = container_of(store, struct consul, store);
	struct consul_watch *watch = xcalloc(1, sizeof(*watch));
	int r;

	*watch = (struct consul_watch){
		.watch.store = store,
		.ask = { .consul = consul, .answer = on_answer },
		.prefix = xstrdup(prefix),
		.look = look,
		.ctx = ctx,
		.retry_usec = RETRY_FIRST_USEC,
	};
	r = sd_event_add_defer(consul->loop, &watch->due, look_due, watch);
	if (r >= 0)
		r = sd_event_source_set_enabled(watch->due, SD_EVENT_OFF);
	if (r >= 0) /* the first question, at once */
		r = sd_event_add_time(consul->loop, &watch->retry, CLOCK_BOOTTIME, 0, 1, retry_due,
				      watch);
	if (r < 0) {
		watch_free(watch);
		return error_set(err, r, "cannot watch the store '%s': %m", store->address);
	}
	watch->resident = consul->residents < RESIDENTS_MAX;
	consul->residents += watch->resident;
	watch->next = consul->watches;
	consul->watches = watch;
	*ret_watch = &watch->watch;
	return 0;
}

void consul_unwatch(struct store_watch *base)
{
	struct consul *consul = container_of(base->store, struct consul, store);
	struct consul_watch *watch = container_of(base, struct consul_watch, watch);
	struct consul_watch **at = &consul->watches;

	while (*at != watch)
		at = &(*at)->next;
	*at = watch->next;
	consul->residents -= watch->resident;
	turn_end(watch);
	watch_free(watch);
	turns_go(consul);
}
