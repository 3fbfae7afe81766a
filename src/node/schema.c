/* SPDX-License-Identifier: Apache-2.0 */
#include "node/schema.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/schema.h"
#include "node/job.h"
#include "node/node.h"
#include "node/reexec.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"

/* There is one form so far.  A test build has a second one, with other names for records that no
 * agent needs and a mark in each definition, for who says DROVER_TEST_FORM=2. */
#ifdef DROVER_CHECKPOINTS
static int mark(json_t *value)
{
	if (json_int_or(value, "form", 1) == 2)
		return 0;
	(void)json_object_set_new(value, "form", json_integer(2));
	return 1;
}

static const struct schema_step test_steps[] = {
	{ .from = "/drover/test/old/", .to = "/drover/test/new/" },
	{ .from = "/drover/vms/*/state", .to = "/drover/vms/*/said" },
	{ .from = "/drover/vms/*/definition", .change = mark },
};
static const struct schema_change test_change = { test_steps, ARRAY_SIZE(test_steps) };

int64_t schema_newest(void)
{
	const char *text = getenv("DROVER_TEST_FORM");

	return text ? strtoll(text, NULL, 10) : SCHEMA_NEWEST;
}

const struct schema_change *schema_change_from(int64_t version)
{
	return version == 1 ? &test_change : NULL;
}
#else
int64_t schema_newest(void)
{
	return SCHEMA_NEWEST;
}

const struct schema_change *schema_change_from(int64_t version)
{
	return NULL;
}
#endif

json_t *schema_range_json(void)
{
	return json_pack("{s:i, s:I}", "min", SCHEMA_OLDEST, "max", (json_int_t)schema_newest());
}

int64_t schema_loaded(const struct node *node)
{
	return node->schema.loaded;
}

json_t *schema_json(const struct schema *schema)
{
	json_t *value = json_pack("{s:i, s:I}", "v", 1, "version", (json_int_t)schema->version);

	if (schema->to) {
		(void)json_object_set_new(value, "to", json_integer((json_int_t)schema->to));
		json_set_string(value, "by", schema->by);
	}
	return value;
}

int schema_parse(const json_t *value, struct schema *ret, struct error *err)
{
	int r;

	*ret = (struct schema){ 0 };
	if (!value)
		return 0;
	r = json_need_int(value, "version", &ret->version, err);
	if (r < 0)
		return error_prefix(err, r, "the record '" SCHEMA_KEY "'");
	ret->to = json_int_or(value, "to", 0);
	(void)snprintf(ret->by, sizeof(ret->by), "%s", json_string_or(value, "by", "?"));
	return 0;
}

static int judge(const struct node *node, const struct schema *schema, struct error *err)
{
	if (schema->version == 0)
		return 0;
	if (schema->to)
		return error_try_again(err,
				       "the records of this cluster are being brought from schema "
				       "%lld to %lld by node '%s'",
				       (long long)schema->version, (long long)schema->to,
				       schema->by);
	if (schema->version > schema_newest() || schema->version < SCHEMA_OLDEST)
		return error_refuse(err,
				    "the records of this cluster are of schema %lld, and this "
				    "droverd (" DROVER_VERSION ") knows %lld: %s",
				    (long long)schema->version, (long long)schema_newest(),
				    schema->version > schema_newest()
					    ? "install the version that the other nodes run"
					    : "it is of no droverd that was released");
	if (node->schema.loaded && schema->version != node->schema.loaded)
		return error_try_again(err, "the records of this cluster are of schema %lld now",
				       (long long)schema->version);
	return 0;
}

static int copy(struct error *err, const struct error *why, int r)
{
	if (err)
		*err = *why;
	return r;
}

int schema_check(struct node *node, const struct store_entry *entry, struct error *err)
{
	struct schema schema;
	struct error why = { 0 };
	int r;

	node->schema.version = entry ? entry->version : 0;
	r = schema_parse(entry ? entry->value : NULL, &schema, &why);
	if (r == 0)
		r = judge(node, &schema, &why);
	(void)snprintf(node->schema.trouble, sizeof(node->schema.trouble), "%s",
		       r < 0 ? why.text : "");
	if (r < 0) {
		if (node->schema.loaded && !schema.to && schema.version != node->schema.loaded &&
		    schema.version >= SCHEMA_OLDEST && schema.version <= schema_newest())
			reexec_same(node);
		return copy(err, &why, r);
	}
	if (!node->schema.loaded)
		node->schema.loaded = schema.version ? schema.version : SCHEMA_OLDEST;
	return 0;
}

/* They are brought to another form only when all agents can, so never past us. */
static bool may_change(const struct node *node)
{
	return node->schema.loaded < schema_newest();
}

int schema_guard(const struct node *node, struct store_op *ret_op, struct error *err)
{
	if (node->schema.trouble[0])
		return error_try_again(err, "%s", node->schema.trouble);
	if (!node->schema.loaded || !node->schema.version || !may_change(node))
		return 0;
	*ret_op = (struct store_op){ .kind = STORE_CHECK,
				     .key = SCHEMA_KEY,
				     .expected = node->schema.version };
	return 1;
}

/* ---- lists ---- */

struct look {
	struct job job;
	char *prefix;
	store_list_fn reply;
	void *ctx;
	uint64_t version;
	struct store_entry *entries;
	size_t count;
};

static void look_done(struct job *job)
{
	struct look *look = container_of(job, struct look, job);

	store_entries_free(look->entries, look->count);
	free(look->prefix);
}

static void look_end(struct look *look, int r, const struct error *err)
{
	look->reply(look->ctx, r, r < 0 ? NULL : look->entries, r < 0 ? 0 : look->count, err);
	job_end(&look->job);
}

/* What stands there, judged; `ret_version` 0: nothing does. */
static int look_at(const struct look *look, int r, const struct store_entry *entry,
		   const struct error *answer, uint64_t *ret_version, struct error *err)
{
	struct schema schema;

	*ret_version = 0;
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return copy(err, answer, r);
	*ret_version = entry->version;
	r = schema_parse(entry->value, &schema, err);
	return r < 0 ? r : judge(look->job.node, &schema, err);
}

static void on_after(void *ctx, int r, const struct store_entry *entry, const struct error *err)
{
	struct look *look = ctx;
	struct error why = { 0 };
	uint64_t version;

	r = look_at(look, r, entry, err, &version, &why);
	if (r == 0 && look->version && version != look->version)
		r = error_try_again(&why, "the form of the records has changed meanwhile");
	look_end(look, r, r < 0 ? &why : NULL);
}

static void on_list(void *ctx, int r, const struct store_entry *entries, size_t count,
		    const struct error *err)
{
	struct look *look = ctx;
	struct error why = { 0 };

	if (r < 0) {
		look_end(look, r, err);
		return;
	}
	look->entries = store_entries_copy(entries, count);
	look->count = count;
	r = store_get(look->job.node->store, SCHEMA_KEY, on_after, look, &why);
	if (r < 0)
		look_end(look, r, &why);
}

static void on_before(void *ctx, int r, const struct store_entry *entry, const struct error *err)
{
	struct look *look = ctx;
	struct error why = { 0 };

	r = look_at(look, r, entry, err, &look->version, &why);
	if (r == 0)
		r = store_list(look->job.node->store, look->prefix, on_list, look, &why);
	if (r < 0)
		look_end(look, r, &why);
}

int schema_list(struct node *node, const char *prefix, store_list_fn reply, void *ctx,
		struct error *err)
{
	struct look *look;
	int r;

	if (node->schema.loaded && !node->schema.trouble[0] && !may_change(node))
		return store_list(node->store, prefix, reply, ctx, err);
	look = xcalloc(1, sizeof(*look));
	look->prefix = xstrdup(prefix);
	look->reply = reply;
	look->ctx = ctx;
	job_begin(&look->job, node, look_done);
	r = store_get(node->store, SCHEMA_KEY, on_before, look, err);
	if (r < 0)
		job_end(&look->job);
	return r;
}
