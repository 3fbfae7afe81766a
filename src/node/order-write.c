/* SPDX-License-Identifier: Apache-2.0 */
#include "node/order-write.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/config.h"
#include "node/ask.h"
#include "node/events.h"
#include "node/job.h"
#include "node/node.h"
#include "node/vm.h"
#include "store/store.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"

struct order_write {
	struct job job;
	char *vm;
	enum command command;
	struct order order;
	json_t *value; /* the order, as it is written */
	order_written_fn done;
	void *ctx;
};

static void write_done(struct job *job)
{
	struct order_write *write = container_of(job, struct order_write, job);

	json_decref(write->value);
	free(write->vm);
}

static void finish(struct order_write *write, int r, const struct error *err)
{
	write->done(write->ctx, r, &write->order, err);
	job_end(&write->job);
}

static struct order order_after(const struct node_vm *vm, enum command command, const char *by)
{
	struct order order = vm->order;

	switch (command) {
	case COMMAND_STOP:
		order.kind = ORDER_STOP;
		break;
	case COMMAND_KILL:
		order.kind = ORDER_KILL;
		break;
	case COMMAND_PAUSE:
		order.kind = ORDER_PAUSE;
		break;
	case COMMAND_RESTART:
		order.kind = ORDER_NONE;
		order.restarts++;
		break;
	case COMMAND_ENSURE:
		order.retry++;
		break;
	default:
		order.kind = ORDER_NONE;
		order.retry++;
		break;
	}
	(void)clock_text(clock_wall(), order.since);
	(void)snprintf(order.by, sizeof(order.by), "%s", by);
	return order;
}

static void on_read_again(void *ctx, int r, const struct store_entry *entry,
			  const struct error *err)
{
	struct order_write *write = ctx;
	struct node_vm *vm = vm_find(write->job.node, write->vm);
	struct error again = { 0 };

	if (r < 0 && r != -ENOENT) {
		finish(write, r, err);
		return;
	}
	if (vm)
		vm_set_record(vm, VM_ORDER, r == 0 ? entry->value : NULL,
			      r == 0 ? entry->version : 0);
	/* An unanswered write of ours had landed, and its repetition met it. */
	if (r == 0 && json_equal(write->value, entry->value)) {
		finish(write, 0, NULL);
		return;
	}
	(void)error_try_again(&again, "others keep changing the orders of VM '%s'; say it again",
			      write->vm);
	finish(write, -ESTALE, &again);
}

static void note_written(struct order_write *write, uint64_t version)
{
	struct node *node = write->job.node;
	struct node_vm *vm = vm_find(node, write->vm);
	const char *name = command_name(write->command);

	if (!vm)
		return;
	vm->written = ++node->written;
	vm_set_record(vm, VM_ORDER, write->value, version);
	events_add(node, write->vm, "ordered", "%s by %s", name, write->order.by);
	log_vm(LOG_LEVEL_INFO, write->vm, "ordered: %s by %s", name, write->order.by);
}

static void on_written(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct order_write *write = ctx;
	char key[RECORD_KEY_SIZE];
	struct error why = { 0 };

	checkpoint("agent.order-written");
	if (r == -ESTALE) {
		r = store_get(write->job.node->store, key_vm(key, write->vm, "order"),
			      on_read_again, write, &why);
		if (r == 0)
			return;
		err = &why;
	}
	if (r == 0)
		note_written(write, versions[0]);
	finish(write, r, err);
}

int order_write(struct node_vm *vm, enum command command, const char *by, order_written_fn done,
		void *ctx, struct error *err)
{
	struct node *node = vm->node;
	struct order_write *write = xcalloc(1, sizeof(*write));
	char key[RECORD_KEY_SIZE];
	int r;

	write->vm = xstrdup(vm->name);
	write->command = command;
	write->order = order_after(vm, command, by);
	write->value = order_json(&write->order);
	write->done = done;
	write->ctx = ctx;
	const struct store_op op = {
		.kind = STORE_PUT,
		.key = key_vm(key, vm->name, "order"),
		.expected = vm->version[VM_ORDER],
		.value = write->value,
	};

	checkpoint("agent.order");
	job_begin(&write->job, node, write_done);
	r = ask_write(node, &op, 1, node->config->timers.session, on_written, write, err);
	if (r < 0)
		job_end(&write->job);
	return r;
}
