/* SPDX-License-Identifier: Apache-2.0 */
#include "node/taking.h"

#include <stdlib.h>
#include <string.h>

#include "model/definition.h"
#include "node/node.h"
#include "node/records.h"
#include "node/vm.h"
#include "store/store.h"
#include "util/mem.h"

#define STEP 200 /* VMs */

struct taking {
	struct node *node;
	struct store_entry *entries;
	size_t count, at;
	uint64_t asked_written;
	bool again;
	taking_fn done;
	void *ctx;
	sd_event_source *next;
};

/* Each VM is marked as it is seen; the marks of the one before are gone. */
static void marks_clear(const struct node *node)
{
	for (size_t i = 0; i < node->n_vms; i++)
		node->vms[i]->taken = false;
}

/* How many of the entries from this one on are of the same VM. */
static size_t entries_of_vm(const struct taking *taking)
{
	const char *key = taking->entries[taking->at].key;
	size_t length = strlen(VMS_PREFIX) + strcspn(key + strlen(VMS_PREFIX), "/") + 1;
	size_t n = 1;

	while (taking->at + n < taking->count &&
	       strncmp(taking->entries[taking->at + n].key, key, length) == 0)
		n++;
	return n;
}

static void take_vm(struct taking *taking, const struct store_entry *entries, size_t count)
{
	char name[VM_NAME_MAX + 1];
	struct node_vm *vm;
	size_t known = 0;

	while (known < count && records_split_key(entries[known].key, name) < 0)
		known++;
	if (known == count)
		return;
	vm = vm_find(taking->node, name);
	if (vm && vm->taken)
		return;
	if (!records_take(taking->node, name, entries, count, taking->asked_written))
		taking->again = true;
	vm_need(taking->node, name)->taken = true;
}

/* What was not seen is no more.  Names of which nothing is known go when they are looked at. */
static void sweep(struct taking *taking)
{
	const struct node *node = taking->node;

	for (size_t i = 0; i < node->n_vms; i++) {
		struct node_vm *vm = node->vms[i];

		if (!vm->taken &&
		    !records_take(taking->node, vm->name, NULL, 0, taking->asked_written))
			taking->again = true;
		if (!vm_defined(vm))
			vm_touch(vm);
	}
}

struct taking *taking_close(struct taking *taking)
{
	if (!taking)
		return NULL;
	store_entries_free(taking->entries, taking->count);
	sd_event_source_disable_unref(taking->next);
	free(taking);
	return NULL;
}

static int step(struct taking *taking);

static int on_next(sd_event_source *source, uint64_t usec, void *userdata)
{
	return step(userdata);
}

static int step(struct taking *taking)
{
	struct node *node = taking->node;
	taking_fn done = taking->done;
	void *ctx = taking->ctx;
	bool again;

	for (int i = 0; i < STEP && taking->at < taking->count; i++) {
		size_t n = entries_of_vm(taking);

		take_vm(taking, &taking->entries[taking->at], n);
		taking->at += n;
	}
	if (taking->at < taking->count) {
		node_timer(node, &taking->next, 0, on_next, taking);
		return 0;
	}
	sweep(taking);
	again = taking->again;
	node->taking = taking_close(taking);
	done(ctx, again);
	return 0;
}

void taking_begin(struct node *node, const struct store_entry *entries, size_t count,
		  uint64_t asked_written, taking_fn done, void *ctx)
{
	struct taking *taking = xcalloc(1, sizeof(*taking));

	taking->node = node;
	taking->entries = store_entries_copy(entries, count);
	taking->count = count;
	taking->asked_written = asked_written;
	taking->done = done;
	taking->ctx = ctx;
	node->taking = taking;
	marks_clear(node);
	(void)step(taking);
}

void taking_skip(const struct node *node, const char *name)
{
	struct node_vm *vm = node->taking ? vm_find(node, name) : NULL;

	if (vm)
		vm->taken = true;
}
