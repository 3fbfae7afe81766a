/* SPDX-License-Identifier: Apache-2.0 */
#include "node/slots.h"

#include <string.h>

#include "core/placement.h"
#include "model/config.h"
#include "node/node.h"
#include "node/vm.h"
#include "util/clock.h"
#include "wire/json.h"

enum direction { SEND, RECEIVE };

static struct slot *slot_of(struct node_vm *vm, enum direction direction)
{
	return direction == SEND ? &vm->slots.send : &vm->slots.receive;
}

/* Its keeper is at it. */
static bool is_used(const struct node_vm *vm, enum direction direction)
{
	const json_t *migration = json_object_get(vm->told, "migration");

	return vm->told_now && strcmp(json_string_or(migration, "role", ""),
				      direction == SEND ? "source" : "target") == 0;
}

static bool by_shutdown(const struct node_vm *vm)
{
	const struct placement_facts facts = vm_placement_facts(vm);
	struct placement_terms terms;

	placement_terms(&facts, &terms);
	return terms.shutdown;
}

static bool is_wanted(const struct node_vm *vm, enum direction direction)
{
	bool held = vm->version[VM_OWNER] && vm->owner.phase != OWNER_OFF;
	bool here = held && strcmp(vm->owner.node, vm->node->config->node) == 0;

	if (is_used(vm, direction))
		return true;
	if (!held || !vm_target(vm) || by_shutdown(vm))
		return false;
	if (direction == SEND)
		return here && vm->wish == WISH_ELSEWHERE && vm->offer;
	return !here && vm->wish == WISH_RUN;
}

static void slot_grant(struct node_vm *vm, struct slot *slot)
{
	slot->granted = clock_now();
	slot->used = false;
	vm_touch(vm);
}

static void slot_take_back(struct node_vm *vm, struct slot *slot)
{
	slot->granted = 0;
	slot->used = false;
	slot->waiting_since = clock_now();
	vm_touch(vm);
}

/* True when it holds a slot. */
static bool look_at(struct node_vm *vm, enum direction direction)
{
	uint64_t patience = vm->node->config->timers.migration_offer;
	struct slot *slot = slot_of(vm, direction);
	bool used = is_used(vm, direction);

	if (!is_wanted(vm, direction)) {
		if (slot->granted)
			vm_touch(vm);
		*slot = (struct slot){ 0 };
		return false;
	}
	if (!slot->waiting_since)
		slot->waiting_since = clock_now();
	/* Adopted in the middle of it, say. */
	if (used && !slot->granted)
		slot_grant(vm, slot);
	/* It was at it and is no more, or has not come to it: others first. */
	if (slot->granted && !used && (slot->used || clock_now() - slot->granted >= patience))
		slot_take_back(vm, slot);
	slot->used = used;
	return slot->granted != 0;
}

/* It cannot come here now, and its keeper waits before it tries again. */
static bool is_blocked(const struct node_vm *vm)
{
	return vm->told_now && json_is_object(json_object_get(vm->told, "obstacle")) &&
	       vm_state(vm, NULL) == VM_FAILED;
}

static struct node_vm *first_waiting(const struct node *node, enum direction direction,
				     bool blocked_too)
{
	struct node_vm *first = NULL;

	for (size_t i = 0; i < node->n_vms; i++) {
		struct node_vm *vm = node->vms[i];
		const struct slot *slot = slot_of(vm, direction);

		if (slot->waiting_since && !slot->granted && (blocked_too || !is_blocked(vm)) &&
		    (!first || slot->waiting_since < slot_of(first, direction)->waiting_since))
			first = vm;
	}
	return first;
}

static struct node_vm *first_blocked(const struct node *node)
{
	for (size_t i = 0; i < node->n_vms; i++)
		if (node->vms[i]->slots.receive.granted && is_blocked(node->vms[i]))
			return node->vms[i];
	return NULL;
}

/* One that cannot come keeps none out that perhaps can. */
static void make_way(const struct node *node)
{
	struct node_vm *blocked, *next;

	while ((blocked = first_blocked(node)) && (next = first_waiting(node, RECEIVE, false))) {
		slot_take_back(blocked, &blocked->slots.receive);
		slot_grant(next, &next->slots.receive);
	}
}

/* The moment at which one that is granted and not used has waited long enough; UINT64_MAX: none. */
static uint64_t look_in(struct node *node, enum direction direction, unsigned limit)
{
	uint64_t next = UINT64_MAX;
	unsigned taken = 0;
	struct node_vm *vm;

	for (size_t i = 0; i < node->n_vms; i++)
		taken += look_at(node->vms[i], direction);
	while (taken < limit && (vm = first_waiting(node, direction, true))) {
		slot_grant(vm, slot_of(vm, direction));
		taken++;
	}
	if (direction == RECEIVE)
		make_way(node);
	for (size_t i = 0; i < node->n_vms; i++) {
		const struct slot *slot = slot_of(node->vms[i], direction);

		if (slot->granted && !slot->used && slot->granted < next)
			next = slot->granted;
	}
	return next == UINT64_MAX ? next : next + node->config->timers.migration_offer;
}

static int on_patience(sd_event_source *source, uint64_t usec, void *userdata)
{
	slots_look(userdata);
	return 0;
}

void slots_look(struct node *node)
{
	uint64_t send = look_in(node, SEND, node->config->migration_outgoing);
	uint64_t receive = look_in(node, RECEIVE, node->config->migration_incoming);
	uint64_t next = send < receive ? send : receive, now = clock_now();

	if (next != UINT64_MAX)
		node_timer(node, &node->slots, next > now ? next - now : 0, on_patience, node);
}

bool slots_may_send(const struct node_vm *vm)
{
	return vm->slots.send.granted != 0;
}

bool slots_may_receive(const struct node_vm *vm)
{
	return vm->slots.receive.granted != 0;
}
