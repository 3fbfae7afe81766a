/* SPDX-License-Identifier: Apache-2.0 */
/* How the cluster stands, as this node and the store see it. */
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "node/channel.h"
#include "node/cluster.h"
#include "node/job.h"
#include "node/membership.h"
#include "node/node.h"
#include "node/nodes.h"
#include "node/records.h"
#include "node/renewal.h"
#include "node/session.h"
#include "node/upgrade.h"
#include "store/store.h"
#include "tls/tls.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

struct look {
	struct job job;
	struct request *request;
	json_t *members; /* {NAME: {...}} */
	json_t *authority;
};

static void look_done(struct job *job)
{
	struct look *look = container_of(job, struct look, job);

	json_decref(look->members);
	json_decref(look->authority);
}

static void look_fail(struct look *look, const struct error *err)
{
	request_fail(look->request, err);
	job_end(&look->job);
}

static json_t *time_json(time_t when)
{
	char text[CLOCK_TEXT_SIZE];

	return json_string(clock_text((uint64_t)when * USEC_PER_SEC, text));
}

static json_t *certificate_json(const struct node *node)
{
	const struct tls_identity *identity = membership_identity(node);
	time_t from, until;

	if (!identity)
		return json_null();
	tls_identity_period(identity, &from, &until);
	return json_pack("{s:o, s:o, s:o, s:s?}", "from", time_json(from), "until",
			 time_json(until), "renewal", time_json(renewal_due(node)), "trouble",
			 membership_trouble(node));
}

static json_t *answer_json(const struct look *look)
{
	const struct node *node = look->job.node;
	const struct tls_identity *identity = membership_identity(node);
	const char *trouble = records_trouble(node), *name;
	json_t *list = json_array(), *member;

	json_object_foreach(look->members, name, member)
	{
		json_set_string(member, "name", name);
		(void)json_array_append(list, member);
	}
	return json_pack("{s:s, s:s?, s:s?, s:s, s:s?, s:o, s:s, s:s, s:o, s:o}", "node",
			 node->config->node, "cluster", identity ? tls_identity_ca(identity) : NULL,
			 "authority", json_string_or(look->authority, "node", NULL), "address",
			 membership_address(node), "not_served", channel_trouble(node),
			 "certificate", certificate_json(node), "store", store_address(node->store),
			 "store_state", trouble ? trouble : session_words(node), "schema",
			 upgrade_json(node), "members", list);
}

/* "/drover/nodes/NAME/LEAF" of a member. */
static void take_node(struct look *look, const struct store_entry *entry)
{
	const char *name = entry->key + strlen(NODES_PREFIX);
	const char *leaf = strchr(name, '/');
	CLEANUP_FREE char *own = leaf ? xasprintf("%.*s", (int)(leaf - name), name) : NULL;
	json_t *member = own ? json_object_get(look->members, own) : NULL;

	if (!member)
		return;
	if (strcmp(leaf, "/session") == 0)
		(void)json_object_set_new(member, "alive", json_true());
	if (strcmp(leaf, "/info") != 0)
		return;
	json_set_string(member, "address", json_string_or(entry->value, "address", NULL));
	json_set_string(member, "version", json_string_or(entry->value, "version", NULL));
	(void)json_object_set(member, "schema", json_object_get(entry->value, "schema"));
}

static void on_nodes(void *ctx, int r, const struct store_entry *entries, size_t count,
		     const struct error *err)
{
	struct look *look = ctx;
	json_auto_t *value = NULL;

	if (r < 0) {
		look_fail(look, err);
		return;
	}
	for (size_t i = 0; i < count; i++)
		take_node(look, &entries[i]);
	value = answer_json(look);
	request_return(look->request, value);
	job_end(&look->job);
}

static void take_member(struct look *look, const struct store_entry *entry)
{
	if (strcmp(entry->key, KEY_AUTHORITY) == 0)
		look->authority = json_incref(entry->value);
	if (strncmp(entry->key, KEY_MEMBERS, strlen(KEY_MEMBERS)) == 0)
		(void)json_object_set_new(look->members, entry->key + strlen(KEY_MEMBERS),
					  json_pack("{s:s?, s:b, s:b, s:n, s:n}", "since",
						    json_string_or(entry->value, "since", NULL),
						    "authority",
						    json_bool_or(entry->value, "authority", false),
						    "alive", false, "address", "version"));
}

static void on_members(void *ctx, int r, const struct store_entry *entries, size_t count,
		       const struct error *err)
{
	struct look *look = ctx;
	struct error why = { 0 };

	if (r < 0) {
		look_fail(look, err);
		return;
	}
	for (size_t i = 0; i < count; i++)
		take_member(look, &entries[i]);
	if (store_list(look->job.node->store, NODES_PREFIX, on_nodes, look, &why) < 0)
		look_fail(look, &why);
}

void cluster_status(struct node *node, struct request *request)
{
	struct look *look = xcalloc(1, sizeof(*look));
	struct error err = { 0 };

	look->request = request;
	look->members = json_object();
	job_begin(&look->job, node, look_done);
	if (store_list(node->store, KEY_CLUSTER, on_members, look, &err) < 0)
		look_fail(look, &err);
}
