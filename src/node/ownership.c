/* SPDX-License-Identifier: Apache-2.0 */
#include "node/ownership.h"

#include <errno.h>
#include <string.h>

#include "core/ownership.h"
#include "model/config.h"
#include "model/records.h"
#include "node/job.h"
#include "node/near.h"
#include "node/node.h"
#include "node/offer.h"
#include "node/orders.h"
#include "node/session.h"
#include "node/vm.h"
#include "store/store.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

struct carry {
	struct job job;
	struct request *request;
	char *vm;
	json_t *owner, *hardware; /* hardware may be NULL */
	uint64_t expected;
	int hardware_at; /* which operation wrote it; -1 */
};

static void carry_done(struct job *job)
{
	struct carry *carry = container_of(job, struct carry, job);

	json_decref(carry->owner);
	json_decref(carry->hardware);
	free(carry->vm);
}

static struct carry *carry_new(struct node_vm *vm, struct request *request)
{
	struct carry *carry = xcalloc(1, sizeof(*carry));

	carry->request = request;
	carry->vm = xstrdup(vm->name);
	carry->hardware_at = -1;
	job_begin(&carry->job, vm->node, carry_done);
	return carry;
}

static void carry_fail(struct carry *carry, const struct error *err)
{
	request_fail(carry->request, err);
	job_end(&carry->job);
}

static void on_read_after_conflict(void *ctx, int r, const struct store_entry *entry,
				   const struct error *err)
{
	struct carry *carry = ctx;
	struct node *node = carry->job.node;
	json_auto_t *answer = NULL;
	struct error again = { 0 };
	uint64_t version = r == 0 ? entry->version : 0;
	struct node_vm *vm = vm_find(node, carry->vm);

	if (r < 0 && r != -ENOENT) {
		carry_fail(carry, err);
		return;
	}
	/* The wish is told again after this, with the hardware that goes with that record. */
	if (vm)
		vm_set_record(vm, VM_OWNER, r == 0 ? entry->value : NULL, version);
	if (version == carry->expected) {
		/* So it was our own life record that had changed, or what we knew of the owner was
		 * out of date: nothing was written. */
		session_renew(node);
		(void)error_try_again(&again, "this node joins the cluster anew");
		carry_fail(carry, &again);
		return;
	}
	answer = json_pack("{s:s, s:o, s:I}", "outcome", "conflict", "owner",
			   r == 0 ? json_incref(entry->value) : json_null(), "version",
			   (json_int_t)version);
	request_return(carry->request, answer);
	job_end(&carry->job);
}

static void read_after_conflict(struct carry *carry)
{
	char key[RECORD_KEY_SIZE];
	struct error err = { 0 };

	if (store_get(carry->job.node->store, key_vm(key, carry->vm, "owner"),
		      on_read_after_conflict, carry, &err) < 0)
		carry_fail(carry, &err);
}

static void note_written(struct carry *carry, const uint64_t *versions)
{
	struct node *node = carry->job.node;
	struct node_vm *vm = vm_find(node, carry->vm);

	if (!vm)
		return;
	vm->written = ++node->written;
	vm_set_record(vm, VM_OWNER, carry->owner, versions[1]);
	/* The keeper hears of it by this answer. */
	vm->link.sent.owner_version = versions[1];
	if (carry->hardware_at < 0)
		return;
	vm_set_record(vm, VM_HARDWARE, carry->hardware, versions[carry->hardware_at]);
	vm->link.sent.hardware_version = versions[carry->hardware_at];
}

static void on_owner_written(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct carry *carry = ctx;
	json_auto_t *answer = NULL;

	checkpoint("agent.owner-written");
	if (r == -ESTALE) {
		read_after_conflict(carry);
		return;
	}
	if (r < 0) {
		log_vm(LOG_LEVEL_WARNING, carry->vm, "owner record: %s", err->text);
		carry_fail(carry, err);
		return;
	}
	note_written(carry, versions);
	answer = json_pack("{s:s, s:I}", "outcome", "done", "version", (json_int_t)versions[1]);
	request_return(carry->request, answer);
	job_end(&carry->job);
}

/* May this keeper ask for that at all?  The store is not asked yet: so this is a "no" to this try,
 * and says nothing of an earlier one that went unanswered. */
static int check_owner_write(struct node_vm *vm, const struct owner *owner, struct error *err)
{
	const struct owner *before = vm->version[VM_OWNER] ? &vm->owner : NULL;
	int r;

	if (vm->unreadable[VM_OWNER])
		return error_set_class(err, ERROR_REFUSED, -EUCLEAN, "VM '%s': %s", vm->name,
				       vm->unreadable[VM_OWNER]);
	r = owner_check_write(before, owner, vm->node->config->node, err);
	if (r < 0)
		return r;
	if (owner->phase != OWNER_OFF && !vm_defined(vm))
		return error_refuse(err, "VM '%s' is not defined (any more)", vm->name);
	return session_check(vm->node, err);
}

static int owner_write_parse(struct node_vm *vm, json_t *args, struct carry *carry,
			     struct owner *ret_owner, struct error *err)
{
	json_t *owner, *hardware = json_object_get(args, "hardware");
	int64_t expected;
	int r;

	r = json_need_int(args, "expected", &expected, err);
	if (r < 0)
		return r;
	r = json_need_object(args, "owner", &owner, err);
	if (r < 0)
		return r;
	r = owner_parse(owner, ret_owner, err);
	if (r < 0)
		return r;
	carry->expected = (uint64_t)expected;
	carry->owner = json_incref(owner);
	if (json_is_object(hardware))
		carry->hardware = json_incref(hardware);
	return 0;
}

/* Who must look at the VM: its holder, and during a move both sides (protocol, section 2). */
#define INDEXED 3
static void indexed_nodes(const struct owner *owner, const char *nodes[INDEXED])
{
	nodes[0] = owner->phase == OWNER_OFF ? "" : owner->node;
	nodes[1] = owner->to;
	nodes[2] = owner->feeder;
}

static bool is_indexed(const char *const nodes[INDEXED], const char *node)
{
	for (size_t i = 0; i < INDEXED; i++)
		if (strcmp(nodes[i], node) == 0)
			return true;
	return false;
}

/* Each node once, what goes first; `ops` and `keys` have room for 2 * INDEXED. */
static size_t index_ops(const struct node_vm *vm, const struct owner *after, json_t *index,
			struct store_op *ops, char (*keys)[RECORD_KEY_SIZE])
{
	const char *before_nodes[INDEXED], *after_nodes[INDEXED], *done[2 * INDEXED] = { 0 };
	size_t count = 0;

	indexed_nodes(&vm->owner, before_nodes);
	indexed_nodes(after, after_nodes);
	for (size_t i = 0; i < 2 * INDEXED; i++) {
		const char *node = i < INDEXED ? before_nodes[i] : after_nodes[i - INDEXED];
		bool stays = is_indexed(after_nodes, node) || near_stays(vm, node), again = !*node;

		for (size_t j = 0; j < count; j++)
			again |= strcmp(done[j], node) == 0;
		if (again)
			continue;
		done[count] = node;
		ops[count] = (struct store_op){
			.kind = stays ? STORE_PUT : STORE_DELETE,
			.key = key_assign(keys[count], node, vm->name),
			.expected = STORE_ANY,
			.value = stays ? index : NULL,
		};
		count++;
	}
	return count;
}

static int owner_write(struct node_vm *vm, struct carry *carry, const struct owner *after,
		       struct error *err)
{
	struct node *node = vm->node;
	char life[RECORD_KEY_SIZE], owner[RECORD_KEY_SIZE], hardware[RECORD_KEY_SIZE];
	char assign[2 * INDEXED][RECORD_KEY_SIZE];
	json_auto_t *index = json_pack("{s:i}", "v", 1);
	struct store_op ops[2 + 2 * INDEXED + 1] = {
		{ .kind = STORE_CHECK,
		  .key = key_node(life, node->config->node, "life"),
		  .expected = session_life_version(node) },
		{ .kind = STORE_PUT,
		  .key = key_vm(owner, vm->name, "owner"),
		  .expected = carry->expected,
		  .value = carry->owner },
	};
	size_t count = 2;

	count += index_ops(vm, after, index, &ops[count], assign);
	if (carry->hardware) {
		carry->hardware_at = (int)count;
		ops[count++] = (struct store_op){ .kind = STORE_PUT,
						  .key = key_vm(hardware, vm->name, "hardware"),
						  .expected = STORE_ANY,
						  .value = carry->hardware };
	}
	return store_write(node->store, ops, count, on_owner_written, carry, err);
}

static void on_owner_write(struct node_vm *vm, struct request *request)
{
	struct carry *carry = carry_new(vm, request);
	struct owner owner = { 0 };
	struct error err = { 0 };
	int r;

	checkpoint("agent.owner-write");
	r = owner_write_parse(vm, request_args(request), carry, &owner, &err);
	if (r == 0 && carry->expected != vm->version[VM_OWNER] && !vm->unreadable[VM_OWNER]) {
		/* It cannot land, and whether it may cannot be told: the keeper learns what is. */
		owner_done(&owner);
		read_after_conflict(carry);
		return;
	}
	if (r == 0)
		r = check_owner_write(vm, &owner, &err);
	if (r == 0)
		r = owner_write(vm, carry, &owner, &err);
	owner_done(&owner);
	if (r < 0)
		carry_fail(carry, &err);
}

static void on_hardware_written(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct carry *carry = ctx;
	struct node *node = carry->job.node;
	struct node_vm *vm = vm_find(node, carry->vm);
	struct error again = { 0 };

	if (r == -ESTALE) {
		/* Life or owner moved on; the keeper asks again, with what is true then. */
		session_renew(node);
		(void)error_try_again(&again, "the owner record has changed");
		carry_fail(carry, &again);
		return;
	}
	if (r < 0) {
		carry_fail(carry, err);
		return;
	}
	if (vm) {
		vm->written = ++node->written;
		vm_set_record(vm, VM_HARDWARE, carry->hardware, versions[2]);
		vm->link.sent.hardware_version = versions[2];
	}
	request_return(carry->request, NULL);
	job_end(&carry->job);
}

static int hardware_write(struct node_vm *vm, struct carry *carry, json_t *args, struct error *err)
{
	struct node *node = vm->node;
	char life[RECORD_KEY_SIZE], owner[RECORD_KEY_SIZE], hardware[RECORD_KEY_SIZE];
	json_t *value;
	int r;

	r = json_need_object(args, "hardware", &value, err);
	if (r < 0)
		return r;
	r = session_check(node, err);
	if (r < 0)
		return r;
	if (vm->owner.phase == OWNER_OFF || strcmp(vm->owner.node, node->config->node) != 0)
		return error_refuse(err, "this node does not hold VM '%s'", vm->name);
	carry->hardware = json_incref(value);
	const struct store_op ops[] = {
		{ .kind = STORE_CHECK,
		  .key = key_node(life, node->config->node, "life"),
		  .expected = session_life_version(node) },
		{ .kind = STORE_CHECK,
		  .key = key_vm(owner, vm->name, "owner"),
		  .expected = vm->version[VM_OWNER] },
		{ .kind = STORE_PUT,
		  .key = key_vm(hardware, vm->name, "hardware"),
		  .expected = STORE_ANY,
		  .value = value },
	};
	return store_write(node->store, ops, ARRAY_SIZE(ops), on_hardware_written, carry, err);
}

static void on_hardware_write(struct node_vm *vm, struct request *request)
{
	struct carry *carry = carry_new(vm, request);
	struct error err = { 0 };

	if (hardware_write(vm, carry, request_args(request), &err) < 0)
		carry_fail(carry, &err);
}

static const struct {
	const char *name;
	void (*run)(struct node_vm *vm, struct request *request);
} requests[] = {
	{ "owner-write", on_owner_write },	 { "hardware-write", on_hardware_write },
	{ "order-stop", orders_stop_by_keeper }, { "offer-write", offer_write },
	{ "store-fresh", offer_store_fresh },
};

void ownership_request(struct node_vm *vm, struct request *request)
{
	const char *name = request_command(request);
	struct error err = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		if (strcmp(requests[i].name, name) == 0) {
			requests[i].run(vm, request);
			return;
		}
	}
	(void)error_usage(&err, "the agent knows no request '%s'", name);
	request_fail(request, &err);
}
