/* SPDX-License-Identifier: Apache-2.0 */
#include "node/near.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "model/definition.h"
#include "node/ask.h"
#include "node/membership.h"
#include "node/moves.h"
#include "node/node.h"
#include "node/orders.h"
#include "node/records.h"
#include "node/schema.h"
#include "node/taking.h"
#include "node/vm.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

#define FEW 10	 /* members: each may list as it likes */
#define SHARE 10 /* all together have the store list for a tenth of its time */
#define OFTEN (1 * USEC_PER_SEC)

struct near_vm {
	struct near *near;
	struct near_vm *next;
	char *name;
	struct store_watch *watch; /* NULL: it is nobody's business here any more */
	bool asked, again;
	uint64_t asked_written;
	uint64_t indexed; /* version of its entry; 0: none */
};

struct near {
	struct node *node;
	bool on;
	bool asked, again;
	bool mend; /* what it lacks is to be put in when it was read */
	struct store_watch *assign;
	struct near_vm *vms;
	sd_event_source *retry;
};

static void index_ask(struct near *near);
static void near_vm_ask(struct near_vm *it);

/* ---- when ---- */

/* In test builds: whatever a listing costs, and with how many members. */
static uint64_t test_number(const char *name)
{
#ifdef DROVER_CHECKPOINTS
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 10) : 0;
#else
	return 0;
#endif
}

static bool are_many(size_t members)
{
	uint64_t few = test_number("DROVER_TEST_FEW");

	if (few > 0)
		return members > few;
	return members > FEW || test_number("DROVER_TEST_NEAR") > 0;
}

/* Written it is long before anybody lives by it, and for long afterwards: not all hear at the same
 * moment that the cluster has grown or become smaller.  And before it is known how many there are.
 */
static bool near_is_written(const struct node *node)
{
	size_t members = membership_count(node);

	return members == 0 ? membership_identity(node) != NULL : are_many(2 * members);
}

bool near_is_on(const struct node *node)
{
	return node->near && node->near->on;
}

bool near_target(const struct placement_facts *facts, const struct node *node,
		 const char **ret_target)
{
	if (!near_is_written(node) || !facts->definition)
		return false;
	(void)placement_node(facts, ret_target);
	return strcmp(*ret_target, node->config->node) != 0;
}

/* ---- one VM ---- */

static bool names_us(const struct node_vm *vm, const char *node)
{
	return strcmp(node, vm->node->config->node) == 0;
}

static bool is_ours(const struct node_vm *vm)
{
	const char *target = vm_target(vm);

	return (target && names_us(vm, target)) || vm->link.state != LINK_NONE ||
	       names_us(vm, vm->owner.node) || names_us(vm, vm->owner.to) ||
	       names_us(vm, vm->owner.feeder) || vm->file_error || vm_unreadable(vm) ||
	       orders_wait_for(vm) || moves_wait_for(vm) ||
	       (strcmp(vm->record.source, "file") == 0 && names_us(vm, vm->record.node));
}

static void near_vm_free(struct near_vm *it)
{
	struct near_vm **at = &it->near->vms;

	while (*at != it)
		at = &(*at)->next;
	*at = it->next;
	if (it->watch)
		store_unwatch(it->watch);
	free(it->name);
	free(it);
}

/* One whose listing is on its way is freed with the answer. */
static void near_vm_leave(struct near_vm *it)
{
	if (it->watch)
		store_unwatch(it->watch);
	it->watch = NULL;
	if (!it->asked)
		near_vm_free(it);
}

static struct near_vm *near_find(const struct near *near, const char *name)
{
	struct near_vm *it = near->vms;

	while (it && (!it->watch || strcmp(it->name, name) != 0))
		it = it->next;
	return it;
}

static int on_retry(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct near *near = ctx;

	if (!near->on)
		return 0;
	if (near->again)
		index_ask(near);
	for (struct near_vm *it = near->vms; it; it = it->next)
		if (it->watch && it->again)
			near_vm_ask(it);
	near_look(near->node);
	return 0;
}

static void try_again(struct near *near, const struct error *err)
{
	log_debug("what is this node's business cannot be read: %s", err->text);
	node_timer(near->node, &near->retry, near->node->config->timers.store_retry, on_retry,
		   near);
}

bool near_stays(const struct node_vm *vm, const char *node)
{
	const char *target = near_is_written(vm->node) ? vm_target(vm) : NULL;

	return target && strcmp(target, node) == 0;
}

/* Whether it was done is seen at the next look. */
static void on_index_written(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
}

/* Its entry says that it is our business, and it is not: only if nobody wrote it meanwhile. */
static void index_drop(struct near_vm *it)
{
	struct node *node = it->near->node;
	char key[RECORD_KEY_SIZE];
	const struct store_op op = {
		.kind = STORE_DELETE,
		.key = key_assign(key, node->config->node, it->name),
		.expected = it->indexed,
	};

	log_vm(LOG_LEVEL_INFO, it->name,
	       "is in this node's index and none of its business (any "
	       "more): taking it out");
	(void)ask_write(node, &op, 1, node->config->timers.session, on_index_written, NULL, NULL);
	it->indexed = 0;
}

static void on_vm_listed(void *ctx, int r, const struct store_entry *entries, size_t count,
			 const struct error *err)
{
	struct near_vm *it = ctx;
	struct near *near = it->near;
	const struct node_vm *vm;

	it->asked = false;
	if (!it->watch) {
		near_vm_free(it);
		return;
	}
	if (r < 0) {
		it->again = true;
		try_again(near, err);
		return;
	}
	if (!records_take(near->node, it->name, entries, count, it->asked_written))
		it->again = true;
	taking_skip(near->node, it->name);
	vm = vm_find(near->node, it->name);
	if (it->again)
		near_vm_ask(it);
	else if (it->indexed && (!vm || !is_ours(vm)))
		index_drop(it);
	near_look(near->node);
}

static void near_vm_ask(struct near_vm *it)
{
	CLEANUP_FREE char *prefix = xasprintf("/drover/vms/%s/", it->name);
	struct node *node = it->near->node;
	struct error err = { 0 };

	it->again = it->asked;
	if (it->asked)
		return;
	it->asked_written = node->written;
	it->asked = schema_list(node, prefix, on_vm_listed, it, &err) == 0;
	if (!it->asked) {
		it->again = true;
		try_again(it->near, &err);
	}
}

static void on_vm_changed(void *ctx)
{
	near_vm_ask(ctx);
}

/* Nothing is missed: the first look follows the setting of the watch. */
static struct near_vm *near_need(struct near *near, const char *name)
{
	CLEANUP_FREE char *prefix = xasprintf("/drover/vms/%s/", name);
	struct near_vm *it = near_find(near, name);
	struct error err = { 0 };

	if (it)
		return it;
	it = xcalloc(1, sizeof(*it));
	it->near = near;
	it->name = xstrdup(name);
	it->next = near->vms;
	near->vms = it;
	if (store_watch(near->node->store, prefix, on_vm_changed, it, &it->watch, &err) < 0) {
		it->watch = NULL;
		near_vm_free(it);
		try_again(near, &err);
		return NULL;
	}
	return it;
}

bool near_has(const struct node *node, const char *vm)
{
	return near_is_on(node) && near_find(node->near, vm);
}

void near_look(struct node *node)
{
	struct near *near = node->near;

	if (!near_is_on(node))
		return;
	for (size_t i = 0; i < node->n_vms; i++)
		if (is_ours(node->vms[i]))
			(void)near_need(near, node->vms[i]->name);
	for (struct near_vm *it = near->vms, *next; it; it = next) {
		const struct node_vm *vm = vm_find(node, it->name);

		next = it->next;
		if (it->watch && !it->indexed && !(vm && is_ours(vm)))
			near_vm_leave(it);
	}
}

/* ---- the index ---- */

static bool is_to_be_indexed(const struct node_vm *vm)
{
	const char *target = vm_target(vm);

	return (target && names_us(vm, target)) || names_us(vm, vm->owner.to) ||
	       names_us(vm, vm->owner.feeder) ||
	       (vm->owner.phase != OWNER_OFF && names_us(vm, vm->owner.node));
}

/* Only if what makes it our business is as we know it. */
static void index_add(const struct node_vm *vm)
{
	static const enum vm_leaf reasons[] = { VM_DEFINITION, VM_PLACEMENT, VM_OWNER };
	struct node *node = vm->node;
	char keys[ARRAY_SIZE(reasons) + 1][RECORD_KEY_SIZE];
	json_auto_t *entry = json_pack("{s:i}", "v", 1);
	struct store_op ops[ARRAY_SIZE(reasons) + 1];
	size_t n = 0;

	for (; n < ARRAY_SIZE(reasons); n++)
		ops[n] = (struct store_op){
			.kind = STORE_CHECK,
			.key = key_vm(keys[n], vm->name, vm_leaf_name(reasons[n])),
			.expected = vm->version[reasons[n]],
		};
	ops[n] = (struct store_op){ .kind = STORE_PUT,
				    .key = key_assign(keys[n], node->config->node, vm->name),
				    .expected = STORE_ABSENT,
				    .value = entry };
	log_vm(LOG_LEVEL_INFO, vm->name,
	       "is this node's business and not in its index: putting it in");
	(void)ask_write(node, ops, n + 1, node->config->timers.session, on_index_written, NULL,
			NULL);
}

/* All were listed, and then the index was. */
static void index_mend(struct near *near)
{
	const struct node *node = near->node;

	near->mend = false;
	for (size_t i = 0; i < node->n_vms; i++) {
		const struct node_vm *vm = node->vms[i];
		const struct near_vm *it = is_to_be_indexed(vm) ? near_find(near, vm->name) : NULL;

		if (it && !it->indexed)
			index_add(vm);
	}
}

static void on_indexed(void *ctx, int r, const struct store_entry *entries, size_t count,
		       const struct error *err)
{
	struct near *near = ctx;

	near->asked = false;
	if (!near->on)
		return;
	if (r < 0) {
		near->again = true;
		try_again(near, err);
		return;
	}
	for (struct near_vm *it = near->vms; it; it = it->next)
		it->indexed = 0;
	for (size_t i = 0; i < count; i++) {
		const char *name = strrchr(entries[i].key, '/') + 1;
		struct near_vm *it =
			definition_check_name(name, NULL) == 0 ? near_need(near, name) : NULL;

		if (it)
			it->indexed = entries[i].version;
	}
	near_look(near->node);
	if (near->again)
		index_ask(near);
	else if (near->mend)
		index_mend(near);
}

static void index_ask(struct near *near)
{
	char prefix[RECORD_KEY_SIZE];
	struct error err = { 0 };

	near->again = near->asked;
	if (near->asked)
		return;
	near->asked = schema_list(near->node, key_assign(prefix, near->node->config->node, ""),
				  on_indexed, near, &err) == 0;
	if (!near->asked) {
		near->again = true;
		try_again(near, &err);
	}
}

static void on_index_changed(void *ctx)
{
	index_ask(ctx);
}

/* ---- on and off ---- */

static int begin(struct near *near)
{
	char prefix[RECORD_KEY_SIZE];
	struct error err = { 0 };
	int r;

	r = store_watch(near->node->store, key_assign(prefix, near->node->config->node, ""),
			on_index_changed, near, &near->assign, &err);
	if (r < 0) {
		log_warning("the index of this node cannot be watched: %s", err.text);
		return r;
	}
	near->on = true;
	log_info("listing all VMs takes long here: living by the index of this node");
	near_look(near->node);
	return 0;
}

static void end(struct near *near)
{
	near->on = false;
	store_unwatch(near->assign);
	near->assign = NULL;
	for (struct near_vm *it = near->vms, *next; it; it = next) {
		next = it->next;
		near_vm_leave(it);
	}
	log_info("all VMs are listed again after each change");
}

uint64_t near_decide(struct node *node, uint64_t took_usec)
{
	uint64_t interval = test_number("DROVER_TEST_NEAR");
	size_t members = membership_count(node);

	if (!are_many(members))
		interval = 0;
	else if (interval == 0)
		interval = took_usec * SHARE * members;
	if (!node->near) {
		node->near = xcalloc(1, sizeof(*node->near));
		node->near->node = node;
	}
	if (interval < OFTEN && node->near->on)
		end(node->near);
	if (interval < OFTEN || (!node->near->on && begin(node->near) < 0))
		return 0;
	node->near->mend = true;
	index_ask(node->near);
	return interval;
}

void near_members(struct node *node)
{
	if (near_is_on(node) && !are_many(membership_count(node)))
		records_refresh(node);
}

struct near *near_close(struct near *near)
{
	if (!near)
		return NULL;
	if (near->assign)
		store_unwatch(near->assign);
	while (near->vms)
		near_vm_free(near->vms);
	sd_event_source_disable_unref(near->retry);
	free(near);
	return NULL;
}
