/* SPDX-License-Identifier: Apache-2.0 */
/* A store that goes wrong on order, for tests.  Every call is a record in one queue: it is sent on
 * to the inner store (or not), its result is kept, and answers leave the queue from its head, so
 * the order of answers stays the order of calls whatever is held back. */
#include "store/fault.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "store/ops.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"

enum call_kind { CALL_GET, CALL_LIST, CALL_WRITE, CALL_RENEW };

struct call {
	struct call *next;
	struct fault_store *fault;
	enum call_kind kind;
	store_get_fn get;
	store_list_fn list;
	store_write_fn write;
	store_renew_fn renew;
	void *ctx;

	bool known; /* the result is here */
	bool held;
	bool drop_answer;
	int r;
	struct error err;
	struct store_entry *entries;
	size_t count;
	uint64_t versions[STORE_OPS_MAX];
};

struct late_write { /* copies of operations */
	struct late_write *next;
	size_t count;
	struct store_op ops[STORE_OPS_MAX];
};

struct fault_watch {
	struct store_watch watch;
	struct fault_watch *next;
	struct store_watch *inner;
	store_look_fn look;
	void *ctx;
	sd_event_source *due;
};

struct fault_store {
	struct store store;
	struct store *inner;
	sd_event *loop;
	struct fault order;
	struct call *first, **last;
	sd_event_source *deliver;
	struct late_write *late, **late_last;
	struct fault_watch *watches;
	bool cut;

	store_session_fn changed;
	void *changed_ctx;
	enum store_session_state told, truth; /* what the caller knows; what the inner store said */
	sd_event_source *tell;
};

static struct fault_store *fault_of(const struct store *store)
{
	assert(store->ops == &store_fault);
	return container_of((struct store *)store, struct fault_store, store);
}

static void entries_copy(struct call *call, const struct store_entry *entries, size_t count)
{
	call->entries = store_entries_copy(entries, count);
	call->count = count;
}

static void call_free(struct call *call)
{
	store_entries_free(call->entries, call->count);
	free(call);
}

static void deliver_ready(struct fault_store *fault)
{
	bool ready = fault->first && fault->first->known && !fault->first->held;

	(void)sd_event_source_set_enabled(fault->deliver, ready ? SD_EVENT_ON : SD_EVENT_OFF);
}

static int deliver_due(sd_event_source *source, void *userdata)
{
	struct fault_store *fault = userdata;
	struct call *call = fault->first;
	bool done = call->r == 0;

	fault->first = call->next;
	if (!fault->first)
		fault->last = &fault->first;
	deliver_ready(fault);
	/* From here on the store may be closed. */
	if (call->kind == CALL_GET)
		call->get(call->ctx, call->r, done ? call->entries : NULL, &call->err);
	else if (call->kind == CALL_LIST)
		call->list(call->ctx, call->r, done ? call->entries : NULL, done ? call->count : 0,
			   &call->err);
	else if (call->kind == CALL_WRITE)
		call->write(call->ctx, call->r, done ? call->versions : NULL, &call->err);
	else
		call->renew(call->ctx, call->r, &call->err);
	call_free(call);
	return 0;
}

static void call_known(struct call *call, int r, const struct error *err)
{
	call->known = true;
	call->r = r;
	if (r < 0 && err)
		call->err = *err;
	if (call->drop_answer)
		call->r = error_try_again(&call->err, "the store did not answer (a test's fault)");
	deliver_ready(call->fault);
}

static void inner_got(void *ctx, int r, const struct store_entry *entry, const struct error *err)
{
	if (r == 0)
		entries_copy(ctx, entry, 1);
	call_known(ctx, r, err);
}

static void inner_listed(void *ctx, int r, const struct store_entry *entries, size_t count,
			 const struct error *err)
{
	if (r == 0)
		entries_copy(ctx, entries, count);
	call_known(ctx, r, err);
}

static void inner_wrote(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct call *call = ctx;

	if (r == 0)
		for (size_t i = 0; i < STORE_OPS_MAX && i < call->count; i++)
			call->versions[i] = versions[i];
	call->count = 0; /* it counted versions, not entries */
	call_known(call, r, err);
}

static void inner_ignored(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
}

static enum fault_kind fault_next(struct fault_store *fault, enum fault_calls sort)
{
	struct fault *order = &fault->order;

	if (fault->cut)
		return FAULT_DROP_REQUEST;
	if (!(order->calls & sort) || order->count == 0)
		return FAULT_NONE;
	if (order->skip > 0) {
		order->skip--;
		return FAULT_NONE;
	}
	order->count--;
	return order->kind;
}

static struct call *call_new(struct fault_store *fault, enum call_kind kind, void *ctx)
{
	struct call *call = xcalloc(1, sizeof(*call));

	call->fault = fault;
	call->kind = kind;
	call->ctx = ctx;
	return call;
}

/* Puts an accepted call into the queue. */
static void call_add(struct call *call, enum fault_kind kind)
{
	struct fault_store *fault = call->fault;

	*fault->last = call;
	fault->last = &call->next;
	call->held = kind == FAULT_HOLD;
	call->drop_answer = kind == FAULT_DROP_ANSWER;
	if (kind == FAULT_DROP_REQUEST || kind == FAULT_LATE) {
		call->drop_answer = true;
		call_known(call, -EAGAIN, NULL);
	} else if (kind == FAULT_FAIL) {
		struct error err = { 0 };

		call_known(call, error_set(&err, fault->order.code, "a test's fault: %m"), &err);
	}
}

static bool kind_sends(enum fault_kind kind)
{
	return kind == FAULT_NONE || kind == FAULT_HOLD || kind == FAULT_DROP_ANSWER ||
	       kind == FAULT_TWICE;
}

static int fault_get(struct store *store, const char *key, store_get_fn reply, void *ctx,
		     struct error *err)
{
	struct fault_store *fault = fault_of(store);
	enum fault_kind kind = fault_next(fault, FAULT_READS);
	struct call *call = call_new(fault, CALL_GET, ctx);
	int r = 0;

	call->get = reply;
	if (kind_sends(kind))
		r = store_get(fault->inner, key, inner_got, call, err);
	if (r < 0)
		call_free(call);
	else
		call_add(call, kind);
	return r;
}

static int fault_list(struct store *store, const char *prefix, store_list_fn reply, void *ctx,
		      struct error *err)
{
	struct fault_store *fault = fault_of(store);
	enum fault_kind kind = fault_next(fault, FAULT_READS);
	struct call *call = call_new(fault, CALL_LIST, ctx);
	int r = 0;

	call->list = reply;
	if (kind_sends(kind))
		r = store_list(fault->inner, prefix, inner_listed, call, err);
	if (r < 0)
		call_free(call);
	else
		call_add(call, kind);
	return r;
}

static void late_add(struct fault_store *fault, const struct store_op *ops, size_t count)
{
	struct late_write *late = xcalloc(1, sizeof(*late));

	late->count = count;
	for (size_t i = 0; i < count; i++) {
		late->ops[i] = ops[i];
		late->ops[i].key = xstrdup(ops[i].key);
		late->ops[i].value = ops[i].value ? json_deep_copy(ops[i].value) : NULL;
	}
	*fault->late_last = late;
	fault->late_last = &late->next;
}

static struct late_write *late_pop(struct fault_store *fault)
{
	struct late_write *late = fault->late;

	fault->late = late->next;
	if (!fault->late)
		fault->late_last = &fault->late;
	return late;
}

static void late_free(struct late_write *late)
{
	for (size_t i = 0; i < late->count; i++) {
		free((char *)late->ops[i].key);
		json_decref(late->ops[i].value);
	}
	free(late);
}

static int fault_write(struct store *store, const struct store_op *ops, size_t count,
		       store_write_fn reply, void *ctx, struct error *err)
{
	struct fault_store *fault = fault_of(store);
	enum fault_kind kind = fault_next(fault, FAULT_WRITES);
	struct call *call = call_new(fault, CALL_WRITE, ctx);
	int r = 0;

	call->write = reply;
	if (kind == FAULT_LATE)
		late_add(fault, ops, count);
	if (kind_sends(kind)) {
		call->count = count;
		r = store_write(fault->inner, ops, count, inner_wrote, call, err);
	}
	if (r < 0) {
		call->count = 0;
		call_free(call);
		return r;
	}
	if (kind == FAULT_TWICE)
		(void)store_write(fault->inner, ops, count, inner_ignored, NULL, NULL);
	call_add(call, kind);
	return 0;
}

static void inner_look(void *ctx)
{
	struct fault_watch *watch = ctx;

	if (!fault_of(watch->watch.store)->cut)
		watch->look(watch->ctx);
}

static int mended_look(sd_event_source *source, void *userdata)
{
	inner_look(userdata);
	return 0;
}

static void watch_free(struct fault_watch *watch)
{
	(void)sd_event_source_disable_unref(watch->due);
	free(watch);
}

static int fault_watch(struct store *store, const char *prefix, store_look_fn look, void *ctx,
		       struct store_watch **ret_watch, struct error *err)
{
	struct fault_store *fault = fault_of(store);
	struct fault_watch *watch = xcalloc(1, sizeof(*watch));
	int r;

	watch->watch.store = store;
	watch->look = look;
	watch->ctx = ctx;
	r = sd_event_add_defer(fault->loop, &watch->due, mended_look, watch);
	if (r < 0)
		(void)error_set(err, r, "cannot watch through the fault store: %m");
	else
		(void)sd_event_source_set_enabled(watch->due, SD_EVENT_OFF);
	if (r >= 0)
		r = store_watch(fault->inner, prefix, inner_look, watch, &watch->inner, err);
	if (r < 0) {
		watch_free(watch);
		return r;
	}
	watch->next = fault->watches;
	fault->watches = watch;
	*ret_watch = &watch->watch;
	return 0;
}

static void fault_unwatch(struct store_watch *base)
{
	struct fault_store *fault = fault_of(base->store);
	struct fault_watch *watch = container_of(base, struct fault_watch, watch);
	struct fault_watch **at = &fault->watches;

	while (*at != watch)
		at = &(*at)->next;
	*at = watch->next;
	(void)store_unwatch(watch->inner);
	watch_free(watch);
}

/* Tells the caller the state that he should see by now, if he does not know it. */
static int tell_due(sd_event_source *source, void *userdata)
{
	struct fault_store *fault = userdata;
	enum store_session_state state = fault->truth;

	if (fault->cut)
		state = STORE_SUSPENDED;
	if (!fault->changed || fault->told == state)
		return 0;
	fault->told = state;
	fault->changed(fault->changed_ctx, state);
	return 0;
}

static void tell_soon(struct fault_store *fault)
{
	(void)sd_event_source_set_enabled(fault->tell, SD_EVENT_ONESHOT);
}

static void inner_changed(void *ctx, enum store_session_state state)
{
	struct fault_store *fault = ctx;

	fault->truth = state;
	tell_soon(fault);
}

static int fault_session_open(struct store *store, const char *resume, uint64_t timeout_usec,
			      store_session_fn changed, void *ctx, struct error *err)
{
	struct fault_store *fault = fault_of(store);
	int r;

	r = store_session_open(fault->inner, resume, timeout_usec, inner_changed, fault, err);
	if (r < 0)
		return r;
	fault->changed = changed;
	fault->changed_ctx = ctx;
	fault->told = STORE_SUSPENDED; /* that is: he knows of nothing yet */
	fault->truth = STORE_SUSPENDED;
	return 0;
}

static int fault_session_close(struct store *store, struct error *err)
{
	return store_session_close(fault_of(store)->inner, err);
}

static const char *fault_session_id(const struct store *store)
{
	return store_session_id(fault_of(store)->inner);
}

static int fault_session_timing(const struct store *store, struct store_timing *ret_timing)
{
	return store_session_timing(fault_of(store)->inner, ret_timing);
}

static void inner_renewed(void *ctx, int r, const struct error *err)
{
	call_known(ctx, r, err);
}

static int fault_session_renew(struct store *store, store_renew_fn reply, void *ctx,
			       struct error *err)
{
	struct fault_store *fault = fault_of(store);
	enum fault_kind kind = fault_next(fault, FAULT_RENEWALS);
	struct call *call = call_new(fault, CALL_RENEW, ctx);
	int r = 0;

	call->renew = reply;
	if (kind_sends(kind))
		r = store_session_renew(fault->inner, inner_renewed, call, err);
	if (r < 0)
		call_free(call);
	else
		call_add(call, kind);
	return r;
}

static struct store_limits fault_limits(const struct store *store)
{
	return store_limits(fault_of(store)->inner);
}

static void fault_close(struct store *store)
{
	struct fault_store *fault = fault_of(store);

	(void)store_close(fault->inner); /* its watches and answers end with it */
	while (fault->watches) {
		struct fault_watch *watch = fault->watches;

		fault->watches = watch->next;
		watch_free(watch);
	}
	while (fault->first) {
		struct call *call = fault->first;

		fault->first = call->next;
		if (!call->known)
			call->count = 0;
		call_free(call);
	}
	while (fault->late)
		late_free(late_pop(fault));
	(void)sd_event_source_disable_unref(fault->deliver);
	(void)sd_event_source_disable_unref(fault->tell);
	(void)sd_event_unref(fault->loop);
	free(fault);
}

static int fault_open(const char *address, const char *base_dir, sd_event *loop,
		      struct store **ret_store, struct error *err)
{
	struct fault_store *fault = xcalloc(1, sizeof(*fault));
	int r;

	fault->store.ops = &store_fault;
	fault->loop = sd_event_ref(loop);
	fault->last = &fault->first;
	fault->late_last = &fault->late;
	r = store_open(address, base_dir, loop, &fault->inner, err);
	if (r == 0) {
		r = sd_event_add_defer(loop, &fault->deliver, deliver_due, fault);
		if (r >= 0)
			r = sd_event_add_defer(loop, &fault->tell, tell_due, fault);
		if (r < 0)
			(void)error_set(err, r, "cannot serve the fault store: %m");
	}
	if (r < 0) {
		fault_close(&fault->store);
		return r;
	}
	deliver_ready(fault);
	*ret_store = &fault->store;
	return 0;
}

void fault_order(struct store *store, const struct fault *fault)
{
	fault_of(store)->order = *fault;
}

unsigned fault_pending(const struct store *store)
{
	return fault_of(store)->order.count;
}

void fault_release(struct store *store)
{
	struct fault_store *fault = fault_of(store);

	for (struct call *call = fault->first; call; call = call->next)
		call->held = false;
	deliver_ready(fault);
}

void fault_land(struct store *store)
{
	struct fault_store *fault = fault_of(store);

	while (fault->late) {
		struct late_write *late = late_pop(fault);

		(void)store_write(fault->inner, late->ops, late->count, inner_ignored, NULL, NULL);
		late_free(late);
	}
}

void fault_cut(struct store *store)
{
	struct fault_store *fault = fault_of(store);

	fault->cut = true;
	tell_soon(fault);
}

void fault_mend(struct store *store)
{
	struct fault_store *fault = fault_of(store);

	fault->cut = false;
	tell_soon(fault);
	for (struct fault_watch *watch = fault->watches; watch; watch = watch->next)
		(void)sd_event_source_set_enabled(watch->due, SD_EVENT_ONESHOT);
}

void fault_expire(struct store *store)
{
	(void)store_session_close(fault_of(store)->inner, NULL);
}

const struct store_ops store_fault = {
	.scheme = "fault",
	.open = fault_open,
	.close = fault_close,
	.get = fault_get,
	.list = fault_list,
	.write = fault_write,
	.watch = fault_watch,
	.unwatch = fault_unwatch,
	.session_open = fault_session_open,
	.session_close = fault_session_close,
	.session_id = fault_session_id,
	.session_timing = fault_session_timing,
	.session_renew = fault_session_renew,
	.limits = fault_limits,
};
