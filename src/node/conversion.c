/* SPDX-License-Identifier: Apache-2.0 */
/* Each write of ours holds only as long as we have the lock.
 *
 *	fence	each node's life record is written anew: from now on no write of an owner record by
 *		any agent can land, in whatever state that agent is, until it has joined anew
 *	convert	step by step, record by record; what has the new form already is left alone
 *	finish	/drover/schema names the new form, the lock goes
 */
#include "node/conversion.h"

#include <stdlib.h>
#include <string.h>

#include "model/schema.h"
#include "node/node.h"
#include "node/nodes.h"
#include "node/schema.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"

#define BATCH 32 /* operations of ours in one write; with a check it fits each store */
#define BATCH_BYTES (256u * 1024)

struct record {
	char *key, *old; /* the same: its value changes */
	json_t *value;
	uint64_t version;
};

struct conversion {
	struct node *node;
	struct schema schema;
	uint64_t schema_version, lock_version;
	conversion_fn done;
	void *ctx;
	bool fenced;
	size_t step;
	struct record *records;
	size_t n_records, written;
	size_t batch;
};

static void forget_records(struct conversion *conversion)
{
	for (size_t i = 0; i < conversion->n_records; i++) {
		if (conversion->records[i].old != conversion->records[i].key)
			free(conversion->records[i].old);
		free(conversion->records[i].key);
		json_decref(conversion->records[i].value);
	}
	free(conversion->records);
	conversion->records = NULL;
	conversion->n_records = conversion->written = 0;
}

struct conversion *conversion_free(struct conversion *conversion)
{
	if (!conversion)
		return NULL;
	forget_records(conversion);
	free(conversion);
	return NULL;
}

static void end(struct conversion *conversion, int r, const struct error *err)
{
	conversion->done(conversion->ctx, r, err);
}

static struct store_op check_lock(const struct conversion *conversion)
{
	return (struct store_op){ .kind = STORE_CHECK,
				  .key = SCHEMA_LOCK,
				  .expected = conversion->lock_version };
}

/* ---- finish ---- */

static void on_finished(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	end(ctx, r, err);
}

static void finish(struct conversion *conversion)
{
	const struct schema after = { .version = conversion->schema.to };
	json_auto_t *value = schema_json(&after);
	const struct store_op ops[] = {
		{ STORE_PUT, SCHEMA_KEY, conversion->schema_version, value, false },
		{ STORE_DELETE, SCHEMA_LOCK, conversion->lock_version, NULL, false },
	};
	struct error err = { 0 };
	int r;

	checkpoint("agent.upgrade.finish");
	r = store_write(conversion->node->store, ops, ARRAY_SIZE(ops), on_finished, conversion,
			&err);
	if (r < 0)
		end(conversion, r, &err);
}

/* ---- convert ---- */

static void write_batch(struct conversion *conversion);
static void list_step(struct conversion *conversion);

static void on_batch(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct conversion *conversion = ctx;

	if (r < 0) {
		end(conversion, r, err);
		return;
	}
	if (conversion->fenced)
		checkpoint("agent.upgrade.batch");
	conversion->written += conversion->batch;
	if (conversion->written < conversion->n_records) {
		write_batch(conversion);
		return;
	}
	if (!conversion->fenced)
		checkpoint("agent.upgrade.fenced");
	conversion->fenced = true;
	list_step(conversion); /* what came meanwhile, if anything can have */
}

static size_t record_ops(const struct record *record, struct store_op *ops)
{
	bool renamed = record->old != record->key;

	ops[0] = (struct store_op){ .kind = STORE_PUT,
				    .key = record->key,
				    .expected = renamed ? STORE_ABSENT : record->version,
				    .value = record->value };
	ops[1] = (struct store_op){ .kind = STORE_DELETE,
				    .key = record->old,
				    .expected = record->version };
	return renamed ? 2 : 1;
}

static void write_batch(struct conversion *conversion)
{
	struct store_op ops[BATCH + 2] = { check_lock(conversion) };
	struct error err = { 0 };
	size_t n = 1, bytes = 0;
	int r;

	conversion->batch = 0;
	for (size_t i = conversion->written; i < conversion->n_records && n < BATCH; i++) {
		const struct record *record = &conversion->records[i];

		bytes += json_dumpb(record->value, NULL, 0, JSON_COMPACT) + strlen(record->key);
		if (conversion->batch && bytes > BATCH_BYTES)
			break;
		n += record_ops(record, &ops[n]);
		conversion->batch++;
	}
	r = store_write(conversion->node->store, ops, n, on_batch, conversion, &err);
	if (r < 0)
		end(conversion, r, &err);
}

static const struct schema_step *step_now(const struct conversion *conversion)
{
	const struct schema_change *change = schema_change_from(conversion->schema.version);

	return change && conversion->step < change->n_steps ? &change->steps[conversion->step]
							    : NULL;
}

static void plan(struct conversion *conversion, const struct store_entry *entries, size_t count)
{
	const struct schema_step *step = step_now(conversion);
	char key[SCHEMA_KEY_SIZE];

	conversion->records = xcalloc(count + 1, sizeof(*conversion->records));
	for (size_t i = 0; i < count; i++) {
		struct record *record = &conversion->records[conversion->n_records];

		if (!schema_step_apply(step, entries[i].key, entries[i].value, key, &record->value))
			continue;
		record->key = xstrdup(key);
		record->old =
			strcmp(key, entries[i].key) == 0 ? record->key : xstrdup(entries[i].key);
		record->version = entries[i].version;
		conversion->n_records++;
	}
}

static void on_step_listed(void *ctx, int r, const struct store_entry *entries, size_t count,
			   const struct error *err)
{
	struct conversion *conversion = ctx;

	if (r < 0) {
		end(conversion, r, err);
		return;
	}
	forget_records(conversion);
	plan(conversion, entries, count);
	if (conversion->n_records) {
		write_batch(conversion);
		return;
	}
	conversion->step++;
	list_step(conversion);
}

static void list_step(struct conversion *conversion)
{
	const struct schema_step *step = step_now(conversion);
	char prefix[SCHEMA_KEY_SIZE];
	struct error err = { 0 };
	int r;

	if (!step) {
		finish(conversion);
		return;
	}
	r = store_list(conversion->node->store, schema_step_prefix(step, prefix), on_step_listed,
		       conversion, &err);
	if (r < 0)
		end(conversion, r, &err);
}

/* ---- fence ---- */

static void on_fence_listed(void *ctx, int r, const struct store_entry *entries, size_t count,
			    const struct error *err)
{
	struct conversion *conversion = ctx;
	struct record *record;

	if (r < 0) {
		end(conversion, r, err);
		return;
	}
	forget_records(conversion);
	conversion->records = xcalloc(count + 1, sizeof(*conversion->records));
	for (size_t i = 0; i < count; i++) {
		const char *leaf = strrchr(entries[i].key, '/');

		if (strcmp(leaf, "/life") != 0)
			continue;
		record = &conversion->records[conversion->n_records++];
		record->key = record->old = xstrdup(entries[i].key);
		record->value = json_incref(entries[i].value);
		record->version = entries[i].version;
	}
	write_batch(conversion);
}

void conversion_run(struct conversion *conversion)
{
	struct error err = { 0 };
	int r;

	r = store_list(conversion->node->store, NODES_PREFIX, on_fence_listed, conversion, &err);
	if (r < 0)
		end(conversion, r, &err);
}

struct conversion *conversion_new(struct node *node, const struct schema *schema,
				  uint64_t schema_version, uint64_t lock_version,
				  conversion_fn done, void *ctx)
{
	struct conversion *conversion = xcalloc(1, sizeof(*conversion));

	*conversion = (struct conversion){ .node = node,
					   .schema = *schema,
					   .schema_version = schema_version,
					   .lock_version = lock_version,
					   .done = done,
					   .ctx = ctx };
	return conversion;
}
