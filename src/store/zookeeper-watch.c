/* SPDX-License-Identifier: Apache-2.0 */
/* Changes below a prefix: two watches of ZooKeeper, however many keys there are.  One is on the
 * directory, which each transaction writes (zookeeper-tree.c), and one on its shadows, which go
 * with their sessions.  They are good for one event each: what they told is looked at only after
 * they were set again, so nothing is missed in between. */
#include <errno.h>
#include <string.h>

#include "store/zookeeper.h"
#include "util/cleanup.h"
#include "util/mem.h"

struct zk_watch {
	struct store_watch watch;
	struct zk_watch *next;
	char *prefix;
	char *dir, *shadows;
	json_t *listing;	   /* of the prefix, the last one */
	bool dir_set, shadows_set; /* ZooKeeper will tell us of the next change */
	bool look_wanted;
	store_look_fn look;
	void *ctx;
	sd_event_source *due;
};

static struct zk *zk_of(const struct zk_watch *watch)
{
	return container_of(watch->watch.store, struct zk, store);
}

static void on_event(zhandle_t *handle, int type, int state, const char *path, void *ctx);
static void on_shadows_absent(struct zk_request *request, const struct zk_reply *reply);

static void look_if_set(struct zk_watch *watch)
{
	if (watch->dir_set && watch->shadows_set && watch->look_wanted) {
		watch->look_wanted = false;
		(void)sd_event_source_set_enabled(watch->due, SD_EVENT_ONESHOT);
	}
}

static void on_dir_set(struct zk_request *request, const struct zk_reply *reply)
{
	struct zk_watch *watch = request->subject;

	if (reply->rc != ZOK && reply->rc != ZNONODE)
		return; /* the next connection begins anew */
	watch->dir_set = true;
	look_if_set(watch);
}

/* Children of what is not there cannot be watched: then its making is. */
static void on_shadows_set(struct zk_request *request, const struct zk_reply *reply)
{
	struct zk_watch *watch = request->subject;

	if (reply->rc == ZNONODE) {
		zk_watch_node(request->zk, watch, watch->shadows, on_event, on_shadows_absent);
		return;
	}
	if (reply->rc != ZOK)
		return;
	watch->shadows_set = true;
	look_if_set(watch);
}

static void shadows_set(struct zk_watch *watch)
{
	zk_watch_children(zk_of(watch), watch, watch->shadows, on_event, on_shadows_set);
}

static void on_shadows_absent(struct zk_request *request, const struct zk_reply *reply)
{
	struct zk_watch *watch = request->subject;

	if (reply->rc == ZOK) {
		shadows_set(watch); /* it was made just now */
		return;
	}
	if (reply->rc != ZNONODE)
		return;
	watch->shadows_set = true;
	look_if_set(watch);
}

static void on_event(zhandle_t *handle, int type, int state, const char *path, void *ctx)
{
	struct zk *zk = ctx;

	if (zk->closing || handle != zk->link.handle || type == ZOO_SESSION_EVENT)
		return;
	for (struct zk_watch *watch = zk->watches; watch; watch = watch->next) {
		if (watch->dir_set && strcmp(path, watch->dir) == 0) {
			watch->look_wanted = true;
			watch->dir_set = false;
			zk_watch_node(zk, watch, watch->dir, on_event, on_dir_set);
		} else if (watch->shadows_set && strcmp(path, watch->shadows) == 0) {
			watch->look_wanted = true;
			watch->shadows_set = false;
			shadows_set(watch);
		}
	}
	zk_turn(zk);
}

static void watch_set(struct zk_watch *watch)
{
	struct zk *zk = zk_of(watch);

	zk_forget(zk, watch);
	json_decref(watch->listing); /* who knows what the servers were given meanwhile */
	watch->listing = NULL;
	watch->look_wanted = true;
	watch->dir_set = watch->shadows_set = false;
	zk_watch_node(zk, watch, watch->dir, on_event, on_dir_set);
	shadows_set(watch);
	zk_turn(zk);
}

json_t *zk_watch_listing(const struct zk *zk, const char *prefix)
{
	for (struct zk_watch *watch = zk->watches; watch; watch = watch->next)
		if (strcmp(watch->prefix, prefix) == 0)
			return json_incref(watch->listing);
	return NULL;
}

void zk_watch_listed(struct zk *zk, const char *prefix, json_t *listing)
{
	for (struct zk_watch *watch = zk->watches; watch; watch = watch->next)
		if (strcmp(watch->prefix, prefix) == 0) {
			json_decref(watch->listing);
			watch->listing = json_incref(listing);
			return;
		}
}

void zk_watch_all(struct zk *zk)
{
	for (struct zk_watch *watch = zk->watches; watch; watch = watch->next)
		watch_set(watch);
}

static int watch_due(sd_event_source *source, void *userdata)
{
	struct zk_watch *watch = userdata;

	watch->look(watch->ctx);
	return 0;
}

static void watch_free(struct zk_watch *watch)
{
	(void)sd_event_source_disable_unref(watch->due);
	json_decref(watch->listing);
	free(watch->prefix);
	free(watch->dir);
	free(watch->shadows);
	free(watch);
}

int zk_watch(struct store *store, const char *prefix, store_look_fn look, void *ctx,
	     struct store_watch **ret_watch, struct error *err)
{
	struct zk *zk = container_of(store, struct zk, store);
	struct zk_watch *watch = xcalloc(1, sizeof(*watch));
	int r;

	watch->watch.store = store;
	watch->prefix = xstrdup(prefix);
	watch->dir = zk_dir(zk, prefix, strlen(prefix) - 1);
	watch->shadows = zk_shadow_dir(watch->dir);
	watch->look = look;
	watch->ctx = ctx;
	r = sd_event_add_defer(zk->loop, &watch->due, watch_due, watch);
	if (r >= 0)
		r = sd_event_source_set_enabled(watch->due, SD_EVENT_OFF);
	if (r < 0) {
		watch_free(watch);
		return error_set(err, r, "cannot watch ZooKeeper: %m");
	}
	watch->next = zk->watches;
	zk->watches = watch;
	if (zk->link.connected)
		watch_set(watch);
	zk_turn(zk);
	*ret_watch = &watch->watch;
	return 0;
}

void zk_unwatch(struct store_watch *base)
{
	struct zk_watch *watch = container_of(base, struct zk_watch, watch);
	struct zk *zk = zk_of(watch);
	struct zk_watch **at = &zk->watches;

	while (*at != watch)
		at = &(*at)->next;
	*at = watch->next;
	zk_forget(zk, watch);
	watch_free(watch);
}

void zk_watch_done(struct zk *zk)
{
	while (zk->watches) {
		struct zk_watch *watch = zk->watches;

		zk->watches = watch->next;
		watch_free(watch);
	}
}
