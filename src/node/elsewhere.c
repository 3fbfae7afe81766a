/* SPDX-License-Identifier: Apache-2.0 */
#include "node/elsewhere.h"

#include <string.h>

#include "model/config.h"
#include "node/node.h"
#include "node/vm.h"
#include "util/cleanup.h"
#include "util/mem.h"
#include "wire/json.h"

const char *elsewhere_holder(const struct node_vm *vm)
{
	if (!vm->version[VM_OWNER] || vm->owner.phase == OWNER_OFF || !vm->owner.node[0] ||
	    strcmp(vm->owner.node, vm->node->config->node) == 0)
		return NULL;
	return vm->owner.node;
}

void elsewhere_set(const struct node_vm *vm, json_t *object)
{
	static const char *const kept[] = { "since",	   "started", "exit",
					    "guest_agent", "pid",     "running_generation" };
	const char *holder = elsewhere_holder(vm);
	const char *state = json_string_or(vm->said, "state", "unknown");

	json_set_string(object, "node", holder);
	/* What the holder before this one said is not about this copy. */
	if (strcmp(json_string_or(vm->said, "node", ""), holder) != 0) {
		CLEANUP_FREE char *reason =
			xasprintf("node '%s' holds it and has not told its state yet", holder);

		json_set_string(object, "state", "unknown");
		json_set_string(object, "reason", reason);
		return;
	}
	json_set_string(object, "state", vm_state_of(state) < 0 ? "unknown" : state);
	json_set_string(object, "reason", json_string_or(vm->said, "reason", NULL));
	json_set_string(object, "wish", json_string_or(vm->said, "wish", NULL));
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		if (json_object_get(vm->said, kept[i]))
			(void)json_object_set(object, kept[i], json_object_get(vm->said, kept[i]));
}
