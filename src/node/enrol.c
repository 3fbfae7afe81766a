/* SPDX-License-Identifier: Apache-2.0 */
#include "node/enrol.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "node/ask.h"
#include "node/cluster.h"
#include "node/credentials.h"
#include "node/events.h"
#include "node/job.h"
#include "node/membership.h"
#include "node/node.h"
#include "node/remote.h"
#include "node/renewal.h"
#include "node/tokens.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

#define JOIN_TIMEOUT (30 * USEC_PER_SEC)

/* ---- the one that joins ---- */

struct join {
	struct job job;
	struct request *request;
	struct token token;
	char *key, *csr;
	char authority[RECORD_NAME_SIZE];
};

static void join_done(struct job *job)
{
	struct join *join = container_of(job, struct join, job);

	if (join->key)
		explicit_bzero(join->key, strlen(join->key));
	free(join->key);
	free(join->csr);
	explicit_bzero(&join->token, sizeof(join->token));
}

static void join_fail(struct join *join, const struct error *err)
{
	request_fail(join->request, err);
	job_end(&join->job);
}

static int take_certificate(struct join *join, json_t *value, struct error *err)
{
	struct node *node = join->job.node;
	const char *certificate, *ca;
	int r;

	r = json_need_string(value, "certificate", &certificate, err);
	if (r >= 0)
		r = json_need_string(value, "ca", &ca, err);
	if (r >= 0)
		r = credentials_write(node, ca, join->key, certificate, err);
	return r < 0 ? r : membership_reload(node, err);
}

static void on_signed(void *ctx, int r, json_t *value, const struct error *err)
{
	struct join *join = ctx;
	struct node *node = join->job.node;
	struct error why = { 0 };

	if (r < 0) {
		join_fail(join, err);
		return;
	}
	if (take_certificate(join, value, &why) < 0) {
		join_fail(join, &why);
		return;
	}
	membership_add(node, join->authority);
	membership_add(node, node->config->node);
	events_add(node, NULL, "cluster-joined", "with the certificate of node '%s'",
		   join->authority);
	cluster_status(node, join->request);
	job_end(&join->job);
}

static int ask_authority(struct join *join, struct error *err)
{
	static const struct remote_ops ops = { .reply = on_signed };
	struct node *node = join->job.node;
	json_auto_t *args = json_pack("{s:s, s:s, s:s}", "node", node->config->node, "secret",
				      join->token.secret, "request", join->csr);
	const struct remote_question question = {
		.address = join->token.address,
		.pin = join->token.fingerprint,
		.command = "join",
		.args = args,
		.timeout_usec = JOIN_TIMEOUT,
	};
	struct remote *remote;

	return remote_ask(node, &question, &ops, join, &remote, err);
}

/* Before the token is spent: is our store the cluster's? */
static void on_authority(void *ctx, int r, const struct store_entry *entry, const struct error *err)
{
	struct join *join = ctx;
	struct error why = { 0 };

	if (r < 0 && r != -ENOENT) {
		join_fail(join, err);
		return;
	}
	if (r == -ENOENT ||
	    strcmp(json_string_or(entry->value, "fingerprint", ""), join->token.fingerprint) != 0) {
		(void)error_refuse(&why,
				   "the token is of another cluster than this node's store (%s); "
				   "set 'store:' in drover.yaml as on the cluster's other nodes, "
				   "and restart droverd",
				   store_address(join->job.node->store));
		join_fail(join, &why);
		return;
	}
	(void)snprintf(join->authority, sizeof(join->authority), "%s",
		       json_string_or(entry->value, "node", ""));
	if (ask_authority(join, &why) < 0)
		join_fail(join, &why);
}

/* Nobody talks to one whose certificate has expired, so nobody would renew it. */
static bool is_over(const struct tls_identity *identity)
{
	time_t from, until;

	tls_identity_period(identity, &from, &until);
	return time(NULL) >= until;
}

static int join_check(const struct node *node, struct request *request, struct token *ret_token,
		      struct error *err)
{
	const char *text;
	int r;

	r = json_need_string(request_args(request), "token", &text, err);
	if (r < 0)
		return r;
	if (membership_identity(node) && !is_over(membership_identity(node)))
		return error_refuse(err, "this node is in a cluster already; 'drover cluster "
					 "leave' ends that");
	if (!*membership_address(node))
		return error_refuse(
			err,
			"no other node could reach this one: write cluster: {address: "
			"ADDRESS OF THIS HOST} into '%s/drover.yaml' and restart droverd",
			node->config->paths.etc);
	return token_parse(text, ret_token, err);
}

void enrol_join(struct node *node, struct request *request)
{
	struct join *join = xcalloc(1, sizeof(*join));
	struct error err = { 0 };
	int r;

	join->request = request;
	job_begin(&join->job, node, join_done);
	r = join_check(node, request, &join->token, &err);
	if (r >= 0)
		r = request_make(node->config->node, &join->key, &join->csr, &err);
	if (r >= 0)
		r = store_get(node->store, KEY_AUTHORITY, on_authority, join, &err);
	if (r < 0)
		join_fail(join, &err);
}

/* ---- the one that lets it in ---- */

struct enrol {
	struct job job;
	struct request *request;
	bool bound; /* the token is for that very node */
};

static const char *argument(const struct enrol *enrol, const char *name)
{
	return json_string_or(request_args(enrol->request), name, "");
}

static void enrol_fail(struct enrol *enrol, const struct error *err)
{
	request_fail(enrol->request, err);
	job_end(&enrol->job);
}

static int sign(const struct enrol *enrol, json_t **ret_value, struct error *err)
{
	struct node *node = enrol->job.node;
	CLEANUP_FREE char *certificate = NULL, *ca = NULL;
	struct period period = renewal_period(node);
	int r;

	r = credentials_sign(node, argument(enrol, "request"), argument(enrol, "node"), &period,
			     &certificate, &ca, err);
	if (r >= 0)
		*ret_value = json_pack("{s:s, s:s}", "certificate", certificate, "ca", ca);
	return r;
}

static void on_written(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct enrol *enrol = ctx;
	json_auto_t *value = NULL;
	struct error why = { 0 };

	if (r < 0) {
		enrol_fail(enrol, err);
		return;
	}
	if (sign(enrol, &value, &why) < 0) {
		enrol_fail(enrol, &why);
		return;
	}
	membership_add(enrol->job.node, argument(enrol, "node"));
	events_add(enrol->job.node, NULL, "member-joined", "node '%s'", argument(enrol, "node"));
	request_return(enrol->request, value);
	job_end(&enrol->job);
}

static int write_member(struct enrol *enrol, uint64_t expected, struct error *err)
{
	struct node *node = enrol->job.node;
	json_auto_t *value = cluster_member_json(false);
	char key[RECORD_KEY_SIZE];
	const struct store_op op = {
		.kind = STORE_PUT,
		.key = key_member(key, argument(enrol, "node")),
		.expected = expected,
		.value = value,
	};

	return ask_write(node, &op, 1, node->config->timers.session, on_written, enrol, err);
}

static int let_in(struct enrol *enrol, const struct store_entry *entry, struct error *err)
{
	int r;

	if (entry && !enrol->bound)
		return error_refuse(err,
				    "node '%s' is or was a member; 'drover cluster token %s' makes "
				    "a token that lets it in again",
				    argument(enrol, "node"), argument(enrol, "node"));
	/* First, so that no crash leaves it good for a second one. */
	r = token_burn(enrol->job.node, argument(enrol, "secret"), err);
	return r < 0 ? r : write_member(enrol, entry ? entry->version : STORE_ABSENT, err);
}

static void on_member(void *ctx, int r, const struct store_entry *entry, const struct error *err)
{
	struct enrol *enrol = ctx;
	struct error why = { 0 };

	if (r < 0 && r != -ENOENT)
		enrol_fail(enrol, err);
	else if (let_in(enrol, r < 0 ? NULL : entry, &why) < 0)
		enrol_fail(enrol, &why);
}

static int enrol_check(struct enrol *enrol, struct error *err)
{
	const struct node *node = enrol->job.node;
	const char *name = argument(enrol, "node");
	char key[RECORD_KEY_SIZE];
	int r;

	if (config_check_node(name) < 0)
		return error_bad_data(err, "this is no name of a node");
	if (strcmp(name, node->config->node) == 0)
		return error_refuse(
			err,
			"this cluster has a node '%s': the one that was asked; give the "
			"new one another name with 'node:' in its drover.yaml",
			name);
	r = token_check(node, argument(enrol, "secret"), name, &enrol->bound, err);
	if (r < 0)
		return r;
	return store_get(node->store, key_member(key, name), on_member, enrol, err);
}

void enrol_serve(struct node *node, struct request *request, const char *member)
{
	struct enrol *enrol = xcalloc(1, sizeof(*enrol));
	struct error err = { 0 };

	enrol->request = request;
	job_begin(&enrol->job, node, NULL);
	if (enrol_check(enrol, &err) < 0)
		enrol_fail(enrol, &err);
}
