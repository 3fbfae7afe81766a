/* SPDX-License-Identifier: Apache-2.0 */
/* The door to all stores: finds the backend by the scheme of the address, and checks once for all
 * of them what a caller hands in, so that what one backend takes every other takes too. */
#include "store/store.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/ops.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"

#define SESSION_MIN_USEC (10 * USEC_PER_MSEC)
#define SESSION_MAX_USEC (3600 * USEC_PER_SEC)

static const struct store_ops *const backends[] = { &store_local, &store_zookeeper, &store_consul,
						    &store_fault };

int store_open(const char *address, const char *base_dir, sd_event *loop, struct store **ret_store,
	       struct error *err)
{
	size_t length = strcspn(address, ":");
	struct store *store = NULL;
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
		const struct store_ops *ops = backends[i];

		if (address[length] != ':' || strlen(ops->scheme) != length ||
		    strncmp(address, ops->scheme, length) != 0)
			continue;
		r = ops->open(address + length + 1, base_dir, loop, &store, err);
		if (r < 0)
			return r;
		store->ops = ops;
		store->address = xstrdup(address);
		*ret_store = store;
		return 0;
	}
	return error_usage(err,
			   "'%s' is no address of a store: write local:PATH for the embedded one, "
			   "zookeeper:ADDRESS:PORT,ADDRESS:PORT/PATH, or "
			   "consul:http://ADDRESS:PORT/PREFIX",
			   address);
}

struct store *store_close(struct store *store)
{
	if (store) {
		free(store->address);
		store->ops->close(store);
	}
	return NULL;
}

const char *store_address(const struct store *store)
{
	return store->address;
}

struct store_entry *store_entries_copy(const struct store_entry *entries, size_t count)
{
	struct store_entry *copy = xcalloc(count + 1, sizeof(*copy));

	for (size_t i = 0; i < count; i++)
		copy[i] = (struct store_entry){ .key = xstrdup(entries[i].key),
						.value = json_incref(entries[i].value),
						.version = entries[i].version };
	return copy;
}

void store_entries_free(struct store_entry *entries, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free((char *)(uintptr_t)entries[i].key);
		json_decref(entries[i].value);
	}
	free(entries);
}

/* `length` bytes between two slashes. */
static bool part_valid(const char *part, size_t length)
{
	if (length == 0 || (length == 1 && part[0] == '.') ||
	    (length == 2 && part[0] == '.' && part[1] == '.'))
		return false;
	for (size_t i = 0; i < length; i++)
		if (part[i] <= ' ' || part[i] > '~')
			return false;
	return true;
}

static int key_check(const char *key, struct error *err)
{
	const char *part = key;

	if (strlen(key) > STORE_KEY_MAX)
		return error_usage(err, "the key '%.40s...' is longer than %d bytes", key,
				   STORE_KEY_MAX);
	do {
		size_t length = *part == '/' ? strcspn(part + 1, "/") : 0;

		if (*part != '/' || !part_valid(part + 1, length))
			return error_usage(
				err,
				"'%s' is no key: it must look like /drover/vms/web01, of "
				"printable ASCII without blanks or empty parts",
				key);
		part += 1 + length;
	} while (*part);
	return 0;
}

static int prefix_check(const char *prefix, struct error *err)
{
	size_t length = strlen(prefix);
	CLEANUP_FREE char *key = xstrdup(prefix);

	if (strcmp(prefix, "/") == 0)
		return 0;
	if (length < 2 || prefix[length - 1] != '/')
		return error_usage(err, "'%s' is no prefix: it must begin and end with a slash",
				   prefix);
	key[length - 1] = '\0';
	return key_check(key, err);
}

/* Whatever is stored must come out again: it is parsed as every reader will parse it. */
static int value_check(const struct store_op *op, struct error *err)
{
	CLEANUP_FREE char *text = op->value ? json_print(op->value) : NULL;
	json_auto_t *parsed = NULL;
	int r;

	if (!text)
		return error_usage(err, "key '%s' was given no value", op->key);
	if (strlen(text) > STORE_VALUE_MAX)
		return error_usage(err, "the value of key '%s' has %zu bytes, more than %u",
				   op->key, strlen(text), STORE_VALUE_MAX);
	r = json_parse(text, strlen(text), &parsed, err);
	if (r < 0)
		return error_prefix(err, r, "the value of key '%s' could not be read again",
				    op->key);
	return 0;
}

static int op_check(const struct store *store, const struct store_op *op, struct error *err)
{
	int r;

	r = key_check(op->key, err);
	if (r < 0)
		return r;
	switch (op->kind) {
	case STORE_PUT:
		if (op->ephemeral && !store_session_id(store))
			return error_set(err, -ENOTCONN,
					 "key '%s' should go with our session, but there is none",
					 op->key);
		return value_check(op, err);
	case STORE_DELETE:
		if (op->expected == STORE_ABSENT)
			return error_usage(err, "key '%s' cannot be absent and deleted", op->key);
		return 0;
	case STORE_CHECK:
		return 0;
	}
	return error_usage(err, "key '%s': unknown kind of operation", op->key);
}

int store_get(struct store *store, const char *key, store_get_fn reply, void *ctx,
	      struct error *err)
{
	int r = key_check(key, err);

	return r < 0 ? r : store->ops->get(store, key, reply, ctx, err);
}

int store_list(struct store *store, const char *prefix, store_list_fn reply, void *ctx,
	       struct error *err)
{
	int r = prefix_check(prefix, err);

	return r < 0 ? r : store->ops->list(store, prefix, reply, ctx, err);
}

int store_write(struct store *store, const struct store_op *ops, size_t count, store_write_fn reply,
		void *ctx, struct error *err)
{
	int r;

	if (count == 0 || count > STORE_OPS_MAX)
		return error_usage(err, "a transaction has 1 to %d operations, not %zu",
				   STORE_OPS_MAX, count);
	if (count > store->ops->limits(store).ops)
		return error_usage(err,
				   "the store '%s' takes %zu operations in one transaction, "
				   "not %zu",
				   store->address, store->ops->limits(store).ops, count);
	for (size_t i = 0; i < count; i++) {
		r = op_check(store, &ops[i], err);
		if (r < 0)
			return r;
		for (size_t j = 0; j < i; j++)
			if (strcmp(ops[i].key, ops[j].key) == 0)
				return error_usage(err, "key '%s' is twice in one transaction",
						   ops[i].key);
	}
	return store->ops->write(store, ops, count, reply, ctx, err);
}

int store_watch(struct store *store, const char *prefix, store_look_fn look, void *ctx,
		struct store_watch **ret_watch, struct error *err)
{
	int r = prefix_check(prefix, err);

	return r < 0 ? r : store->ops->watch(store, prefix, look, ctx, ret_watch, err);
}

struct store_watch *store_unwatch(struct store_watch *watch)
{
	if (watch)
		watch->store->ops->unwatch(watch);
	return NULL;
}

int store_session_open(struct store *store, const char *resume, uint64_t timeout_usec,
		       store_session_fn changed, void *ctx, struct error *err)
{
	if (timeout_usec < SESSION_MIN_USEC || timeout_usec > SESSION_MAX_USEC)
		return error_usage(err, "the time-out of a session is 10 ms to 1 hour");
	return store->ops->session_open(store, resume, timeout_usec, changed, ctx, err);
}

int store_session_close(struct store *store, struct error *err)
{
	return store->ops->session_close(store, err);
}

const char *store_session_id(const struct store *store)
{
	return store->ops->session_id(store);
}

int store_session_timing(const struct store *store, struct store_timing *ret_timing)
{
	return store->ops->session_timing(store, ret_timing);
}

int store_session_renew(struct store *store, store_renew_fn reply, void *ctx, struct error *err)
{
	return store->ops->session_renew(store, reply, ctx, err);
}

struct store_limits store_limits(const struct store *store)
{
	return store->ops->limits(store);
}
