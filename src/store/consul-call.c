/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of the store in Consul.  Several are under way at once, so that one that hangs delays only
 * what must come after it: a read follows every write before it, a write those that share a key
 * with it.  Answers leave the queue from its head, so they come in the order of the calls. */
#include <errno.h>
#include <string.h>

#include "store/consul.h"
#include "util/cleanup.h"
#include "util/mem.h"

#define QUEUE_MAX 10000
#define UNDER_WAY_MAX 8

static bool keys_shared(const struct consul_call *call, const struct consul_call *other)
{
	for (size_t i = 0; i < call->count; i++)
		for (size_t j = 0; j < other->count; j++)
			if (strcmp(call->ops[i].key, other->ops[j].key) == 0)
				return true;
	return false;
}

static bool must_follow(const struct consul_call *call, const struct consul_call *other)
{
	if (call->kind == CONSUL_RENEW || other->kind != CONSUL_WRITE || other->done)
		return false;
	return call->kind == CONSUL_READ || keys_shared(call, other);
}

static bool may_start(const struct consul *consul, const struct consul_call *call)
{
	for (const struct consul_call *other = consul->first; other != call; other = other->next)
		if (must_follow(call, other))
			return false;
	return true;
}

static void deliver_ready(struct consul *consul)
{
	bool ready = consul->first && consul->first->done;

	(void)sd_event_source_set_enabled(consul->deliver, ready ? SD_EVENT_ON : SD_EVENT_OFF);
}

static void call_finish(struct consul_call *call, int r)
{
	struct consul *consul = call->ask.consul;

	if (call->started)
		consul->under_way--;
	call->done = true;
	call->r = r;
	deliver_ready(consul);
}

static void calls_start(struct consul *consul)
{
	for (struct consul_call *call = consul->first; call && consul->under_way < UNDER_WAY_MAX;
	     call = call->next) {
		int r;

		if (call->started || call->done || !may_start(consul, call))
			continue;
		r = call->start(call, &call->err);
		call->started = r == 0;
		if (r < 0)
			call_finish(call, r);
		else
			consul->under_way++;
	}
}

/* A server that no connection can be made to has not heard of it: another one may be asked. */
static bool try_another(struct consul_call *call, const struct http_answer *answer)
{
	return answer->unsent && ++call->tries < call->ask.consul->count &&
	       call->start(call, NULL) == 0;
}

static void on_answer(struct consul_ask *ask, const struct http_answer *answer)
{
	struct consul_call *call = container_of(ask, struct consul_call, ask);
	struct consul *consul = ask->consul;
	int r;

	if (try_another(call, answer))
		return;
	r = call->answered(call, answer, &call->err);
	if (r > 0)
		r = call->start(call, &call->err);
	else
		call_finish(call, r);
	if (r < 0 && !call->done)
		call_finish(call, r);
	calls_start(consul);
}

static int deliver_due(sd_event_source *source, void *userdata)
{
	struct consul *consul = userdata;
	struct consul_call *call = consul->first;

	consul->first = call->next;
	if (!consul->first)
		consul->last = &consul->first;
	consul->queued--;
	deliver_ready(consul);
	call->reply(call);
	call->free(call);
	return 0;
}

int consul_call_ask(struct consul_call *call, const char *method, const char *path,
		    const char *body, size_t limit, struct error *err)
{
	uint64_t now = clock_now();

	if (now + USEC_PER_MSEC > call->deadline)
		return error_try_again(err, "the store '%s' did not answer in time",
				       call->ask.consul->store.address);
	return consul_ask(&call->ask,
			  &(struct consul_question){
				  .method = method,
				  .path = path,
				  .body = body,
				  .length = body ? strlen(body) : 0,
				  .timeout_usec = call->deadline - now,
				  .limit = limit,
			  },
			  err);
}

int consul_call_add(struct consul *consul, struct consul_call *call, uint64_t timeout_usec,
		    struct error *err)
{
	if (consul->queued >= QUEUE_MAX) {
		call->free(call);
		return error_try_again(err, "%d calls are waiting for the store '%s' already",
				       QUEUE_MAX, consul->store.address);
	}
	call->ask.consul = consul;
	call->ask.answer = on_answer;
	call->deadline = clock_now() + timeout_usec;
	*consul->last = call;
	consul->last = &call->next;
	consul->queued++;
	calls_start(consul);
	return 0;
}

/* A server that hangs would hold up what is behind its answer until the longest deadline is over.
 * Not writes: they may have been carried out. */
void consul_calls_again(struct consul *consul)
{
	for (struct consul_call *call = consul->first; call; call = call->next) {
		int r;

		if (call->kind == CONSUL_WRITE || !call->ask.transfer ||
		    call->ask.server == consul->server)
			continue;
		consul_ask_cancel(&call->ask);
		r = call->start(call, &call->err);
		if (r < 0)
			call_finish(call, r);
	}
}

int consul_call_start(struct consul *consul, struct error *err)
{
	int r;

	consul->last = &consul->first;
	r = sd_event_add_defer(consul->loop, &consul->deliver, deliver_due, consul);
	if (r >= 0)
		r = sd_event_source_set_enabled(consul->deliver, SD_EVENT_OFF);
	if (r < 0)
		return error_set(err, r, "cannot serve a store from the event loop: %m");
	return 0;
}

void consul_call_done(struct consul *consul)
{
	while (consul->first) {
		struct consul_call *call = consul->first;

		consul->first = call->next;
		consul_ask_cancel(&call->ask);
		call->free(call);
	}
	(void)sd_event_source_disable_unref(consul->deliver);
}
