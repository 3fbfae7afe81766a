/* SPDX-License-Identifier: Apache-2.0 */
/* One at a time, under an ephemeral key.
 *
 *	look	are all nodes able?  A node that is down counts: it would be left outside
 *	lock	/drover/schema-lock; of an agent that died it goes with its session
 *	begin	/drover/schema names the next form: nobody joins any more, no list counts
 *	convert	conversion.c; then all agents start anew
 *
 * Whoever comes after one that died begins at `lock` and does it all again. */
#include "node/upgrade.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "model/records.h"
#include "node/conversion.h"
#include "node/events.h"
#include "node/node.h"
#include "node/nodes.h"
#include "node/schema.h"
#include "node/session.h"
#include "store/store.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

#define LOOK_AGAIN (1 * USEC_PER_SEC)

struct upgrade {
	struct node *node;
	struct store_watch *watch; /* of the nodes, while one is waited for */
	sd_event_source *again;
	bool busy; /* from `look` to the end or to a failure */
	bool locked, tidied;
	struct schema schema;
	uint64_t schema_version, lock_version;
	struct conversion *conversion;
	char trouble[320];
};

static int on_again(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct upgrade *upgrade = userdata;

	upgrade_look(upgrade->node);
	return 0;
}

static void on_released(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	if (r < 0)
		log_debug("the lock of the schema is not released: %s", err->text);
}

/* While it is ours nobody else can do what we could not. */
static void release(struct upgrade *upgrade)
{
	const struct store_op op = { .kind = STORE_DELETE,
				     .key = SCHEMA_LOCK,
				     .expected = upgrade->lock_version };

	if (upgrade->locked)
		(void)store_write(upgrade->node->store, &op, 1, on_released, upgrade, NULL);
	upgrade->locked = false;
}

/* Not now; from the beginning in a while. */
static void hold(struct upgrade *upgrade, const char *why)
{
	if (strcmp(upgrade->trouble, why) != 0)
		log_warning("the records are not brought to another schema: %s", why);
	(void)snprintf(upgrade->trouble, sizeof(upgrade->trouble), "%s", why);
	upgrade->busy = false;
	upgrade->conversion = conversion_free(upgrade->conversion);
	release(upgrade);
	node_timer(upgrade->node, &upgrade->again, LOOK_AGAIN, on_again, upgrade);
}

static void hold_after(struct upgrade *upgrade, int r, const struct error *err)
{
	hold(upgrade,
	     r == -ESTALE ? "they change, or one stands where another is to go" : err->text);
}

/* ---- finish ---- */

static void on_converted(void *ctx, int r, const struct error *err)
{
	struct upgrade *upgrade = ctx;
	struct node *node = upgrade->node;

	if (r < 0) {
		hold_after(upgrade, r, err);
		return;
	}
	upgrade->busy = upgrade->locked = false;
	upgrade->trouble[0] = '\0';
	upgrade->conversion = conversion_free(upgrade->conversion);
	events_add(node, NULL, "schema-upgraded", "the records are of schema %lld now",
		   (long long)upgrade->schema.to);
	session_renew(node);
}

/* ---- begin ---- */

static void on_begun(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct upgrade *upgrade = ctx;

	if (r < 0) {
		hold_after(upgrade, r, err);
		return;
	}
	upgrade->schema_version = versions[1];
	checkpoint("agent.upgrade.begun");
	events_add(upgrade->node, NULL, "schema-upgrade", "the records go from schema %lld to %lld",
		   (long long)upgrade->schema.version, (long long)upgrade->schema.to);
	upgrade->conversion =
		conversion_new(upgrade->node, &upgrade->schema, upgrade->schema_version,
			       upgrade->lock_version, on_converted, upgrade);
	conversion_run(upgrade->conversion);
}

/* Also when somebody before us has begun: the record names us from now on. */
static void begin(struct upgrade *upgrade)
{
	struct schema *schema = &upgrade->schema;
	json_auto_t *value = NULL;
	struct error err = { 0 };

	schema->to = schema->version + 1;
	(void)snprintf(schema->by, sizeof(schema->by), "%s", upgrade->node->config->node);
	value = schema_json(schema);
	const struct store_op ops[] = {
		{ STORE_CHECK, SCHEMA_LOCK, upgrade->lock_version, NULL, false },
		{ STORE_PUT, SCHEMA_KEY, upgrade->schema_version, value, false },
	};
	checkpoint("agent.upgrade.locked");
	if (store_write(upgrade->node->store, ops, ARRAY_SIZE(ops), on_begun, upgrade, &err) < 0)
		hold(upgrade, err.text);
}

/* ---- lock ---- */

/* Somebody may have finished between our look and our lock. */
static void on_schema_locked(void *ctx, int r, const struct store_entry *entry,
			     const struct error *err)
{
	struct upgrade *upgrade = ctx;
	int64_t version = upgrade->schema.version;
	struct error why = { 0 };

	if (r == 0)
		r = schema_parse(entry->value, &upgrade->schema, &why);
	else
		why = *err;
	if (r == 0 && upgrade->schema.version != version)
		r = error_try_again(&why, "another node has brought them to schema %lld",
				    (long long)upgrade->schema.version);
	if (r < 0) {
		hold(upgrade, why.text);
		return;
	}
	upgrade->schema_version = entry->version;
	begin(upgrade);
}

static void have_lock(struct upgrade *upgrade, uint64_t version)
{
	struct error err = { 0 };

	upgrade->lock_version = version;
	upgrade->locked = true;
	if (store_get(upgrade->node->store, SCHEMA_KEY, on_schema_locked, upgrade, &err) < 0)
		hold(upgrade, err.text);
}

/* An earlier life of ours may have it still, in the session that we have resumed. */
static void on_lock_read(void *ctx, int r, const struct store_entry *entry, const struct error *err)
{
	struct upgrade *upgrade = ctx;
	const char *name = r == 0 ? json_string_or(entry->value, "node", "?") : "?";
	CLEANUP_FREE char *why = NULL;

	if (r == 0 && strcmp(name, upgrade->node->config->node) == 0) {
		have_lock(upgrade, entry->version);
		return;
	}
	why = xasprintf("node '%s' is at it", name);
	hold(upgrade, r == 0 || r == -ENOENT ? why : err->text);
}

static void on_locked(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct upgrade *upgrade = ctx;
	struct error why = { 0 };

	if (r == 0) {
		have_lock(upgrade, versions[0]);
		return;
	}
	if (r == -ESTALE &&
	    store_get(upgrade->node->store, SCHEMA_LOCK, on_lock_read, upgrade, &why) == 0)
		return;
	hold(upgrade, r == -ESTALE ? why.text : err->text);
}

static void lock(struct upgrade *upgrade)
{
	json_auto_t *value = json_pack("{s:i, s:s}", "v", 1, "node", upgrade->node->config->node);
	const struct store_op op = { STORE_PUT, SCHEMA_LOCK, STORE_ABSENT, value, true };
	struct error err = { 0 };

	if (store_write(upgrade->node->store, &op, 1, on_locked, upgrade, &err) < 0)
		hold(upgrade, err.text);
}

/* ---- look ---- */

/* The first node that does not know the next form; NULL: all do. */
static const char *unable(const json_t *nodes, int64_t next)
{
	const char *name;
	json_t *node;

	json_object_foreach((json_t *)nodes, name, node)
	{
		/* One that has left has neither. */
		bool counts = json_bool_or(node, "alive", false) || json_object_get(node, "told");
		int64_t max = json_int_or(json_object_get(node, "schema"), "max", 1);

		if (counts && max < next)
			return name;
	}
	return NULL;
}

static void on_nodes_changed(void *ctx)
{
	upgrade_look(ctx);
}

static void on_nodes(void *ctx, int r, const struct store_entry *entries, size_t count,
		     const struct error *err)
{
	struct upgrade *upgrade = ctx;
	CLEANUP_FREE char *why = NULL;
	json_auto_t *nodes = NULL;
	const char *name;

	if (r < 0) {
		hold(upgrade, err->text);
		return;
	}
	nodes = nodes_gather(entries, count);
	name = unable(nodes, upgrade->schema.version + 1);
	if (!name) {
		lock(upgrade);
		return;
	}
	why = xasprintf(
		"node '%s' knows none newer; install this version there, or 'drover cluster "
		"leave %s' when it is gone for good",
		name, name);
	if (!upgrade->watch)
		(void)store_watch(upgrade->node->store, NODES_PREFIX, on_nodes_changed,
				  upgrade->node, &upgrade->watch, NULL);
	if (strcmp(upgrade->trouble, why) != 0)
		log_info("the records stay of schema %lld: %s", (long long)upgrade->schema.version,
			 why);
	(void)snprintf(upgrade->trouble, sizeof(upgrade->trouble), "%s", why);
	upgrade->busy = false;
}

static void on_schema(void *ctx, int r, const struct store_entry *entry, const struct error *err)
{
	struct upgrade *upgrade = ctx;
	struct error why = { 0 };

	if (r == 0)
		r = schema_parse(entry->value, &upgrade->schema, &why);
	else
		why = *err;
	if (r < 0) {
		hold(upgrade, why.text);
		return;
	}
	upgrade->schema_version = entry->version;
	if (upgrade->schema.version >= schema_newest()) {
		upgrade->busy = false;
		return;
	}
	if (upgrade->schema.to) {
		lock(upgrade);
		return;
	}
	r = store_list(upgrade->node->store, NODES_PREFIX, on_nodes, upgrade, &why);
	if (r < 0)
		hold(upgrade, why.text);
}

static void on_old_lock(void *ctx, int r, const struct store_entry *entry, const struct error *err)
{
	struct upgrade *upgrade = ctx;

	upgrade->locked = r == 0 && strcmp(json_string_or(entry->value, "node", ""),
					   upgrade->node->config->node) == 0;
	upgrade->lock_version = r == 0 ? entry->version : 0;
	release(upgrade);
}

/* What an earlier life of ours has left lives as long as the session that we have resumed. */
static void tidy(struct upgrade *upgrade)
{
	if (upgrade->tidied)
		return;
	upgrade->tidied = true;
	(void)store_get(upgrade->node->store, SCHEMA_LOCK, on_old_lock, upgrade, NULL);
}

void upgrade_look(struct node *node)
{
	struct upgrade *upgrade = node->upgrade;
	struct error err = { 0 };

	if (!upgrade || upgrade->busy)
		return;
	if (schema_loaded(node) >= schema_newest()) {
		tidy(upgrade);
		return;
	}
	upgrade->busy = true;
	if (store_get(node->store, SCHEMA_KEY, on_schema, upgrade, &err) < 0)
		hold(upgrade, err.text);
}

json_t *upgrade_json(const struct node *node)
{
	const struct upgrade *upgrade = node->upgrade;
	const char *trouble = upgrade ? upgrade->trouble : "";

	return json_pack("{s:I, s:I, s:s?}", "version", (json_int_t)schema_loaded(node), "newest",
			 (json_int_t)schema_newest(), "trouble",
			 node->schema.trouble[0] ? node->schema.trouble
			 : *trouble		 ? trouble
						 : NULL);
}

void upgrade_open(struct node *node)
{
	node->upgrade = xcalloc(1, sizeof(*node->upgrade));
	node->upgrade->node = node;
}

struct upgrade *upgrade_close(struct upgrade *upgrade)
{
	if (!upgrade)
		return NULL;
	store_unwatch(upgrade->watch);
	sd_event_source_disable_unref(upgrade->again);
	conversion_free(upgrade->conversion);
	free(upgrade);
	return NULL;
}
