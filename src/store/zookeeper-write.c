/* SPDX-License-Identifier: Apache-2.0 */
/* Transactions.  One multi request, tried with what we last knew of its keys; only when that was
 * wrong, or nothing is known, the keys are read first.  A multi that was refused did nothing: then
 * the keys are read, and either one of them has another version than the caller expects (conflict)
 * or it is tried again.  A multi without an answer may have been done: that is for the caller. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "store/zookeeper.h"
#include "util/cleanup.h"
#include "util/mem.h"
#include "wire/json.h"

#define TRIES_MAX 50

struct write_call {
	struct zk_call call;
	store_write_fn reply;
	void *ctx;
	size_t count;
	struct zk_op *ops;
	uint64_t *versions;
	enum { WRITE_BEGIN, WRITE_READING, WRITE_LOOKING, WRITE_MAKING, WRITE_SENT } phase;
	json_t *dirs, *missing; /* paths that are needed, and those that are not there */
	unsigned tries;
	int rc; /* of the multi */
	uint64_t zxid;
	int r; /* of the reading */
	struct error err;
};

static struct write_call *write_of(struct zk_call *call)
{
	return container_of(call, struct write_call, call);
}

static void on_read(struct zk_request *request, const struct zk_reply *reply)
{
	struct write_call *write = write_of(request->call);
	struct zk_op *op = request->subject;
	int r;

	if (zk_lost(reply->rc) || write->r < 0)
		return;
	r = zk_entry_read(op->key, reply, &op->node, NULL, &write->err);
	if (r < 0)
		write->r = r;
}

static int read_all(struct write_call *write)
{
	write->phase = WRITE_READING;
	write->r = 0;
	zk_sync(write->call.zk, &write->call, NULL, NULL);
	for (size_t i = 0; i < write->count; i++)
		zk_get(write->call.zk, &write->call, &write->ops[i], write->ops[i].path, on_read);
	return ZK_WAIT;
}

/* Is what we last knew enough to try?  Only if the servers would refuse a wrong guess. */
static bool guess_all(struct write_call *write)
{
	for (size_t i = 0; i < write->count; i++) {
		struct zk_op *op = &write->ops[i];
		const struct zk_node *node = zk_cache_get(write->call.zk, op->key);

		if (op->expected == STORE_ANY && op->kind != STORE_PUT)
			return false;
		if (op->expected == STORE_ABSENT)
			op->node = (struct zk_node){ 0 };
		else if (node && (op->expected == STORE_ANY || op->expected == node->version))
			op->node = *node;
		else
			return false;
	}
	return true;
}

static void on_made(struct zk_request *request, const struct zk_reply *reply)
{
	struct write_call *write = write_of(request->call);

	if (!zk_lost(reply->rc) && reply->rc != ZOK && reply->rc != ZNODEEXISTS &&
	    reply->rc != ZNONODE)
		write->r = zk_fail(reply->rc, &write->err, "cannot make a directory");
}

static void on_dir(struct zk_request *request, const struct zk_reply *reply)
{
	if (reply->rc == ZNONODE)
		(void)json_object_set_new(write_of(request->call)->missing, request->subject,
					  json_true());
}

/* Which of the directories are there that the puts need, and the checks for absence?  To make one
 * in vain would cost the servers a write. */
static int look_for_dirs(struct write_call *write)
{
	struct zk *zk = write->call.zk;
	const char *path;
	json_t *unused;

	write->phase = WRITE_LOOKING;
	(void)json_object_clear(write->dirs);
	(void)json_object_clear(write->missing);
	for (size_t i = 0; i < write->count; i++)
		if (write->ops[i].kind == STORE_PUT || write->ops[i].expected == STORE_ABSENT)
			zk_dirs_add(zk, write->ops[i].key, write->ops[i].ephemeral, write->dirs);
	json_object_foreach(write->dirs, path, unused)
	{
		zk_exists(zk, &write->call, (void *)(uintptr_t)path, path, on_dir);
	}
	return json_object_size(write->dirs) > 0 ? ZK_WAIT : 0;
}

static int make_dirs(struct write_call *write)
{
	const char *path;
	json_t *unused;

	write->phase = WRITE_MAKING;
	write->r = 0;
	json_object_foreach(write->missing, path, unused)
	{
		zk_make(write->call.zk, &write->call, path, on_made);
	}
	return json_object_size(write->missing) > 0 ? ZK_WAIT : 0;
}

static int compare_all(const struct write_call *write, struct error *err)
{
	for (size_t i = 0; i < write->count; i++) {
		const struct zk_op *op = &write->ops[i];

		if (op->expected != STORE_ANY && op->expected != op->node.version)
			return error_set_class(err, ERROR_TRY_AGAIN, -ESTALE,
					       "key '%s' has version %" PRIu64 ", not %" PRIu64
					       " as expected: somebody else changed it; read it "
					       "again",
					       op->key, op->node.version, op->expected);
	}
	return 0;
}

static void on_written(struct zk_request *request, const struct zk_reply *reply)
{
	struct write_call *write = write_of(request->call);

	write->rc = reply->rc;
	if (reply->rc == ZOK)
		write->zxid = (uint64_t)reply->stat->mzxid;
}

static int send_all(struct write_call *write, struct error *err)
{
	CLEANUP(zk_plan_done) struct zk_plan plan = { 0 };
	struct zk *zk = write->call.zk;
	int r;

	for (size_t i = 0; i < write->count; i++)
		if (write->ops[i].ephemeral && zk->session.phase != ZK_SESSION_LIVE)
			return error_set(err, -ENOTCONN,
					 "key '%s' should go with our session, which is over",
					 write->ops[i].key);
	r = zk_plan_make(zk, write->ops, write->count, &plan, err);
	if (r < 0)
		return r;
	if (plan.count == 0)
		return 0;
	write->phase = WRITE_SENT;
	zk_multi(zk, &write->call, plan.ops, plan.count, on_written);
	return ZK_WAIT;
}

static int written(struct write_call *write)
{
	for (size_t i = 0; i < write->count; i++) {
		struct zk_op *op = &write->ops[i];

		if (op->kind == STORE_PUT) {
			op->node.version = write->zxid;
			op->node.count = op->made ? 0 : op->node.count + 1;
			if (op->made) {
				memcpy(op->node.uid, op->uid, sizeof(op->uid));
				op->node.owner =
					op->ephemeral ? zoo_client_id(write->call.zk->link.handle)
								->client_id
						      : 0;
			}
		} else if (op->kind == STORE_DELETE) {
			op->node = (struct zk_node){ 0 };
		}
		zk_cache_put(write->call.zk, op->key, &op->node);
		write->versions[i] = op->node.version;
	}
	return 0;
}

/* The multi was refused as a whole. */
static int refused(struct write_call *write, struct error *err)
{
	if (write->rc != ZNONODE && write->rc != ZNODEEXISTS && write->rc != ZBADVERSION &&
	    write->rc != ZNOTEMPTY)
		return zk_fail(write->rc, err, "the transaction was refused");
	if (++write->tries > TRIES_MAX)
		return error_try_again(err,
				       "%d times somebody else was faster: too many write the same "
				       "keys",
				       TRIES_MAX);
	return write->rc == ZNONODE && write->tries % 2 == 1 ? look_for_dirs(write)
							     : read_all(write);
}

static int begin(struct write_call *write, struct error *err)
{
	int r;

	if (write->tries == 0 && guess_all(write))
		r = send_all(write, err);
	else
		r = read_all(write);
	return r == 0 ? written(write) : r;
}

static int go_on(struct write_call *write, struct error *err)
{
	int r;

	if (write->phase == WRITE_LOOKING) {
		r = make_dirs(write);
		if (r == ZK_WAIT)
			return r;
	}
	if (write->r < 0) {
		if (err)
			*err = write->err;
		return write->r;
	}
	if (write->phase == WRITE_READING) {
		r = compare_all(write, err);
		if (r < 0)
			return r;
	}
	r = send_all(write, err);
	return r == 0 ? written(write) : r;
}

static int write_step(struct zk_call *call, bool lost, struct error *err)
{
	struct write_call *write = write_of(call);
	int r;

	if (lost && write->phase == WRITE_SENT)
		return error_try_again(err, "ZooKeeper did not answer a write: whether it was done "
					    "is not known");
	if (lost) {
		write->phase = WRITE_BEGIN;
		return ZK_AGAIN;
	}
	switch (write->phase) {
	case WRITE_BEGIN:
		return begin(write, err);
	case WRITE_READING:
	case WRITE_LOOKING:
	case WRITE_MAKING:
		return go_on(write, err);
	case WRITE_SENT:
		break;
	}
	if (write->rc == ZOK)
		return written(write);
	r = refused(write, err);
	return r == 0 ? read_all(write) : r;
}

static void write_answer(struct zk_call *call, int r, const struct error *err)
{
	struct write_call *write = write_of(call);

	write->reply(write->ctx, r, r == 0 ? write->versions : NULL, err);
}

static void write_free(struct zk_call *call)
{
	struct write_call *write = write_of(call);

	for (size_t i = 0; i < write->count; i++) {
		free(write->ops[i].key);
		free(write->ops[i].path);
		free(write->ops[i].text);
	}
	json_decref(write->dirs);
	json_decref(write->missing);
	free(write->ops);
	free(write->versions);
	free(write);
}

static void op_copy(const struct zk *zk, const struct store_op *from, struct zk_op *to)
{
	*to = (struct zk_op){
		.kind = from->kind,
		.key = xstrdup(from->key),
		.path = zk_key_path(zk, from->key),
		.expected = from->expected,
		.ephemeral = from->kind == STORE_PUT && from->ephemeral,
	};
	if (from->kind == STORE_PUT) {
		CLEANUP_FREE char *json = json_print(from->value);

		memset(to->uid, '0', sizeof(to->uid) - 1); /* the plan writes the real one */
		to->text = zk_entry_text(json, to->uid);
	}
}

int zk_write(struct store *store, const struct store_op *ops, size_t count, store_write_fn reply,
	     void *ctx, struct error *err)
{
	struct zk *zk = container_of(store, struct zk, store);
	struct write_call *write = xcalloc(1, sizeof(*write));

	assert(count <= STORE_OPS_MAX);
	write->call =
		(struct zk_call){ .step = write_step, .answer = write_answer, .free = write_free };
	write->reply = reply;
	write->ctx = ctx;
	write->count = count;
	write->dirs = json_object();
	write->missing = json_object();
	write->ops = xcalloc(count, sizeof(*write->ops));
	write->versions = xcalloc(count, sizeof(*write->versions));
	for (size_t i = 0; i < count; i++)
		op_copy(zk, &ops[i], &write->ops[i]);
	return zk_queue(zk, &write->call, err);
}
