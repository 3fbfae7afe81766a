/* SPDX-License-Identifier: Apache-2.0 */
/* What the keeper of a VM is told: the wish, and the records that it needs to carry it out.  Newest
 * wins, and the same is not said twice. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "model/records.h"

struct node_vm;

struct wish_sent { /* what the connected keeper was last told */
	bool any;
	int wish, mode;
	bool kill;
	bool may_send, may_receive;
	uint64_t restarts, retry, generation, definition_version, owner_version, hardware_version,
		offer_version, placement_version;
	char target[RECORD_NAME_SIZE];
};

/* To the keeper that is connected.  Nothing before the store and the mode of the node are known. */
void wish_tell(struct node_vm *vm);
