/* SPDX-License-Identifier: Apache-2.0 */
/* A command is a list of one or more VMs, each of which goes through the same steps:
 *
 *	CHECK	does it fit?  (a keeper that is just coming up is waited for)
 *	WRITE	the order into the store, compared with the version that was checked
 *	WAIT	until the keeper has carried out that very order and the state says how it went
 *	DONE
 *
 * The whole command is answered when all of its VMs are done. */
#include "node/orders.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/command.h"
#include "core/wish.h"
#include "model/config.h"
#include "node/mode.h"
#include "node/node.h"
#include "node/order-write.h"
#include "node/placement.h"
#include "node/records.h"
#include "node/status.h"
#include "node/vm.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

#define TRIES 5
#define KEEPER_PATIENCE (5 * USEC_PER_SEC) /* for a keeper that is coming up */
#define TIMEOUT_MAX_MS (24 * 3600 * 1000)

enum step { STEP_CHECK, STEP_WRITE, STEP_WAIT, STEP_DONE };

struct order_item {
	struct order_wait *wait;
	char *vm;
	enum step step;
	struct order order; /* as written */
	int tries;
	int r; /* of DONE */
	struct error err;
	int shown; /* state of the last progress event; -1 */
	char shown_reason[160];
};

/* One command.  Kept in node->orders until it is answered and no write of it is under way. */
struct order_wait {
	struct order_wait *next, **link;
	struct node *node;
	struct request *request; /* NULL once answered */
	enum command command;
	bool list;    /* answer with all VMs */
	bool no_wait; /* answer once the orders are written */
	bool by_mode; /* shutdown-all: no orders, the node's mode does it */
	bool bare;    /* the answer is {}, and nothing is checked: a keeper asks */
	char by[96];
	uint64_t patience; /* clock_now() until which an unknown state is waited for */
	sd_event_source *deadline, *patience_timer;
	struct order_item *items;
	size_t count, writing;
};

static void look_at(struct order_item *item);

/* ---- beginning and end ---- */

static struct order_wait *wait_free(struct order_wait *wait)
{
	if (wait->link) {
		*wait->link = wait->next;
		if (wait->next)
			wait->next->link = wait->link;
	}
	sd_event_source_disable_unref(wait->deadline);
	sd_event_source_disable_unref(wait->patience_timer);
	for (size_t i = 0; i < wait->count; i++)
		free(wait->items[i].vm);
	free(wait->items);
	free(wait);
	return NULL;
}

void orders_close(struct node *node)
{
	struct error err = { 0 };

	(void)error_try_again(&err, "the agent is being ended; what was ordered stands");
	while (node->orders) {
		if (node->orders->request)
			request_fail(node->orders->request, &err);
		wait_free(node->orders);
	}
}

static json_t *answer_of(const struct order_wait *wait)
{
	const struct node_vm *vm;

	if (wait->bare)
		return json_object();
	if (wait->list)
		return status_list(wait->node);
	vm = vm_find(wait->node, wait->items[0].vm);
	return vm ? status_json(vm) : json_null();
}

/* One failure in its own words; several as a list. */
static void sum_up(const struct order_wait *wait, struct error *ret)
{
	size_t failed = 0, length = 0;

	for (size_t i = 0; i < wait->count; i++) {
		if (wait->items[i].r >= 0)
			continue;
		if (failed++ == 0)
			*ret = wait->items[i].err;
	}
	if (failed < 2)
		return;
	(void)error_set_class(ret, ret->class, -ECANCELED,
			      "%zu of %zu VMs did not come to it:", failed, wait->count);
	for (size_t i = 0; i < wait->count; i++) {
		length = strlen(ret->text);
		if (wait->items[i].r < 0)
			(void)snprintf(ret->text + length, sizeof(ret->text) - length, "%s %s",
				       length && ret->text[length - 1] == ':' ? "" : ";",
				       wait->items[i].err.text);
	}
}

static void answer(struct order_wait *wait)
{
	json_auto_t *value = NULL;
	bool failed = false;
	struct error err = { 0 };

	for (size_t i = 0; i < wait->count; i++)
		failed |= wait->items[i].r < 0;
	if (failed) {
		sum_up(wait, &err);
		request_fail(wait->request, &err);
	} else {
		value = answer_of(wait);
		request_return(wait->request, value);
	}
	wait->request = NULL;
}

/* Answers when all is done, and lets go when nothing is under way any more. */
static void wait_look(struct order_wait *wait)
{
	bool done = true;

	for (size_t i = 0; i < wait->count; i++)
		done &= wait->items[i].step == STEP_DONE;
	if (done && wait->request)
		answer(wait);
	if (!wait->request && wait->writing == 0)
		wait_free(wait);
}

static void item_done(struct order_item *item, int r, const struct error *err)
{
	item->step = STEP_DONE;
	item->r = r;
	if (err && r < 0)
		item->err = *err;
}

/* Time is up: what is known of the order, and what it waits for. */
static void say_late(struct order_item *item, struct error *ret)
{
	const struct node_vm *vm = vm_find(item->wait->node, item->vm);
	const char *reason = NULL, *name = item->vm;
	enum vm_state state = vm ? vm_state(vm, &reason) : VM_UNKNOWN;

	if (item->step == STEP_WRITE) {
		(void)error_try_again(ret,
				      "VM '%s': the store does not answer, so whether it was "
				      "ordered is not known; 'drover explain %s' shows what stands",
				      name, name);
		return;
	}
	(void)error_try_again(
		ret, "VM '%s' is still %s%s%s; %s, 'drover status %s' shows how %s", name,
		vm_state_name(state), reason && *reason ? ": " : "", reason ? reason : "",
		item->step == STEP_CHECK ? "nothing was ordered" : "what was ordered stands", name,
		item->step == STEP_CHECK ? "it is" : "it goes on");
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct order_wait *wait = userdata;

	for (size_t i = 0; i < wait->count; i++) {
		struct order_item *item = &wait->items[i];
		struct error err = { 0 };

		if (item->step == STEP_DONE)
			continue;
		say_late(item, &err);
		item_done(item, -EAGAIN, &err);
	}
	wait_look(wait);
	return 0;
}

static int on_patience(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct order_wait *wait = userdata;

	for (size_t i = 0; i < wait->count; i++)
		look_at(&wait->items[i]);
	wait_look(wait);
	return 0;
}

static struct order_wait *wait_new(struct node *node, struct request *request, enum command command,
				   const char *by)
{
	json_t *args = request_args(request);
	int64_t timeout = json_int_or(args, "timeout_ms", 0);
	struct order_wait *wait = xcalloc(1, sizeof(*wait));

	wait->node = node;
	wait->request = request;
	wait->command = command;
	wait->no_wait = !json_bool_or(args, "wait", true);
	(void)snprintf(wait->by, sizeof(wait->by), "%s", by);
	wait->next = node->orders;
	wait->link = &node->orders;
	if (wait->next)
		wait->next->link = &wait->next;
	node->orders = wait;
	if (timeout <= 0 || timeout > TIMEOUT_MAX_MS)
		node_timer(node, &wait->deadline, node->config->timers.command, on_deadline, wait);
	else
		node_timer(node, &wait->deadline, (uint64_t)timeout * USEC_PER_MSEC, on_deadline,
			   wait);
	wait->patience = clock_now() + KEEPER_PATIENCE;
	node_timer(node, &wait->patience_timer, KEEPER_PATIENCE, on_patience, wait);
	return wait;
}

/* Places in the list must not move once items point to each other: sized before. */
static void wait_add(struct order_wait *wait, const char *vm)
{
	struct order_item *item = &wait->items[wait->count++];

	*item = (struct order_item){ .wait = wait, .vm = xstrdup(vm), .shown = -1 };
}

/* ---- waiting ---- */

/* The keeper has taken notice of the very order that is waited for. */
static bool carried_out(const struct order_item *item, const struct node_vm *vm)
{
	enum command command = item->wait->command;

	if (vm->told_now &&
	    strcmp(json_string_or(vm->told, "wish", ""), vm_wish_name(vm->wish)) != 0)
		return false;
	if (command != COMMAND_START && command != COMMAND_RESTART && command != COMMAND_RESUME &&
	    command != COMMAND_ENSURE)
		return true;
	if (vm->wish != WISH_RUN)
		return true;
	return vm->told_now && json_int_or(vm->told, "retry", 0) >= (int64_t)item->order.retry &&
	       json_int_or(vm->told, "restarts", 0) >= (int64_t)item->order.restarts;
}

static void show_progress(struct order_item *item, const struct command_facts *facts)
{
	const char *reason = facts->reason ? facts->reason : "";
	json_auto_t *data = NULL;

	if (item->shown == (int)facts->state &&
	    strncmp(item->shown_reason, reason, sizeof(item->shown_reason) - 1) == 0)
		return;
	item->shown = (int)facts->state;
	(void)snprintf(item->shown_reason, sizeof(item->shown_reason), "%s", reason);
	data = json_pack("{s:s, s:s, s:o}", "vm", item->vm, "state", vm_state_name(facts->state),
			 "reason", *reason ? json_text(reason, strlen(reason)) : json_null());
	request_progress(item->wait->request, data);
}

/* Nothing will come of it before somebody has mended what the keeper does not understand. */
static bool look_refused(struct order_item *item, const struct node_vm *vm)
{
	struct error err = { 0 };

	if (!vm->link.refusal[0])
		return false;
	(void)error_set(&err, -ECANCELED,
			"VM '%s': it was ordered, but its keeper does not take it: %s", vm->name,
			vm->link.refusal);
	item_done(item, -ECANCELED, &err);
	return true;
}

static void look_waiting(struct order_item *item, struct node_vm *vm)
{
	struct command_facts facts;
	char source[VM_SOURCE_SIZE];
	struct error err = { 0 };
	int r;

	if (look_refused(item, vm))
		return;
	vm_facts(vm, &facts, source);
	show_progress(item, &facts);
	/* Without a keeper's word nothing is over, unless it is provably off. */
	if (facts.state == VM_UNKNOWN || !carried_out(item, vm))
		return;
	r = command_finished(item->wait->command, &facts, &err);
	if (r != 0)
		item_done(item, r < 0 ? r : 0, &err);
}

/* ---- writing ---- */

static void on_order_written(void *ctx, int r, const struct order *order, const struct error *err)
{
	struct order_item *item = ctx;
	struct order_wait *wait = item->wait;

	wait->writing--;
	if (item->step != STEP_WRITE) {
		/* Its time was up, and that was said: nothing is ordered behind that. */
	} else if (r == -ESTALE && ++item->tries < TRIES) {
		item->step = STEP_CHECK;
		look_at(item);
	} else if (r < 0 || wait->no_wait) {
		item_done(item, r, err);
	} else {
		item->order = *order;
		item->step = STEP_WAIT;
	}
	wait_look(wait);
}

static void write_order(struct order_item *item, struct node_vm *vm)
{
	struct order_wait *wait = item->wait;
	struct error err = { 0 };
	int r;

	item->step = STEP_WRITE;
	r = order_write(vm, wait->command, wait->by, on_order_written, item, &err);
	if (r < 0)
		item_done(item, r, &err);
	else
		wait->writing++;
}

/* ---- checking ---- */

/* `ensure` has something to order only where the VM is to run. */
static bool order_needed(const struct order_wait *wait, const struct node_vm *vm)
{
	if (wait->by_mode)
		return false;
	return wait->command != COMMAND_ENSURE || vm->wish == WISH_RUN;
}

/* A command that wants the VM up is measured against the wish that it would lead to. */
static int check_up(const struct order_item *item, const struct node_vm *vm,
		    struct command_facts *facts, struct error *err)
{
	enum command command = item->wait->command;
	char words[VM_SOURCE_SIZE];

	if (command != COMMAND_START && command != COMMAND_RESTART && command != COMMAND_RESUME)
		return 0;
	facts->wish = vm_wish_under(vm, ORDER_NONE);
	/* One that was paused on its way goes on here first. */
	if (facts->wish == WISH_ELSEWHERE && command == COMMAND_RESUME && vm_is_here(vm))
		return 0;
	if (facts->wish == WISH_ELSEWHERE)
		return error_refuse(err, "VM '%s' belongs to node '%s' (%s), this is '%s'",
				    vm->name, facts->target,
				    placement_words(vm, words, sizeof(words)),
				    vm->node->config->node);
	if (facts->wish == WISH_HANDS_OFF && vm->record.gone)
		return error_refuse(err,
				    "VM '%s': its %s is gone; put it back, or remove the VM with "
				    "'drover rm %s'",
				    vm->name, facts->source, vm->name);
	if (facts->wish == WISH_HANDS_OFF)
		return error_refuse(err,
				    "VM '%s' is not to be touched: 'kvm_host' is empty in its "
				    "definition (%s); name '%s' there",
				    vm->name, facts->source, vm->node->config->node);
	return 0;
}

static void look_checking(struct order_item *item, struct node_vm *vm)
{
	struct order_wait *wait = item->wait;
	struct command_facts facts;
	char source[VM_SOURCE_SIZE];
	struct error err = { 0 };
	int r;

	if (wait->bare) {
		write_order(item, vm);
		return;
	}
	vm_facts(vm, &facts, source);
	if (facts.state == VM_UNKNOWN && link_coming(&vm->link) && clock_now() < wait->patience)
		return;
	if (mode_trouble(wait->node))
		r = error_try_again(&err, "nothing can be ordered now: the mode of this node: %s",
				    mode_trouble(wait->node));
	else if (!vm_defined(vm))
		r = error_refuse(&err, "VM '%s' has no definition; 'drover apply' gives it one",
				 vm->name);
	else if (vm_unreadable(vm))
		r = error_refuse(&err, "VM '%s': %s", vm->name, vm_unreadable(vm));
	else
		r = check_up(item, vm, &facts, &err);
	if (r == 0)
		r = command_check(wait->command, &facts, &err);
	if (r < 0) {
		item_done(item, r, &err);
		return;
	}
	if (order_needed(wait, vm)) {
		write_order(item, vm);
		return;
	}
	item->order = vm->order;
	item->step = STEP_WAIT;
	if (wait->no_wait)
		item_done(item, 0, NULL);
	else
		look_waiting(item, vm);
}

static void look_at(struct order_item *item)
{
	struct node_vm *vm = vm_find(item->wait->node, item->vm);
	struct error err = { 0 };

	if (item->step == STEP_DONE || item->step == STEP_WRITE)
		return;
	if (!vm || vm->removed) {
		(void)error_refuse(&err, "VM '%s' was removed meanwhile", item->vm);
		item_done(item, -EPERM, &err);
		return;
	}
	if (item->step == STEP_CHECK)
		look_checking(item, vm);
	else
		look_waiting(item, vm);
}

void orders_look(struct node_vm *vm)
{
	struct order_wait *wait, *next;

	for (wait = vm->node->orders; wait; wait = next) {
		next = wait->next;
		for (size_t i = 0; i < wait->count; i++)
			if (strcmp(wait->items[i].vm, vm->name) == 0)
				look_at(&wait->items[i]);
		wait_look(wait);
	}
}

bool orders_wait_for(const struct node_vm *vm)
{
	for (struct order_wait *wait = vm->node->orders; wait; wait = wait->next)
		for (size_t i = 0; i < wait->count; i++)
			if (wait->items[i].step != STEP_DONE &&
			    strcmp(wait->items[i].vm, vm->name) == 0)
				return true;
	return false;
}

/* ---- requests ---- */

static void begin(struct order_wait *wait)
{
	for (size_t i = 0; i < wait->count; i++)
		look_at(&wait->items[i]);
	wait_look(wait);
}

static void add_all(struct order_wait *wait)
{
	struct node *node = wait->node;

	wait->list = true;
	wait->items = xcalloc(node->n_vms + 1, sizeof(*wait->items));
	for (size_t i = 0; i < node->n_vms; i++)
		if (vm_defined(node->vms[i]) && !node->vms[i]->removed)
			wait_add(wait, node->vms[i]->name);
}

void orders_request(struct node *node, struct request *request, const char *by)
{
	int command = command_of(request_command(request));
	struct order_wait *wait;
	struct error err = { 0 };
	struct node_vm *vm;

	if (command == COMMAND_ENSURE &&
	    !json_is_string(json_object_get(request_args(request), "vm"))) {
		wait = wait_new(node, request, COMMAND_ENSURE, by);
		add_all(wait);
		begin(wait);
		return;
	}
	vm = vm_of_request(node, request, &err);
	if (!vm) {
		request_fail(request, &err);
		return;
	}
	wait = wait_new(node, request, (enum command)command, by);
	wait->items = xcalloc(1, sizeof(*wait->items));
	wait_add(wait, vm->name);
	begin(wait);
}

void orders_wait_all_off(struct node *node, struct request *request, const char *by)
{
	struct order_wait *wait = wait_new(node, request, COMMAND_STOP, by);

	wait->by_mode = true;
	add_all(wait);
	for (size_t i = 0; i < wait->count; i++) {
		wait->items[i].step = STEP_WAIT;
		if (wait->no_wait)
			item_done(&wait->items[i], 0, NULL);
	}
	/* The wishes follow in the next turn of the loop, and with them the first look. */
	vm_touch_all(node);
	if (wait->count == 0 || wait->no_wait)
		wait_look(wait);
}

/* ---- a keeper's own stop ---- */

void orders_stop_by_keeper(struct node_vm *vm, struct request *request)
{
	const char *why = json_string_or(request_args(request), "why", "its keeper asked for it");
	struct order_wait *wait;
	char by[96];

	(void)snprintf(by, sizeof(by), "%s", why);
	wait = wait_new(vm->node, request, COMMAND_STOP, by);
	wait->no_wait = true;
	wait->bare = true;
	wait->items = xcalloc(1, sizeof(*wait->items));
	wait_add(wait, vm->name);
	write_order(&wait->items[0], vm);
	wait_look(wait);
}
