/* SPDX-License-Identifier: Apache-2.0 */
#include "node/reread.h"

#include <stdlib.h>

#include "model/definition.h"
#include "node/job.h"
#include "node/node.h"
#include "node/schema.h"
#include "node/taking.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"

#define MANY 64 /* then one listing of all is less work for the store */

struct one {
	struct reread *reread;
	char *name;
	uint64_t asked_written;
};

struct reread {
	struct job job;
	records_fn done;
	void *ctx;
	sd_event_source *over;
	bool failed;
	size_t count, waiting;
	struct one *ones;
};

static void reread_done(struct job *job)
{
	struct reread *reread = container_of(job, struct reread, job);

	sd_event_source_disable_unref(reread->over);
	for (size_t i = 0; i < reread->count; i++)
		free(reread->ones[i].name);
	free(reread->ones);
}

static int on_over(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct reread *reread = userdata;
	struct node *node = reread->job.node;
	records_fn done = reread->done;
	void *ctx = reread->ctx;
	bool failed = reread->failed;

	job_end(&reread->job);
	if (failed)
		records_after_refresh(node, done, ctx);
	else
		done(ctx);
	return 0;
}

static void less(struct reread *reread)
{
	if (--reread->waiting == 0)
		node_timer(reread->job.node, &reread->over, 0, on_over, reread);
}

static void one_ask(struct one *one);

static void on_listed(void *ctx, int r, const struct store_entry *entries, size_t count,
		      const struct error *err)
{
	struct one *one = ctx;
	struct reread *reread = one->reread;

	if (r == 0 &&
	    !records_take(reread->job.node, one->name, entries, count, one->asked_written)) {
		one_ask(one);
		return;
	}
	if (r == 0)
		taking_skip(reread->job.node, one->name);
	reread->failed |= r < 0;
	less(reread);
}

static void one_ask(struct one *one)
{
	CLEANUP_FREE char *prefix = xasprintf("/drover/vms/%s/", one->name);
	struct node *node = one->reread->job.node;

	one->asked_written = node->written;
	if (schema_list(node, prefix, on_listed, one, NULL) == 0)
		return;
	one->reread->failed = true;
	less(one->reread);
}

void reread(struct node *node, const char *const *names, size_t count, records_fn done, void *ctx)
{
	struct reread *reread = xcalloc(1, sizeof(*reread));

	reread->done = done;
	reread->ctx = ctx;
	reread->failed = count > MANY;
	reread->ones = xcalloc(count + 1, sizeof(*reread->ones));
	job_begin(&reread->job, node, reread_done);
	for (size_t i = 0; i < count && !reread->failed; i++)
		if (definition_check_name(names[i], NULL) == 0)
			reread->ones[reread->count++] =
				(struct one){ .reread = reread, .name = xstrdup(names[i]) };
	/* One more than there are, so that it is not over while they are being asked. */
	reread->waiting = reread->count + 1;
	for (size_t i = 0; i < reread->count; i++)
		one_ask(&reread->ones[i]);
	less(reread);
}
