/* SPDX-License-Identifier: Apache-2.0 */
/* Transactions in Consul.  An operation of ours becomes one to three of its verbs:
 *
 *	put		cas with the version (0: absent), or set
 *	put, ephemeral	the check, delete, lock: the lock may be another session's still
 *	delete		the check, delete (delete-cas would be content with a missing key)
 *	check		check-index, check-not-exists
 *
 * A put that is not ephemeral must end the hold of a session on its key, which cas and set keep.
 * The answer tells who holds it, and only then a second transaction makes the key anew.
 *
 * The body of a transaction is limited; a value near our greatest size goes alone, through kv. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "store/consul.h"
#include "util/cleanup.h"
#include "util/mem.h"
#include "wire/base64.h"
#include "wire/json.h"

#define WRITE_USEC (5 * USEC_PER_SEC)
#define VERBS_MAX 64	       /* of one transaction, as Consul has it */
#define BODY_MAX (512u * 1024) /* "txn_max_req_len" */
#define VERBS_ROOM 200	       /* what a verb has beside key and value, at most */

struct put {
	char *text;
	bool held; /* by a session, and must be made anew */
};

struct write_call {
	struct consul_call call;
	store_write_fn reply;
	struct store_op *ops; /* keys are ours, values not kept */
	struct put *puts;
	uint64_t *versions;
	char session[CONSUL_ID_SIZE];
	enum { WRITE_TXN, WRITE_RELEASE, WRITE_LARGE, WRITE_LARGE_READ } step;
};

static void write_free(struct consul_call *call)
{
	struct write_call *write = container_of(call, struct write_call, call);

	for (size_t i = 0; i < call->count; i++) {
		free((char *)(uintptr_t)write->ops[i].key);
		free(write->puts[i].text);
	}
	free(write->ops);
	free(write->puts);
	free(write->versions);
	free(write);
}

static void verb_add(const struct consul *consul, json_t *verbs, const char *verb,
		     const struct store_op *op, const char *text, const char *session)
{
	CLEANUP_FREE char *key = consul_key(consul, op->key);
	CLEANUP_FREE char *base64 = text ? base64_encode(text, strlen(text)) : NULL;
	json_t *kv = json_pack("{s:s, s:s, s:s*, s:s*}", "Verb", verb, "Key", key, "Value", base64,
			       "Session", session);

	if (op->expected != STORE_ANY && !session && strcmp(verb, "delete") != 0)
		json_object_set_new(kv, "Index", json_integer((json_int_t)op->expected));
	json_array_append_new(verbs, json_pack("{s:o}", "KV", kv));
}

static void check_add(const struct consul *consul, json_t *verbs, const struct store_op *op)
{
	if (op->expected == STORE_ABSENT)
		verb_add(consul, verbs, "check-not-exists", op, NULL, NULL);
	else if (op->expected != STORE_ANY)
		verb_add(consul, verbs, "check-index", op, NULL, NULL);
}

static void op_add(const struct write_call *write, json_t *verbs, size_t i)
{
	const struct consul *consul = write->call.ask.consul;
	const struct store_op *op = &write->ops[i];
	const char *text = write->puts[i].text;
	bool plain = op->kind == STORE_PUT && !op->ephemeral && !write->puts[i].held;

	if (plain) {
		verb_add(consul, verbs, op->expected == STORE_ANY ? "set" : "cas", op, text, NULL);
		return;
	}
	check_add(consul, verbs, op);
	if (op->kind == STORE_CHECK)
		return;
	verb_add(consul, verbs, "delete", op, NULL, NULL);
	if (op->kind == STORE_PUT && op->ephemeral)
		verb_add(consul, verbs, "lock", op, text, write->session);
	else if (op->kind == STORE_PUT)
		verb_add(consul, verbs, "set", op, text, NULL);
}

/* A check of STORE_ANY asks nothing of anybody; a transaction of nothing else is done. */
static json_t *verbs_of(const struct write_call *write)
{
	json_t *verbs = json_array();

	for (size_t i = 0; i < write->call.count; i++)
		if (write->step == WRITE_TXN || write->puts[i].held)
			op_add(write, verbs, i);
	return verbs;
}

static int txn_start(struct write_call *write, struct error *err)
{
	json_auto_t *verbs = verbs_of(write);
	CLEANUP_FREE char *body = json_print(verbs);

	if (json_array_size(verbs) > VERBS_MAX || strlen(body) > BODY_MAX)
		return error_usage(err,
				   "the transaction has %zu steps and %zu bytes; Consul takes at "
				   "most %d steps and %u bytes",
				   json_array_size(verbs), strlen(body), VERBS_MAX, BODY_MAX);
	return consul_call_ask(&write->call, "PUT", "txn?consistent", body, CONSUL_SMALL_MAX, err);
}

static int large_start(struct write_call *write, struct error *err)
{
	const struct store_op *op = &write->ops[0];
	CLEANUP_FREE char *kv = consul_kv_path(write->call.ask.consul, op->key);
	CLEANUP_FREE char *path = NULL;

	if (write->step == WRITE_LARGE_READ) {
		path = xasprintf("%s?consistent", kv);
		return consul_call_ask(&write->call, "GET", path, NULL, 2 * CONSUL_SMALL_MAX, err);
	}
	path = op->expected == STORE_ANY ? xstrdup(kv)
					 : xasprintf("%s?cas=%" PRIu64, kv, op->expected);
	return consul_call_ask(&write->call, "PUT", path, write->puts[0].text, CONSUL_SMALL_MAX,
			       err);
}

static int write_start(struct consul_call *call, struct error *err)
{
	struct write_call *write = container_of(call, struct write_call, call);

	if (write->step == WRITE_LARGE || write->step == WRITE_LARGE_READ)
		return large_start(write, err);
	return txn_start(write, err);
}

static int conflict(const struct write_call *write, const char *words, struct error *err)
{
	return error_set_class(err, ERROR_TRY_AGAIN, -ESTALE,
			       "somebody else changed what the transaction expected in the store "
			       "'%s' (%s); read it again",
			       write->call.ask.consul->store.address, words);
}

/* Which of our operations is meant is in Consul's words, which name its key. */
static int txn_refused(struct write_call *write, const struct http_answer *answer,
		       struct error *err)
{
	const struct consul *consul = write->call.ask.consul;
	json_auto_t *json = NULL;
	const char *what;
	int r;

	r = consul_parse(answer->body, answer->length, &json, err);
	if (r < 0)
		return r;
	what = json_string_or(json_array_get(json_object_get(json, "Errors"), 0), "What", "");
	if (strstr(what, "Permission denied") || strstr(what, "ACL not found"))
		return consul_trouble(&write->call.ask,
				      &(struct http_answer){ .status = 403, .body = what }, err);
	if (strstr(what, "invalid session"))
		return error_set(err, -ENOTCONN,
				 "our session in the store '%s' is over: it needs a new one",
				 consul->store.address);
	return conflict(write, what, err);
}

/* A key may come several times; what its last verb tells is what is now. */
static void result_take(struct write_call *write, const json_t *kv)
{
	const struct consul *consul = write->call.ask.consul;
	CLEANUP_FREE char *key = consul_key_of(consul, json_string_or(kv, "Key", ""));

	for (size_t i = 0; key && i < write->call.count; i++) {
		struct store_op *op = &write->ops[i];

		if (op->kind != STORE_PUT || strcmp(op->key, key) != 0)
			continue;
		write->versions[i] = (uint64_t)json_int_or(kv, "ModifyIndex", 0);
		write->puts[i].held = !op->ephemeral && json_string_or(kv, "Session", "")[0];
		if (write->puts[i].held)
			op->expected = write->versions[i];
	}
}

static int txn_done(struct write_call *write, const struct http_answer *answer, struct error *err)
{
	json_auto_t *json = NULL;
	bool held = false;
	json_t *result;
	size_t i;
	int r;

	r = consul_parse(answer->body, answer->length, &json, err);
	if (r < 0)
		return r;
	json_array_foreach(json_object_get(json, "Results"), i, result)
		result_take(write, json_object_get(result, "KV"));
	for (i = 0; i < write->call.count; i++) {
		if (write->ops[i].kind == STORE_PUT && write->versions[i] == 0)
			return error_try_again(err, "Consul at '%s' did not tell a new version",
					       write->call.ask.consul->store.address);
		held = held || write->puts[i].held;
	}
	write->step = WRITE_RELEASE;
	return held;
}

/* The value that was written, if nobody wrote after us; else some version that is no more. */
static int large_read(struct write_call *write, const struct http_answer *answer, struct error *err)
{
	struct store_entry entry = { 0 };
	CLEANUP_FREE char *text = NULL;
	json_auto_t *list = NULL;
	int r;

	write->versions[0] = 1;
	if (answer->status == 404)
		return 0;
	r = consul_parse(answer->body, answer->length, &list, err);
	if (r < 0)
		return r;
	r = consul_entry(write->call.ask.consul, json_array_get(list, 0), &entry, NULL);
	if (r == 0) {
		text = json_print(entry.value);
		write->versions[0] = entry.version;
		if (strcmp(text, write->puts[0].text) != 0)
			write->versions[0] = 1;
	}
	free((char *)(uintptr_t)entry.key);
	json_decref(entry.value);
	return 0;
}

static int write_answered(struct consul_call *call, const struct http_answer *answer,
			  struct error *err)
{
	struct write_call *write = container_of(call, struct write_call, call);

	if (write->step == WRITE_LARGE_READ && (answer->status == 200 || answer->status == 404))
		return large_read(write, answer, err);
	if (write->step == WRITE_LARGE && answer->status == 200) {
		write->step = WRITE_LARGE_READ;
		return strncmp(answer->body, "true", 4) == 0
			       ? 1
			       : conflict(write, write->ops[0].key, err);
	}
	/* What was written is held by somebody: it may go with him yet. */
	if (write->step == WRITE_RELEASE && answer->status == 409)
		return error_try_again(err, "key '%s' was changed while it was made anew",
				       write->ops[0].key);
	if (answer->status == 200)
		return txn_done(write, answer, err);
	if (answer->status == 409)
		return txn_refused(write, answer, err);
	return consul_trouble(&call->ask, answer, err);
}

static void write_reply(struct consul_call *call)
{
	struct write_call *write = container_of(call, struct write_call, call);

	write->reply(call->ctx, call->r, call->r == 0 ? write->versions : NULL, &call->err);
}

struct store_limits consul_limits(const struct store *store)
{
	return (struct store_limits){
		.ops = VERBS_MAX / 2, /* deletes have two */
		.bytes = (BODY_MAX - VERBS_MAX * VERBS_ROOM) / 4 * 3,
	};
}

static void ops_copy(struct write_call *write, const struct store_op *ops, size_t count)
{
	write->ops = xcalloc(count, sizeof(*write->ops));
	write->puts = xcalloc(count, sizeof(*write->puts));
	write->versions = xcalloc(count, sizeof(*write->versions));
	for (size_t i = 0; i < count; i++) {
		write->ops[i] = ops[i];
		write->ops[i].key = xstrdup(ops[i].key);
		write->ops[i].value = NULL;
		if (ops[i].kind == STORE_CHECK && ops[i].expected != STORE_ANY)
			write->versions[i] = ops[i].expected;
		if (ops[i].kind == STORE_PUT)
			write->puts[i].text = json_print(ops[i].value);
	}
	write->call.ops = write->ops;
	write->call.count = count;
}

int consul_write(struct store *store, const struct store_op *ops, size_t count,
		 store_write_fn reply, void *ctx, struct error *err)
{
	const char *session = store_session_id(store);
	struct write_call *write = xcalloc(1, sizeof(*write));

	write->call.kind = CONSUL_WRITE;
	write->call.ctx = ctx;
	write->call.start = write_start;
	write->call.answered = write_answered;
	write->call.reply = write_reply;
	write->call.free = write_free;
	write->reply = reply;
	ops_copy(write, ops, count);
	if (session)
		(void)snprintf(write->session, sizeof(write->session), "%s", session);
	if (count == 1 && ops[0].kind == STORE_PUT && !ops[0].ephemeral &&
	    strlen(write->puts[0].text) > consul_limits(store).bytes)
		write->step = WRITE_LARGE;
	return consul_call_add(container_of(store, struct consul, store), &write->call, WRITE_USEC,
			       err);
}
