/* SPDX-License-Identifier: Apache-2.0 */
/* Records come in from three sides (a listing, the answer to a write of ours, a keeper) and all go
 * through vm_set_record().  What follows from them is worked out once per turn of the loop. */
#include "node/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/wish.h"
#include "model/config.h"
#include "model/definition.h"
#include "node/disks.h"
#include "node/events.h"
#include "node/info.h"
#include "node/mode.h"
#include "node/moves.h"
#include "node/near.h"
#include "node/node.h"
#include "node/obstacle.h"
#include "node/orders.h"
#include "node/records.h"
#include "node/replacement.h"
#include "node/states.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

#define SETTLE_AT_ONCE 500

size_t vm_position(const struct node *node, const char *name)
{
	size_t low = 0, high = node->n_vms;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(node->vms[middle]->name, name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct node_vm *vm_find(const struct node *node, const char *name)
{
	size_t i = vm_position(node, name);

	return i < node->n_vms && strcmp(node->vms[i]->name, name) == 0 ? node->vms[i] : NULL;
}

struct node_vm *vm_need(struct node *node, const char *name)
{
	size_t i = vm_position(node, name);
	struct node_vm *vm;

	if (i < node->n_vms && strcmp(node->vms[i]->name, name) == 0)
		return node->vms[i];
	vm = xcalloc(1, sizeof(*vm));
	vm->node = node;
	vm->name = xstrdup(name);
	vm->wish = WISH_HANDS_OFF;
	link_init(&vm->link);
	events_begin(vm);
	node->vms = xrealloc(node->vms, node->n_vms + 1, sizeof(struct node_vm *));
	memmove(&node->vms[i + 1], &node->vms[i], (node->n_vms - i) * sizeof(struct node_vm *));
	node->vms[i] = vm;
	node->n_vms++;
	vm_touch(vm);
	return vm;
}

struct node_vm *vm_free(struct node_vm *vm)
{
	struct node *node;
	size_t i;

	if (!vm)
		return NULL;
	node = vm->node;
	i = vm_position(node, vm->name);
	memmove(&node->vms[i], &node->vms[i + 1], (node->n_vms - i - 1) * sizeof(struct node_vm *));
	node->n_vms--;
	link_done(&vm->link);
	definition_record_done(&vm->record);
	definition_free(vm->definition);
	owner_done(&vm->owner);
	placement_done(&vm->placement);
	json_decref(vm->offer);
	json_decref(vm->obstacle);
	json_decref(vm->told);
	json_decref(vm->said);
	json_decref(vm->machine);
	for (int leaf = 0; leaf < VM_LEAVES; leaf++)
		free(vm->unreadable[leaf]);
	free(vm->hardware);
	free(vm->file_error);
	free(vm->name);
	free(vm);
	return NULL;
}

bool vm_defined(const struct node_vm *vm)
{
	return vm->version[VM_DEFINITION] != 0;
}

json_t *vm_tree(const struct node_vm *vm)
{
	return vm->definition ? vm->definition->tree : vm->record.definition;
}

struct placement_facts vm_placement_facts(const struct node_vm *vm)
{
	return (struct placement_facts){
		.vm = vm->name,
		.definition = vm->definition,
		.generation = vm->record.generation,
		.host_generation = vm->record.host_generation,
		.placement = &vm->placement,
		.owner = vm->version[VM_OWNER] ? &vm->owner : NULL,
		.source = vm->record.node,
		.node = vm->node->config->node,
	};
}

const char *vm_target(const struct node_vm *vm)
{
	const struct placement_facts facts = vm_placement_facts(vm);
	const char *node;

	if (!vm->definition || vm_unreadable(vm))
		return NULL;
	(void)placement_node(&facts, &node);
	return node;
}

static bool is_held_by_another(const struct node_vm *vm)
{
	return vm->version[VM_OWNER] && vm->owner.phase != OWNER_OFF &&
	       strcmp(vm->owner.node, vm->node->config->node) != 0;
}

static bool is_bystander(const struct node_vm *vm)
{
	return (is_held_by_another(vm) || strcmp(vm_target(vm), vm->node->config->node) != 0) &&
	       !vm_is_here(vm);
}

enum vm_wish vm_wish_under(const struct node_vm *vm, enum order_kind order)
{
	const struct definition *definition = vm->definition;
	struct wish_input input;

	if (!definition || vm_unreadable(vm))
		return WISH_HANDS_OFF;
	input = (struct wish_input){
		.online = definition->online,
		.hands_off = definition->kvm_host_given && !*definition->kvm_host,
		.here = strcmp(vm_target(vm), vm->node->config->node) == 0,
		.mode = vm->node->mode,
		.order = order,
		.source_gone = vm->record.gone,
		.bystander = is_bystander(vm),
	};
	return wish_of(&input);
}

/* Whom a wish of "elsewhere" means: a paused guest is not fetched home. */
static const char *other_node(const struct node_vm *vm)
{
	const char *target = vm_target(vm);

	if (target && strcmp(target, vm->node->config->node) == 0 && is_held_by_another(vm))
		return vm->owner.node;
	return target;
}

static void explain_off(struct node_vm *vm)
{
	char source[VM_SOURCE_SIZE];

	if (!vm->definition)
		return;
	(void)wish_explain_off(vm->wish, vm->name, other_node(vm), vm->off_reason,
			       sizeof(vm->off_reason));
	/* Of the two causes we know which. */
	if (vm->wish != WISH_HANDS_OFF)
		return;
	(void)definition_record_source(&vm->record, source, sizeof(source));
	if (vm->record.gone)
		(void)snprintf(vm->off_reason, sizeof(vm->off_reason),
			       "hands off: its %s is gone; put it back, or 'drover rm %s'", source,
			       vm->name);
	else
		(void)snprintf(vm->off_reason, sizeof(vm->off_reason),
			       "hands off: 'kvm_host' is empty in its definition (%s)", source);
}

/* Without a definition that can be read nothing is known to be wanted, and silence never means
 * "stop"; nor before the mode of the node is known. */
static void work_out_wish(struct node_vm *vm)
{
	enum vm_wish before = vm->wish;
	bool known = vm->wish_known;

	if (mode_trouble(vm->node))
		return;
	vm->wish = vm_wish_under(vm, vm->order.kind);
	vm->wish_known = vm->definition != NULL && !vm_unreadable(vm);
	explain_off(vm);
	if (known != vm->wish_known || before != vm->wish)
		log_vm(LOG_LEVEL_INFO, vm->name, "wish: %s", vm_wish_name(vm->wish));
}

static void vm_settle(struct node_vm *vm)
{
	work_out_wish(vm);
	link_look(vm);
	orders_look(vm);
	obstacle_look(vm);
	moves_look(vm);
	states_look(vm);
	/* Nothing is known of it and nothing is here: the name is only a name. */
	if (!vm_defined(vm) && !vm->version[VM_OWNER] && vm->link.state == LINK_NONE &&
	    !vm->file_error && !vm_is_here(vm) && !orders_wait_for(vm) && !vm->node->taking)
		vm_free(vm);
}

static void arm_settle(struct node *node);

static int on_settle(sd_event_source *source, void *userdata)
{
	struct node *node = userdata;
	size_t looked = 0;

	info_touch(node);

	/* From the end, since a VM may go while it is looked at; and not all of very many in one
	 * turn of the loop. */
	for (size_t i = node->n_vms; i-- > 0;) {
		struct node_vm *vm = node->vms[i];

		if (!vm->due)
			continue;
		if (looked++ == SETTLE_AT_ONCE) {
			arm_settle(node);
			break;
		}
		vm->due = false;
		vm_settle(vm);
	}
	slots_look(node);
	near_look(node);
	replacement_look(node);
	return 0;
}

static void arm_settle(struct node *node)
{
	if (!node->settle) {
		if (sd_event_add_defer(node->loop, &node->settle, on_settle, node) < 0)
			return;
	}
	(void)sd_event_source_set_enabled(node->settle, SD_EVENT_ONESHOT);
}

void vm_touch(struct node_vm *vm)
{
	vm->due = true;
	arm_settle(vm->node);
}

void vm_touch_all(struct node *node)
{
	for (size_t i = 0; i < node->n_vms; i++)
		node->vms[i]->due = true;
	arm_settle(node);
}

static void note_unreadable(struct node_vm *vm, enum vm_leaf leaf, const struct error *err)
{
	vm->unreadable[leaf] =
		xasprintf("its %s record cannot be read: %s", vm_leaf_name(leaf), err->text);
	log_vm(LOG_LEVEL_ERROR, vm->name, "%s; leaving the VM as it is", vm->unreadable[leaf]);
}

const char *vm_unreadable(const struct node_vm *vm)
{
	for (int i = 0; i < VM_LEAVES; i++)
		if (vm->unreadable[i])
			return vm->unreadable[i];
	return NULL;
}

static int set_definition(struct node_vm *vm, json_t *value, struct error *err)
{
	int r;

	definition_record_done(&vm->record);
	vm->record = (struct definition_record){ 0 };
	vm->definition = definition_free(vm->definition);
	if (!value)
		return 0;
	vm->removed = false;
	r = definition_record_parse(value, &vm->record, err);
	if (r < 0)
		return r;
	r = definition_from_json(vm->record.definition, &vm->definition, err);
	if (r < 0)
		return r;
	/* One tree is enough. */
	json_decref(vm->record.definition);
	vm->record.definition = NULL;
	return 0;
}

static int set_order(struct node_vm *vm, json_t *value, struct error *err)
{
	return order_parse(value, &vm->order, err);
}

static int set_owner(struct node_vm *vm, json_t *value, struct error *err)
{
	owner_done(&vm->owner);
	vm->owner = (struct owner){ 0 };
	return value ? owner_parse(value, &vm->owner, err) : 0;
}

static int set_placement(struct node_vm *vm, json_t *value, struct error *err)
{
	placement_done(&vm->placement);
	vm->placement = (struct placement){ 0 };
	return placement_parse(value, &vm->placement, err);
}

static int set_offer(struct node_vm *vm, json_t *value, struct error *err)
{
	json_decref(vm->offer);
	vm->offer = json_is_object(value) ? json_incref(value) : NULL;
	return 0;
}

static int set_obstacle(struct node_vm *vm, json_t *value, struct error *err)
{
	json_decref(vm->obstacle);
	vm->obstacle = json_is_object(value) ? json_incref(value) : NULL;
	return 0;
}

static int set_hardware(struct node_vm *vm, json_t *value, struct error *err)
{
	static const char *const brief[] = { "machine_type", "accelerator", "qemu_version",
					     "uuid" };

	free(vm->hardware);
	json_decref(vm->machine);
	vm->hardware = value ? json_print(value) : NULL;
	vm->machine = value ? json_object() : NULL;
	for (size_t i = 0; value && i < ARRAY_SIZE(brief); i++)
		json_set_string(vm->machine, brief[i], json_string_or(value, brief[i], NULL));
	return 0;
}

/* For as long as no keeper tells better. */
static int set_state(struct node_vm *vm, json_t *value, struct error *err)
{
	json_decref(vm->said);
	vm->said = json_incref(value);
	if (!vm->told && value)
		vm->told = json_incref(value);
	return 0;
}

static const struct leaf {
	const char *name;
	int (*set)(struct node_vm *vm, json_t *value, struct error *err);
} leaves[VM_LEAVES] = {
	[VM_DEFINITION] = { "definition", set_definition }, [VM_ORDER] = { "order", set_order },
	[VM_PLACEMENT] = { "placement", set_placement },    [VM_OFFER] = { "offer", set_offer },
	[VM_OBSTACLE] = { "obstacle", set_obstacle },	    [VM_OWNER] = { "owner", set_owner },
	[VM_HARDWARE] = { "hardware", set_hardware },	    [VM_STATE] = { "state", set_state },
};

const char *vm_leaf_name(enum vm_leaf leaf)
{
	return leaves[leaf].name;
}

int vm_leaf_of(const char *name)
{
	for (int i = 0; i < VM_LEAVES; i++)
		if (strcmp(leaves[i].name, name) == 0)
			return i;
	return -1;
}

void vm_set_record(struct node_vm *vm, enum vm_leaf leaf, json_t *value, uint64_t version)
{
	struct error err = { 0 };

	if (vm->version[leaf] == version)
		return;
	vm->version[leaf] = version;
	free(vm->unreadable[leaf]);
	vm->unreadable[leaf] = NULL;
	if (leaves[leaf].set(vm, value, &err) < 0)
		note_unreadable(vm, leaf, &err);
	vm_touch(vm);
}

void vm_set_told(struct node_vm *vm, json_t *told)
{
	int before = vm_state_of(json_string_or(vm->told, "state", "")), now;
	bool moving = json_is_object(json_object_get(vm->told, "migration"));

	json_decref(vm->told);
	vm->told = json_incref(told);
	vm->told_at = clock_now();
	vm->told_now = true;
	now = vm_state_of(json_string_or(told, "state", ""));
	/* What was said of it while it was on its way does not stand for ever. */
	if (now != before || (moving && !json_is_object(json_object_get(told, "migration"))))
		states_changed(vm);
	if (now != before)
		log_vm(LOG_LEVEL_INFO, vm->name, "state: %s%s%s",
		       now < 0 ? "not understood" : vm_state_name(now),
		       *json_string_or(told, "reason", "") ? ": " : "",
		       json_string_or(told, "reason", ""));
	vm_touch(vm);
}

bool vm_is_here(const struct node_vm *vm)
{
	CLEANUP_FREE char *copy = xasprintf("vms/%s/copy.json", vm->name);

	if (vm->version[VM_OWNER] && vm->owner.phase != OWNER_OFF &&
	    strcmp(vm->owner.node, vm->node->config->node) == 0)
		return true;
	/* Whatever keeps us from looking is no proof that nothing is there. */
	return faccessat(vm->node->run_fd, copy, F_OK, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

enum vm_state vm_state(const struct node_vm *vm, const char **ret_reason)
{
	const char *reason = json_string_or(vm->told, "reason", NULL);
	int state = vm_state_of(json_string_or(vm->told, "state", ""));
	bool off = !vm->told_now && vm->link.state != LINK_UP && vm->link.state != LINK_KILLING &&
		   !vm_is_here(vm);

	if (off) {
		/* What the last keeper said of the end is still the best explanation. */
		if (state != VM_OFF)
			reason = link_words(&vm->link);
		/* Or the wish, which may be newer than the last keeper. */
		if (!link_words(&vm->link) && vm->off_reason[0])
			reason = vm->off_reason;
		state = VM_OFF;
	} else if (!vm->told_now || state < 0) {
		reason = link_words(&vm->link);
		state = VM_UNKNOWN;
	}
	if (ret_reason)
		*ret_reason = reason;
	return state;
}

void vm_facts(const struct node_vm *vm, struct command_facts *ret, char buffer[VM_SOURCE_SIZE])
{
	const struct definition_record *record = &vm->record;
	int r;

	*ret = (struct command_facts){
		.wish = vm->wish,
		.vm = vm->name,
		.source = "no source",
		.target = vm_target(vm),
	};
	ret->state = vm_state(vm, &ret->reason);
	if (!vm_defined(vm))
		return;
	ret->source = definition_record_source(record, buffer, VM_SOURCE_SIZE);
	if (strcmp(record->source, "file") != 0)
		return;
	if (strcmp(record->node, vm->node->config->node) != 0) {
		ret->source_is_file = !record->gone;
		return;
	}
	/* What cannot be looked at now may well be there. */
	r = disk_look(&disk_definitions, record->path);
	ret->source_is_file = r == 0 || r == -ETIMEDOUT;
}

struct node_vm *vm_of_request(const struct node *node, const struct request *request,
			      struct error *err)
{
	const char *name = NULL;
	struct node_vm *vm;

	if (json_need_string(request_args(request), "vm", &name, err) < 0)
		return NULL;
	vm = vm_find(node, name);
	if (vm && !vm->removed)
		return vm;
	if (records_trouble(node))
		(void)error_try_again(err, "no VM '%s' is known: %s", name, records_trouble(node));
	else
		(void)error_refuse(err, "there is no VM '%s'; 'drover ls' shows what there is",
				   name);
	return NULL;
}
