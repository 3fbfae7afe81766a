/* SPDX-License-Identifier: Apache-2.0 */
/* What is here says who was at the other ends.  Of a VM that never was here, the node that has it
 * knows how it came there; so who is named in an answer is asked next. */
#include "node/migrations.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "model/definition.h"
#include "node/elsewhere.h"
#include "node/job.h"
#include "node/membership.h"
#include "node/node.h"
#include "node/remote.h"
#include "node/timelines.h"
#include "node/vm.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

#define NODES_MAX 16
#define PATIENCE (10 * USEC_PER_SEC)

struct gather {
	struct job job;
	struct request *request;
	char vm[VM_NAME_MAX + 1]; /* "": all */
	json_t *list;
	json_t *asked; /* {NODE: true}, with this one */
	struct side *sides;
	size_t open; /* questions */
};

struct side {
	struct gather *gather;
	struct side *next;
	char node[RECORD_NAME_SIZE];
	struct remote *remote;
};

static void gather_done(struct job *job)
{
	struct gather *gather = container_of(job, struct gather, job);

	while (gather->sides) {
		struct side *side = gather->sides;

		gather->sides = side->next;
		free(side);
	}
	json_decref(gather->list);
	json_decref(gather->asked);
}

static void look(struct gather *gather);

static void trouble(struct gather *gather, const char *node, const char *why)
{
	json_array_append_new(gather->list, json_pack("{s:s, s:o}", "node", node, "trouble",
						      json_text(why, strlen(why))));
}

static void side_end(struct side *side, const char *why)
{
	struct gather *gather = side->gather;

	if (why)
		trouble(gather, side->node, why);
	gather->open--;
	look(gather);
}

static void on_told(void *ctx, int r, json_t *value, const struct error *err)
{
	struct side *side = ctx;
	json_t *record;
	size_t i;

	json_array_foreach(value, i, record)
	{
		if (json_is_object(record) && json_array_size(side->gather->list) < TIMELINES_MAX)
			(void)json_array_append(side->gather->list, record);
	}
	side_end(side, r < 0 ? err->text : NULL);
}

static int side_ask(struct side *side, const char *address, struct error *err)
{
	static const struct remote_ops ops = { .reply = on_told };
	struct gather *gather = side->gather;
	struct node *node = gather->job.node;
	/* Of all VMs, what others had with each other is not ours to tell. */
	json_auto_t *args = json_pack("{s:s?, s:s?}", "vm", gather->vm[0] ? gather->vm : NULL,
				      "with", gather->vm[0] ? NULL : node->config->node);
	const struct remote_question question = {
		.address = address,
		.node = side->node,
		.command = "migrations",
		.args = args,
		.timeout_usec = PATIENCE,
	};

	if (!*address)
		return error_try_again(err, "it tells no address");
	return remote_ask(node, &question, &ops, side, &side->remote, err);
}

static void on_info(void *ctx, int r, const struct store_entry *entry, const struct error *err)
{
	struct side *side = ctx;
	struct node *node = side->gather->job.node;
	const char *address = membership_last_address(node, side->node);
	struct error why = { 0 };

	if (r == 0) {
		address = json_string_or(entry->value, "address", "");
		membership_note_address(node, side->node, address);
	} else if (!address) {
		side_end(side, err->text);
		return;
	}
	if (side_ask(side, address, &why) < 0)
		side_end(side, why.text);
}

/* `named`: it had a part in one of them, so it is told when its side is missing. */
static void ask(struct gather *gather, const char *name, bool named)
{
	struct node *node = gather->job.node;
	char key[RECORD_KEY_SIZE];
	struct error err = { 0 };
	struct side *side;

	if (!name || !*name || json_object_get(gather->asked, name) ||
	    json_object_size(gather->asked) > NODES_MAX)
		return;
	if (!named && !membership_has(node, name))
		return;
	(void)json_object_set_new(gather->asked, name, json_true());
	if (!membership_identity(node) || !membership_has(node, name)) {
		trouble(gather, name, "it is no member of the cluster (any more)");
		return;
	}
	side = xcalloc(1, sizeof(*side));
	side->gather = gather;
	(void)snprintf(side->node, sizeof(side->node), "%s", name);
	side->next = gather->sides;
	gather->sides = side;
	gather->open++;
	if (store_get(node->store, key_node(key, name, "info"), on_info, side, &err) < 0) {
		gather->open--;
		trouble(gather, name, err.text);
	}
}

static void ask_named(struct gather *gather)
{
	/* It grows by those who cannot be asked. */
	for (size_t i = 0; i < json_array_size(gather->list); i++) {
		const json_t *record = json_array_get(gather->list, i);

		ask(gather, json_string_or(record, "from", NULL), true);
		ask(gather, json_string_or(record, "to", NULL), true);
	}
}

/* Whoever has it, or had it, or is to have it. */
static void ask_holders(struct gather *gather)
{
	const struct node_vm *vm = vm_find(gather->job.node, gather->vm);

	if (!vm)
		return;
	ask(gather, elsewhere_holder(vm), false);
	ask(gather, vm_target(vm), false);
	ask(gather, vm->placement.return_to, false);
	ask(gather, vm->owner.home, false);
}

static void look(struct gather *gather)
{
	json_auto_t *answer = NULL;
	struct error err = { 0 };

	ask_named(gather);
	if (gather->open > 0)
		return;
	answer = timelines_sorted(gather->list);
	/* A VM that is gone may have left some; else it is a name that was mistyped. */
	if (gather->vm[0] && json_array_size(gather->list) == 0 &&
	    !vm_of_request(gather->job.node, gather->request, &err))
		request_fail(gather->request, &err);
	else
		request_return(gather->request, answer);
	job_end(&gather->job);
}

/* What is here; -1: the request is answered. */
static int read_here(struct node *node, struct request *request, json_t *list)
{
	const char *vm = json_string_or(request_args(request), "vm", NULL);
	struct error err = { 0 };
	int r;

	r = vm ? definition_check_name(vm, &err) : 0;
	if (r == 0)
		r = timelines_read(node, vm, list, &err);
	if (r < 0)
		request_fail(request, &err);
	return r;
}

void migrations_request(struct node *node, struct request *request)
{
	const char *vm = json_string_or(request_args(request), "vm", "");
	json_auto_t *list = json_array();
	struct gather *gather;

	if (read_here(node, request, list) < 0)
		return;
	gather = xcalloc(1, sizeof(*gather));
	gather->request = request;
	(void)snprintf(gather->vm, sizeof(gather->vm), "%s", vm);
	gather->list = json_incref(list);
	gather->asked = json_pack("{s:b}", node->config->node, true);
	job_begin(&gather->job, node, gather_done);
	ask_holders(gather);
	look(gather);
}

static bool is_with(const json_t *record, const char *node)
{
	return !node || strcmp(json_string_or(record, "from", ""), node) == 0 ||
	       strcmp(json_string_or(record, "to", ""), node) == 0;
}

void migrations_serve(struct node *node, struct request *request)
{
	const char *with = json_string_or(request_args(request), "with", NULL);
	json_auto_t *list = json_array(), *answer = json_array();
	json_t *record;
	size_t i;

	if (read_here(node, request, list) < 0)
		return;
	json_array_foreach(list, i, record)
	{
		if (is_with(record, with))
			(void)json_array_append(answer, record);
	}
	request_return(request, answer);
}
