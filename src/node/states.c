/* SPDX-License-Identifier: Apache-2.0 */
#include "node/states.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "node/ask.h"
#include "node/elsewhere.h"
#include "node/job.h"
#include "node/node.h"
#include "node/services.h"
#include "node/vm.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

#define WRITE_AFTER (1 * USEC_PER_SEC) /* a start is over by then, and was not held up */
#define BATCH 32

struct batch {
	struct job job;
	char *vms[BATCH];
	size_t count;
};

static void arm(struct node *node, uint64_t after);

static void batch_done(struct job *job)
{
	struct batch *batch = container_of(job, struct batch, job);

	for (size_t i = 0; i < batch->count; i++)
		free(batch->vms[i]);
}

static void on_written(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct batch *batch = ctx;
	struct node *node = batch->job.node;

	if (r < 0 && !node->states_late)
		log_warning("states of VMs: %s; trying on", err->text);
	node->states_late = r < 0;
	for (size_t i = 0; i < batch->count; i++) {
		struct node_vm *vm = vm_find(node, batch->vms[i]);

		if (vm && r < 0)
			vm->state_due = true;
		else if (vm)
			vm->version[VM_STATE] = versions[i];
	}
	if (r < 0)
		arm(node, WRITE_AFTER);
	job_end(&batch->job);
}

static json_t *state_json(const struct node_vm *vm)
{
	static const char *const kept[] = { "state", "reason",	"since", "exit",
					    "wish",  "started", "pid",	 "running_generation" };
	json_t *value = json_pack("{s:i, s:s, s:I}", "v", 1, "node", vm->node->config->node,
				  "epoch", (json_int_t)vm->owner.epoch);

	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		if (json_object_get(vm->told, kept[i]))
			json_object_set(value, kept[i], json_object_get(vm->told, kept[i]));
	return value;
}

static void write_due(struct node *node)
{
	struct batch *batch = xcalloc(1, sizeof(*batch));
	char keys[BATCH][RECORD_KEY_SIZE];
	struct store_op ops[BATCH] = { 0 };
	struct error err = { 0 };
	bool more = false;

	job_begin(&batch->job, node, batch_done);
	for (size_t i = 0; i < node->n_vms; i++) {
		struct node_vm *vm = node->vms[i];
		size_t n = batch->count;

		if (!vm->state_due || vm->removed || !vm_defined(vm) || elsewhere_holder(vm))
			continue;
		if (n == BATCH) {
			more = true;
			break;
		}
		vm->state_due = false;
		ops[n] = (struct store_op){ .kind = STORE_PUT,
					    .key = key_vm(keys[n], vm->name, "state"),
					    .expected = STORE_ANY,
					    .value = state_json(vm) };
		batch->vms[batch->count++] = xstrdup(vm->name);
	}
	if (batch->count == 0)
		job_end(&batch->job);
	else if (ask_write(node, ops, batch->count, node->config->timers.session, on_written, batch,
			   &err) < 0)
		on_written(batch, -EAGAIN, NULL, &err);
	for (size_t i = 0; i < BATCH; i++)
		json_decref(ops[i].value);
	if (more)
		arm(node, WRITE_AFTER);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	write_due(userdata);
	return 0;
}

static void arm(struct node *node, uint64_t after)
{
	int enabled = 0;

	if (after && node->states && sd_event_source_get_enabled(node->states, &enabled) >= 0 &&
	    enabled)
		return;
	node_timer(node, &node->states, after, on_timer, node);
}

/* What all others know is about the copy of another node: somebody may be waiting for this one. */
static uint64_t patience(const struct node_vm *vm)
{
	const char *node = json_string_or(vm->said, "node", vm->node->config->node);

	return strcmp(node, vm->node->config->node) != 0 && !elsewhere_holder(vm) ? 0 : WRITE_AFTER;
}

void states_changed(struct node_vm *vm)
{
	vm->state_due = true;
	services_touch(vm->node);
	arm(vm->node, patience(vm));
}

/* What is said here of a VM that another node holds waits until that is over. */
void states_look(struct node_vm *vm)
{
	if (vm->state_due && !elsewhere_holder(vm))
		arm(vm->node, patience(vm));
}
