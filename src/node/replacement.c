/* SPDX-License-Identifier: Apache-2.0 */
#include "node/replacement.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "model/config.h"
#include "node/events.h"
#include "node/keeper.h"
#include "node/link.h"
#include "node/node.h"
#include "node/vm.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/process.h"
#include "wire/json.h"
#include "wire/peer.h"

#define ASK_AGAIN (1 * USEC_PER_SEC)
#define WAIT_MAX_MS (24 * 3600 * 1000)

struct waiter {
	struct waiter *next;
	struct replacement *replacement;
	struct request *request;
	sd_event_source *deadline;
};

struct replacement {
	struct node *node;
	char *vm; /* whose keeper is being replaced; NULL: none */
	sd_event_source *again;
	struct waiter *waiters;
};

bool replacement_is_outdated(const struct link *link)
{
	CLEANUP_FREE char *installed = keeper_program();
	CLEANUP_FREE char *running = xasprintf("/proc/%d/exe", (int)link->pid);
	struct stat own, theirs;

	/* The file itself, which outlives its name: versions may be equal, builds are not. */
	return link->pidfd >= 0 && stat(installed, &own) == 0 && stat(running, &theirs) == 0 &&
	       (own.st_dev != theirs.st_dev || own.st_ino != theirs.st_ino);
}

static size_t count(const struct node *node, bool outdated_only)
{
	size_t n = 0;

	for (size_t i = 0; i < node->n_vms; i++) {
		const struct link *link = &node->vms[i]->link;

		n += link->state != LINK_NONE && (link->outdated || !outdated_only);
	}
	return n;
}

json_t *replacement_json(const struct node *node)
{
	return json_pack("{s:I, s:I}", "total", (json_int_t)count(node, false), "outdated",
			 (json_int_t)count(node, true));
}

static int on_again(sd_event_source *source, uint64_t usec, void *userdata);

/* ---- one keeper ---- */

static void on_answer(void *ctx, int r, json_t *value, const struct error *err)
{
	struct node_vm *vm = ctx;

	if (r == 0)
		log_vm(LOG_LEVEL_INFO, vm->name,
		       "its keeper (pid %d) makes way for the installed one", (int)vm->link.pid);
	if (r != -EREMOTEIO)
		return;
	log_vm(LOG_LEVEL_DEBUG, vm->name, "its keeper is not replaced yet: %s", err->text);
	vm->link.replacing = false;
	vm->link.busy = true;
	vm_touch(vm);
}

/* One that was made before keepers could be asked: what it does when it is told to end is the same,
 * and whether it is at rest it has said. */
static int end_old(struct node_vm *vm, struct error *err)
{
	int state = vm_state_of(json_string_or(vm->told, "state", ""));

	if (!json_bool_or(vm->told, "settled", false) ||
	    (state != VM_RUNNING && state != VM_PAUSED && state != VM_OFF))
		return error_try_again(err, "it is of an earlier version, and at work");
	return process_signal(vm->link.pidfd, SIGTERM, err);
}

static bool ask(struct replacement *replacement, struct node_vm *vm)
{
	struct link *link = &vm->link;
	uint64_t timeout = vm->node->config->timers.keeper_silent;
	struct error err = { 0 };
	int r;

	if (json_string_or(vm->told, "keeper_version", NULL))
		r = peer_call(link->peer, "replace", NULL, timeout, on_answer, vm, &err);
	else
		r = end_old(vm, &err);
	if (r < 0) {
		link->busy = true;
		return false;
	}
	link->replacing = true;
	replacement->vm = xstrdup(vm->name);
	return true;
}

/* Not before its state is told again, so that one that cannot work stays the only one. */
static bool is_done(struct replacement *replacement)
{
	const struct node_vm *vm = vm_find(replacement->node, replacement->vm);

	if (!vm || vm->link.state == LINK_NONE)
		return true;
	if (vm->link.replacing || vm->link.state != LINK_UP || !vm->told_now)
		return vm->link.busy;
	events_add(replacement->node, vm->name, "keeper-replaced", "pid %d", (int)vm->link.pid);
	return true;
}

static void ask_next(struct replacement *replacement)
{
	struct node *node = replacement->node;
	int enabled = SD_EVENT_OFF;
	bool busy = false;

	for (size_t i = 0; i < node->n_vms; i++) {
		struct node_vm *vm = node->vms[i];

		if (vm->link.state != LINK_UP || !vm->link.outdated || !vm->told_now)
			continue;
		if (!vm->link.busy && ask(replacement, vm))
			return;
		busy = true;
	}
	if (replacement->again)
		(void)sd_event_source_get_enabled(replacement->again, &enabled);
	if (busy && enabled == SD_EVENT_OFF)
		node_timer(node, &replacement->again, ASK_AGAIN, on_again, replacement);
}

/* ---- who waits for all of them ---- */

static json_t *answer_json(const struct node *node)
{
	json_t *answer = replacement_json(node);
	json_t *waiting = json_array();

	for (size_t i = 0; i < node->n_vms; i++)
		if (node->vms[i]->link.state != LINK_NONE && node->vms[i]->link.outdated)
			(void)json_array_append_new(waiting, json_string(node->vms[i]->name));
	(void)json_object_set_new(answer, "waiting", waiting);
	return answer;
}

static void waiter_end(struct waiter *waiter)
{
	struct replacement *replacement = waiter->replacement;
	json_auto_t *answer = answer_json(replacement->node);

	for (struct waiter **at = &replacement->waiters; *at; at = &(*at)->next) {
		if (*at != waiter)
			continue;
		*at = waiter->next;
		break;
	}
	sd_event_source_disable_unref(waiter->deadline);
	request_return(waiter->request, answer);
	free(waiter);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
	waiter_end(userdata);
	return 0;
}

static void tell(struct replacement *replacement, const char *vm)
{
	json_auto_t *data = json_pack("{s:s, s:s}", "vm", vm, "state", "its keeper is replaced");

	for (struct waiter *waiter = replacement->waiters; waiter; waiter = waiter->next)
		request_progress(waiter->request, data);
}

void replacement_request(struct node *node, struct request *request)
{
	json_t *args = request_args(request);
	int64_t timeout_ms = json_int_or(args, "timeout_ms", 0);
	struct waiter *waiter = xcalloc(1, sizeof(*waiter));
	uint64_t timeout = timeout_ms > 0 && timeout_ms <= WAIT_MAX_MS
				   ? (uint64_t)timeout_ms * USEC_PER_MSEC
				   : node->config->timers.command;

	*waiter = (struct waiter){ .next = node->replacement->waiters,
				   .replacement = node->replacement,
				   .request = request };
	node->replacement->waiters = waiter;
	if (!json_bool_or(args, "wait", false)) {
		waiter_end(waiter);
		return;
	}
	node_timer(node, &waiter->deadline, timeout, on_deadline, waiter);
	replacement_look(node);
}

/* ---- all of it ---- */

void replacement_look(struct node *node)
{
	struct replacement *replacement = node->replacement;

	if (!replacement)
		return;
	if (replacement->vm && is_done(replacement)) {
		tell(replacement, replacement->vm);
		free(replacement->vm);
		replacement->vm = NULL;
	}
	if (!replacement->vm)
		ask_next(replacement);
	while (replacement->waiters && count(node, true) == 0)
		waiter_end(replacement->waiters);
}

static int on_again(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct replacement *replacement = userdata;

	for (size_t i = 0; i < replacement->node->n_vms; i++)
		replacement->node->vms[i]->link.busy = false;
	replacement_look(replacement->node);
	return 0;
}

void replacement_open(struct node *node)
{
	node->replacement = xcalloc(1, sizeof(*node->replacement));
	node->replacement->node = node;
}

struct replacement *replacement_close(struct replacement *replacement)
{
	if (!replacement)
		return NULL;
	sd_event_source_disable_unref(replacement->again);
	while (replacement->waiters)
		waiter_end(replacement->waiters);
	free(replacement->vm);
	free(replacement);
	return NULL;
}
