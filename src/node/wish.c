/* SPDX-License-Identifier: Apache-2.0 */
#include "node/wish.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "model/config.h"
#include "node/mode.h"
#include "node/node.h"
#include "node/placement.h"
#include "node/records.h"
#include "node/vm.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/log.h"
#include "wire/json.h"
#include "wire/peer.h"

static json_t *owner_json_of(const struct node_vm *vm)
{
	json_t *record;

	if (!vm->version[VM_OWNER] || vm->unreadable[VM_OWNER])
		return json_null();
	record = owner_json(&vm->owner);
	return json_pack("{s:o, s:I}", "record", record, "version",
			 (json_int_t)vm->version[VM_OWNER]);
}

static json_t *hardware_json_of(const struct node_vm *vm)
{
	json_t *value = NULL;

	if (vm->hardware && json_parse(vm->hardware, strlen(vm->hardware), &value, NULL) == 0)
		return value;
	return json_null();
}

/* A keeper wants some definition even for "hands off"; of a VM without one that can be read it gets
 * the name, and changes nothing by it. */
static json_t *definition_json_of(const struct node_vm *vm)
{
	if (vm->definition)
		return json_incref(vm_tree(vm));
	return json_pack("{s:s, s:{}}", "name", vm->name, "parameters");
}

static json_t *wish_json(const struct node_vm *vm)
{
	json_t *wish =
		json_pack("{s:s, s:b, s:I, s:I, s:I, s:o, s:o, s:o, s:s}", "wish",
			  vm_wish_name(vm->wish), "kill", vm->order.kind == ORDER_KILL, "restarts",
			  (json_int_t)vm->order.restarts, "retry", (json_int_t)vm->order.retry,
			  "generation", (json_int_t)vm->record.generation, "definition",
			  definition_json_of(vm), "owner", owner_json_of(vm), "hardware",
			  hardware_json_of(vm), "node_mode", node_mode_name(vm->node->mode));
	json_auto_t *move = json_pack(
		"{s:s?, s:O?, s:o, s:b, s:b, s:I}", "target", vm_target(vm), "offer", vm->offer,
		"placement", placement_terms_json(vm), "may_send", slots_may_send(vm),
		"may_receive", slots_may_receive(vm), "cancel", (json_int_t)vm->placement.cancel);

	(void)json_object_update(wish, move);
	return wish;
}

static struct wish_sent sent_now(const struct node_vm *vm)
{
	struct wish_sent sent = {
		.any = true,
		.wish = (int)vm->wish,
		.mode = (int)vm->node->mode,
		.kill = vm->order.kind == ORDER_KILL,
		.restarts = vm->order.restarts,
		.retry = vm->order.retry,
		.generation = vm->record.generation,
		.definition_version = vm->version[VM_DEFINITION],
		.owner_version = vm->version[VM_OWNER],
		.hardware_version = vm->version[VM_HARDWARE],
		.offer_version = vm->version[VM_OFFER],
		.placement_version = vm->version[VM_PLACEMENT],
		.may_send = slots_may_send(vm),
		.may_receive = slots_may_receive(vm),
	};
	const char *target = vm_target(vm);

	(void)snprintf(sent.target, sizeof(sent.target), "%s", target ? target : "");
	return sent;
}

static bool sent_equal(const struct wish_sent *a, const struct wish_sent *b)
{
	return a->any == b->any && a->wish == b->wish && a->mode == b->mode && a->kill == b->kill &&
	       a->restarts == b->restarts && a->retry == b->retry &&
	       a->generation == b->generation && a->definition_version == b->definition_version &&
	       a->owner_version == b->owner_version && a->hardware_version == b->hardware_version &&
	       a->offer_version == b->offer_version &&
	       a->placement_version == b->placement_version && a->may_send == b->may_send &&
	       a->may_receive == b->may_receive && strcmp(a->target, b->target) == 0;
}

/* What counts is the answer to the newest.  A refusal stands until the next wish: it would be given
 * again. */
static void on_answer(void *ctx, int r, json_t *value, const struct error *err)
{
	struct node_vm *vm = ctx;

	if (r == -EREMOTEIO)
		log_vm(LOG_LEVEL_ERROR, vm->name, "its keeper does not take the wish: %s",
		       err->text);
	if (--vm->link.telling > 0 || r != -EREMOTEIO)
		return;
	(void)snprintf(vm->link.refusal, sizeof(vm->link.refusal), "%s", err->text);
	vm_touch(vm);
}

void wish_tell(struct node_vm *vm)
{
	struct link *link = &vm->link;
	const struct wish_sent now = sent_now(vm);
	json_auto_t *args = NULL;
	struct error err = { 0 };

	/* Before the records were read, silence would look like "no definition". */
	if (!records_known(vm->node) || mode_trouble(vm->node) || sent_equal(&now, &link->sent))
		return;
	args = wish_json(vm);
	checkpoint("agent.wish");
	if (peer_call(link->peer, "wish", args, vm->node->config->timers.keeper_silent, on_answer,
		      vm, &err) < 0) {
		log_vm(LOG_LEVEL_ERROR, vm->name, "cannot tell the wish: %s", err.text);
		return;
	}
	link->telling++;
	link->sent = now;
	link->dismissed = false;
	link->refusal[0] = '\0';
}
