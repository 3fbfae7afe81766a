/* SPDX-License-Identifier: Apache-2.0 */
/* A VM object is what the records say, and over it what the keeper says.  Without a keeper the
 * object says so instead of repeating old news: a pid that nobody vouches for is worse than none.
 */
#include "node/status.h"

#include <string.h>

#include "model/config.h"
#include "model/definition.h"
#include "node/elsewhere.h"
#include "node/listing.h"
#include "node/node.h"
#include "node/obstacle.h"
#include "node/records.h"
#include "node/vm.h"
#include "node/volumes.h"
#include "storage/storage.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

static const struct volume_info *volume_find(const struct volumes *volumes, const char *vm,
					     const char *name)
{
	for (size_t i = 0; i < volumes->count; i++)
		if (strcmp(volumes->infos[i].vm, vm) == 0 &&
		    strcmp(volumes->infos[i].name, name) == 0)
			return &volumes->infos[i];
	return NULL;
}

static json_t *volumes_json(const struct node_vm *vm, const struct volumes *volumes)
{
	json_t *list = json_array();

	for (size_t i = 0; vm->definition && i < vm->definition->n_volumes; i++) {
		const struct definition_volume *want = &vm->definition->volumes[i];
		const struct volume_info *have = volume_find(volumes, vm->name, want->name);
		const char *path = want->path ? want->path : have ? have->path : NULL;

		json_array_append_new(
			list, json_pack("{s:s, s:I, s:s, s:s?}", "name", want->name, "size_bytes",
					(json_int_t)(have ? have->size : want->size), "format",
					volume_format_name((enum volume_format)want->format),
					"path", path));
	}
	return list;
}

static json_t *nics_json(const struct node_vm *vm)
{
	json_t *list = json_array();

	for (size_t i = 0; vm->definition && i < vm->definition->n_nics; i++) {
		const struct definition_nic *nic = &vm->definition->nics[i];

		json_array_append_new(list,
				      json_pack("{s:s, s:s, s:s, s:n}", "name", nic->name,
						"network", nic->network, "mac", nic->mac, "tap"));
	}
	return list;
}

static void set_definition(json_t *object, const struct node_vm *vm)
{
	const struct definition *definition = vm->definition;
	char source[VM_SOURCE_SIZE];

	json_object_set_new(object, "memory_mib",
			    definition ? json_integer((json_int_t)definition->memory_mib)
				       : json_null());
	json_object_set_new(object, "cores",
			    definition ? json_integer(definition->cores) : json_null());
	json_object_set_new(object, "generation",
			    vm_defined(vm) ? json_integer((json_int_t)vm->record.generation)
					   : json_null());
	json_set_string(object, "source",
			vm_defined(vm)
				? definition_record_source(&vm->record, source, sizeof(source))
				: NULL);
	json_object_set_new(object, "source_gone", json_boolean(vm_defined(vm) && vm->record.gone));
}

static json_t *order_object(const struct node_vm *vm)
{
	if (vm->order.kind == ORDER_NONE)
		return json_null();
	return json_pack("{s:s, s:s, s:s}", "kind", order_kind_name(vm->order.kind), "since",
			 vm->order.since, "by", vm->order.by);
}

/* What the keeper knows better than the records do. */
static void set_told(json_t *object, const struct node_vm *vm)
{
	static const char *const live[] = { "pid",	   "since",	   "started",
					    "accelerator", "machine_type", "qemu_version",
					    "guest_agent", "epoch",	   "running_generation",
					    "memory_mib",  "cores",	   "uuid" };
	static const char *const kept[] = { "since", "exit" };
	const char *const *keys = vm->told_now ? live : kept;
	size_t count = vm->told_now ? ARRAY_SIZE(live) : ARRAY_SIZE(kept);

	for (size_t i = 0; i < count; i++) {
		json_t *value = json_object_get(vm->told, keys[i]);

		if (value && !json_is_null(value))
			(void)json_object_set(object, keys[i], value);
	}
	if (vm->told_now && json_object_get(vm->told, "exit"))
		(void)json_object_set(object, "exit", json_object_get(vm->told, "exit"));
}

static void set_uptime(json_t *object)
{
	uint64_t started, now = clock_wall();

	if (!json_is_integer(json_object_get(object, "pid")) ||
	    clock_parse(json_string_or(object, "started", ""), &started) < 0 || now < started)
		return;
	(void)json_object_set_new(object, "uptime_s",
				  json_integer((json_int_t)((now - started) / USEC_PER_SEC)));
}

/* Taps are known to the keeper only. */
static void set_taps(json_t *object, const struct node_vm *vm)
{
	json_t *nics = json_object_get(object, "nics"), *told = json_object_get(vm->told, "nics");
	json_t *nic;
	size_t i;

	if (!vm->told_now)
		return;
	json_array_foreach(nics, i, nic)
	{
		json_t *same = json_array_get(told, i);

		if (strcmp(json_string_or(same, "name", ""), json_string_or(nic, "name", "-")) == 0)
			json_set_string(nic, "tap", json_string_or(same, "tap", NULL));
	}
}

static void set_pending(json_t *object, const struct node_vm *vm)
{
	const char *pending = vm->told_now ? json_string_or(vm->told, "pending", NULL) : NULL;
	CLEANUP_FREE char *both = NULL;

	if (pending && vm->file_error)
		both = xasprintf("%s; %s", pending, vm->file_error);
	json_set_string(object, "pending", both ? both : pending ? pending : vm->file_error);
}

/* Where it should be, and the order that says so. */
static void set_placement(json_t *object, const struct node_vm *vm)
{
	json_t *migration = vm->told_now ? json_object_get(vm->told, "migration") : NULL;

	json_set_string(object, "target", vm_target(vm));
	json_object_set_new(object, "placement",
			    vm->placement.kind == PLACEMENT_NONE ? json_null()
								 : placement_json(&vm->placement));
	json_object_set_new(object, "migration", migration ? json_incref(migration) : json_null());
}

/* Wherever it is, there is no better reason while it waits for that. */
static void set_obstacle(const struct node_vm *vm, json_t *object)
{
	CLEANUP_FREE char *words = obstacle_words(vm);
	int state = vm_state_of(json_string_or(object, "state", ""));

	if (words && (state == VM_RUNNING || state == VM_PAUSED))
		json_set_string(object, "reason", words);
}

/* It is to come here, and that does not work. */
static void set_not_taken(const struct node_vm *vm, json_t *object, const char *reason)
{
	CLEANUP_FREE char *text =
		xasprintf("it does not come to node '%s': %s", vm->node->config->node, reason);

	json_set_string(object, "reason", text);
}

static json_t *vm_json(const struct node_vm *vm, const struct volumes *volumes)
{
	static const char *const nulls[] = { "pid",	     "since",	    "started",
					     "uptime_s",     "accelerator", "machine_type",
					     "qemu_version", "guest_agent", "epoch",
					     "exit",	     "uuid",	    "running_generation" };
	CLEANUP_FREE char *refused = NULL;
	json_t *object = json_object();
	const char *reason;
	enum vm_state state = vm_state(vm, &reason);

	json_set_string(object, "name", vm->name);
	json_set_string(object, "state", vm_state_name(state));
	json_set_string(object, "wish", vm_wish_name(vm->wish));
	if (!reason || !*reason)
		reason = vm_defined(vm) ? vm_unreadable(vm) : vm->file_error;
	if (vm->link.refusal[0])
		reason = refused =
			xasprintf("its keeper does not take what is wanted: %s", vm->link.refusal);
	json_set_string(object, "reason", reason);
	json_set_string(object, "node", vm->node->config->node);
	for (size_t i = 0; i < ARRAY_SIZE(nulls); i++)
		json_object_set_new(object, nulls[i], json_null());
	if (vm->machine)
		(void)json_object_update(object, vm->machine);
	set_definition(object, vm);
	set_told(object, vm);
	/* A keeper here that tries to have it has more to say; one that ends what was sent, or
	 * fails to get it, has not: the guest may well run where it is. */
	if (elsewhere_holder(vm) &&
	    (!vm->told_now || state == VM_OFF || state == VM_STOPPING || state == VM_FAILED))
		elsewhere_set(vm, object);
	set_obstacle(vm, object);
	if (elsewhere_holder(vm) && vm->told_now && state == VM_FAILED && reason)
		set_not_taken(vm, object, reason);
	set_uptime(object);
	if (vm->told_now && json_is_null(json_object_get(object, "guest_agent")) &&
	    json_is_integer(json_object_get(object, "pid")))
		json_set_string(object, "guest_agent", "unknown");
	json_object_set_new(object, "volumes", volumes_json(vm, volumes));
	json_object_set_new(object, "nics", nics_json(vm));
	set_taps(object, vm);
	json_object_set_new(object, "order", order_object(vm));
	if (vm->version[VM_OWNER])
		json_object_set_new(object, "epoch", json_integer((json_int_t)vm->owner.epoch));
	set_placement(object, vm);
	set_pending(object, vm);
	return object;
}

json_t *status_json(const struct node_vm *vm)
{
	struct volumes volumes = volumes_load(vm->node);
	json_t *object = vm_json(vm, &volumes);

	volumes_done(&volumes);
	return object;
}

json_t *status_part(const struct node *node, const struct volumes *volumes, const char *after,
		    size_t max)
{
	size_t i = after ? vm_position(node, after) : 0;
	json_t *list = json_array();

	if (after && i < node->n_vms && strcmp(node->vms[i]->name, after) == 0)
		i++;
	for (; i < node->n_vms && json_array_size(list) < max; i++)
		if (!node->vms[i]->removed)
			json_array_append_new(list, vm_json(node->vms[i], volumes));
	return list;
}

json_t *status_list(const struct node *node)
{
	struct volumes volumes = volumes_load(node);
	json_t *list = status_part(node, &volumes, NULL, SIZE_MAX);

	volumes_done(&volumes);
	return list;
}

void status_ls(struct node *node, struct request *request)
{
	struct error err = { 0 };

	/* What is known is shown; that nothing is known is not the same as that there is nothing.
	 */
	if (node->n_vms == 0 && records_trouble(node)) {
		(void)error_try_again(&err, "no VMs are known: %s", records_trouble(node));
		request_fail(request, &err);
		return;
	}
	listing_begin(node, request);
}

void status_one(struct node *node, struct request *request)
{
	struct error err = { 0 };
	struct node_vm *vm = vm_of_request(node, request, &err);
	json_auto_t *object = NULL;

	if (!vm) {
		request_fail(request, &err);
		return;
	}
	object = status_json(vm);
	request_return(request, object);
}
