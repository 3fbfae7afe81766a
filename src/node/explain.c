/* SPDX-License-Identifier: Apache-2.0 */
#include "node/explain.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "node/elsewhere.h"
#include "node/job.h"
#include "node/mode.h"
#include "node/node.h"
#include "node/obstacle.h"
#include "node/placement.h"
#include "node/records.h"
#include "node/session.h"
#include "node/vm.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

static void say(json_t *list, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void say(json_t *list, const char *fmt, ...)
{
	CLEANUP_FREE char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	if (text)
		json_array_append_new(list, json_text(text, strlen(text)));
}

/* Why here, for how long, and whether it is here yet. */
static void say_placement(json_t *list, const struct node_vm *vm)
{
	const struct placement *placement = &vm->placement;
	const char *name = vm->name;
	char words[VM_SOURCE_SIZE];

	if (placement->kind != PLACEMENT_NONE)
		say(list, "It belongs on this node: %s.",
		    placement_words(vm, words, sizeof(words)));
	if (placement->kind == PLACEMENT_MIGRATE)
		say(list, "Its own node is '%s'; 'drover unmigrate %s' brings it back there.",
		    placement->return_to, name);
	if (elsewhere_holder(vm))
		say(list,
		    "It is to come here from node '%s', which holds it; 'drover migrate %s "
		    "--cancel' lets it stay there.",
		    elsewhere_holder(vm), name);
}

static void say_obstacle(json_t *list, const struct node_vm *vm)
{
	if (obstacle_why(vm))
		say(list,
		    "That node cannot let it in: %s. It tries again; 'drover migrate %s --cancel' "
		    "lets the VM stay.",
		    obstacle_why(vm), vm->name);
	else if (vm_is_here(vm))
		say(list, "It is moved there; 'drover migrate %s --cancel' lets it stay.",
		    vm->name);
}

static void say_wish(json_t *list, const struct node_vm *vm)
{
	const char *name = vm->name, *node = vm->node->config->node;
	char source[VM_SOURCE_SIZE] = "";

	if (!vm_defined(vm)) {
		say(list, "There is no definition of it, so nothing is done about it; "
			  "'drover apply' gives it one.");
		return;
	}
	if (vm_unreadable(vm)) {
		say(list, "Nothing is done about it: %s", vm_unreadable(vm));
		return;
	}
	if (mode_trouble(vm->node)) {
		say(list, "What is wanted of it cannot be told: the mode of this node: %s.",
		    mode_trouble(vm->node));
		return;
	}
	(void)definition_record_source(&vm->record, source, sizeof(source));
	switch (vm->wish) {
	case WISH_RUN:
		say(list,
		    "It should run: its definition (%s) says so and no order stands against "
		    "it.",
		    source);
		say_placement(list, vm);
		break;
	case WISH_PAUSE:
		say(list, "It should be paused: %s ordered that at %s; 'drover resume %s' ends it.",
		    vm->order.by, vm->order.since, name);
		break;
	case WISH_STOP:
		say(list, "It should be off: %s ordered '%s' at %s; 'drover start %s' ends that.",
		    vm->order.by, order_kind_name(vm->order.kind), vm->order.since, name);
		break;
	case WISH_OFF:
		say(list,
		    "It should be off: its definition (%s) says 'online: false'; change it "
		    "there.",
		    source);
		break;
	case WISH_HANDS_OFF:
		if (vm->record.gone)
			say(list,
			    "Hands off: its %s is gone. Put the file back, or remove the VM "
			    "with 'drover rm %s'.",
			    source, name);
		else
			say(list,
			    "Hands off: 'kvm_host' is empty in its definition (%s); name '%s' "
			    "there and this node takes care of it.",
			    source, node);
		break;
	case WISH_ELSEWHERE:
		say(list, "It belongs on node '%s' (%s), and this node is '%s'.", vm_target(vm),
		    placement_words(vm, source, sizeof(source)), node);
		say_obstacle(list, vm);
		break;
	case WISH_NODE_STOPPED:
		say(list, "It should be off: this node is in mode 'stopped'; 'drover node ready' "
			  "ends that.");
		break;
	default:
		break;
	}
}

static void say_state(json_t *list, const struct node_vm *vm)
{
	const char *reason, *since = json_string_or(vm->told, "since", NULL);
	enum vm_state state = vm_state(vm, &reason);

	say(list, "VM '%s' is %s%s%s%s%s.", vm->name, vm_state_name(state), since ? " since " : "",
	    since ? since : "", reason && *reason ? ": " : "", reason && *reason ? reason : "");
}

static void say_next(json_t *list, const struct node_vm *vm)
{
	const char *name = vm->name;

	switch (vm_state(vm, NULL)) {
	case VM_FAILED:
		say(list, "'drover events %s' tells more; 'drover ensure %s' tries again now.",
		    name, name);
		break;
	case VM_PANICKED:
	case VM_INTERNAL_ERROR:
		say(list,
		    "It is kept for a look ('drover console %s --lines 50'); 'drover restart "
		    "%s' ends it and starts it anew.",
		    name, name);
		break;
	case VM_IO_ERROR:
		say(list, "When the disk works again, 'drover resume %s' lets the guest go on.",
		    name);
		break;
	case VM_UNRESPONSIVE:
		say(list, "QEMU lives and does not answer; 'drover kill %s' ends it if that lasts.",
		    name);
		break;
	case VM_PAUSED:
		if (vm->wish == WISH_RUN)
			say(list,
			    "Somebody paused it at its monitor; 'drover resume %s' lets it go on.",
			    name);
		break;
	default:
		break;
	}
}

static json_t *explain(const struct node_vm *vm)
{
	const struct node *node = vm->node;
	const char *pending = vm->told_now ? json_string_or(vm->told, "pending", NULL) : NULL;
	struct error err = { 0 };
	json_t *list = json_array();

	say_state(list, vm);
	say_wish(list, vm);
	if (pending)
		say(list,
		    "Its definition has changed since it was started; that takes effect with "
		    "'drover restart %s'.",
		    vm->name);
	if (vm->file_error)
		say(list, "%s", vm->file_error);
	if (vm->link.refusal[0])
		say(list, "Its keeper does not take what is wanted: %s.", vm->link.refusal);
	if (!vm->told_now && link_words(&vm->link))
		say(list, "Keeper: %s.", link_words(&vm->link));
	if (records_trouble(node))
		say(list, "Store: %s.", records_trouble(node));
	else if (session_check(node, &err) < 0)
		say(list, "Nothing can be started: %s.", err.text);
	say_next(list, vm);
	return list;
}

void explain_request(struct node *node, struct request *request)
{
	struct error err = { 0 };
	struct node_vm *vm = vm_of_request(node, request, &err);
	json_auto_t *answer = NULL;

	if (!vm) {
		request_fail(request, &err);
		return;
	}
	answer = json_pack("{s:o}", "sentences", explain(vm));
	request_return(request, answer);
}

/* ---- of a VM whose node does not answer ---- */

#define PATIENCE (3 * USEC_PER_SEC)

/* By the records alone, until the store has said whether that node has a session. */
struct explaining {
	struct job job;
	struct request *request; /* NULL once answered */
	char vm[VM_NAME_MAX + 1], to[RECORD_NAME_SIZE];
	char why[600];
	sd_event_source *deadline;
};

static void explaining_done(struct job *job)
{
	struct explaining *explaining = container_of(job, struct explaining, job);
	struct error err = { 0 };

	(void)error_try_again(&err, "the agent is being ended");
	sd_event_source_disable_unref(explaining->deadline);
	if (explaining->request)
		request_fail(explaining->request, &err);
}

static const char *age_text(const char *since, char *buffer, size_t size)
{
	uint64_t then, now = clock_wall(), age;

	if (clock_parse(since, &then) < 0 || now < then)
		return "";
	age = (now - then) / USEC_PER_SEC;
	if (age < 2 * 60)
		(void)snprintf(buffer, size, ", %u s ago", (unsigned)age);
	else if (age < 2 * 3600)
		(void)snprintf(buffer, size, ", %u min ago", (unsigned)(age / 60));
	else
		(void)snprintf(buffer, size, ", %u h ago", (unsigned)(age / 3600));
	return buffer;
}

static void say_last_told(json_t *list, const struct node_vm *vm, const char *to)
{
	const char *since = json_string_or(vm->said, "since", "?");
	const char *reason = json_string_or(vm->said, "reason", "");
	char age[48];

	if (!vm->said || strcmp(json_string_or(vm->said, "node", ""), to) != 0)
		say(list, "That node has not told a state of it.");
	else
		say(list, "What that node told last: %s since %s%s%s%s.",
		    json_string_or(vm->said, "state", "?"), since,
		    age_text(since, age, sizeof(age)), *reason ? ": " : "", reason);
}

static void say_owner(json_t *list, const struct node_vm *vm)
{
	if (!vm->version[VM_OWNER] || vm->owner.phase == OWNER_OFF)
		say(list, "By the owner record nobody may run it now.");
	else
		say(list,
		    "By the owner record only node '%s' may run it%s%s%s (epoch %llu); no other "
		    "starts it while that stands.",
		    vm->owner.node, vm->owner.to[0] ? ", and node '" : "", vm->owner.to,
		    vm->owner.to[0] ? "' may take it" : "", (unsigned long long)vm->owner.epoch);
}

/* `session`: as store_get() answers. */
static void say_node(json_t *list, const char *to, int session)
{
	if (session == 0)
		say(list,
		    "By the store droverd lives on node '%s', or has ended a moment ago; 'drover "
		    "node status %s' shows what it told last.",
		    to, to);
	else if (session == -ENOENT)
		say(list,
		    "Node '%s' has no session in the store: droverd there has ended, or the host "
		    "is down or cut off. Guests run on without it; look after it there.",
		    to);
	else
		say(list, "Whether droverd lives there is not known: the store does not answer.");
}

static void answer(struct explaining *explaining, int session)
{
	const struct node *node = explaining->job.node;
	const struct node_vm *vm = vm_find(node, explaining->vm);
	json_t *list = json_array();
	json_auto_t *value = json_pack("{s:o}", "sentences", list);

	say(list, "Whether VM '%s' runs now is not known: %s.", explaining->vm, explaining->why);
	say_node(list, explaining->to, session);
	if (vm) {
		say_last_told(list, vm, explaining->to);
		say_owner(list, vm);
		say_wish(list, vm);
	}
	if (vm && vm->file_error)
		say(list, "%s", vm->file_error);
	if (records_trouble(node))
		say(list, "All this is as it was known when the store was last read: %s.",
		    records_trouble(node));
	request_return(explaining->request, value);
	explaining->request = NULL;
}

static void on_session(void *ctx, int r, const struct store_entry *entry, const struct error *err)
{
	struct explaining *explaining = ctx;

	if (explaining->request)
		answer(explaining, r);
	job_end(&explaining->job);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *ctx)
{
	answer(ctx, -EAGAIN);
	return 0;
}

void explain_from_here(struct node *node, struct request *request, const char *to, const char *why)
{
	struct explaining *explaining = xcalloc(1, sizeof(*explaining));
	char key[RECORD_KEY_SIZE];

	explaining->request = request;
	(void)snprintf(explaining->vm, sizeof(explaining->vm), "%s",
		       json_string_or(request_args(request), "vm", ""));
	(void)snprintf(explaining->to, sizeof(explaining->to), "%s", to);
	(void)snprintf(explaining->why, sizeof(explaining->why), "%s", why);
	job_begin(&explaining->job, node, explaining_done);
	node_timer(node, &explaining->deadline, PATIENCE, on_deadline, explaining);
	if (store_get(node->store, key_node(key, to, "session"), on_session, explaining, NULL) < 0)
		on_session(explaining, -EAGAIN, NULL, NULL);
}
