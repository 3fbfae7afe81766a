/* SPDX-License-Identifier: Apache-2.0 */
#include "node/membership.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "node/channel.h"
#include "node/credentials.h"
#include "node/near.h"
#include "node/node.h"
#include "node/renewal.h"
#include "store/store.h"
#include "tls/tls.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

#define READ_AGAIN (1 * USEC_PER_SEC)

struct membership {
	struct node *node;
	char *dir;
	char address[80];
	struct tls_identity *identity;
	char trouble[512];
	struct store_watch *watch;
	sd_event_source *again;
	json_t *members;   /* {NAME: record}; NULL: not read yet */
	json_t *addresses; /* {NAME: address} of those that we asked something */
	bool asked, stale;
};

const char *key_member(char buffer[RECORD_KEY_SIZE], const char *node)
{
	(void)snprintf(buffer, RECORD_KEY_SIZE, KEY_MEMBERS "%s", node);
	return buffer;
}

const char *membership_dir(const struct node *node)
{
	return node->membership->dir;
}

struct tls_identity *membership_identity(const struct node *node)
{
	return node->membership ? node->membership->identity : NULL;
}

const char *membership_trouble(const struct node *node)
{
	if (node->membership->trouble[0])
		return node->membership->trouble;
	return renewal_trouble(node);
}

bool membership_has(const struct node *node, const char *name)
{
	return json_object_get(node->membership->members, name) != NULL;
}

int membership_check_move(const struct node *node, const char *target, struct error *err)
{
	if (!membership_identity(node))
		return error_refuse(err,
				    "node '%s' is in no cluster, and a guest that runs moves only "
				    "within one: 'drover cluster init' makes one, 'drover cluster "
				    "join' enters one",
				    node->config->node);
	if (!membership_has(node, target))
		return error_refuse(err,
				    "node '%s' is not in the cluster: 'drover cluster token' gives "
				    "it a token for 'drover cluster join'",
				    target);
	return 0;
}

size_t membership_count(const struct node *node)
{
	return node->membership ? json_object_size(node->membership->members) : 0;
}

void membership_add(struct node *node, const char *name)
{
	if (!node->membership->members)
		node->membership->members = json_object();
	(void)json_object_set_new(node->membership->members, name, json_object());
}

void membership_note_address(struct node *node, const char *name, const char *address)
{
	json_set_string(node->membership->addresses, name, address);
}

const char *membership_last_address(const struct node *node, const char *name)
{
	return json_string_or(node->membership->addresses, name, NULL);
}

const char *membership_address(const struct node *node)
{
	return node->membership ? node->membership->address : "";
}

int membership_reload(struct node *node, struct error *err)
{
	struct membership *membership = node->membership;
	struct tls_identity *identity = NULL;
	int r;

	membership->trouble[0] = '\0';
	r = credentials_load(node, &identity, err);
	/* What we have stays good while its file cannot be read. */
	if (r == -ETIMEDOUT && membership->identity)
		identity = tls_identity_ref(membership->identity);
	if (r >= 0 && strcmp(tls_identity_name(identity), node->config->node) != 0) {
		r = error_bad_data(err,
				   "the certificate in '%s' is of node '%s', and this is '%s'; "
				   "give it its old name back, or let it join anew: remove the "
				   "directory and run 'drover cluster join'",
				   membership->dir, tls_identity_name(identity),
				   node->config->node);
		identity = tls_identity_unref(identity);
	}
	if (r < 0 && r != -ENOENT)
		(void)snprintf(membership->trouble, sizeof(membership->trouble), "%s", err->text);
	tls_identity_unref(membership->identity);
	membership->identity = identity;
	renewal_look(node);
	channel_look(node);
	return r;
}

/* ---- the list ---- */

static void list(struct membership *membership);

static int on_again(sd_event_source *source, uint64_t usec, void *userdata)
{
	list(userdata);
	return 0;
}

static void take(struct membership *membership, const struct store_entry *entries, size_t count)
{
	json_t *members = json_object();

	for (size_t i = 0; i < count; i++)
		if (strncmp(entries[i].key, KEY_MEMBERS, strlen(KEY_MEMBERS)) == 0)
			(void)json_object_set(members, entries[i].key + strlen(KEY_MEMBERS),
					      entries[i].value);
	json_decref(membership->members);
	membership->members = members;
	channel_sift(membership->node);
	near_members(membership->node);
}

static void on_listed(void *ctx, int r, const struct store_entry *entries, size_t count,
		      const struct error *err)
{
	struct membership *membership = ctx;

	membership->asked = false;
	if (r >= 0)
		take(membership, entries, count);
	/* What is known stays: silence makes nobody a stranger. */
	if (r < 0)
		node_timer(membership->node, &membership->again, READ_AGAIN, on_again, membership);
	else if (membership->stale)
		list(membership);
}

static void list(struct membership *membership)
{
	struct error err = { 0 };

	membership->stale = membership->asked;
	if (membership->asked)
		return;
	if (store_list(membership->node->store, KEY_CLUSTER, on_listed, membership, &err) < 0)
		node_timer(membership->node, &membership->again, READ_AGAIN, on_again, membership);
	else
		membership->asked = true;
}

static void on_changed(void *ctx)
{
	list(ctx);
}

/* ---- beginning and end ---- */

static void set_address(struct membership *membership)
{
	const struct config *config = membership->node->config;
	const char *host = config->cluster_address;

	if (*host)
		(void)snprintf(membership->address, sizeof(membership->address),
			       strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, config->cluster_port);
}

int membership_open(struct node *node, struct error *err)
{
	struct membership *membership = xcalloc(1, sizeof(*membership));
	struct error why = { 0 };
	int r;

	membership->node = node;
	membership->dir = xasprintf("%s/tls", node->config->paths.lib);
	membership->addresses = json_object();
	node->membership = membership;
	set_address(membership);
	r = membership_reload(node, &why);
	if (r < 0 && r != -ENOENT)
		log_error("this node cannot talk to others: %s", why.text);
	return store_watch(node->store, KEY_CLUSTER, on_changed, membership, &membership->watch,
			   err);
}

struct membership *membership_close(struct membership *membership)
{
	if (!membership)
		return NULL;
	store_unwatch(membership->watch);
	sd_event_source_disable_unref(membership->again);
	tls_identity_unref(membership->identity);
	json_decref(membership->members);
	json_decref(membership->addresses);
	free(membership->dir);
	free(membership);
	return NULL;
}
