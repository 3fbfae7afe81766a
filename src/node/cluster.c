/* SPDX-License-Identifier: Apache-2.0 */
#include "node/cluster.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "node/ask.h"
#include "node/channel.h"
#include "node/credentials.h"
#include "node/events.h"
#include "node/info.h"
#include "node/job.h"
#include "node/membership.h"
#include "node/node.h"
#include "node/records.h"
#include "node/renewal.h"
#include "node/tokens.h"
#include "node/vm.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

#define AUTHORITY_LIFE (3650 * (time_t)86400)

/* One request that waits for the store. */
struct work {
	struct job job;
	struct request *request;
	char fingerprint[TLS_FINGERPRINT_SIZE];
	char name[RECORD_NAME_SIZE]; /* of the node that is to leave */
};

static struct work *work_begin(struct node *node, struct request *request)
{
	struct work *work = xcalloc(1, sizeof(*work));

	work->request = request;
	job_begin(&work->job, node, NULL);
	return work;
}

static void work_fail(struct work *work, const struct error *err)
{
	request_fail(work->request, err);
	job_end(&work->job);
}

static const char *now_text(char buffer[CLOCK_TEXT_SIZE])
{
	return clock_text(clock_wall(), buffer);
}

static const char *time_text(time_t when, char buffer[CLOCK_TEXT_SIZE])
{
	return clock_text((uint64_t)when * USEC_PER_SEC, buffer);
}

json_t *cluster_member_json(bool authority)
{
	char now[CLOCK_TEXT_SIZE];

	return json_pack("{s:i, s:s, s:b}", "v", 1, "since", now_text(now), "authority", authority);
}

/* ---- init ---- */

static int enrol_self(struct node *node, struct error *err)
{
	CLEANUP_FREE char *key = NULL, *request = NULL, *certificate = NULL;
	struct period period = renewal_period(node);
	int r;

	r = request_make(node->config->node, &key, &request, err);
	if (r >= 0)
		r = credentials_sign(node, request, node->config->node, &period, &certificate, NULL,
				     err);
	if (r >= 0)
		r = credentials_write(node, NULL, key, certificate, err);
	if (key)
		explicit_bzero(key, strlen(key));
	return r < 0 ? r : membership_reload(node, err);
}

static void init_finish(struct work *work)
{
	struct node *node = work->job.node;
	struct error err = { 0 };

	if (enrol_self(node, &err) < 0) {
		work_fail(work, &err);
		return;
	}
	membership_add(node, node->config->node);
	events_add(node, NULL, "cluster-made", "its certificates are signed here");
	cluster_status(node, work->request);
	job_end(&work->job);
}

static void on_init_written(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct work *work = ctx;
	struct error why = { 0 };

	if (r == -ESTALE) {
		if (credentials_remove_authority(work->job.node, &why) < 0)
			log_warning("an authority that nobody needs is left: %s", why.text);
		(void)error_refuse(&why, "another node makes a cluster in this store at this very "
					 "moment; join that one");
		work_fail(work, &why);
	} else if (r < 0) {
		work_fail(work, err);
	} else {
		init_finish(work);
	}
}

static int write_authority(struct work *work, struct error *err)
{
	struct node *node = work->job.node;
	char now[CLOCK_TEXT_SIZE], key[RECORD_KEY_SIZE];
	json_auto_t *member = cluster_member_json(true);
	json_auto_t *authority =
		json_pack("{s:i, s:s, s:s, s:s}", "v", 1, "fingerprint", work->fingerprint, "node",
			  node->config->node, "since", now_text(now));
	const struct store_op ops[] = {
		{ STORE_PUT, KEY_AUTHORITY, STORE_ABSENT, authority, false },
		{ STORE_PUT, key_member(key, node->config->node), STORE_ANY, member, false },
	};

	return ask_write(node, ops, ARRAY_SIZE(ops), node->config->timers.session, on_init_written,
			 work, err);
}

static int init_make(struct work *work, struct error *err)
{
	const struct node *node = work->job.node;
	const struct period period = { .from = renewal_period(work->job.node).from,
				       .until = time(NULL) + AUTHORITY_LIFE };
	int r;

	/* A former try that was never answered made it already. */
	r = credentials_authority(node, err);
	if (r == 0)
		r = credentials_make_authority(node, &period, err);
	if (r >= 0)
		r = credentials_fingerprint(node, work->fingerprint, err);
	return r < 0 ? r : write_authority(work, err);
}

static int init_with(struct work *work, json_t *record, struct error *err)
{
	const struct node *node = work->job.node;
	int r;

	if (!record)
		return init_make(work, err);
	r = credentials_authority(node, err);
	if (r > 0)
		r = credentials_fingerprint(node, work->fingerprint, err);
	if (r < 0)
		return r;
	if (strcmp(json_string_or(record, "fingerprint", "-"), work->fingerprint) != 0)
		return error_refuse(err,
				    "node '%s' has made a cluster in this store; 'drover cluster "
				    "token' there and 'drover cluster join' here let this one in",
				    json_string_or(record, "node", "?"));
	init_finish(work);
	return 0;
}

static void on_init_read(void *ctx, int r, const struct store_entry *entry, const struct error *err)
{
	struct work *work = ctx;
	struct error why = { 0 };

	if (r < 0 && r != -ENOENT)
		work_fail(work, err);
	else if (init_with(work, r < 0 ? NULL : entry->value, &why) < 0)
		work_fail(work, &why);
}

static int init_check(const struct node *node, struct error *err)
{
	if (membership_identity(node))
		return error_refuse(err, "this node is in a cluster already; 'drover cluster "
					 "status' shows it");
	if (!*membership_address(node))
		return error_refuse(
			err,
			"no other node could reach this one: write cluster: {address: "
			"ADDRESS OF THIS HOST} into '%s/drover.yaml' and restart droverd",
			node->config->paths.etc);
	return 0;
}

void cluster_init(struct node *node, struct request *request)
{
	struct work *work = work_begin(node, request);
	struct error err = { 0 };
	int r;

	r = init_check(node, &err);
	if (r >= 0)
		r = store_get(node->store, KEY_AUTHORITY, on_init_read, work, &err);
	if (r < 0)
		work_fail(work, &err);
}

/* ---- token ---- */

static int make_token(struct node *node, const char *member, json_t **ret, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	char until_text[CLOCK_TEXT_SIZE];
	time_t until;
	int r;

	if (!membership_identity(node))
		return error_refuse(err, "this node is in no cluster; 'drover cluster init' makes "
					 "one");
	r = credentials_authority(node, err);
	if (r < 0)
		return r;
	if (r == 0)
		return error_refuse(err, "tokens are made where the authority is: 'drover cluster "
					 "status' shows which node that is");
	if (member && config_check_node(member) < 0)
		return error_usage(err, "'%s' is no name of a node", member);
	r = token_make(node, member, &text, &until, err);
	if (r < 0)
		return r;
	*ret = json_pack("{s:s, s:s, s:s?}", "token", text, "until", time_text(until, until_text),
			 "node", member);
	return 0;
}

void cluster_token(struct node *node, struct request *request)
{
	const char *member = json_string_or(request_args(request), "node", NULL);
	json_auto_t *value = NULL;
	struct error err = { 0 };

	if (make_token(node, member, &value, &err) < 0) {
		request_fail(request, &err);
		return;
	}
	events_add(node, NULL, "token-made", "for %s", member ? member : "any new node");
	request_return(request, value);
}

/* ---- leave ---- */

/* Of ourselves nothing is left but what the store knows of VMs. */
static int forget_self(struct node *node, struct error *err)
{
	int r = credentials_remove(node, err);

	(void)membership_reload(node, NULL);
	info_forget(node);
	events_add(node, NULL, "cluster-left", "its certificate and key are removed");
	return r;
}

static bool is_self(const struct work *work)
{
	return strcmp(work->name, work->job.node->config->node) == 0;
}

static void on_left(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct work *work = ctx;
	struct node *node = work->job.node;
	json_auto_t *value = NULL;
	struct error why = { 0 };

	if (r == -ESTALE)
		r = error_refuse(&why, "node '%s' is alive: run 'drover cluster leave' there",
				 work->name);
	else if (r < 0)
		why = *err;
	else if (is_self(work))
		r = forget_self(node, &why);
	else
		events_add(node, NULL, "member-removed", "node '%s'", work->name);
	if (r < 0) {
		work_fail(work, &why);
		return;
	}
	value = json_pack("{s:s, s:s?}", "node", work->name, "store",
			  is_self(work) ? store_address(node->store) : NULL);
	request_return(work->request, value);
	job_end(&work->job);
}

static const struct node_vm *held_by(const struct node *node, const char *name)
{
	bool self = strcmp(name, node->config->node) == 0;

	for (size_t i = 0; i < node->n_vms; i++) {
		const struct node_vm *vm = node->vms[i];

		if ((self && vm_is_here(vm)) || strcmp(vm->owner.node, name) == 0)
			return vm;
	}
	return NULL;
}

static int leave_check(const struct node *node, const char *name, struct error *err)
{
	const struct node_vm *vm = held_by(node, name);

	if (config_check_node(name) < 0)
		return error_usage(err, "'%s' is no name of a node", name);
	if (!membership_identity(node))
		return error_refuse(err, "this node is in no cluster");
	if (records_trouble(node))
		return error_try_again(err, "whether VMs are held by node '%s' is not known: %s",
				       name, records_trouble(node));
	if (vm)
		return error_refuse(err,
				    "VM '%s' is held by node '%s'; move it, or stop it with "
				    "'drover stop %s'",
				    vm->name, name, vm->name);
	return 0;
}

/* The last one takes the authority along; before that its key must stay. */
static int leave_write(struct work *work, bool authority, size_t members, struct error *err)
{
	struct node *node = work->job.node;
	char member[RECORD_KEY_SIZE], info[RECORD_KEY_SIZE], session[RECORD_KEY_SIZE];
	struct store_op ops[] = {
		{ STORE_DELETE, key_member(member, work->name), STORE_ANY, NULL, false },
		{ STORE_DELETE, key_node(info, work->name, "info"), STORE_ANY, NULL, false },
		/* Another one: only when it is not there. */
		{ STORE_CHECK, key_node(session, work->name, "session"), STORE_ABSENT, NULL,
		  false },
	};

	if (authority && members > 1)
		return error_refuse(err,
				    "the certificates of this cluster are signed by node '%s': "
				    "it can leave only as the last one",
				    work->name);
	if (authority)
		ops[2] = (struct store_op){ STORE_DELETE, KEY_AUTHORITY, STORE_ANY, NULL, false };
	return ask_write(node, ops, authority || !is_self(work) ? 3 : 2,
			 node->config->timers.session, on_left, work, err);
}

static int leave_as(struct work *work, const struct store_entry *entries, size_t count,
		    struct error *err)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(entries[i].key + strlen(KEY_MEMBERS), work->name) == 0)
			return leave_write(work, json_bool_or(entries[i].value, "authority", false),
					   count, err);
	return error_refuse(err, "node '%s' is no member; 'drover cluster status' shows who is",
			    work->name);
}

static void on_members(void *ctx, int r, const struct store_entry *entries, size_t count,
		       const struct error *err)
{
	struct work *work = ctx;
	struct error why = { 0 };

	if (r < 0)
		work_fail(work, err);
	else if (leave_as(work, entries, count, &why) < 0)
		work_fail(work, &why);
}

void cluster_leave(struct node *node, struct request *request)
{
	struct work *work = work_begin(node, request);
	struct error err = { 0 };
	int r;

	(void)snprintf(work->name, sizeof(work->name), "%s",
		       json_string_or(request_args(request), "node", node->config->node));
	r = leave_check(node, work->name, &err);
	if (r >= 0)
		r = store_list(node->store, KEY_MEMBERS, on_members, work, &err);
	if (r < 0)
		work_fail(work, &err);
}
