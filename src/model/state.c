/* SPDX-License-Identifier: Apache-2.0 */
/* Names of states and wishes: one table each, so that what is printed can be read back. */
#include "model/state.h"

#include <assert.h>
#include <string.h>

static const char *const states[VM_STATES] = {
	[VM_OFF] = "off",
	[VM_STARTING] = "starting",
	[VM_RUNNING] = "running",
	[VM_PAUSED] = "paused",
	[VM_SUSPENDED] = "suspended",
	[VM_STOPPING] = "stopping",
	[VM_PANICKED] = "panicked",
	[VM_IO_ERROR] = "io-error",
	[VM_INTERNAL_ERROR] = "internal-error",
	[VM_UNRESPONSIVE] = "unresponsive",
	[VM_FAILED] = "failed",
	[VM_UNKNOWN] = "unknown",
};

static const char *const wishes[VM_WISHES] = {
	[WISH_RUN] = "run",
	[WISH_PAUSE] = "pause",
	[WISH_STOP] = "stop",
	[WISH_OFF] = "off",
	[WISH_HANDS_OFF] = "hands-off",
	[WISH_ELSEWHERE] = "elsewhere",
	[WISH_NODE_STOPPED] = "node-stopped",
};

static int name_index(const char *const *names, int count, const char *name)
{
	for (int i = 0; name && i < count; i++)
		if (strcmp(names[i], name) == 0)
			return i;
	return -1;
}

const char *vm_state_name(enum vm_state state)
{
	assert((unsigned)state < VM_STATES);
	return states[state];
}

int vm_state_of(const char *name)
{
	return name_index(states, VM_STATES, name);
}

const char *vm_wish_name(enum vm_wish wish)
{
	assert((unsigned)wish < VM_WISHES);
	return wishes[wish];
}

int vm_wish_of(const char *name)
{
	return name_index(wishes, VM_WISHES, name);
}
