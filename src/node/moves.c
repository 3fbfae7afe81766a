/* SPDX-License-Identifier: Apache-2.0 */
#include "node/moves.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/command.h"
#include "core/placement.h"
#include "model/config.h"
#include "node/ask.h"
#include "node/events.h"
#include "node/job.h"
#include "node/membership.h"
#include "node/near.h"
#include "node/node.h"
#include "node/nodes.h"
#include "node/obstacle.h"
#include "node/status.h"
#include "node/vm.h"
#include "store/store.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

#define TRIES 5
#define FAILURES_MAX 3 /* then whoever waits is told; the keepers go on trying */
#define TIMEOUT_MAX_MS (24 * 3600 * 1000)

struct move {
	struct job job;
	struct move *next, **link;
	struct request *request; /* NULL once answered */
	char *vm, *to;		 /* `to` may be NULL */
	struct placement_order order;
	char by[96], since[32];
	bool wait, waiting;
	json_t *value; /* as written */
	uint64_t number;
	uint64_t epoch; /* what the target told before that is about an older copy */
	int tries;
	int64_t failures; /* tries of its keeper that came to nothing, before those for this order
			   */
	sd_event_source *deadline;
	json_t *shown; /* the last progress */
};

/* ---- beginning and end ---- */

static void move_done(struct job *job)
{
	struct move *move = container_of(job, struct move, job);

	*move->link = move->next;
	if (move->next)
		move->next->link = move->link;
	sd_event_source_disable_unref(move->deadline);
	json_decref(move->value);
	json_decref(move->shown);
	free(move->vm);
	free(move->to);
}

static void move_answer(struct move *move, int r, const struct error *err)
{
	struct request *request = TAKE_PTR(move->request);
	const struct node_vm *vm = vm_find(move->job.node, move->vm);
	json_auto_t *value = NULL;

	if (!request)
		return;
	if (r < 0) {
		request_fail(request, err);
		return;
	}
	value = vm ? status_json(vm) : json_null();
	request_return(request, value);
}

static void move_end(struct move *move, int r, const struct error *err)
{
	move_answer(move, r, err);
	job_end(&move->job);
}

bool moves_wait_for(const struct node_vm *vm)
{
	for (const struct move *move = vm->node->moves; move; move = move->next)
		if (strcmp(move->vm, vm->name) == 0)
			return true;
	return false;
}

void moves_close(struct node *node)
{
	struct error err = { 0 };

	(void)error_try_again(&err, "the agent is being ended; what was ordered stands");
	for (struct move *move = node->moves; move; move = move->next)
		move_answer(move, -EAGAIN, &err);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct move *move = userdata;
	struct error err = { 0 };

	if (move->waiting)
		(void)error_try_again(&err,
				      "VM '%s' is not there yet; what was ordered stands, 'drover "
				      "status %s' shows how it goes on",
				      move->vm, move->vm);
	else
		(void)error_try_again(&err,
				      "VM '%s': the store does not answer, so whether it was "
				      "ordered is not known; 'drover explain %s' shows what stands",
				      move->vm, move->vm);
	move_answer(move, -EAGAIN, &err);
	/* Else the answer of the store comes yet. */
	if (move->waiting)
		job_end(&move->job);
	return 0;
}

/* It takes what it takes; the deadline of a migration ends it. */
uint64_t moves_patience(const struct node *node, json_t *args)
{
	const struct timers *timers = &node->config->timers;
	int64_t timeout = json_int_or(args, "timeout_ms", 0);

	if (timeout > 0 && timeout <= TIMEOUT_MAX_MS)
		return (uint64_t)timeout * USEC_PER_MSEC;
	return timers->command < timers->migration_deadline ? timers->migration_deadline
							    : timers->command;
}

/* ---- waiting ---- */

static void show_progress(struct move *move, const struct node_vm *vm, const char *state,
			  const char *reason)
{
	json_t *migration = vm->told_now ? json_object_get(vm->told, "migration") : NULL;
	json_auto_t *data = NULL;

	data = json_pack("{s:s, s:s, s:s?, s:O?}", "vm", move->vm, "state", state, "reason",
			 reason && *reason ? reason : NULL, "migration", migration);
	if (json_equal(data, move->shown))
		return;
	request_progress(move->request, data);
	json_decref(move->shown);
	move->shown = json_incref(data);
}

/* Of the copy on the target, as that node told it last. */
static enum vm_state state_there(const struct move *move, const struct node_vm *vm,
				 const char **ret_reason)
{
	int state = vm_state_of(json_string_or(vm->said, "state", ""));

	if (state < 0 || strcmp(json_string_or(vm->said, "node", ""), vm_target(vm)) != 0 ||
	    json_int_or(vm->said, "epoch", 0) < (int64_t)move->epoch)
		return VM_UNKNOWN;
	*ret_reason = json_string_or(vm->said, "reason", NULL);
	return (enum vm_state)state;
}

static int64_t failures_of(const struct node_vm *vm)
{
	return vm->told_now ? json_int_or(vm->told, "migration_failures", 0) : 0;
}

/* It was tried, and tried again. */
static int check_tries(struct move *move, const struct node_vm *vm, const char *reason,
		       struct error *err)
{
	int64_t failures = failures_of(vm);

	if (failures < move->failures)
		move->failures = failures; /* a new keeper counts anew */
	if (failures - move->failures < FAILURES_MAX)
		return 0;
	return error_set(err, -ECANCELED,
			 "VM '%s' is still on node '%s': %s; 'drover migrate %s --cancel' lets it "
			 "stay there",
			 move->vm, vm->node->config->node, reason && *reason ? reason : "no reason",
			 move->vm);
}

/* It is to stay here, and is still on its way to another node. */
static bool is_leaving(const struct node_vm *vm)
{
	const json_t *migration = vm->told_now ? json_object_get(vm->told, "migration") : NULL;

	return strcmp(vm_target(vm), vm->node->config->node) == 0 &&
	       strcmp(json_string_or(migration, "role", ""), "source") == 0;
}

/* Its target says that it cannot come there. */
static int check_obstacle(const struct move *move, const struct node_vm *vm, struct error *err)
{
	if (!obstacle_stands(vm, move->number))
		return 0;
	return error_set(err, -ECANCELED,
			 "VM '%s' does not come to node '%s': %s; it stays on node '%s' until that "
			 "works, 'drover migrate %s --cancel' lets it stay there for good",
			 move->vm, vm_target(vm), obstacle_why(vm), vm->owner.node, move->vm);
}

static void look_waiting(struct move *move, const struct node_vm *vm)
{
	const struct placement_facts facts = vm_placement_facts(vm);
	struct error err = { 0 };
	enum vm_state state;
	const char *reason, *why;
	int r;

	if (vm->removed) {
		(void)error_refuse(&err, "VM '%s' was removed meanwhile", move->vm);
		move_end(move, -EPERM, &err);
		return;
	}
	state = vm_state(vm, &reason);
	why = reason;
	show_progress(move, vm, vm_state_name(state), reason);
	if (!vm_target(vm) || is_leaving(vm))
		return;
	if (strcmp(vm_target(vm), vm->node->config->node) != 0)
		state = state_there(move, vm, &reason);
	r = placement_arrived(&facts, move->number, vm->wish, state, reason, &err);
	if (r == 0)
		r = check_obstacle(move, vm, &err);
	if (r == 0)
		r = check_tries(move, vm, why, &err);
	if (r != 0)
		move_end(move, r < 0 ? r : 0, &err);
}

void moves_look(struct node_vm *vm)
{
	struct move *move, *next;

	for (move = vm->node->moves; move; move = next) {
		next = move->next;
		if (move->waiting && strcmp(move->vm, vm->name) == 0)
			look_waiting(move, vm);
	}
}

/* ---- writing ---- */

static void begin(struct move *move);

static void note_written(struct move *move, uint64_t version)
{
	struct node *node = move->job.node;
	struct node_vm *vm = vm_find(node, move->vm);
	const char *target;

	if (!vm)
		return;
	vm->written = ++node->written;
	vm_set_record(vm, VM_PLACEMENT, move->value, version);
	target = vm_target(vm);
	events_add(node, move->vm, "placed", "%s: it belongs on node '%s', by %s",
		   request_command(move->request), target ? target : "?", move->by);
	log_vm(LOG_LEVEL_INFO, move->vm, "placed: it belongs on node '%s', by %s",
	       target ? target : "?", move->by);
}

static void written(struct move *move)
{
	struct node_vm *vm = vm_find(move->job.node, move->vm);

	if (!move->wait || !vm || !move->request) {
		move_end(move, 0, NULL);
		return;
	}
	move->waiting = true;
	vm_touch(vm);
}

static void on_read_again(void *ctx, int r, const struct store_entry *entry,
			  const struct error *err)
{
	struct move *move = ctx;
	struct node_vm *vm = vm_find(move->job.node, move->vm);
	struct error again = { 0 };

	if (r < 0 && r != -ENOENT) {
		move_end(move, r, err);
		return;
	}
	if (vm)
		vm_set_record(vm, VM_PLACEMENT, r == 0 ? entry->value : NULL,
			      r == 0 ? entry->version : 0);
	if (r == 0 && json_equal(move->value, entry->value)) {
		written(move);
	} else if (++move->tries < TRIES && move->request) {
		begin(move);
	} else {
		(void)error_try_again(&again, "others keep moving VM '%s'; say it again", move->vm);
		move_end(move, -ESTALE, &again);
	}
}

static void on_written(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct move *move = ctx;
	char key[RECORD_KEY_SIZE];
	struct error why = { 0 };

	checkpoint("agent.placement-written");
	if (r == -ESTALE) {
		r = store_get(move->job.node->store, key_vm(key, move->vm, "placement"),
			      on_read_again, move, &why);
		if (r == 0)
			return;
		err = &why;
	}
	if (r < 0 || !move->request) {
		move_end(move, r, err);
		return;
	}
	note_written(move, versions[0]);
	written(move);
}

/* The node whose business the VM becomes is told in the same transaction. */
static bool new_target(const struct move *move, const struct node_vm *vm, char *index)
{
	struct placement_facts facts = vm_placement_facts(vm);
	struct placement next = { 0 };
	const char *target;
	bool other;

	if (placement_parse(move->value, &next, NULL) < 0)
		return false;
	facts.placement = &next;
	other = near_target(&facts, move->job.node, &target);
	if (other)
		(void)key_assign(index, target, move->vm);
	placement_done(&next);
	return other;
}

static int write_placement(struct move *move, const struct node_vm *vm, struct error *err)
{
	char key[RECORD_KEY_SIZE], index[RECORD_KEY_SIZE];
	json_auto_t *entry = json_pack("{s:i}", "v", 1);
	const struct store_op ops[] = {
		{ .kind = STORE_PUT,
		  .key = key_vm(key, move->vm, "placement"),
		  .expected = vm->version[VM_PLACEMENT],
		  .value = move->value },
		{ .kind = STORE_PUT, .key = index, .expected = STORE_ANY, .value = entry },
	};
	size_t count = new_target(move, vm, index) ? 2 : 1;

	checkpoint("agent.placement");
	return ask_write(move->job.node, ops, count, move->job.node->config->timers.session,
			 on_written, move, err);
}

/* ---- checking ---- */

static int check_vm(const struct move *move, const struct node_vm *vm, struct error *err)
{
	int command = command_of(request_command(move->request));
	struct command_facts facts;
	char source[VM_SOURCE_SIZE];

	if (!vm || vm->removed)
		return error_refuse(err, "VM '%s' was removed meanwhile", move->vm);
	if (!vm_defined(vm))
		return error_refuse(err, "VM '%s' has no definition; 'drover apply' gives it one",
				    move->vm);
	if (vm_unreadable(vm))
		return error_refuse(err, "VM '%s': %s", move->vm, vm_unreadable(vm));
	vm_facts(vm, &facts, source);
	return command_check((enum command)command, &facts, err);
}

/* The node that the record sends it to must be able to take it. */
static int check_target(const struct move *move, const struct node_vm *vm,
			const struct placement *next, const json_t *nodes, struct error *err)
{
	struct placement_facts facts = vm_placement_facts(vm);
	struct placement_terms terms;
	const char *target;
	int r;

	if (move->order.verb == PLACE_CANCEL)
		return 0;
	facts.placement = next;
	(void)placement_node(&facts, &target);
	placement_terms(&facts, &terms);
	r = nodes_check_target(nodes, target, err);
	if (r < 0 || terms.shutdown || vm->owner.phase == OWNER_OFF)
		return r;
	return membership_check_move(vm->node, target, err);
}

/* Without a name: the node with the most room. */
static int choose(struct move *move, const struct placement_facts *facts, const json_t *nodes,
		  struct error *err)
{
	const char *now, *name = move->to;
	int r = 0;

	(void)placement_node(facts, &now);
	if (move->to)
		r = nodes_check_target(nodes, move->to, err);
	else if (move->order.verb == PLACE_MIGRATE)
		r = nodes_choose_target(nodes, now, &name, err);
	if (r == 0 && !move->to && name)
		move->to = xstrdup(name);
	move->order.to = move->to;
	return r;
}

static int order(struct move *move, const struct node_vm *vm, const json_t *nodes,
		 struct error *err)
{
	struct placement_facts facts;
	struct placement next = { 0 };
	int r;

	r = check_vm(move, vm, err);
	if (r < 0)
		return r;
	facts = vm_placement_facts(vm);
	r = choose(move, &facts, nodes, err);
	if (r == 0)
		r = placement_ordered(&facts, &move->order, &next, err);
	if (r == 0)
		r = check_target(move, vm, &next, nodes, err);
	if (r < 0)
		return r;
	move->number = next.number;
	move->failures = failures_of(vm);
	move->epoch = vm->owner.epoch + (move->order.verb != PLACE_CANCEL);
	json_decref(move->value);
	move->value = placement_json(&next);
	return write_placement(move, vm, err);
}

static void on_nodes(void *ctx, int r, const struct store_entry *entries, size_t count,
		     const struct error *err)
{
	struct move *move = ctx;
	const struct node_vm *vm = vm_find(move->job.node, move->vm);
	json_auto_t *nodes = NULL;
	struct error why = { 0 };

	if (r < 0 || !move->request) {
		move_end(move, r, err);
		return;
	}
	nodes = nodes_gather(entries, count);
	r = order(move, vm, nodes, &why);
	if (r < 0)
		move_end(move, r, &why);
}

static void begin(struct move *move)
{
	struct error err = { 0 };
	int r;

	r = store_list(move->job.node->store, NODES_PREFIX, on_nodes, move, &err);
	if (r < 0)
		move_end(move, r, &err);
}

/* ---- requests ---- */

/* 0: not said. */
static uint64_t number_of(json_t *args, const char *key)
{
	int64_t number = json_int_or(args, key, 0);

	return number > 0 ? (uint64_t)number : 0;
}

static int parse(struct move *move, json_t *args, struct error *err)
{
	static const enum placement_verb verbs[COMMANDS] = {
		[COMMAND_MIGRATE] = PLACE_MIGRATE,
		[COMMAND_MOVE] = PLACE_MOVE,
		[COMMAND_UNMIGRATE] = PLACE_UNMIGRATE,
	};
	const char *to = json_string_or(args, "to", NULL);
	int method = placement_method_of(json_string_or(args, "method", "auto"));
	struct placement_order *order = &move->order;

	order->verb = verbs[command_of(request_command(move->request))];
	if (json_bool_or(args, "cancel", false))
		order->verb = PLACE_CANCEL;
	if (method < 0)
		return error_usage(err, "'%s' is no method; write auto, live or shutdown",
				   json_string_or(args, "method", ""));
	if (order->verb == PLACE_MOVE && !to)
		return error_usage(err, "which node is it to be moved to?");
	order->method = (enum placement_method)method;
	order->max_downtime_ms = number_of(args, "max_downtime_ms");
	order->bandwidth = number_of(args, "bandwidth");
	order->postcopy = json_bool_or(args, "postcopy", false);
	if (to && (order->verb == PLACE_MIGRATE || order->verb == PLACE_MOVE))
		move->to = xstrdup(to);
	return 0;
}

static struct move *move_new(struct node *node, struct request *request, const char *vm,
			     const char *by)
{
	struct move *move = xcalloc(1, sizeof(*move));

	move->request = request;
	move->vm = xstrdup(vm);
	move->wait = json_bool_or(request_args(request), "wait", true);
	(void)snprintf(move->by, sizeof(move->by), "%s", by);
	(void)clock_text(clock_wall(), move->since);
	move->order.by = move->by;
	move->order.since = move->since;
	move->next = node->moves;
	move->link = &node->moves;
	if (move->next)
		move->next->link = &move->next;
	node->moves = move;
	job_begin(&move->job, node, move_done);
	return move;
}

void moves_request(struct node *node, struct request *request, const char *by)
{
	struct error err = { 0 };
	const struct node_vm *vm = vm_of_request(node, request, &err);
	struct move *move;
	int r;

	if (!vm) {
		request_fail(request, &err);
		return;
	}
	move = move_new(node, request, vm->name, by);
	r = parse(move, request_args(request), &err);
	if (r < 0) {
		move_end(move, r, &err);
		return;
	}
	node_timer(node, &move->deadline, moves_patience(node, request_args(request)), on_deadline,
		   move);
	begin(move);
}
