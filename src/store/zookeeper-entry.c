/* SPDX-License-Identifier: Apache-2.0 */
/* One key as it is stored: the znode's data are the value as compact JSON, a line feed, and the uid
 * of this making of the key.
 *
 * ZooKeeper's own version of a znode starts again at 0 when the znode is made again, so it alone
 * cannot tell whether a key is still the one that was read.  The mark can: it was made with the key
 * and goes with it, and its name never comes again.  So (uid, count) stands for exactly one write,
 * as the zxid does that callers get as the version; and a transaction that checks both cannot be
 * fooled by whatever happens between its reading and its writing. */
#include <errno.h>
#include <string.h>

#include "store/zookeeper.h"
#include "util/cleanup.h"
#include "util/mem.h"
#include "wire/json.h"

#define TAIL ZK_UID_SIZE /* line feed and uid */

static int entry_damaged(const char *key, int r, struct error *err)
{
	(void)error_prefix(err, r,
			   "the value of key '%s' in ZooKeeper is damaged; restore it, or remove "
			   "the key's znodes with 'deleteall' of zkCli",
			   key);
	if (err)
		err->class = ERROR_BAD_DATA;
	return -EUCLEAN;
}

int zk_entry_read(const char *key, const struct zk_reply *reply, struct zk_node *ret_node,
		  json_t **ret_value, struct error *err)
{
	struct zk_node node = { 0 };
	const char *uid;
	int r;

	if (reply->rc == ZNONODE) {
		*ret_node = node;
		return 0;
	}
	if (reply->rc != ZOK)
		return zk_fail(reply->rc, err, key);
	uid = reply->data + reply->length - TAIL + 1;
	if (reply->length <= TAIL || uid[-1] != '\n')
		return entry_damaged(key, error_bad_data(err, "it has no uid at its end"), err);
	memcpy(node.uid, uid, TAIL - 1);
	node.version = (uint64_t)reply->stat->mzxid;
	node.count = reply->stat->version;
	node.owner = reply->stat->ephemeralOwner;
	if (ret_value) {
		r = json_parse(reply->data, (size_t)reply->length - TAIL, ret_value, err);
		if (r < 0)
			return entry_damaged(key, r, err);
	}
	*ret_node = node;
	return 0;
}

char *zk_entry_text(const char *json, const char *uid)
{
	return xasprintf("%s\n%s", json, uid);
}

static struct zk_slot *slot_of(const struct zk *zk, const char *key)
{
	uint32_t hash = 2166136261u;

	for (const char *at = key; *at; at++)
		hash = (hash ^ (unsigned char)*at) * 16777619u;
	return (struct zk_slot *)(uintptr_t)&zk->cache[hash % ZK_CACHE_SLOTS];
}

const struct zk_node *zk_cache_get(const struct zk *zk, const char *key)
{
	const struct zk_slot *slot = slot_of(zk, key);

	return slot->key && strcmp(slot->key, key) == 0 ? &slot->node : NULL;
}

void zk_cache_put(struct zk *zk, const char *key, const struct zk_node *node)
{
	struct zk_slot *slot = slot_of(zk, key);

	if (!slot->key || strcmp(slot->key, key) != 0) {
		free(slot->key);
		slot->key = xstrdup(key);
	}
	slot->node = *node;
}

void zk_cache_clear(struct zk *zk)
{
	for (size_t i = 0; i < ZK_CACHE_SLOTS; i++) {
		free(zk->cache[i].key);
		zk->cache[i] = (struct zk_slot){ 0 };
	}
}

struct get_call {
	struct zk_call call;
	char *key;
	store_get_fn reply;
	void *ctx;
	bool asked;
	int r;
	struct error err;
	struct zk_node node;
	json_t *value;
};

static void on_got(struct zk_request *request, const struct zk_reply *reply)
{
	struct get_call *get = container_of(request->call, struct get_call, call);

	get->r = zk_entry_read(get->key, reply, &get->node, &get->value, &get->err);
}

/* The sync before it makes the server catch up with the leader: it need not be the one that
 * answered the last write. */
static int get_step(struct zk_call *call, bool lost, struct error *err)
{
	struct get_call *get = container_of(call, struct get_call, call);
	CLEANUP_FREE char *path = zk_key_path(call->zk, get->key);

	if (lost) {
		get->asked = false;
		return ZK_AGAIN;
	}
	if (!get->asked) {
		get->asked = true;
		zk_sync(call->zk, call, NULL, NULL);
		zk_get(call->zk, call, NULL, path, on_got);
		return ZK_WAIT;
	}
	if (get->r < 0) {
		if (err)
			*err = get->err;
		return get->r;
	}
	zk_cache_put(call->zk, get->key, &get->node);
	if (get->node.version == 0)
		return error_set(err, -ENOENT, "the store has no key '%s'", get->key);
	return 0;
}

static void get_answer(struct zk_call *call, int r, const struct error *err)
{
	struct get_call *get = container_of(call, struct get_call, call);
	const struct store_entry entry = { get->key, get->value, get->node.version };

	get->reply(get->ctx, r, r == 0 ? &entry : NULL, err);
}

static void get_free(struct zk_call *call)
{
	struct get_call *get = container_of(call, struct get_call, call);

	json_decref(get->value);
	free(get->key);
	free(get);
}

int zk_entry_get(struct store *store, const char *key, store_get_fn reply, void *ctx,
		 struct error *err)
{
	struct get_call *get = xcalloc(1, sizeof(*get));

	get->call = (struct zk_call){ .step = get_step, .answer = get_answer, .free = get_free };
	get->key = xstrdup(key);
	get->reply = reply;
	get->ctx = ctx;
	return zk_queue(container_of(store, struct zk, store), &get->call, err);
}
