/* SPDX-License-Identifier: Apache-2.0 */
#include "node/renewal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "node/credentials.h"
#include "node/events.h"
#include "node/membership.h"
#include "node/node.h"
#include "node/remote.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

#define LOOK_MAX (3600 * USEC_PER_SEC) /* the wall clock may jump */
#define LOOK_MIN (1 * USEC_PER_SEC)
#define SKEW_MAX (2 * 24 * 3600) /* s: clocks of hosts differ, by a day when one was set wrong */
#define TIMEOUT (30 * USEC_PER_SEC)

struct renewal {
	struct node *node;
	sd_event_source *timer;
	bool asked;
	char *key; /* of the certificate that is asked for */
	char *request;
	char authority[RECORD_NAME_SIZE];
	char trouble[512];
};

static void forget_key(struct renewal *renewal)
{
	if (renewal->key)
		explicit_bzero(renewal->key, strlen(renewal->key));
	free(renewal->key);
	free(renewal->request);
	renewal->key = renewal->request = NULL;
}

struct period renewal_period(const struct node *node)
{
	time_t now = time(NULL), life = (time_t)(node->config->certificate_life / USEC_PER_SEC);
	time_t skew = life / 10 < SKEW_MAX ? life / 10 : SKEW_MAX;

	return (struct period){ .from = now - skew, .until = now + life };
}

time_t renewal_due(const struct node *node)
{
	const struct tls_identity *identity = membership_identity(node);
	time_t from, until;

	if (!identity)
		return 0;
	tls_identity_period(identity, &from, &until);
	return from + (until - from) / 3 * 2 + (until - from) % 3;
}

const char *renewal_trouble(const struct node *node)
{
	return node->renewal && node->renewal->trouble[0] ? node->renewal->trouble : NULL;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata);

/* Tries that fail are repeated often enough before the end, and not more often. */
static uint64_t wait_for(const struct node *node, bool failed)
{
	time_t now = time(NULL), due = renewal_due(node), from, until;
	uint64_t wait = due > now ? (uint64_t)(due - now) * USEC_PER_SEC : 0;

	if (failed) {
		tls_identity_period(membership_identity(node), &from, &until);
		wait = (uint64_t)(until - from) * USEC_PER_SEC / 30;
	}
	if (wait > LOOK_MAX)
		return LOOK_MAX;
	return wait < LOOK_MIN ? LOOK_MIN : wait;
}

static void look_again(struct renewal *renewal, bool failed)
{
	if (membership_identity(renewal->node))
		node_timer(renewal->node, &renewal->timer, wait_for(renewal->node, failed),
			   on_timer, renewal);
}

static void late(struct renewal *renewal, const struct error *why)
{
	if (strcmp(renewal->trouble, why->text) != 0)
		log_warning("our certificate cannot be renewed: %s; trying on", why->text);
	(void)snprintf(renewal->trouble, sizeof(renewal->trouble), "%s", why->text);
	renewal->asked = false;
	forget_key(renewal);
	look_again(renewal, true);
}

static void finish(struct renewal *renewal, const char *ca, const char *certificate)
{
	struct node *node = renewal->node;
	struct error err = { 0 };

	if (credentials_write(node, ca, renewal->key, certificate, &err) < 0) {
		late(renewal, &err);
		return;
	}
	renewal->asked = false;
	renewal->trouble[0] = '\0';
	forget_key(renewal);
	if (membership_reload(node, &err) < 0)
		log_error("the new certificate cannot be used: %s", err.text);
	else
		events_add(node, NULL, "certificate-renewed", "valid from now on");
}

static void on_signed(void *ctx, int r, json_t *value, const struct error *err)
{
	struct renewal *renewal = ctx;
	const char *certificate = NULL, *ca = NULL;
	struct error why = { 0 };

	if (r >= 0)
		r = json_need_string(value, "certificate", &certificate, &why);
	else
		why = *err;
	if (r >= 0)
		r = json_need_string(value, "ca", &ca, &why);
	if (r < 0)
		late(renewal, &why);
	else
		finish(renewal, ca, certificate);
}

static void on_info(void *ctx, int r, const struct store_entry *entry, const struct error *err)
{
	static const struct remote_ops ops = { .reply = on_signed };
	struct renewal *renewal = ctx;
	json_auto_t *args = json_pack("{s:s}", "request", renewal->request);
	const struct remote_question question = {
		.address = r >= 0 ? json_string_or(entry->value, "address", "") : "",
		.node = renewal->authority,
		.command = "renew",
		.args = args,
		.timeout_usec = TIMEOUT,
	};
	struct error why = { 0 };
	struct remote *remote;

	if (r < 0)
		late(renewal, err);
	else if (remote_ask(renewal->node, &question, &ops, renewal, &remote, &why) < 0)
		late(renewal, &why);
}

static void on_authority(void *ctx, int r, const struct store_entry *entry, const struct error *err)
{
	struct renewal *renewal = ctx;
	struct error why = { 0 };
	char key[RECORD_KEY_SIZE];

	if (r < 0) {
		late(renewal, err);
		return;
	}
	(void)snprintf(renewal->authority, sizeof(renewal->authority), "%s",
		       json_string_or(entry->value, "node", ""));
	if (store_get(renewal->node->store, key_node(key, renewal->authority, "info"), on_info,
		      renewal, &why) < 0)
		late(renewal, &why);
}

static int sign_here(struct renewal *renewal, struct error *err)
{
	struct node *node = renewal->node;
	CLEANUP_FREE char *certificate = NULL;
	struct period period = renewal_period(node);
	int r;

	r = credentials_sign(node, renewal->request, node->config->node, &period, &certificate,
			     NULL, err);
	if (r >= 0)
		finish(renewal, NULL, certificate);
	return r;
}

static int begin(struct renewal *renewal, struct error *err)
{
	struct node *node = renewal->node;
	int r;

	forget_key(renewal);
	r = request_make(node->config->node, &renewal->key, &renewal->request, err);
	if (r < 0)
		return r;
	r = credentials_authority(node, err);
	if (r != 0)
		return r < 0 ? r : sign_here(renewal, err);
	r = store_get(node->store, KEY_AUTHORITY, on_authority, renewal, err);
	renewal->asked = r >= 0;
	return r;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct renewal *renewal = userdata;
	struct error err = { 0 };

	if (renewal->asked || !membership_identity(renewal->node))
		return 0;
	if (time(NULL) < renewal_due(renewal->node))
		look_again(renewal, false);
	else if (begin(renewal, &err) < 0)
		late(renewal, &err);
	return 0;
}

void renewal_look(struct node *node)
{
	if (!node->renewal) {
		node->renewal = xcalloc(1, sizeof(*node->renewal));
		node->renewal->node = node;
	}
	look_again(node->renewal, false);
}

struct renewal *renewal_close(struct renewal *renewal)
{
	if (!renewal)
		return NULL;
	sd_event_source_disable_unref(renewal->timer);
	forget_key(renewal);
	free(renewal);
	return NULL;
}

void renewal_serve(struct node *node, struct request *request, const char *member)
{
	CLEANUP_FREE char *certificate = NULL, *ca = NULL;
	struct period period = renewal_period(node);
	json_auto_t *value = NULL;
	struct error err = { 0 };
	const char *pem;
	int r;

	r = json_need_string(request_args(request), "request", &pem, &err);
	if (r >= 0)
		r = credentials_sign(node, pem, member, &period, &certificate, &ca, &err);
	if (r < 0) {
		request_fail(request, &err);
		return;
	}
	events_add(node, NULL, "certificate-signed", "for member '%s'", member);
	value = json_pack("{s:s, s:s}", "certificate", certificate, "ca", ca);
	request_return(request, value);
}
