/* SPDX-License-Identifier: Apache-2.0 */
/* The owner record of the world, a few bytes, and that of the core. */
#include <stdio.h>
#include <string.h>

#include "sim/parts.h"

static const char *const names[NODES] = { "n0", "n1", "n2" };

const char *node_name(int node)
{
	return node < NODES ? names[node] : "";
}

int node_number(const char *name)
{
	return name[0] == 'n' ? name[1] - '0' : NOBODY;
}

static void name_set(char *field, uint8_t node)
{
	(void)strcpy(field, node_name(node));
}

/* Only what the core looks at is written: this is done by the million. */
void record_owner(const struct record *record, struct owner *ret)
{
	ret->epoch = record->epoch;
	ret->phase = (enum owner_phase)record->phase;
	ret->try_epoch = record->try_epoch;
	name_set(ret->node, record->node);
	name_set(ret->to, record->to);
	name_set(ret->feeder, record->feeder);
	name_set(ret->home, record->home);
	name_set(ret->by, record->by);
	(void)strcpy(ret->mode,
		     record->phase == OWNER_MOVING ? (record->post ? "post" : "pre") : "");
	(void)strcpy(ret->boot, "boot");
	(void)strcpy(ret->lease, lease_policy_name((enum lease_policy)record->lease));
	ret->rest = NULL;
}

void record_of_owner(const struct owner *owner, struct record *ret)
{
	*ret = (struct record){
		.epoch = (uint8_t)owner->epoch,
		.phase = (uint8_t)owner->phase,
		.node = (uint8_t)node_number(owner->node),
		.to = (uint8_t)node_number(owner->to),
		.post = strcmp(owner->mode, "post") == 0,
		.feeder = (uint8_t)node_number(owner->feeder),
		.try_epoch = (uint8_t)owner->try_epoch,
		.home = (uint8_t)node_number(owner->home),
		.lease = (uint8_t)lease_policy_of(owner->lease),
		.by = NOBODY,
	};
}
