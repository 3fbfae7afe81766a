/* SPDX-License-Identifier: Apache-2.0 */
#include "node/definitions.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "model/definition.h"
#include "model/records.h"
#include "node/ask.h"
#include "node/disks.h"
#include "node/events.h"
#include "node/job.h"
#include "node/near.h"
#include "node/node.h"
#include "node/records.h"
#include "node/vm.h"
#include "store/store.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

#define RECORD_ROOM 4096u /* what a record holds beside the definition */
#define INDEX_BYTES 8	  /* {"v":1} */

static const char *const change_names[] = {
	[CHANGE_CREATED] = "created",
	[CHANGE_CHANGED] = "changed",
	[CHANGE_NONE] = "unchanged",
};

const char *change_name(enum change change)
{
	return change_names[change];
}

void plan_done(struct plan *plan)
{
	for (size_t i = 0; i < plan->count; i++) {
		struct plan_item *item = &plan->items[i];

		free(item->name);
		free(item->diff);
		free(item->index);
		json_decref(item->record);
		json_decref(item->notes);
	}
	free(plan->items);
	*plan = (struct plan){ 0 };
}

static struct plan_item *plan_item_new(struct plan *plan, const char *name)
{
	struct plan_item *item;

	plan->items = xrealloc(plan->items, plan->count + 1, sizeof(*plan->items));
	item = &plan->items[plan->count++];
	*item = (struct plan_item){ .name = xstrdup(name), .notes = json_array() };
	return item;
}

static const char *source_words(const struct node *node, const struct source *source, char *buffer,
				size_t size)
{
	if (source->path)
		(void)snprintf(buffer, size, "file %s:%s", node->config->node, source->path);
	else
		(void)snprintf(buffer, size, "%s", source->feed ? "consul" : "apply");
	return buffer;
}

static bool file_is_gone(const struct node *node, const struct definition_record *record)
{
	if (record->gone)
		return true;
	return strcmp(record->node, node->config->node) == 0 &&
	       disk_look(&disk_definitions, record->path) == -ENOENT;
}

static bool source_same(const struct node *node, const struct definition_record *record,
			const struct source *source)
{
	if (!source->path)
		return strcmp(record->source, source->feed ? "consul" : "apply") == 0;
	return strcmp(record->source, "file") == 0 && strcmp(record->path, source->path) == 0 &&
	       strcmp(record->node, node->config->node) == 0;
}

/* One name, one source.  A file that is gone speaks no more, so another source may follow it. */
static int check_source(const struct node_vm *vm, const struct source *source, struct error *err)
{
	const struct node *node = vm->node;
	const struct definition_record *record = &vm->record;
	char first[VM_SOURCE_SIZE], second[VM_SOURCE_SIZE];

	if (!record->source[0])
		return error_set_class(err, ERROR_REFUSED, -EUCLEAN, "VM '%s': %s", vm->name,
				       vm_unreadable(vm) ? vm_unreadable(vm) : "has no source");
	if (source_same(node, record, source))
		return 0;
	if (strcmp(record->source, "file") == 0 && file_is_gone(node, record))
		return 0;
	return error_refuse(err,
			    "VM '%s' is defined by %s already, a second definition by %s is "
			    "refused; %s",
			    vm->name, definition_record_source(record, first, sizeof(first)),
			    source_words(node, source, second, sizeof(second)),
			    strcmp(record->source, "file") == 0
				    ? "change that file, or remove it first"
				    : "remove the VM with 'drover rm' first");
}

static json_t *record_of(const struct node *node, const struct source *source, uint64_t generation,
			 uint64_t host_generation, json_t *tree, json_t *rest)
{
	struct definition_record record = {
		.generation = generation,
		.host_generation = host_generation,
		.definition = tree,
		.rest = rest,
	};

	(void)snprintf(record.source, sizeof(record.source), "%s",
		       source->path   ? "file"
		       : source->feed ? "consul"
				      : "apply");
	/* Where nothing else says where the VM should be, it is here. */
	(void)snprintf(record.node, sizeof(record.node), "%s", node->config->node);
	if (source->path)
		(void)snprintf(record.path, sizeof(record.path), "%s", source->path);
	return definition_record_json(&record);
}

/* One that the store does not take must not hold up the others that are written with it. */
static int check_size(const struct definition *definition, struct error *err)
{
	size_t size = json_dumpb(definition->tree, NULL, 0, JSON_COMPACT);

	if (size + RECORD_ROOM <= STORE_VALUE_MAX)
		return 0;
	return error_bad_data(err,
			      "VM '%s': its definition has %zu bytes, at most %u can be stored",
			      definition->name, size, STORE_VALUE_MAX - RECORD_ROOM);
}

static const char *host_of(const json_t *tree)
{
	return json_string_or(json_object_get(tree, "parameters"), "kvm_host", "");
}

static void plan_change(struct plan_item *item, const struct node_vm *vm,
			const struct source *source, json_t *tree)
{
	const struct definition_record *record = &vm->record;
	bool equal = json_equal(vm_tree(vm), tree);
	uint64_t generation = record->generation + (equal ? 0 : 1);
	const char *host = host_of(tree);
	struct text diff = { 0 };

	item->version = vm->version[VM_DEFINITION];
	item->change = CHANGE_NONE;
	if (equal && !record->gone && source_same(vm->node, record, source))
		return;
	item->change = CHANGE_CHANGED;
	if (record->gone)
		json_array_append_new(item->notes,
				      json_pack("s", "its file was gone; hands are on again"));
	item->record = record_of(vm->node, source, generation,
				 *host && strcmp(host, host_of(vm_tree(vm))) != 0
					 ? generation
					 : record->host_generation,
				 tree, record->rest);
	definition_diff(vm_tree(vm), tree, &diff);
	item->diff = diff.text;
}

static void plan_index(struct plan_item *item, const struct node *node, const struct node_vm *vm,
		       const struct definition *definition)
{
	static const struct placement none = { 0 };
	struct placement_facts facts = { .placement = &none };
	const char *target;

	if (!item->record)
		return;
	if (vm)
		facts = vm_placement_facts(vm);
	facts.vm = item->name;
	facts.definition = definition;
	facts.generation = (uint64_t)json_int_or(item->record, "generation", 0);
	facts.host_generation = (uint64_t)json_int_or(item->record, "host_generation", 0);
	facts.source = facts.node = node->config->node;
	if (near_target(&facts, node, &target))
		item->index = xstrdup(target);
}

int plan_add(struct plan *plan, const struct node *node, const struct source *source,
	     const struct definition *definition, const struct definition_notes *notes,
	     struct error *err)
{
	const struct node_vm *vm = vm_find(node, definition->name);
	struct plan_item *item;
	int r;

	if (source->path && strlen(source->path) >= sizeof(((struct definition_record *)0)->path))
		return error_bad_data(err, "the path '%s' is too long", source->path);
	r = check_size(definition, err);
	if (r < 0)
		return r;
	if (vm && vm_defined(vm)) {
		r = check_source(vm, source, err);
		if (r < 0)
			return r;
	}
	item = plan_item_new(plan, definition->name);
	for (size_t i = 0; i < notes->count; i++)
		json_array_append_new(item->notes,
				      json_text(notes->lines[i], strlen(notes->lines[i])));
	if (vm && vm_defined(vm)) {
		plan_change(item, vm, source, definition->tree);
		plan_index(item, node, vm, definition);
		return 0;
	}
	item->change = CHANGE_CREATED;
	item->version = STORE_ABSENT;
	item->record = record_of(node, source, 1, 0, definition->tree, NULL);
	plan_index(item, node, vm, definition);
	return 0;
}

void plan_add_gone(struct plan *plan, const struct node *node, const char *name)
{
	const struct node_vm *vm = vm_find(node, name);
	struct definition_record record;
	struct plan_item *item;

	if (!vm || !vm_defined(vm) || vm->record.gone || !vm_tree(vm))
		return;
	record = vm->record;
	record.gone = true;
	record.definition = vm_tree(vm);
	item = plan_item_new(plan, name);
	item->change = CHANGE_CHANGED;
	item->version = vm->version[VM_DEFINITION];
	item->record = definition_record_json(&record);
}

/* ---- writing ---- */

/* What a change takes of the store's limit. */
static size_t item_bytes(const struct plan_item *item)
{
	char key[RECORD_KEY_SIZE];

	return strlen(key_vm(key, item->name, "definition")) +
	       json_dumpb(item->record, NULL, 0, JSON_COMPACT) +
	       (item->index ? strlen(key_assign(key, item->index, item->name)) + INDEX_BYTES : 0);
}

static size_t item_ops(const struct plan_item *item)
{
	return item->index ? 2 : 1;
}

struct writing {
	struct job job;
	struct plan plan;
	size_t next, n_batch;
	size_t *batch; /* places in the plan; STORE_OPS_MAX */
	sd_event_source *later;
	plan_written_fn done;
	void *ctx;
};

static void writing_done(struct job *job)
{
	struct writing *writing = container_of(job, struct writing, job);

	plan_done(&writing->plan);
	free(writing->batch);
	sd_event_source_disable_unref(writing->later);
}

static void write_batch(struct writing *writing);

static void finish_writing(struct writing *writing, int r, const struct error *err)
{
	plan_written_fn done = writing->done;
	void *ctx = writing->ctx;

	job_end(&writing->job);
	done(ctx, r, err);
}

static void note_written(struct node *node, const struct plan_item *item, uint64_t version)
{
	struct node_vm *vm = vm_need(node, item->name);
	bool gone = json_bool_or(item->record, "gone", false);
	char source[VM_SOURCE_SIZE];

	vm->written = ++node->written;
	vm_set_record(vm, VM_DEFINITION, item->record, version);
	(void)definition_record_source(&vm->record, source, sizeof(source));
	events_add(node, item->name,
		   gone				    ? "definition-gone"
		   : item->change == CHANGE_CREATED ? "definition-created"
						    : "definition-changed",
		   "generation %llu by %s", (unsigned long long)vm->record.generation, source);
	log_vm(LOG_LEVEL_INFO, item->name, "definition %s: generation %llu by %s",
	       gone ? "gone" : change_name(item->change), (unsigned long long)vm->record.generation,
	       source);
}

static void on_batch(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct writing *writing = ctx;

	if (r < 0) {
		finish_writing(writing, r, err);
		return;
	}
	checkpoint("agent.definition-written");
	for (size_t i = 0; i < writing->n_batch; i++)
		note_written(writing->job.node, &writing->plan.items[writing->batch[i]],
			     versions[i]);
	write_batch(writing);
}

static int on_nothing(sd_event_source *source, void *userdata)
{
	finish_writing(userdata, 0, NULL);
	return 0;
}

struct batch {
	struct store_op ops[STORE_OPS_MAX];
	char keys[STORE_OPS_MAX][RECORD_KEY_SIZE];
	size_t count;
	json_t *index; /* what an entry says */
};

static void batch_add(struct batch *batch, uint64_t expected, json_t *value)
{
	batch->ops[batch->count] = (struct store_op){ .kind = STORE_PUT,
						      .key = batch->keys[batch->count],
						      .expected = expected,
						      .value = value };
	batch->count++;
}

/* Definitions first, so that their versions are found; then who is to look at them. */
static void fill_batch(struct writing *writing, struct batch *batch)
{
	const struct store_limits limits = store_limits(writing->job.node->store);
	const struct plan *plan = &writing->plan;
	size_t ops = 0, bytes = 0;

	writing->n_batch = 0;
	for (; writing->next < plan->count; writing->next++) {
		const struct plan_item *item = &plan->items[writing->next];

		if (!item->record)
			continue;
		bytes += item_bytes(item);
		ops += item_ops(item);
		if (ops > limits.ops || (batch->count > 0 && bytes > limits.bytes))
			break;
		writing->batch[writing->n_batch++] = writing->next;
		(void)key_vm(batch->keys[batch->count], item->name, "definition");
		batch_add(batch, item->version, item->record);
	}
	for (size_t i = 0; i < writing->n_batch; i++) {
		const struct plan_item *item = &plan->items[writing->batch[i]];

		if (!item->index)
			continue;
		(void)key_assign(batch->keys[batch->count], item->index, item->name);
		batch_add(batch, STORE_ANY, batch->index);
	}
}

static void write_batch(struct writing *writing)
{
	CLEANUP_FREE struct batch *batch = xcalloc(1, sizeof(*batch));
	json_auto_t *index = json_pack("{s:i}", "v", 1);
	struct node *node = writing->job.node;
	struct error err = { 0 };
	int r;

	batch->index = index;
	fill_batch(writing, batch);
	if (batch->count == 0) {
		if (sd_event_add_defer(node->loop, &writing->later, on_nothing, writing) < 0)
			finish_writing(writing, 0, NULL);
		return;
	}
	r = ask_write(node, batch->ops, batch->count, node->config->timers.session, on_batch,
		      writing, &err);
	if (r < 0)
		finish_writing(writing, r, &err);
}

void plan_write(struct node *node, struct plan *plan, plan_written_fn done, void *ctx)
{
	struct writing *writing = xcalloc(1, sizeof(*writing));

	writing->plan = *plan;
	*plan = (struct plan){ 0 };
	writing->batch = xcalloc(STORE_OPS_MAX, sizeof(*writing->batch));
	writing->done = done;
	writing->ctx = ctx;
	job_begin(&writing->job, node, writing_done);
	write_batch(writing);
}

int plan_fits(const struct plan *plan, const struct node *node, struct error *err)
{
	const struct store_limits limits = store_limits(node->store);
	size_t count = 0, bytes = 0;

	for (size_t i = 0; i < plan->count; i++)
		if (plan->items[i].record) {
			count += item_ops(&plan->items[i]);
			bytes += item_bytes(&plan->items[i]);
		}
	if (count > limits.ops)
		return error_refuse(err,
				    "%zu VMs would be created or changed, and at most %zu at once "
				    "can be; nothing was applied: give fewer at a time",
				    count, limits.ops);
	if (bytes > limits.bytes)
		return error_refuse(err,
				    "%zu VMs would be created or changed, with %zu bytes in all, "
				    "and the store takes %zu at once; nothing was applied: give "
				    "fewer at a time",
				    count, bytes, limits.bytes);
	return 0;
}
