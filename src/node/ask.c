/* SPDX-License-Identifier: Apache-2.0 */
#include "node/ask.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "node/job.h"
#include "node/node.h"
#include "node/records.h"
#include "node/schema.h"
#include "node/session.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"

struct ask {
	struct job job;
	struct store_op *ops;
	char **keys;
	size_t count;
	bool guarded; /* holds only under the form of the records that we know */
	uint64_t deadline;
	store_write_fn reply;
	void *ctx;
	sd_event_source *again;
};

static void ask_done(struct job *job)
{
	struct ask *ask = container_of(job, struct ask, job);

	sd_event_source_disable_unref(ask->again);
	for (size_t i = 0; i < ask->count; i++) {
		json_decref(ask->ops[i].value);
		free(ask->keys[i]);
	}
	free(ask->keys);
	free(ask->ops);
}

static void answer(struct ask *ask, int r, const uint64_t *versions, const struct error *err)
{
	store_write_fn reply = ask->reply;
	void *ctx = ask->ctx;

	/* Damage is noted where all can see it. */
	if (r == -EUCLEAN)
		records_refresh(ask->job.node);
	/* Of the many reasons for a conflict this one has to be seen before the next try. */
	if (r == -ESTALE && ask->guarded)
		session_renew(ask->job.node);
	reply(ctx, r, versions, err);
	job_end(&ask->job);
}

static void on_answer(void *ctx, int r, const uint64_t *versions, const struct error *err);

static int on_again(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct ask *ask = userdata;
	struct error err = { 0 };
	int r;

	r = store_write(ask->job.node->store, ask->ops, ask->count, on_answer, ask, &err);
	if (r < 0)
		answer(ask, r, NULL, &err);
	return 0;
}

static void on_answer(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct ask *ask = ctx;
	struct node *node = ask->job.node;

	if (r != -EAGAIN || clock_now() >= ask->deadline) {
		answer(ask, r, versions, err);
		return;
	}
	node_timer(node, &ask->again, node->config->timers.store_retry, on_again, ask);
}

static bool names_schema(const struct store_op *ops, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(ops[i].key, SCHEMA_KEY) == 0)
			return true;
	return false;
}

int ask_write(struct node *node, const struct store_op *ops, size_t count, uint64_t timeout_usec,
	      store_write_fn reply, void *ctx, struct error *err)
{
	struct ask *ask;
	struct store_op guard;
	int guards = names_schema(ops, count) ? 0 : schema_guard(node, &guard, err);
	int r;

	if (guards < 0)
		return guards;
	ask = xcalloc(1, sizeof(*ask));
	ask->guarded = guards > 0;
	ask->count = count + (size_t)guards;
	ask->ops = xcalloc(ask->count, sizeof(*ops));
	ask->keys = xcalloc(ask->count, sizeof(*ask->keys));
	ask->deadline = clock_now() + timeout_usec;
	ask->reply = reply;
	ask->ctx = ctx;
	for (size_t i = 0; i < ask->count; i++) {
		const struct store_op *op = i < count ? &ops[i] : &guard;

		ask->keys[i] = xstrdup(op->key);
		ask->ops[i] = *op;
		ask->ops[i].key = ask->keys[i];
		json_incref(ask->ops[i].value);
	}
	job_begin(&ask->job, node, ask_done);
	r = store_write(node->store, ask->ops, ask->count, on_answer, ask, err);
	if (r < 0)
		job_end(&ask->job);
	return r;
}
