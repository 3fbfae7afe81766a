/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/store-records.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define HARDWARE_SIZE 2048 /* of the sections: those of a VM with one disk and one card */
#define BOOT "4839f1f4f0fd4cce8df7a610299501d3"
#define SINCE "2026-11-21T20:42:54Z"

const char *node_name(char buffer[NODE_NAME_SIZE], unsigned node)
{
	(void)snprintf(buffer, NODE_NAME_SIZE, "n%04u", node);
	return buffer;
}

json_t *definition_of(unsigned vm, unsigned node)
{
	char host[NODE_NAME_SIZE], name[16];
	json_t *record;

	(void)snprintf(name, sizeof(name), "vm%05u", vm);
	(void)node_name(host, node);
	record =
		json_pack("{s:i, s:i, s:s, s:s, s:n, s:b, s:{s:s, s:{s:s, s:i, s:i, s:s, s:s}}}",
			  "v", 1, "generation", 1, "source", "apply", "node", host, "path", "gone",
			  0, "definition", "name", name, "parameters", "kvm_host", host, "memory",
			  2048, "cores", 2, "firmware", "/usr/share/qemu/qboot.rom", "vga", "none");
	assert(record);
	return record;
}

json_t *hardware_of(unsigned vm)
{
	char filling[HARDWARE_SIZE];
	json_t *record;

	memset(filling, 'h', sizeof(filling) - 1);
	filling[sizeof(filling) - 1] = '\0';
	record = json_pack("{s:i, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:s}", "v", 1, "machine_type",
			   "pc-q35-7.2", "accelerator", "kvm", "qemu_version", "7.2.22", "born",
			   SINCE, "generation", 1, "cores", 2, "number", (int)vm, "sections",
			   filling);
	assert(record);
	return record;
}

json_t *owner_of(unsigned node)
{
	char host[NODE_NAME_SIZE], by[32];
	json_t *record;

	(void)node_name(host, node);
	(void)snprintf(by, sizeof(by), "%s/51edd363/1", host);
	record = json_pack("{s:i, s:i, s:s, s:s, s:s, s:n, s:n, s:n, s:n, s:n, s:s, s:s}", "v", 1,
			   "epoch", 1, "phase", "held", "node", host, "boot", BOOT, "to", "mode",
			   "feeder", "try", "home", "lease", "keep", "by", by);
	assert(record);
	return record;
}

json_t *state_of(unsigned node)
{
	char host[NODE_NAME_SIZE];
	json_t *record;

	record = json_pack("{s:i, s:i, s:s, s:i, s:n, s:n, s:i, s:s, s:s, s:s, s:s}", "v", 1,
			   "epoch", 1, "node", node_name(host, node), "pid", 15742, "exit",
			   "reason", "running_generation", 1, "since", SINCE, "started", SINCE,
			   "state", "running", "wish", "run");
	assert(record);
	return record;
}
