/* SPDX-License-Identifier: Apache-2.0 */
#include "node/volumes.h"

#include <stdlib.h>
#include <string.h>

#include "model/definition.h"
#include "node/node.h"
#include "node/vm.h"
#include "storage/storage.h"
#include "util/error.h"
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

void volumes_request(struct node *node, struct request *request)
{
	struct volume_info *infos = NULL;
	json_auto_t *list = json_array();
	struct error err = { 0 };
	size_t count = 0;

	if (volume_list(node->storage, &infos, &count, &err) < 0) {
		request_fail(request, &err);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		(void)json_array_append_new(list, volume_json(node, &infos[i]));
		volume_info_done(&infos[i]);
	}
	free(infos);
	request_return(request, list);
}

json_t *volumes_left(const struct node *node, const char *vm)
{
	struct volume_info *infos = NULL;
	json_t *list = json_array();
	size_t count = 0;

	(void)volume_list(node->storage, &infos, &count, NULL);
	for (size_t i = 0; i < count; i++) {
		if (strcmp(infos[i].vm, vm) == 0)
			(void)json_array_append_new(list, json_string(infos[i].name));
		volume_info_done(&infos[i]);
	}
	free(infos);
	return list;
}
