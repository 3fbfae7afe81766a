/* SPDX-License-Identifier: Apache-2.0 */
#include "node/route.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/command.h"
#include "model/config.h"
#include "node/console.h"
#include "node/elsewhere.h"
#include "node/explain.h"
#include "node/job.h"
#include "node/membership.h"
#include "node/moves.h"
#include "node/node.h"
#include "node/remote.h"
#include "node/status.h"
#include "node/vm.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

/* The other agent's own deadline comes first, so that its words reach the user. */
#define MARGIN (10 * USEC_PER_SEC)
#define TIMEOUT_MAX_MS (24 * 3600 * 1000)

struct route {
	struct job job;
	struct request *request;
	struct remote *remote; /* NULL: not asked yet */
	char to[RECORD_NAME_SIZE];
};

static struct route *route_of(struct job *job)
{
	return container_of(job, struct route, job);
}

/* The question itself is a job of its own, which ends with the node too. */
static void route_done(struct job *job)
{
	const struct route *route = route_of(job);
	struct error err = { 0 };

	(void)error_try_again(&err, "the agent is being ended");
	if (route->request)
		request_fail(route->request, &err);
}

static void route_end(struct route *route)
{
	route->request = NULL;
	job_end(&route->job);
}

/* Of the state at least what was told last is known, and that it is not known now. */
static bool answer_status(struct route *route, const struct error *err)
{
	struct node *node = route->job.node;
	const char *vm = json_string_or(request_args(route->request), "vm", "");
	const struct node_vm *known = vm_find(node, vm);
	CLEANUP_FREE char *reason = NULL;
	json_auto_t *object = NULL;

	if (strcmp(request_command(route->request), "status") != 0 || !known)
		return false;
	object = status_json(known);
	reason = xasprintf("%s; its last known state is %s", err->text,
			   json_string_or(object, "state", "unknown"));
	json_set_string(object, "state", vm_state_name(VM_UNKNOWN));
	json_set_string(object, "reason", reason);
	request_return(route->request, object);
	route_end(route);
	return true;
}

/* What stands in the records is an explanation too. */
static bool answer_explain(struct route *route, const struct error *err)
{
	if (strcmp(request_command(route->request), "explain") != 0)
		return false;
	explain_from_here(route->job.node, route->request, route->to, err->text);
	route_end(route);
	return true;
}

static void route_fail(struct route *route, int r, const struct error *err)
{
	struct error why = { 0 };

	/* The other agent's own refusal stands as it is. */
	if (r != -EREMOTEIO && (answer_status(route, err) || answer_explain(route, err)))
		return;
	if (r != -EREMOTEIO)
		(void)error_set_class(&why, err->class, r,
				      "%s; look after droverd on node '%s', 'drover node status "
				      "%s' shows what it told last",
				      err->text, route->to, route->to);
	else
		why = *err;
	request_fail(route->request, &why);
	route_end(route);
}

static void on_reply(void *ctx, int r, json_t *value, const struct error *err)
{
	struct route *route = ctx;

	route->remote = NULL;
	if (r < 0) {
		route_fail(route, r, err);
		return;
	}
	request_return(route->request, value);
	route_end(route);
}

static void on_progress(void *ctx, json_t *data)
{
	const struct route *route = ctx;

	request_progress(route->request, data);
}

static uint64_t timeout_of(const struct node *node, struct request *request)
{
	int64_t given = json_int_or(request_args(request), "timeout_ms", 0);
	int command = command_of(request_command(request));

	if (json_bool_or(request_args(request), "follow", false))
		return UINT64_MAX;
	if (command == COMMAND_MIGRATE || command == COMMAND_MOVE || command == COMMAND_UNMIGRATE)
		return moves_patience(node, request_args(request)) + MARGIN;
	if (given > 0 && given <= TIMEOUT_MAX_MS)
		return (uint64_t)given * USEC_PER_MSEC + MARGIN;
	return node->config->timers.command + MARGIN;
}

static int ask(struct route *route, const char *address, struct error *err)
{
	static const struct remote_ops ops = { .reply = on_reply, .progress = on_progress };
	struct node *node = route->job.node;
	json_auto_t *args = json_copy(request_args(route->request));
	const struct node_vm *vm = vm_find(node, json_string_or(args, "vm", ""));
	const struct remote_question question = {
		.address = address,
		.node = route->to,
		.command = request_command(route->request),
		.args = args,
		.timeout_usec = timeout_of(node, route->request),
	};

	/* It may have heard less of it than we have. */
	if (vm)
		(void)json_object_set_new(args, "generation",
					  json_integer((json_int_t)vm->record.generation));
	if (!*address)
		return error_try_again(err, "node '%s' holds it and tells no address", route->to);
	if (strcmp(question.command, "console") == 0) {
		console_request(node, TAKE_PTR(route->request), route->to, address);
		route_end(route);
		return 0;
	}
	return remote_ask(node, &question, &ops, route, &route->remote, err);
}

static void on_info(void *ctx, int r, const struct store_entry *entry, const struct error *err)
{
	struct route *route = ctx;
	struct node *node = route->job.node;
	const char *last = membership_last_address(node, route->to);
	struct error why = { 0 };

	if (r == -ENOENT) {
		r = error_try_again(&why, "node '%s' has told nothing of itself yet", route->to);
	} else if (r < 0 && !last) {
		why = *err;
	} else if (r < 0) {
		r = ask(route, last, &why);
	} else {
		last = json_string_or(entry->value, "address", "");
		membership_note_address(node, route->to, last);
		r = ask(route, last, &why);
	}
	if (r < 0)
		route_fail(route, r, &why);
}

/* The node that has the VM, or would, when it is another one; NULL: this one, or nobody knows. */
static const char *destination(const struct node_vm *vm)
{
	const char *holder = elsewhere_holder(vm), *target;

	if (holder)
		return holder;
	if (vm_is_here(vm))
		return NULL;
	target = vm_target(vm);
	return target && strcmp(target, vm->node->config->node) != 0 ? target : NULL;
}

bool route_request(struct node *node, struct request *request)
{
	const char *name = json_string_or(request_args(request), "vm", NULL);
	const struct node_vm *vm = name ? vm_find(node, name) : NULL;
	const char *to = vm && !vm->removed ? destination(vm) : NULL;
	char key[RECORD_KEY_SIZE];
	struct error err = { 0 };
	struct route *route;
	int r;

	if (!to || !membership_identity(node) || !membership_has(node, to))
		return false;
	route = xcalloc(1, sizeof(*route));
	route->request = request;
	(void)snprintf(route->to, sizeof(route->to), "%s", to);
	job_begin(&route->job, node, route_done);
	r = store_get(node->store, key_node(key, to, "info"), on_info, route, &err);
	if (r < 0)
		route_fail(route, r, &err);
	return true;
}

void route_forget(struct node *node)
{
	for (struct job *job = node->jobs, *next; job; job = next) {
		struct route *route = job->done == route_done ? route_of(job) : NULL;

		next = job->next;
		if (!route || !route->remote || !request_abandoned(route->request))
			continue;
		/* Both are jobs: begin anew, the list is another one now. */
		route->remote = remote_cancel(route->remote);
		job_end(&route->job);
		next = node->jobs;
	}
}
