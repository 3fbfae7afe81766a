/* SPDX-License-Identifier: Apache-2.0 */
#include "node/holders.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "node/job.h"
#include "node/node.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

#define PATIENCE (3 * USEC_PER_SEC) /* then the list goes out as the records have it */

struct holders {
	struct job job;
	struct request *request; /* NULL once answered */
	json_t *list;
	size_t open; /* questions to the store */
	sd_event_source *deadline;
};

struct question {
	struct holders *holders;
	char node[RECORD_NAME_SIZE];
};

static void holders_done(struct job *job)
{
	struct holders *holders = container_of(job, struct holders, job);
	struct error err = { 0 };

	(void)error_try_again(&err, "the agent is being ended");
	sd_event_source_disable_unref(holders->deadline);
	json_decref(holders->list);
	if (holders->request)
		request_fail(holders->request, &err);
}

static void answer(struct holders *holders)
{
	if (holders->request)
		request_return(holders->request, holders->list);
	holders->request = NULL;
}

static void note_gone(const struct holders *holders, const char *node)
{
	json_t *vm;
	size_t i;

	json_array_foreach(holders->list, i, vm)
	{
		const char *before = json_string_or(vm, "reason", NULL);
		CLEANUP_FREE char *reason = NULL;

		if (strcmp(json_string_or(vm, "node", ""), node) != 0)
			continue;
		reason = xasprintf("node '%s' is away; its last known state is %s%s%s", node,
				   json_string_or(vm, "state", "unknown"), before ? ": " : "",
				   before ? before : "");
		json_set_string(vm, "state", vm_state_name(VM_UNKNOWN));
		json_set_string(vm, "reason", reason);
	}
}

static void on_session(void *ctx, int r, const struct store_entry *entry, const struct error *err)
{
	struct question *question = ctx;
	struct holders *holders = question->holders;

	if (r == -ENOENT && holders->request)
		note_gone(holders, question->node);
	free(question);
	if (--holders->open > 0)
		return;
	answer(holders);
	job_end(&holders->job);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *ctx)
{
	answer(ctx);
	return 0;
}

static void ask(struct holders *holders, const char *node)
{
	struct question *question = xcalloc(1, sizeof(*question));
	char key[RECORD_KEY_SIZE];

	question->holders = holders;
	(void)snprintf(question->node, sizeof(question->node), "%s", node);
	if (store_get(holders->job.node->store, key_node(key, node, "session"), on_session,
		      question, NULL) < 0)
		free(question);
	else
		holders->open++;
}

/* Each other node that is said to have one of the VMs, once. */
static void ask_all(struct holders *holders)
{
	const char *own = holders->job.node->config->node;
	json_auto_t *asked = json_object();
	json_t *vm;
	size_t i;

	json_array_foreach(holders->list, i, vm)
	{
		const char *node = json_string_or(vm, "node", own);

		if (strcmp(node, own) == 0 || json_object_get(asked, node) ||
		    strcmp(json_string_or(vm, "state", ""), "off") == 0)
			continue;
		(void)json_object_set_new(asked, node, json_true());
		ask(holders, node);
	}
}

void holders_answer(struct node *node, struct request *request, json_t *list)
{
	struct holders *holders = xcalloc(1, sizeof(*holders));

	holders->request = request;
	holders->list = list;
	job_begin(&holders->job, node, holders_done);
	ask_all(holders);
	if (holders->open > 0) {
		node_timer(node, &holders->deadline, PATIENCE, on_deadline, holders);
		return;
	}
	answer(holders);
	job_end(&holders->job);
}
