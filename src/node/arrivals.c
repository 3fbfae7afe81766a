/* SPDX-License-Identifier: Apache-2.0 */
#include "node/arrivals.h"

#include <jansson.h>
#include <stdlib.h>

#include "node/disks.h"
#include "node/node.h"
#include "node/vm.h"
#include "storage/storage.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

struct work {
	struct storage *storage;
	json_t *names;
	int r;
	struct error err;
};

static void work_drop(void *ctx)
{
	struct work *work = ctx;

	json_decref(work->names);
	free(work);
}

static void work_run(void *ctx)
{
	struct work *work = ctx;

	work->r = volume_arriving_vms(work->storage, work->names, &work->err);
}

static void mark(const struct node *node, const json_t *names)
{
	for (size_t i = 0; i < json_array_size(names); i++) {
		const char *name = json_string_value(json_array_get(names, i));
		struct node_vm *vm = vm_find(node, name);

		if (!vm)
			continue;
		vm->arrivals = true;
		log_vm(LOG_LEVEL_INFO, name, "disks of a move that was under way are here");
	}
}

void arrivals_look(struct node *node)
{
	struct work *work = xcalloc(1, sizeof(*work));
	struct error err = { 0 };
	int r;

	work->storage = node->storage;
	work->names = json_array();
	r = disk_run(&disk_volumes, work_run, work_drop, work, &err);
	if (r < 0) {
		log_warning("%s; what moves have left there stays", err.text);
		return;
	}
	if (work->r < 0)
		log_warning("%s; what moves have left there stays", work->err.text);
	mark(node, work->names);
	work_drop(work);
}
