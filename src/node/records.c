/* SPDX-License-Identifier: Apache-2.0 */
#include "node/records.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "model/definition.h"
#include "node/arrivals.h"
#include "node/control.h"
#include "node/directory.h"
#include "node/mode.h"
#include "node/near.h"
#include "node/node.h"
#include "node/schema.h"
#include "node/session.h"
#include "node/taking.h"
#include "node/vm.h"
#include "store/store.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

/* The first change is looked at at once, those after it a little later; so a storm of starts does
 * not become a storm of listings. */
#define REST (50 * USEC_PER_MSEC)
#define REST_SHARE 10		     /* at most a tenth of our time goes into listings... */
#define REST_MAX (20 * USEC_PER_SEC) /* ...unless it was a server that was slow */
#define DAMAGED_AGAIN (5 * USEC_PER_SEC)

struct waiter {
	struct waiter *next;
	records_fn done;
	void *ctx;
};

struct records {
	struct node *node;
	struct store_watch *vms, *self;
	sd_event_source *look;
	bool asked, again;
	bool answered, known;
	uint64_t asked_at, asked_written, took;
	uint64_t rest_until; /* clock_now() */
	char trouble[512];
	struct waiter *waiters, *next_waiters; /* for this listing, and for the one after */
};

static void list(struct records *records);

static int on_look(sd_event_source *source, uint64_t usec, void *userdata)
{
	list(userdata);
	return 0;
}

static void look_in(struct records *records, uint64_t usec)
{
	if (records->asked)
		records->again = true;
	else
		node_timer(records->node, &records->look, usec, on_look, records);
}

static void look_when_rested(struct records *records)
{
	uint64_t now = clock_now();

	look_in(records, records->rest_until > now ? records->rest_until - now : 0);
}

static void call_waiters(struct records *records)
{
	struct waiter *waiter = records->waiters;

	records->waiters = NULL;
	while (waiter) {
		struct waiter *next = waiter->next;

		waiter->done(waiter->ctx);
		free(waiter);
		waiter = next;
	}
}

int records_split_key(const char *key, char name[VM_NAME_MAX + 1])
{
	const char *rest = key + strlen(VMS_PREFIX);
	size_t length = strcspn(rest, "/");

	if (length == 0 || length > VM_NAME_MAX || rest[length] != '/')
		return -1;
	memcpy(name, rest, length);
	name[length] = '\0';
	if (definition_check_name(name, NULL) < 0)
		return -1;
	return vm_leaf_of(rest + length + 1);
}

bool records_take(struct node *node, const char *name, const struct store_entry *entries,
		  size_t count, uint64_t asked_written)
{
	struct node_vm *vm = count > 0 ? vm_need(node, name) : vm_find(node, name);
	bool seen[VM_LEAVES] = { false };
	char own[VM_NAME_MAX + 1];

	if (!vm)
		return true;
	if (vm->written > asked_written)
		return false;
	for (size_t i = 0; i < count; i++) {
		int leaf = records_split_key(entries[i].key, own);

		if (leaf < 0)
			continue;
		seen[leaf] = true;
		vm_set_record(vm, (enum vm_leaf)leaf, entries[i].value, entries[i].version);
	}
	for (int leaf = 0; leaf < VM_LEAVES; leaf++)
		if (!seen[leaf])
			vm_set_record(vm, (enum vm_leaf)leaf, NULL, 0);
	return true;
}

static void first_answer(struct records *records)
{
	if (records->answered)
		return;
	records->answered = true;
	control_look(records->node);
}

static void listing_failed(struct records *records, int r, const struct error *err)
{
	if (strcmp(records->trouble, err->text) != 0)
		log_error("the records of the cluster cannot be read: %s; going on with what is "
			  "known",
			  err->text);
	(void)snprintf(records->trouble, sizeof(records->trouble), "%s", err->text);
	look_in(records, r == -EAGAIN ? records->node->config->timers.store_retry : DAMAGED_AGAIN);
}

static void on_vms_changed(void *ctx);

static void watch_all(struct records *records, bool all)
{
	struct error err = { 0 };

	if (!all && records->vms)
		store_unwatch(records->vms);
	if (!all)
		records->vms = NULL;
	if (all && !records->vms &&
	    store_watch(records->node->store, VMS_PREFIX, on_vms_changed, records, &records->vms,
			&err) < 0) {
		log_error("the VMs of the cluster cannot be watched: %s", err.text);
		look_in(records, DAMAGED_AGAIN);
	}
}

/* When all are listed again.  What was written here meanwhile is no reason for who lives by his
 * index: that is read by itself. */
static void next_look(struct records *records, uint64_t took)
{
	uint64_t interval = near_decide(records->node, took);

	watch_all(records, interval == 0);
	if (records->waiters)
		look_in(records, 0);
	else if (interval > 0)
		look_in(records, interval);
	else if (records->again)
		look_when_rested(records);
}

static uint64_t rest_after(uint64_t now, uint64_t took)
{
	uint64_t rest = REST + took * REST_SHARE;

	return now + (rest < REST_MAX ? rest : REST_MAX);
}

/* The end of a listing, whatever came of it. */
static void listing_over(struct records *records)
{
	first_answer(records);
	call_waiters(records);
	records->waiters = records->next_waiters;
	records->next_waiters = NULL;
}

static void on_taken(void *ctx, bool again)
{
	struct records *records = ctx;

	records->asked = false;
	records->again |= again;
	if (!records->known) {
		arrivals_look(records->node);
		vm_touch_all(records->node);
	}
	records->known = true;
	directory_look(records->node);
	listing_over(records);
	next_look(records, records->took);
}

static void on_listed(void *ctx, int r, const struct store_entry *entries, size_t count,
		      const struct error *err)
{
	struct records *records = ctx;
	uint64_t now = clock_now();

	records->took = now - records->asked_at;
	records->rest_until = rest_after(now, r < 0 ? 0 : records->took);
	if (r < 0) {
		records->asked = false;
		listing_failed(records, r, err);
		listing_over(records);
		return;
	}
	if (records->trouble[0])
		log_info("the records of the cluster can be read again");
	records->trouble[0] = '\0';
	taking_begin(records->node, entries, count, records->asked_written, on_taken, records);
}

static void list(struct records *records)
{
	struct error err = { 0 };
	int r;

	records->again = false;
	records->asked_at = clock_now();
	records->asked_written = records->node->written;
	r = schema_list(records->node, VMS_PREFIX, on_listed, records, &err);
	if (r < 0)
		listing_failed(records, r, &err);
	else
		records->asked = true;
}

static void on_vms_changed(void *ctx)
{
	look_when_rested(ctx);
}

static void on_self_changed(void *ctx)
{
	struct node *node = ctx;

	mode_read(node);
	session_renew(node);
}

int records_open(struct node *node, struct error *err)
{
	struct records *records = xcalloc(1, sizeof(*records));
	char prefix[RECORD_KEY_SIZE];
	int r;

	records->node = node;
	node->records = records;
	r = store_watch(node->store, key_node(prefix, node->config->node, ""), on_self_changed,
			node, &records->self, err);
	if (r < 0)
		return r;
	return store_watch(node->store, VMS_PREFIX, on_vms_changed, records, &records->vms, err);
}

struct records *records_close(struct records *records)
{
	if (!records)
		return NULL;
	if (records->vms)
		store_unwatch(records->vms);
	store_unwatch(records->self);
	sd_event_source_disable_unref(records->look);
	for (struct waiter *list = records->waiters, *next; list; list = next) {
		next = list->next;
		free(list);
	}
	for (struct waiter *list = records->next_waiters, *next; list; list = next) {
		next = list->next;
		free(list);
	}
	free(records);
	return NULL;
}

bool records_answered(const struct node *node)
{
	return node->records && node->records->answered;
}

bool records_known(const struct node *node)
{
	return node->records && node->records->known;
}

const char *records_trouble(const struct node *node)
{
	if (!records_answered(node))
		return "the store has not answered yet";
	return node->records->trouble[0] ? node->records->trouble : NULL;
}

void records_refresh(struct node *node)
{
	look_in(node->records, 0);
}

void records_after_refresh(struct node *node, records_fn done, void *ctx)
{
	struct records *records = node->records;
	struct waiter *waiter = xcalloc(1, sizeof(*waiter));
	struct waiter **list = records->asked ? &records->next_waiters : &records->waiters;

	*waiter = (struct waiter){ .next = *list, .done = done, .ctx = ctx };
	*list = waiter;
	look_in(records, 0);
}
