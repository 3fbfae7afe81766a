/* SPDX-License-Identifier: Apache-2.0 */
/* All keys below a prefix: a walk over the directories, with many requests under way at once.  It
 * is no snapshot: what changes meanwhile is seen or not, key by key, and a watch tells of it.
 *
 * Who watches a prefix lists it again and again.  A directory is a bell for each change of its keys
 * (zookeeper-tree.c), so while its zxid is the same, those of its keys that are still there are
 * what they were: only directories that changed are read.  What was listed last is kept with the
 * watch, as {DIRECTORY: {"zxid": N, "keys": {KEY: [VERSION, VALUE]}}}. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/zookeeper.h"
#include "util/cleanup.h"
#include "util/mem.h"

#define WINDOW 256

struct place {
	struct place *next;
	struct place *next_pending; /* it was not asked for yet */
	char *key; /* a key; or of a directory the prefix, without the slash at its end */
	bool dir;
};

struct list_call {
	struct zk_call call;
	char *prefix;
	store_list_fn reply;
	void *ctx;
	bool begun;
	json_t *last, *listing; /* the one before (or NULL), and this one */
	struct place *places, *pending;
	struct store_entry *entries;
	size_t count, room;
	int r;
	struct error err;
};

static void place_add(struct list_call *list, char *key, bool dir)
{
	struct place *place = xcalloc(1, sizeof(*place));

	place->key = key;
	place->dir = dir;
	place->next = list->places;
	place->next_pending = list->pending;
	list->places = list->pending = place;
}

static void entry_add(struct list_call *list, const char *key, json_t *value, uint64_t version)
{
	if (list->count == list->room) {
		list->room = list->room ? 2 * list->room : 64;
		list->entries = xrealloc(list->entries, list->room, sizeof(*list->entries));
	}
	list->entries[list->count++] = (struct store_entry){ xstrdup(key), value, version };
}

static void list_reset(struct list_call *list)
{
	while (list->places) {
		struct place *place = list->places;

		list->places = place->next;
		free(place->key);
		free(place);
	}
	list->pending = NULL;
	store_entries_free(list->entries, list->count);
	list->entries = NULL;
	list->count = list->room = 0;
	list->begun = false;
	json_decref(list->last);
	json_decref(list->listing);
	list->last = list->listing = NULL;
}

static void list_pump(struct list_call *list);

/* A key of a directory that was listed; takes `value`. */
static void key_add(struct list_call *list, const char *key, json_t *value, uint64_t version)
{
	CLEANUP_FREE char *dir = xasprintf("%.*s", (int)zk_parent(key, strlen(key)), key);
	json_t *keys = json_object_get(json_object_get(list->listing, dir), "keys");

	(void)json_object_set_new(keys, key, json_pack("[I, O]", (json_int_t)version, value));
	entry_add(list, key, value, version);
}

/* Is it known from the last listing, and was its directory not changed since? */
static bool key_known(struct list_call *list, const char *dir, json_int_t zxid, const char *key)
{
	const json_t *last = json_object_get(list->last, dir);
	const json_t *known = json_object_get(json_object_get(last, "keys"), key);

	if (!known || json_integer_value(json_object_get(last, "zxid")) != zxid)
		return false;
	key_add(list, key, json_incref(json_array_get(known, 1)),
		(uint64_t)json_integer_value(json_array_get(known, 0)));
	return true;
}

static void dir_read(struct list_call *list, const char *dir, const struct zk_reply *reply)
{
	json_int_t zxid = reply->stat->mzxid;

	(void)json_object_set_new(list->listing, dir,
				  json_pack("{s:I, s:{}}", "zxid", zxid, "keys"));
	for (int32_t i = 0; i < reply->names->count; i++) {
		CLEANUP_FREE char *key = NULL;
		const char *part = NULL;
		enum zk_name kind = zk_name_read(reply->names->data[i], &part);

		if (kind == ZK_NAME_OTHER)
			continue;
		key = xasprintf("%s/%s", dir, part);
		if (kind == ZK_NAME_DIR || !key_known(list, dir, zxid, key))
			place_add(list, TAKE_PTR(key), kind == ZK_NAME_DIR);
	}
}

static void on_key(struct zk_request *request, const struct zk_reply *reply)
{
	struct list_call *list = container_of(request->call, struct list_call, call);
	const struct place *place = request->subject;
	struct zk_node node;
	json_t *value = NULL;
	int r;

	if (zk_lost(reply->rc) || list->r < 0)
		return;
	zk_call_progress(request->call);
	r = zk_entry_read(place->key, reply, &node, &value, &list->err);
	if (r < 0)
		list->r = r;
	else if (node.version > 0)
		key_add(list, place->key, value, node.version);
	list_pump(list);
}

static void on_dir(struct zk_request *request, const struct zk_reply *reply)
{
	struct list_call *list = container_of(request->call, struct list_call, call);
	const struct place *place = request->subject;

	if (zk_lost(reply->rc) || list->r < 0)
		return;
	zk_call_progress(request->call);
	if (reply->rc != ZOK && reply->rc != ZNONODE)
		list->r = zk_fail(reply->rc, &list->err, place->key);
	if (reply->rc == ZOK)
		dir_read(list, place->key, reply);
	list_pump(list);
}

static void list_pump(struct list_call *list)
{
	struct zk *zk = list->call.zk;

	while (list->pending && list->call.waiting < WINDOW && list->r == 0 && !list->call.lost) {
		struct place *place = list->pending;
		CLEANUP_FREE char *path = place->dir ? zk_dir(zk, place->key, strlen(place->key))
						     : zk_key_path(zk, place->key);

		list->pending = place->next_pending;
		if (place->dir)
			zk_children(zk, &list->call, place, path, on_dir);
		else
			zk_get(zk, &list->call, place, path, on_key);
	}
}

static int entry_compare(const void *a, const void *b)
{
	return strcmp(((const struct store_entry *)a)->key, ((const struct store_entry *)b)->key);
}

static int list_step(struct zk_call *call, bool lost, struct error *err)
{
	struct list_call *list = container_of(call, struct list_call, call);

	if (lost) {
		list_reset(list);
		return ZK_AGAIN;
	}
	if (!list->begun) {
		list->begun = true;
		list->r = 0;
		list->last = zk_watch_listing(call->zk, list->prefix);
		list->listing = json_object();
		zk_sync(call->zk, call, NULL, NULL);
		place_add(list, xasprintf("%.*s", (int)strlen(list->prefix) - 1, list->prefix),
			  true);
		list_pump(list);
		return ZK_WAIT;
	}
	if (list->r < 0) {
		if (err)
			*err = list->err;
		return list->r;
	}
	zk_watch_listed(call->zk, list->prefix, list->listing);
	if (list->count > 0)
		qsort(list->entries, list->count, sizeof(*list->entries), entry_compare);
	return 0;
}

static void list_answer(struct zk_call *call, int r, const struct error *err)
{
	struct list_call *list = container_of(call, struct list_call, call);

	list->reply(list->ctx, r, r == 0 ? list->entries : NULL, r == 0 ? list->count : 0, err);
}

static void list_free(struct zk_call *call)
{
	struct list_call *list = container_of(call, struct list_call, call);

	list_reset(list);
	free(list->prefix);
	free(list);
}

int zk_list(struct store *store, const char *prefix, store_list_fn reply, void *ctx,
	    struct error *err)
{
	struct list_call *list = xcalloc(1, sizeof(*list));

	list->call =
		(struct zk_call){ .step = list_step, .answer = list_answer, .free = list_free };
	list->prefix = xstrdup(prefix);
	list->reply = reply;
	list->ctx = ctx;
	return zk_queue(container_of(store, struct zk, store), &list->call, err);
}
