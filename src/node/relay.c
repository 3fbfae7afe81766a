/* SPDX-License-Identifier: Apache-2.0 */
#include "node/relay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/command.h"
#include "model/config.h"
#include "node/job.h"
#include "node/node.h"
#include "node/vm.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

/* The keeper's own deadline comes first, so that its words reach the user. */
#define MARGIN (2 * USEC_PER_SEC)
#define TIMEOUT_MAX_MS (24 * 3600 * 1000)

struct relay {
	struct job job;
	struct request *request;
};

static void on_answer(void *ctx, int r, json_t *value, const struct error *err)
{
	struct relay *relay = ctx;

	if (r == 0)
		request_return(relay->request, value);
	else
		request_fail(relay->request, err);
	job_end(&relay->job);
}

static const struct {
	const char *name;
	enum command command;
} relayed[] = {
	{ "qmp", COMMAND_MONITOR }, { "hmp", COMMAND_MONITOR },	    { "guest", COMMAND_EXEC },
	{ "exec", COMMAND_EXEC },   { "console", COMMAND_CONSOLE },
};

static uint64_t timeout_of(const struct node *node, const char *name, json_t *args)
{
	const struct timers *timers = &node->config->timers;
	int64_t given = json_int_or(args, "timeout_ms", 0);
	uint64_t usec = timers->qmp;

	if (given > 0 && given <= TIMEOUT_MAX_MS)
		usec = (uint64_t)given * USEC_PER_MSEC;
	else if (strcmp(name, "exec") == 0)
		usec = timers->command;
	else if (strcmp(name, "guest") == 0)
		usec = timers->guest_agent > timers->command ? timers->guest_agent
							     : timers->command;
	return usec + MARGIN;
}

static int relay_send(struct node *node, struct relay *relay, struct error *err)
{
	struct request *request = relay->request;
	const char *name = request_command(request);
	struct node_vm *vm = vm_of_request(node, request, err);
	json_auto_t *args = json_copy(request_args(request));
	enum command command = COMMAND_MONITOR;
	char source[VM_SOURCE_SIZE];
	struct command_facts facts;
	int r;

	if (!vm)
		return -ENOENT;
	for (size_t i = 0; i < ARRAY_SIZE(relayed); i++)
		if (strcmp(relayed[i].name, name) == 0)
			command = relayed[i].command;
	vm_facts(vm, &facts, source);
	r = command_check(command, &facts, err);
	if (r < 0)
		return r;
	(void)json_object_del(args, "vm");
	return link_call(vm, name, args, timeout_of(node, name, args), on_answer, relay, err);
}

void relay_request(struct node *node, struct request *request)
{
	struct relay *relay = xcalloc(1, sizeof(*relay));
	struct error err = { 0 };

	relay->request = request;
	job_begin(&relay->job, node, NULL);
	if (relay_send(node, relay, &err) < 0) {
		request_fail(request, &err);
		job_end(&relay->job);
	}
}

void relay_hardware(struct node *node, struct request *request)
{
	struct error err = { 0 };
	struct node_vm *vm = vm_of_request(node, request, &err);
	json_auto_t *value = NULL;

	if (vm && !vm->hardware)
		(void)error_refuse(&err, "VM '%s' has no hardware record: it was never started",
				   vm->name);
	if (!vm || !vm->hardware ||
	    json_parse(vm->hardware, strlen(vm->hardware), &value, &err) < 0) {
		request_fail(request, &err);
		return;
	}
	request_return(request, value);
}
