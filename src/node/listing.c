/* SPDX-License-Identifier: Apache-2.0 */
#include "node/listing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "node/elsewhere.h"
#include "node/job.h"
#include "node/node.h"
#include "node/status.h"
#include "node/vm.h"
#include "node/volumes.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

#define PATIENCE (3 * USEC_PER_SEC) /* then the list goes out as the records have it */
#define PART 100		    /* VMs */

struct listing {
	struct job job;
	struct request *request; /* NULL once answered */
	json_t *asked;		 /* {NODE: is it away?} */
	size_t open;		 /* questions to the store */
	bool begun;		 /* the answer */
	struct volumes volumes;
	char last[VM_NAME_MAX + 1]; /* of the part that was sent last */
	size_t sent;
	sd_event_source *deadline, *next;
};

struct question {
	struct listing *listing;
	char node[RECORD_NAME_SIZE];
};

static void listing_done(struct job *job)
{
	struct listing *listing = container_of(job, struct listing, job);
	struct error err = { 0 };

	(void)error_try_again(&err, "the agent is being ended");
	sd_event_source_disable_unref(listing->deadline);
	sd_event_source_disable_unref(listing->next);
	json_decref(listing->asked);
	volumes_done(&listing->volumes);
	if (listing->request)
		request_fail(listing->request, &err);
}

/* Answers of the store may still be on their way to us. */
static void end_if_over(struct listing *listing)
{
	if (!listing->request && listing->open == 0)
		job_end(&listing->job);
}

static void note_holder_gone(json_t *vm, const char *node)
{
	const char *before = json_string_or(vm, "reason", NULL);
	CLEANUP_FREE char *reason = xasprintf("node '%s' is away; its last known state is %s%s%s",
					      node, json_string_or(vm, "state", "unknown"),
					      before ? ": " : "", before ? before : "");

	json_set_string(vm, "state", vm_state_name(VM_UNKNOWN));
	json_set_string(vm, "reason", reason);
}

/* Or it was never there: a name that was mistyped. */
static void note_target_gone(json_t *vm, const char *node)
{
	CLEANUP_FREE char *reason = xasprintf(
		"it belongs on node '%s', which is away; 'drover node ls' shows what there is",
		node);

	json_set_string(vm, "reason", reason);
}

static void note_gone(const struct listing *listing, json_t *list)
{
	json_t *vm;
	size_t i;

	json_array_foreach(list, i, vm)
	{
		const char *node = json_string_or(vm, "node", "");
		const char *target = json_string_or(vm, "target", "");
		bool off = strcmp(json_string_or(vm, "state", ""), "off") == 0;

		if (!off && json_bool_or(listing->asked, node, false))
			note_holder_gone(vm, node);
		else if (off && json_bool_or(listing->asked, target, false) &&
			 strcmp(json_string_or(vm, "wish", ""), "elsewhere") == 0)
			note_target_gone(vm, target);
	}
}

static void answer(struct listing *listing, json_t *list)
{
	request_return(listing->request, list);
	listing->request = NULL;
	end_if_over(listing);
}

static void send_all(struct listing *listing)
{
	json_auto_t *list = status_list(listing->job.node);

	note_gone(listing, list);
	answer(listing, list);
}

static int on_part(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct listing *listing = ctx;
	struct node *node = listing->job.node;
	json_t *list =
		status_part(node, &listing->volumes, listing->sent ? listing->last : NULL, PART);
	size_t count = json_array_size(list);
	json_auto_t *data =
		json_pack("{s:o, s:I}", "vms", list, "before", (json_int_t)listing->sent);

	if (count == 0 || request_abandoned(listing->request)) {
		json_auto_t *none = json_array();

		answer(listing, none);
		return 0;
	}
	note_gone(listing, list);
	(void)snprintf(listing->last, sizeof(listing->last), "%s",
		       json_string_or(json_array_get(list, count - 1), "name", ""));
	listing->sent += count;
	request_progress(listing->request, data);
	node_timer(node, &listing->next, 0, on_part, listing);
	return 0;
}

static void begin(struct listing *listing)
{
	listing->begun = true;
	listing->deadline = sd_event_source_disable_unref(listing->deadline);
	if (!json_bool_or(request_args(listing->request), "parts", false)) {
		send_all(listing);
		return;
	}
	listing->volumes = volumes_load(listing->job.node);
	node_timer(listing->job.node, &listing->next, 0, on_part, listing);
}

static void on_session(void *ctx, int r, const struct store_entry *entry, const struct error *err)
{
	CLEANUP_FREE struct question *question = ctx;
	struct listing *listing = question->listing;

	if (r == -ENOENT)
		(void)json_object_set_new(listing->asked, question->node, json_true());
	listing->open--;
	if (!listing->begun && listing->open == 0)
		begin(listing);
	else
		end_if_over(listing);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *ctx)
{
	begin(ctx);
	return 0;
}

static void ask(struct listing *listing, const char *node)
{
	struct question *question = xcalloc(1, sizeof(*question));
	char key[RECORD_KEY_SIZE];

	question->listing = listing;
	(void)snprintf(question->node, sizeof(question->node), "%s", node);
	if (store_get(listing->job.node->store, key_node(key, node, "session"), on_session,
		      question, NULL) < 0)
		free(question);
	else
		listing->open++;
}

static void ask_once(struct listing *listing, const char *node)
{
	if (json_object_get(listing->asked, node))
		return;
	(void)json_object_set_new(listing->asked, node, json_false());
	ask(listing, node);
}

/* Each other node that has one of the VMs, or should have. */
static void ask_all(struct listing *listing)
{
	const struct node *node = listing->job.node;

	for (size_t i = 0; i < node->n_vms; i++) {
		const struct node_vm *vm = node->vms[i];
		const char *holder = elsewhere_holder(vm);

		if (holder)
			ask_once(listing, holder);
		else if (vm->wish == WISH_ELSEWHERE && vm_target(vm))
			ask_once(listing, vm_target(vm));
	}
}

void listing_begin(struct node *node, struct request *request)
{
	struct listing *listing = xcalloc(1, sizeof(*listing));

	listing->request = request;
	listing->asked = json_object();
	job_begin(&listing->job, node, listing_done);
	ask_all(listing);
	if (listing->open > 0)
		node_timer(node, &listing->deadline, PATIENCE, on_deadline, listing);
	else
		begin(listing);
}
