/* SPDX-License-Identifier: Apache-2.0 */
#include "node/nodes.h"

#include <string.h>

#include "model/config.h"
#include "node/facts.h"
#include "node/job.h"
#include "node/node.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

struct look {
	struct job job;
	struct request *request;
	char one[RECORD_NAME_SIZE]; /* "": all */
};

static void look_fail(struct look *look, const struct error *err)
{
	request_fail(look->request, err);
	job_end(&look->job);
}

/* What is there of each node, whatever was read first. */
static json_t *object_of(json_t *all, const char *name)
{
	json_t *object = json_object_get(all, name);

	if (object)
		return object;
	object = json_pack("{s:s, s:s, s:b}", "name", name, "mode", "ready", "alive", false);
	(void)json_object_set_new(all, name, object);
	return object;
}

static void take(json_t *all, const char *name, const char *leaf, json_t *value)
{
	json_t *object = object_of(all, name);

	if (strcmp(leaf, "session") == 0)
		(void)json_object_set_new(object, "alive", json_true());
	else if (strcmp(leaf, "info") == 0)
		(void)json_object_update_missing(object, value);
	else if (strcmp(leaf, "mode") == 0)
		json_set_string(object, "mode", json_string_or(value, "mode", NULL));
	else if (strcmp(leaf, "life") == 0)
		json_set_string(object, "life", json_string_or(value, "state", NULL));
}

json_t *nodes_gather(const struct store_entry *entries, size_t count)
{
	json_t *all = json_object();

	for (size_t i = 0; i < count; i++) {
		const char *name = entries[i].key + strlen(NODES_PREFIX);
		const char *leaf = strchr(name, '/');
		CLEANUP_FREE char *own = leaf ? xasprintf("%.*s", (int)(leaf - name), name) : NULL;

		if (own)
			take(all, own, leaf + 1, entries[i].value);
	}
	return all;
}

/* Why it may have no VM; NULL: it may. */
static const char *unfit(const json_t *object)
{
	if (!json_bool_or(object, "alive", false))
		return "is not connected to the cluster";
	if (strcmp(json_string_or(object, "life", "alive"), "alive") != 0)
		return "is fenced";
	if (strcmp(json_string_or(object, "mode", "ready"), "ready") != 0)
		return "takes no VMs ('drover node ready' there ends that)";
	return NULL;
}

int nodes_check_target(const json_t *nodes, const char *name, struct error *err)
{
	const json_t *object = json_object_get(nodes, name);

	if (!object)
		return error_refuse(
			err, "there is no node '%s'; 'drover node ls' shows what there is", name);
	if (unfit(object))
		return error_refuse(err, "node '%s' %s", name, unfit(object));
	return 0;
}

/* What is left when all run that belong there, also those that are off. */
static int64_t room_of(const json_t *object)
{
	const json_t *memory = json_object_get(object, "memory_mib");
	int64_t off = json_int_or(memory, "provisioned", 0) - json_int_or(memory, "allocated", 0);

	return json_int_or(memory, "free", 0) - (off > 0 ? off : 0);
}

int nodes_choose_target(const json_t *nodes, const char *not_this, const char **ret_name,
			struct error *err)
{
	const char *name, *best = NULL;
	int64_t most = 0;
	json_t *object;

	json_object_foreach((json_t *)nodes, name, object)
	{
		int64_t room = room_of(object);

		if (strcmp(name, not_this) == 0 || unfit(object) || (best && room <= most))
			continue;
		most = room;
		best = name;
	}
	if (!best)
		return error_refuse(err, "there is no node but '%s' that may have VMs now",
				    not_this);
	*ret_name = best;
	return 0;
}

/* Our own is told as it is now. */
static void freshen(const struct node *node, json_t *all)
{
	json_t *own = json_object_get(all, node->config->node);
	json_auto_t *now = own ? node_json(node) : NULL;

	if (own)
		(void)json_object_update(own, now);
}

static json_t *values_of(const json_t *all)
{
	json_t *list = json_array(), *value;
	const char *name;

	json_object_foreach((json_t *)all, name, value)(void) json_array_append(list, value);
	return list;
}

static void on_listed(void *ctx, int r, const struct store_entry *entries, size_t count,
		      const struct error *err)
{
	struct look *look = ctx;
	json_auto_t *all = NULL, *answer = NULL;
	struct error why = { 0 };

	if (r < 0) {
		look_fail(look, err);
		return;
	}
	all = nodes_gather(entries, count);
	freshen(look->job.node, all);
	answer = look->one[0] ? json_incref(json_object_get(all, look->one)) : values_of(all);
	if (!answer) {
		(void)error_refuse(&why,
				   "there is no node '%s'; 'drover node ls' shows what there "
				   "is",
				   look->one);
		look_fail(look, &why);
		return;
	}
	request_return(look->request, answer);
	job_end(&look->job);
}

static void begin(struct node *node, struct request *request, const char *one)
{
	struct look *look = xcalloc(1, sizeof(*look));
	struct error err = { 0 };

	look->request = request;
	(void)snprintf(look->one, sizeof(look->one), "%s", one);
	job_begin(&look->job, node, NULL);
	if (store_list(node->store, NODES_PREFIX, on_listed, look, &err) < 0)
		look_fail(look, &err);
}

void nodes_list(struct node *node, struct request *request)
{
	begin(node, request, "");
}

void nodes_one(struct node *node, struct request *request)
{
	const char *name = json_string_or(request_args(request), "node", "");
	struct error err = { 0 };

	if (config_check_node(name) < 0) {
		(void)error_usage(&err, "'%s' is no name of a node", name);
		request_fail(request, &err);
		return;
	}
	begin(node, request, name);
}
