/* SPDX-License-Identifier: Apache-2.0 */
/* Each event is on its own: whatever is wrong with one is its result, and the others go on.  Those
 * that bring something new wait in one queue; at most `consul.event_threads` of them are at work
 * (being written), one for a VM, and of several for a VM only the newest. */
#include "node/feed.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "node/definitions.h"
#include "node/events.h"
#include "node/feed-event.h"
#include "node/job.h"
#include "node/node.h"
#include "node/records.h"
#include "node/reread.h"
#include "node/vm.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

#define TRIES 5

struct batch { /* what came together and is answered together */
	struct job job;
	json_t *results;
	size_t waiting; /* for this many events, and the reading of them */
	bool again;
	sd_event_source *answer;
	feed_done_fn done;
	void *ctx;
};

struct item {
	struct item *next;
	struct feed_event event;
	struct batch *batch;
	size_t place; /* among its results */
	bool at_work;
	unsigned tries;
	struct feed *feed;
};

struct feed {
	struct node *node;
	struct item *items;
	unsigned at_work;
	bool starting; /* in items_start(): what ends there starts no others from below it */
	json_t *told;  /* {key: generation}: of these it was said what is wrong with them */
};

/* ---- results ---- */

static void batch_drop(struct job *job)
{
	struct batch *batch = container_of(job, struct batch, job);

	sd_event_source_disable_unref(batch->answer);
	json_decref(batch->results);
}

static int on_batch_done(sd_event_source *source, void *userdata)
{
	struct batch *batch = userdata;

	batch->done(batch->ctx, batch->results, batch->again);
	job_end(&batch->job);
	return 0;
}

static void batch_less(struct batch *batch)
{
	if (--batch->waiting == 0)
		(void)sd_event_source_set_enabled(batch->answer, SD_EVENT_ONESHOT);
}

static void result_set(struct batch *batch, size_t place, const char *result, const char *message)
{
	json_t *entry = json_array_get(batch->results, place);

	json_object_set_new(entry, "result", json_string(result));
	if (message)
		json_object_set_new(entry, "message", json_text(message, strlen(message)));
}

/* A watch delivers what is wrong again and again; it is said once. */
static void result_failed(struct feed *feed, struct batch *batch, size_t place, uint64_t generation,
			  const struct error *err)
{
	const char *key = json_string_or(json_array_get(batch->results, place), "key", "?");

	result_set(batch, place, "failed", err->text);
	if ((uint64_t)json_int_or(feed->told, key, -1) == generation)
		return;
	json_object_set_new(feed->told, key, json_integer((json_int_t)generation));
	log_warning("event of Consul for '%s': %s", key, err->text);
	events_add(feed->node, NULL, "consul-event-failed", "%s: %s", key, err->text);
}

/* ---- definitions ---- */

static uint64_t generation_of(const struct node *node, const char *name)
{
	const struct node_vm *vm = vm_find(node, name);

	return vm && vm_defined(vm) && vm_tree(vm) && strcmp(vm->record.source, "consul") == 0
		       ? (uint64_t)json_int_or(vm_tree(vm), "consul-generation", 0)
		       : 0;
}

static void items_start(struct feed *feed);

static void item_end(struct item *item)
{
	struct feed *feed = item->feed;
	struct item **at = &feed->items;
	struct batch *batch = item->batch;

	while (*at != item)
		at = &(*at)->next;
	*at = item->next;
	feed->at_work -= item->at_work;
	feed_event_done(&item->event);
	free(item);
	batch_less(batch);
	items_start(feed);
}

static void item_work(void *ctx);

static void on_written(void *ctx, int r, const struct error *err)
{
	struct item *item = ctx;

	if (r == -ESTALE && ++item->tries < TRIES) {
		const char *name = item->event.name;

		reread(item->feed->node, &name, 1, item_work, item);
		return;
	}
	if (r == 0)
		result_set(item->batch, item->place, "stored", NULL);
	else
		result_failed(item->feed, item->batch, item->place, 0, err);
	item->batch->again |= r < 0;
	item_end(item);
}

static void item_work(void *ctx)
{
	static const struct source source = { .feed = true };
	const struct definition_notes notes = { 0 };
	struct item *item = ctx;
	struct node *node = item->feed->node;
	struct plan plan = { 0 };
	struct error err = { 0 };

	if (generation_of(node, item->event.name) >= item->event.generation) {
		result_set(item->batch, item->place, "unchanged", NULL);
		item_end(item);
		return;
	}
	if (plan_add(&plan, node, &source, item->event.definition, &notes, &err) < 0) {
		plan_done(&plan);
		result_failed(item->feed, item->batch, item->place, item->event.generation, &err);
		item_end(item);
		return;
	}
	plan_write(node, &plan, on_written, item);
}

static bool same_vm(const struct item *a, const struct item *b)
{
	return a != b && strcmp(a->event.name, b->event.name) == 0;
}

/* NULL: none may begin. */
static struct item *item_next(const struct feed *feed)
{
	for (struct item *item = feed->items; item; item = item->next) {
		const struct item *other = feed->items;

		while (other && !(same_vm(item, other) && other->at_work))
			other = other->next;
		if (!item->at_work && !other)
			return item;
	}
	return NULL;
}

static bool superseded(const struct item *item)
{
	for (const struct item *other = item->feed->items; other; other = other->next)
		if (same_vm(item, other) && other->event.generation > item->event.generation)
			return true;
	return false;
}

static void items_start(struct feed *feed)
{
	struct item *item;

	if (feed->starting)
		return;
	feed->starting = true;
	while (feed->at_work < feed->node->config->consul_event_threads &&
	       (item = item_next(feed))) {
		item->at_work = true;
		feed->at_work++;
		if (superseded(item)) {
			result_set(item->batch, item->place, "unchanged", "a newer one came");
			item_end(item);
		} else {
			item_work(item);
		}
	}
	feed->starting = false;
}

static void item_add(struct feed *feed, struct batch *batch, size_t place, struct feed_event *event)
{
	struct item *item = xcalloc(1, sizeof(*item)), **at = &feed->items;

	item->feed = feed;
	item->batch = batch;
	item->place = place;
	item->event = *event;
	event->definition = NULL;
	while (*at)
		at = &(*at)->next;
	*at = item;
	batch->waiting++;
}

/* ---- snapshots ---- */

/* Every host gets every request, and one of them has the VM: all others say nothing. */
static void snapshot_refuse(struct feed *feed, struct batch *batch, size_t place,
			    const struct feed_event *event)
{
	const struct node_vm *vm = vm_find(feed->node, event->name);
	struct error err = { 0 };

	if (!vm || !vm_defined(vm)) {
		(void)error_refuse(&err, "a snapshot of VM '%s' is asked for, which nobody defined",
				   event->name);
	} else if (!vm_is_here(vm)) {
		result_set(batch, place, "ignored", "the VM does not run here");
		return;
	} else {
		(void)error_refuse(&err,
				   "snapshot '%s' of VM '%s' was not made: this version makes no "
				   "snapshots",
				   event->snapshot, event->name);
	}
	result_failed(feed, batch, place, event->generation, &err);
}

/* ---- taking them ---- */

static int event_take(struct feed *feed, struct batch *batch, size_t place, const json_t *json,
		      struct feed_event *event, struct error *err)
{
	int r;

	r = feed_event_head(json, event, err);
	if (r == 0 && event->kind == FEED_DEFINITION &&
	    generation_of(feed->node, event->name) >= event->generation) {
		result_set(batch, place, "unchanged", NULL);
		return 0;
	}
	if (r == 0)
		r = feed_event_body(json, event, err);
	if (r < 0)
		return r;
	if (event->kind == FEED_IGNORED)
		result_set(batch, place, "ignored", event->why);
	else if (event->kind == FEED_SNAPSHOT)
		snapshot_refuse(feed, batch, place, event);
	else
		item_add(feed, batch, place, event);
	return 0;
}

static int by_key(const void *a, const void *b)
{
	return strcmp(json_string_or(*(json_t *const *)a, "Key", ""),
		      json_string_or(*(json_t *const *)b, "Key", ""));
}

static void events_read(struct feed *feed, struct batch *batch, json_t *list)
{
	size_t count = json_array_size(list);
	CLEANUP_FREE const json_t **events = xcalloc(count + 1, sizeof(*events));

	for (size_t i = 0; i < count; i++)
		events[i] = json_array_get(list, i);
	qsort(events, count, sizeof(*events), by_key);
	for (size_t i = 0; i < count; i++) {
		struct feed_event event = { 0 };
		struct error err = { 0 };

		json_array_append_new(
			batch->results,
			json_pack("{s:s}", "key", json_string_or(events[i], "Key", "?")));
		if (event_take(feed, batch, i, events[i], &event, &err) < 0)
			result_failed(feed, batch, i, event.generation, &err);
		feed_event_done(&event);
	}
}

void feed_take(struct node *node, json_t *events, feed_done_fn done, void *ctx)
{
	struct feed *feed = node->feed;
	struct batch *batch = xcalloc(1, sizeof(*batch));
	int r;

	batch->results = json_array();
	batch->done = done;
	batch->ctx = ctx;
	batch->waiting = 1;
	job_begin(&batch->job, node, batch_drop);
	r = sd_event_add_defer(node->loop, &batch->answer, on_batch_done, batch);
	if (r >= 0)
		r = sd_event_source_set_enabled(batch->answer, SD_EVENT_OFF);
	if (r < 0) {
		log_error("cannot take events of Consul: %s", strerror(-r));
		job_end(&batch->job);
		return;
	}
	if (json_object_size(feed->told) > 10000)
		json_object_clear(feed->told);
	events_read(feed, batch, events);
	batch_less(batch);
	items_start(feed);
}

/* ---- the request ---- */

static void on_taken(void *ctx, json_t *results, bool again)
{
	json_auto_t *answer = json_pack("{s:O}", "results", results);

	request_return(ctx, answer);
}

void feed_request(struct node *node, struct request *request)
{
	json_t *list = json_object_get(request_args(request), "events");
	struct error err = { 0 };

	if (!json_is_array(list))
		(void)error_usage(&err, "no list of events was given");
	else if (records_trouble(node))
		(void)error_try_again(&err, "no event can be taken now: %s", records_trouble(node));
	if (err.text[0])
		request_fail(request, &err);
	else
		feed_take(node, list, on_taken, request);
}

void feed_open(struct node *node)
{
	struct feed *feed = xcalloc(1, sizeof(*feed));

	feed->node = node;
	feed->told = json_object();
	node->feed = feed;
}

/* The writes under way end with the node's jobs. */
struct feed *feed_close(struct feed *feed)
{
	if (!feed)
		return NULL;
	while (feed->items) {
		struct item *item = feed->items;

		feed->items = item->next;
		feed_event_done(&item->event);
		free(item);
	}
	json_decref(feed->told);
	free(feed);
	return NULL;
}
