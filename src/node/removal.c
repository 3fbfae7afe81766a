/* SPDX-License-Identifier: Apache-2.0 */
#include "node/removal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/command.h"
#include "model/config.h"
#include "model/definition.h"
#include "node/ask.h"
#include "node/directory.h"
#include "node/disks.h"
#include "node/events.h"
#include "node/job.h"
#include "node/node.h"
#include "node/records.h"
#include "node/vm.h"
#include "node/volumes.h"
#include "storage/storage.h"
#include "store/store.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

struct removal {
	struct job job;
	struct request *request;
	char *vm;
	char by[96];
};

static void removal_done(struct job *job)
{
	free(container_of(job, struct removal, job)->vm);
}

static void removal_fail(struct removal *removal, const struct error *err)
{
	request_fail(removal->request, err);
	job_end(&removal->job);
}

static int check(const struct node_vm *vm, struct error *err)
{
	const char *node = vm->node->config->node;
	char source[VM_SOURCE_SIZE];
	struct command_facts facts;

	vm_facts(vm, &facts, source);
	if (vm->version[VM_OWNER] && vm->owner.phase != OWNER_OFF &&
	    strcmp(vm->owner.node, node) != 0)
		return error_refuse(err, "VM '%s' is held by node '%s'; stop it there first",
				    vm->name, vm->owner.node);
	return command_check(COMMAND_RM, &facts, err);
}

static void on_removed(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct removal *removal = ctx;
	struct node *node = removal->job.node;
	struct node_vm *vm = vm_find(node, removal->vm);
	json_auto_t *answer = NULL;
	struct error again = { 0 };

	if (r == -ESTALE) {
		records_refresh(node);
		(void)error_try_again(&again,
				      "VM '%s' has changed meanwhile; look and say it again",
				      removal->vm);
		err = &again;
	}
	if (r < 0) {
		removal_fail(removal, err);
		return;
	}
	checkpoint("agent.removed");
	if (vm) {
		vm->written = ++node->written;
		vm->removed = true;
		for (int leaf = 0; leaf < VM_LEAVES; leaf++)
			vm_set_record(vm, (enum vm_leaf)leaf, NULL, 0);
	}
	events_add(node, removal->vm, "removed", "by %s", removal->by);
	log_vm(LOG_LEVEL_INFO, removal->vm, "removed by %s", removal->by);
	directory_rescan(node);
	answer = json_pack("{s:s, s:o}", "removed", removal->vm, "volumes_left",
			   volumes_left(node, removal->vm));
	request_return(removal->request, answer);
	job_end(&removal->job);
}

/* The owner record goes with the version that was looked at: should its keeper have started the VM
 * a moment ago, this conflicts and nothing is removed. */
static int remove_records(struct removal *removal, const struct node_vm *vm, struct error *err)
{
	struct node *node = vm->node;
	char keys[VM_LEAVES + 1][RECORD_KEY_SIZE];
	struct store_op ops[VM_LEAVES + 1];
	size_t n = 0;

	for (int leaf = 0; leaf < VM_LEAVES; leaf++) {
		bool there = vm->version[leaf] != 0;

		if (!there && leaf != VM_OWNER && leaf != VM_STATE)
			continue;
		ops[n] = (struct store_op){
			.kind = there || leaf == VM_STATE ? STORE_DELETE : STORE_CHECK,
			.key = key_vm(keys[n], vm->name, vm_leaf_name((enum vm_leaf)leaf)),
			/* A state is written as things happen, and decides nothing. */
			.expected = leaf == VM_STATE ? STORE_ANY
				    : there	     ? vm->version[leaf]
						     : STORE_ABSENT,
		};
		n++;
	}
	ops[n] = (struct store_op){ .kind = STORE_DELETE,
				    .key = key_assign(keys[n], node->config->node, vm->name),
				    .expected = STORE_ANY };
	n++;
	checkpoint("agent.remove");
	return ask_write(node, ops, n, node->config->timers.session, on_removed, removal, err);
}

static void remove_vm(struct node *node, struct request *request, const char *by)
{
	struct error err = { 0 };
	struct node_vm *vm = vm_of_request(node, request, &err);
	struct removal *removal;

	if (!vm || check(vm, &err) < 0) {
		request_fail(request, &err);
		return;
	}
	removal = xcalloc(1, sizeof(*removal));
	removal->request = request;
	removal->vm = xstrdup(vm->name);
	(void)snprintf(removal->by, sizeof(removal->by), "%s", by);
	job_begin(&removal->job, node, removal_done);
	if (remove_records(removal, vm, &err) < 0)
		removal_fail(removal, &err);
}

/* For a disk that hangs, see node/disks.h. */
struct work {
	struct storage *storage;
	char *vm, *volume;
	int r;
	struct error err;
};

static void work_drop(void *ctx)
{
	struct work *work = ctx;

	free(work->vm);
	free(work->volume);
	free(work);
}

static void work_run(void *ctx)
{
	struct work *work = ctx;

	work->r = volume_remove(work->storage, work->vm, work->volume, &work->err);
}

static int remove_files(const struct node *node, const char *vm, const char *volume,
			struct error *err)
{
	struct work *work = xcalloc(1, sizeof(*work));
	int r;

	work->storage = node->storage;
	work->vm = xstrdup(vm);
	work->volume = xstrdup(volume);
	r = disk_run(&disk_volumes, work_run, work_drop, work, err);
	if (r < 0)
		return error_prefix(err, r, "whether volume '%s' of VM %s goes is not known",
				    volume, vm);
	r = work->r;
	if (r < 0)
		*err = work->err;
	work_drop(work);
	return r;
}

/* A VM whose definition was removed may have left volumes: the name is enough. */
static int remove_volume(struct node *node, json_t *args, struct error *err)
{
	const char *name = NULL, *volume = json_string_or(args, "volume", "");
	const struct node_vm *vm;
	const char *reason;
	enum vm_state state;
	int r;

	r = json_need_string(args, "vm", &name, err);
	if (r < 0)
		return r;
	r = definition_check_name(name, err);
	if (r < 0)
		return r;
	vm = vm_find(node, name);
	if (vm) {
		state = vm_state(vm, &reason);
		if (state == VM_UNKNOWN)
			return error_try_again(err, "the state of VM '%s' cannot be told now%s%s",
					       name, reason ? ": " : "", reason ? reason : "");
		if (state != VM_OFF && state != VM_FAILED)
			return error_refuse(err, "VM '%s' is %s; 'drover stop %s' first", name,
					    vm_state_name(state), name);
	}
	return remove_files(node, name, volume, err);
}

static void remove_one_volume(struct node *node, struct request *request, const char *by)
{
	json_t *args = request_args(request);
	const char *vm = json_string_or(args, "vm", "");
	const char *volume = json_string_or(args, "volume", "");
	json_auto_t *answer = NULL;
	struct error err = { 0 };

	if (remove_volume(node, args, &err) < 0) {
		request_fail(request, &err);
		return;
	}
	log_vm(LOG_LEVEL_INFO, vm, "volume '%s' removed by %s", volume, by);
	events_add(node, vm, "volume-removed", "'%s' by %s", volume, by);
	answer = json_pack("{s:o, s:o}", "removed", json_sprintf("%s/%s", vm, volume),
			   "volumes_left", volumes_left(node, vm));
	request_return(request, answer);
}

void removal_request(struct node *node, struct request *request, const char *by)
{
	if (json_is_string(json_object_get(request_args(request), "volume")))
		remove_one_volume(node, request, by);
	else
		remove_vm(node, request, by);
}
