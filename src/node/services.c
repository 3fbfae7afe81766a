/* SPDX-License-Identifier: Apache-2.0 */
/* Consul's agent is asked what it has, and then told, one after the other, what it should have:
 * when a VM's state has changed, and from time to time, so that a restart of either agent, or a
 * service that somebody removed, is made good.  A service of which it cannot be told whether its VM
 * runs is left as it is.  One whose VM was moved stays until that of the node which has it now is
 * there, but nobody passes its check any more. */
#include "node/services.h"

#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "model/definition.h"
#include "node/elsewhere.h"
#include "node/node.h"
#include "node/vm.h"
#include "store/http.h"
#include "store/token.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

#define PREFIX "qemu-"
#define LOOK "health/service/" PREFIX
#define EVERY (10 * USEC_PER_SEC)
#define SOON (1 * USEC_PER_SEC)
#define TTL_SEC 60 /* of the check; we pass it EVERY */
#define ANSWER_USEC (5 * USEC_PER_SEC)
#define ANSWER_MAX (64u * 1024 * 1024)
#define PARTS_MAX (1024u * 1024)

struct services {
	struct node *node;
	struct http *http;
	char *token;
	struct http_transfer *transfer; /* of the round under way */
	struct strv paths, bodies;	/* what this round has still to say; "" is no body */
	size_t next;
	bool again; /* something changed meanwhile */
	bool soon;  /* another node is waited for */
	char trouble[512];
	sd_event_source *timer;
};

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata);

static void round_end(struct services *services, const char *trouble)
{
	if (strncmp(services->trouble, trouble, sizeof(services->trouble) - 1) != 0 && *trouble)
		log_warning("services in Consul: %s; trying on", trouble);
	(void)snprintf(services->trouble, sizeof(services->trouble), "%s", trouble);
	strv_done(&services->paths);
	strv_done(&services->bodies);
	services->next = 0;
	if (*trouble)
		node_timer(services->node, &services->timer, EVERY, on_timer, services);
	else
		node_timer(services->node, &services->timer,
			   services->again  ? 0
			   : services->soon ? SOON
					    : EVERY,
			   on_timer, services);
	services->again = services->soon = false;
}

static bool ask(struct services *services, const char *method, const char *path, const char *body,
		http_answer_fn answer)
{
	const struct config *config = services->node->config;
	CLEANUP_FREE char *url = xasprintf("%s/v1/%s", config->consul_address, path);
	const struct http_request request = {
		.method = method,
		.url = url,
		.header = services->token,
		.body = body,
		.length = body ? strlen(body) : 0,
		.ca_file = config->consul_ca_file[0] ? config->consul_ca_file : NULL,
		.timeout_usec = ANSWER_USEC,
		.limit = ANSWER_MAX,
	};
	struct error err = { 0 };

	if (http_send(services->http, &request, answer, services, &services->transfer, &err) == 0)
		return true;
	round_end(services, err.text);
	return false;
}

static bool answered(struct services *services, const struct http_answer *answer)
{
	CLEANUP_FREE char *words = NULL;

	services->transfer = NULL;
	if (answer->status == 200)
		return true;
	words = xasprintf("%.300s%s", answer->status ? answer->body : answer->trouble,
			  answer->status == 403 ? " (the token needs 'write' for the "
						  "service_prefix \"" PREFIX "\")"
						: "");
	round_end(services, words);
	return false;
}

static void say_next(struct services *services);
static void on_looked(void *ctx, const struct http_answer *answer);

static void on_said(void *ctx, const struct http_answer *answer)
{
	struct services *services = ctx;

	if (answered(services, answer))
		say_next(services);
}

static void say_next(struct services *services)
{
	size_t i = services->next++;

	if (i < services->paths.count && strncmp(services->paths.items[i], LOOK, strlen(LOOK)) == 0)
		(void)ask(services, "GET", services->paths.items[i], NULL, on_looked);
	else if (i < services->paths.count)
		(void)ask(services, "PUT", services->paths.items[i], services->bodies.items[i],
			  on_said);
	else
		round_end(services, "");
}

enum place {
	HERE,
	NOT_HERE,
	ELSEWHERE, /* another node has it */
	UNKNOWN,
};

static enum place place_of(const struct node_vm *vm)
{
	if (elsewhere_holder(vm))
		return ELSEWHERE;
	switch (vm_state(vm, NULL)) {
	case VM_OFF:
	case VM_STARTING:
	case VM_FAILED:
		return NOT_HERE;
	case VM_UNKNOWN:
		return UNKNOWN;
	default:
		return strcmp(vm->owner.node, vm->node->config->node) == 0 ? HERE : NOT_HERE;
	}
}

static void say(struct services *services, const char *verb, const char *name)
{
	strv_addf(&services->paths, "%s" PREFIX "%s", verb, name);
	strv_add(&services->bodies, "");
}

static void say_register(struct services *services, const char *name)
{
	json_auto_t *service = json_pack(
		"{s:o, s:o, s:s, s:{s:s}, s:{s:o, s:s, s:o, s:s}}", "ID",
		json_sprintf(PREFIX "%s", name), "Name", json_sprintf(PREFIX "%s", name), "Address",
		services->node->config->node, "Meta", "drover-node", services->node->config->node,
		"Check", "CheckID", json_sprintf(PREFIX "%s", name), "Name", "qemu-process", "TTL",
		json_sprintf("%ds", TTL_SEC), "Status", "passing");
	CLEANUP_FREE char *body = json_print(service);

	strv_add(&services->paths, "agent/service/register");
	strv_add(&services->bodies, body);
}

static bool is_ours(const struct services *services, const json_t *service)
{
	const char *node = json_string_or(json_object_get(service, "Meta"), "drover-node", "");

	return strcmp(node, services->node->config->node) == 0;
}

static void compare(struct services *services, json_t *registered)
{
	const struct node *node = services->node;
	const char *id;
	json_t *service;

	for (size_t i = 0; i < node->n_vms; i++) {
		const char *name = node->vms[i]->name;
		CLEANUP_FREE char *key = xasprintf(PREFIX "%s", name);
		bool there = is_ours(services, json_object_get(registered, key));

		enum place place = place_of(node->vms[i]);

		if (place == HERE && !there)
			say_register(services, name);
		else if (there && (place == HERE || place == UNKNOWN))
			say(services, "agent/check/pass/", name);
	}
	json_object_foreach(registered, id, service)
	{
		const char *name =
			strncmp(id, PREFIX, strlen(PREFIX)) == 0 ? id + strlen(PREFIX) : NULL;
		const struct node_vm *vm = name ? vm_find(node, name) : NULL;

		if (!name || definition_check_name(name, NULL) < 0 || !is_ours(services, service))
			continue;
		if (!vm || place_of(vm) == NOT_HERE)
			say(services, "agent/service/deregister/", name);
		else if (place_of(vm) == ELSEWHERE)
			say(services, "health/service/", name);
	}
}

static bool is_passing(const json_t *entry)
{
	const json_t *check;
	size_t i;

	json_array_foreach(json_object_get(entry, "Checks"), i,
			   check) if (strcmp(json_string_or(check, "Status", ""), "passing") !=
				      0) return false;
	return true;
}

/* Where it is found in the whole cluster.  Ours goes when it is of no more use; one of our name
 * that another node has registered with this agent of Consul is not ours. */
static void judge(struct services *services, const char *path, json_t *entries)
{
	bool ours = false, others = false, passing = true;
	json_t *entry;
	size_t i;

	json_array_foreach(entries, i, entry)
	{
		if (is_ours(services, json_object_get(entry, "Service"))) {
			ours = true;
			passing = passing && is_passing(entry);
		} else {
			others = true;
		}
	}
	if (ours && !others && passing)
		services->soon = true;
	else if (ours || !others)
		say(services, "agent/service/deregister/", path + strlen(LOOK));
}

static void on_looked(void *ctx, const struct http_answer *answer)
{
	struct services *services = ctx;
	json_auto_t *entries = NULL;
	CLEANUP_FREE char *path = NULL;

	if (!answered(services, answer))
		return;
	path = xstrdup(services->paths.items[services->next - 1]);
	if (json_parts(answer->body, answer->length) <= PARTS_MAX &&
	    json_parse(answer->body, answer->length, &entries, NULL) == 0)
		judge(services, path, entries);
	say_next(services);
}

static void on_list(void *ctx, const struct http_answer *answer)
{
	struct services *services = ctx;
	json_auto_t *registered = NULL;
	struct error err = { 0 };

	if (!answered(services, answer))
		return;
	if (json_parts(answer->body, answer->length) > PARTS_MAX)
		(void)error_bad_data(&err, "Consul has more services than can be held in memory");
	else
		(void)json_parse(answer->body, answer->length, &registered, &err);
	if (!registered) {
		round_end(services, err.text);
		return;
	}
	compare(services, registered);
	say_next(services);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct services *services = userdata;
	const struct config *config = services->node->config;
	char *token = NULL;

	/* It may have been replaced. */
	if (config->consul_token_file[0] &&
	    token_header(config->consul_token_file, &token, NULL) == 0) {
		token_forget(services->token);
		services->token = token;
	}
	(void)ask(services, "GET", "agent/services", NULL, on_list);
	return 0;
}

void services_touch(struct node *node)
{
	struct services *services = node->services;

	if (!services)
		return;
	services->again = true;
	if (!services->transfer && !services->trouble[0])
		node_timer(node, &services->timer, 0, on_timer, services);
}

void services_open(struct node *node)
{
	struct services *services;
	struct error err = { 0 };

	if (!node->config->consul_register_services || !node->config->consul_address[0])
		return;
	services = xcalloc(1, sizeof(*services));
	services->node = node;
	if (http_open(node->loop, &services->http, &err) < 0) {
		log_error("services in Consul: %s", err.text);
		free(services);
		return;
	}
	node->services = services;
	node_timer(node, &services->timer, 0, on_timer, services);
}

/* They stay, as the VMs do. */
struct services *services_close(struct services *services)
{
	if (!services)
		return NULL;
	sd_event_source_disable_unref(services->timer);
	(void)http_close(services->http);
	token_forget(services->token);
	strv_done(&services->paths);
	strv_done(&services->bodies);
	free(services);
	return NULL;
}
