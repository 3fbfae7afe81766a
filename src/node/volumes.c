/* SPDX-License-Identifier: Apache-2.0 */
#include "node/volumes.h"

#include <stdlib.h>
#include <string.h>

#include "model/definition.h"
#include "node/disks.h"
#include "node/node.h"
#include "node/vm.h"
#include "storage/storage.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

/* Nobody has claimed it and no definition names it. */
static bool is_free(const struct node *node, const struct volume_info *info)
{
	const struct node_vm *vm = vm_find(node, info->vm);

	if (info->claimed_by)
		return false;
	if (!vm || !vm_defined(vm))
		return true;
	for (size_t i = 0; vm->definition && i < vm->definition->n_volumes; i++)
		if (strcmp(vm->definition->volumes[i].name, info->name) == 0)
			return false;
	/* A definition that cannot be read may name it. */
	return vm->definition != NULL;
}

static json_t *volume_json(const struct node *node, const struct volume_info *info)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:s?, s:b}", "vm", info->vm, "name",
			 info->name, "path", info->path, "format", volume_format_name(info->format),
			 "size_bytes", (json_int_t)info->size, "allocated_bytes",
			 (json_int_t)info->allocated, "claimed_by", info->claimed_by, "free",
			 is_free(node, info));
}

struct work {
	struct storage *storage;
	struct volumes volumes;
	int r;
	struct error err;
};

static void work_drop(void *ctx)
{
	struct work *work = ctx;

	volumes_done(&work->volumes);
	free(work);
}

static void work_run(void *ctx)
{
	struct work *work = ctx;

	work->r =
		volume_list(work->storage, &work->volumes.infos, &work->volumes.count, &work->err);
}

static int load(const struct node *node, struct volumes *ret, struct error *err)
{
	struct work *work = xcalloc(1, sizeof(*work));
	int r;

	work->storage = node->storage;
	r = disk_run(&disk_volumes, work_run, work_drop, work, err);
	if (r < 0)
		return r;
	r = work->r;
	if (r < 0 && err)
		*err = work->err;
	*ret = work->volumes;
	work->volumes = (struct volumes){ 0 };
	work_drop(work);
	return r;
}

struct volumes volumes_load(const struct node *node)
{
	struct volumes volumes = { 0 };

	(void)load(node, &volumes, NULL);
	return volumes;
}

void volumes_done(struct volumes *volumes)
{
	for (size_t i = 0; i < volumes->count; i++)
		volume_info_done(&volumes->infos[i]);
	free(volumes->infos);
	*volumes = (struct volumes){ 0 };
}

void volumes_request(struct node *node, struct request *request)
{
	json_auto_t *list = json_array();
	struct volumes volumes = { 0 };
	struct error err = { 0 };

	if (load(node, &volumes, &err) < 0) {
		request_fail(request, &err);
		return;
	}
	for (size_t i = 0; i < volumes.count; i++)
		(void)json_array_append_new(list, volume_json(node, &volumes.infos[i]));
	volumes_done(&volumes);
	request_return(request, list);
}

json_t *volumes_left(const struct node *node, const char *vm)
{
	struct volumes volumes = volumes_load(node);
	json_t *list = json_array();

	for (size_t i = 0; i < volumes.count; i++)
		if (strcmp(volumes.infos[i].vm, vm) == 0)
			(void)json_array_append_new(list, json_string(volumes.infos[i].name));
	volumes_done(&volumes);
	return list;
}
