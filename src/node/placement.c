/* SPDX-License-Identifier: Apache-2.0 */
#include "node/placement.h"

#include <stdio.h>

#include "core/placement.h"
#include "node/vm.h"

const char *placement_words(const struct node_vm *vm, char *buffer, size_t size)
{
	const struct placement_facts facts = vm_placement_facts(vm);
	const struct placement *placement = &vm->placement;
	char source[VM_SOURCE_SIZE];
	const char *node;

	switch (placement_node(&facts, &node)) {
	case PLACED_BY_ORDER:
		(void)snprintf(buffer, size, "%s ordered '%s' at %s", placement->by,
			       placement_kind_name(placement->kind), placement->since);
		break;
	case PLACED_BY_DEFINITION:
		(void)snprintf(buffer, size, "'kvm_host' in its definition, %s",
			       definition_record_source(&vm->record, source, sizeof(source)));
		break;
	case PLACED_BY_OWNER:
		(void)snprintf(buffer, size, "it is there");
		break;
	case PLACED_BY_HOME:
		(void)snprintf(buffer, size, "its disks are there");
		break;
	case PLACED_BY_SOURCE:
		(void)snprintf(buffer, size, "its definition came from there");
		break;
	default:
		(void)snprintf(buffer, size, "nobody named another");
		break;
	}
	return buffer;
}

json_t *placement_terms_json(const struct node_vm *vm)
{
	const struct placement_facts facts = vm_placement_facts(vm);
	struct placement_terms terms;

	if (!vm_target(vm))
		return json_null();
	placement_terms(&facts, &terms);
	return json_pack("{s:s, s:I, s:I, s:b, s:I}", "method",
			 terms.shutdown ? "shutdown" : "live", "max_downtime_ms",
			 (json_int_t)terms.max_downtime_ms, "bandwidth",
			 (json_int_t)terms.bandwidth, "postcopy", (int)terms.postcopy, "number",
			 (json_int_t)terms.number);
}
