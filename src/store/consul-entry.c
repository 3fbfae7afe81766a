/* SPDX-License-Identifier: Apache-2.0 */
/* Reads of the store in Consul.  All are "consistent": the leader asks the others whether it still
 * leads before it answers. */
#include <errno.h>
#include <string.h>

#include "store/consul.h"
#include "util/cleanup.h"
#include "util/mem.h"
#include "wire/base64.h"
#include "wire/json.h"

#define GET_USEC (5 * USEC_PER_SEC)
#define LIST_USEC (15 * USEC_PER_SEC)

struct read_call {
	struct consul_call call;
	char *key; /* or prefix */
	store_get_fn get;
	store_list_fn list;
	struct store_entry *entries;
	size_t count;
};

static void read_free(struct consul_call *call)
{
	struct read_call *read = container_of(call, struct read_call, call);

	store_entries_free(read->entries, read->count);
	free(read->key);
	free(read);
}

static int value_parse(const char *base64, json_t **ret, struct error *err)
{
	CLEANUP_FREE unsigned char *bytes = NULL;
	size_t length = 0;
	int r;

	r = base64_decode(base64, &bytes, &length, err);
	if (r < 0)
		return r;
	return json_parse((const char *)bytes, length, ret, err);
}

int consul_entry(const struct consul *consul, const json_t *entry, struct store_entry *ret,
		 struct error *err)
{
	const char *theirs = json_string_or(entry, "Key", "");
	CLEANUP_FREE char *key = consul_key_of(consul, theirs);
	int64_t version = json_int_or(entry, "ModifyIndex", 0);
	json_t *value = NULL;
	int r;

	if (!key || version <= 0)
		return error_set(err, -EUCLEAN, "Consul at '%s' listed what is no key: '%s'",
				 consul->store.address, theirs);
	r = value_parse(json_string_or(entry, "Value", ""), &value, err);
	if (r < 0) {
		(void)error_prefix(err, r,
				   "the value of key '%s' in the store '%s' is damaged; write it "
				   "anew or remove it with 'consul kv delete %s'",
				   key, consul->store.address, theirs);
		if (err)
			err->class = ERROR_BAD_DATA;
		return -EUCLEAN;
	}
	*ret = (struct store_entry){ TAKE_PTR(key), value, (uint64_t)version };
	return 0;
}

static int entry_order(const void *a, const void *b)
{
	return strcmp(((const struct store_entry *)a)->key, ((const struct store_entry *)b)->key);
}

static int entries_parse(struct read_call *read, const struct http_answer *answer,
			 struct error *err)
{
	const struct consul *consul = read->call.ask.consul;
	json_auto_t *list = NULL;
	json_t *item;
	size_t i;
	int r;

	r = consul_parse(answer->body, answer->length, &list, err);
	if (r < 0)
		return r;
	read->entries = xcalloc(json_array_size(list) + 1, sizeof(*read->entries));
	json_array_foreach(list, i, item)
	{
		r = consul_entry(consul, item, &read->entries[read->count], err);
		if (r < 0)
			return r;
		read->count++;
	}
	qsort(read->entries, read->count, sizeof(*read->entries), entry_order);
	return 0;
}

static int read_answered(struct consul_call *call, const struct http_answer *answer,
			 struct error *err)
{
	struct read_call *read = container_of(call, struct read_call, call);
	int r = 0;

	if (answer->status == 200)
		r = entries_parse(read, answer, err);
	else if (answer->status != 404)
		r = consul_trouble(&call->ask, answer, err);
	if (r == 0 && read->get && read->count == 0)
		return error_set(err, -ENOENT, "the store has no key '%s'", read->key);
	return r;
}

static int read_start(struct consul_call *call, struct error *err)
{
	struct read_call *read = container_of(call, struct read_call, call);
	CLEANUP_FREE char *kv = consul_kv_path(call->ask.consul, read->key);
	CLEANUP_FREE char *path = xasprintf("%s?consistent%s", kv, read->list ? "&recurse" : "");

	return consul_call_ask(call, "GET", path, NULL, CONSUL_ANSWER_MAX, err);
}

static void get_reply(struct consul_call *call)
{
	struct read_call *read = container_of(call, struct read_call, call);

	read->get(call->ctx, call->r, call->r == 0 ? &read->entries[0] : NULL, &call->err);
}

static void list_reply(struct consul_call *call)
{
	struct read_call *read = container_of(call, struct read_call, call);

	read->list(call->ctx, call->r, call->r == 0 ? read->entries : NULL,
		   call->r == 0 ? read->count : 0, &call->err);
}

static struct read_call *read_new(const char *key, void *ctx)
{
	struct read_call *read = xcalloc(1, sizeof(*read));

	read->key = xstrdup(key);
	read->call.kind = CONSUL_READ;
	read->call.ctx = ctx;
	read->call.start = read_start;
	read->call.answered = read_answered;
	read->call.free = read_free;
	return read;
}

int consul_get(struct store *store, const char *key, store_get_fn reply, void *ctx,
	       struct error *err)
{
	struct read_call *read = read_new(key, ctx);

	read->get = reply;
	read->call.reply = get_reply;
	return consul_call_add(container_of(store, struct consul, store), &read->call, GET_USEC,
			       err);
}

int consul_list(struct store *store, const char *prefix, store_list_fn reply, void *ctx,
		struct error *err)
{
	struct read_call *read = read_new(prefix, ctx);

	read->list = reply;
	read->call.reply = list_reply;
	return consul_call_add(container_of(store, struct consul, store), &read->call, LIST_USEC,
			       err);
}
