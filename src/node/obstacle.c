/* SPDX-License-Identifier: Apache-2.0 */
#include "node/obstacle.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "node/ask.h"
#include "node/elsewhere.h"
#include "node/job.h"
#include "node/node.h"
#include "node/session.h"
#include "node/vm.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

struct telling {
	struct job job;
	char *vm;
	json_t *value; /* NULL: it is taken back */
};

static void telling_done(struct job *job)
{
	struct telling *telling = container_of(job, struct telling, job);

	json_decref(telling->value);
	free(telling->vm);
}

/* A failure is not tried again here: a session that comes back, or the record as others left it,
 * is a reason to look. */
static void on_written(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct telling *telling = ctx;
	struct node *node = telling->job.node;
	struct node_vm *vm = vm_find(node, telling->vm);

	if (r == -ESTALE)
		session_renew(node);
	if (r < 0)
		log_vm(LOG_LEVEL_WARNING, telling->vm, "telling why it cannot come here: %s",
		       err->text);
	if (vm)
		vm->telling_obstacle = false;
	if (vm && r == 0) {
		vm->written = ++node->written;
		vm_set_record(vm, VM_OBSTACLE, telling->value, telling->value ? versions[1] : 0);
	}
	job_end(&telling->job);
}

static int write_record(struct node_vm *vm, struct telling *telling, struct error *err)
{
	const char *node = vm->node->config->node;
	char life[RECORD_KEY_SIZE], key[RECORD_KEY_SIZE];
	const struct store_op ops[] = {
		{ .kind = STORE_CHECK,
		  .key = key_node(life, node, "life"),
		  .expected = session_life_version(vm->node) },
		{ .kind = telling->value ? STORE_PUT : STORE_DELETE,
		  .key = key_vm(key, vm->name, "obstacle"),
		  .expected = vm->version[VM_OBSTACLE],
		  .value = telling->value,
		  .ephemeral = telling->value != NULL },
	};

	return ask_write(vm->node, ops, ARRAY_SIZE(ops), vm->node->config->timers.session,
			 on_written, telling, err);
}

/* Takes `value`. */
static void write_it(struct node_vm *vm, json_t *value)
{
	struct telling *telling = xcalloc(1, sizeof(*telling));
	struct error err = { 0 };

	telling->vm = xstrdup(vm->name);
	telling->value = value;
	job_begin(&telling->job, vm->node, telling_done);
	vm->telling_obstacle = true;
	if (write_record(vm, telling, &err) < 0)
		on_written(telling, -EAGAIN, NULL, &err);
}

static const char *teller(const struct node_vm *vm)
{
	return json_string_or(vm->obstacle, "node", "");
}

static bool is_to_come(const struct node_vm *vm)
{
	const char *target = vm_target(vm);

	return elsewhere_holder(vm) && target && strcmp(target, vm->node->config->node) == 0;
}

/* NULL: nothing. */
static json_t *to_tell(const struct node_vm *vm)
{
	json_t *told = vm->told_now ? json_object_get(vm->told, "obstacle") : NULL;

	if (!is_to_come(vm))
		return NULL;
	/* Between two keepers: the next one comes to it, or to another. */
	if (!vm->told_now)
		return json_incref(vm->obstacle);
	if (vm->link.refusal[0])
		return json_pack("{s:i, s:s, s:I, s:o, s:b}", "v", 1, "node",
				 vm->node->config->node, "number", (json_int_t)vm->placement.number,
				 "why",
				 json_sprintf("its keeper does not take what is wanted: %s",
					      vm->link.refusal),
				 "final", true);
	if (!json_is_object(told))
		return NULL;
	return json_pack("{s:i, s:s, s:I, s:s, s:b}", "v", 1, "node", vm->node->config->node,
			 "number", (json_int_t)json_int_or(told, "number", 0), "why",
			 json_string_or(told, "why", "?"), "final",
			 (int)json_bool_or(told, "final", false));
}

void obstacle_look(struct node_vm *vm)
{
	json_auto_t *value = NULL;

	/* What another node tells goes with its session, at the latest. */
	if (vm->telling_obstacle || vm->removed || session_check(vm->node, NULL) < 0 ||
	    (vm->obstacle && strcmp(teller(vm), vm->node->config->node) != 0))
		return;
	value = to_tell(vm);
	if (value ? !json_equal(value, vm->obstacle) : vm->obstacle != NULL)
		write_it(vm, json_incref(value));
}

const char *obstacle_why(const struct node_vm *vm)
{
	const char *target = vm_target(vm);

	if (!vm->obstacle || !target || strcmp(teller(vm), target) != 0)
		return NULL;
	return json_string_or(vm->obstacle, "why", NULL);
}

bool obstacle_stands(const struct node_vm *vm, uint64_t number)
{
	return obstacle_why(vm) && json_bool_or(vm->obstacle, "final", false) &&
	       (uint64_t)json_int_or(vm->obstacle, "number", 0) == number;
}

char *obstacle_words(const struct node_vm *vm)
{
	const char *why = obstacle_why(vm);

	if (!why)
		return NULL;
	return xasprintf("it is to go to node '%s', which cannot let it in: %s; that is tried "
			 "again, 'drover migrate %s --cancel' lets it stay",
			 teller(vm), why, vm->name);
}
