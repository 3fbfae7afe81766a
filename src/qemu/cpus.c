/* SPDX-License-Identifier: Apache-2.0 */
/* Which CPU models run here is QEMU's own word under the accelerator in question: a model is what
 * its features are, and those depend on processor, kernel and QEMU together. */
#include "qemu/build.h"

#include <string.h>

#include "qemu/asked.h"
#include "qemu/cache.h"
#include "qemu/child.h"
#include "qmp/qmp.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"

/* An older QEMU, which does not say what is missing, has no such key. */
static bool runs(const json_t *model)
{
	const json_t *missing = json_object_get(model, "unavailable-features");

	return json_is_array(missing) && json_array_size(missing) == 0;
}

static int by_name(const void *left, const void *right)
{
	return strcmp(*(const char *const *)left, *(const char *const *)right);
}

static json_t *names_that_run(const json_t *models)
{
	CLEANUP_FREE const char **names = xcalloc(json_array_size(models) + 1, sizeof(*names));
	json_t *list = json_array(), *model;
	size_t i, count = 0;

	json_array_foreach(models, i, model)
	{
		const char *name = json_string_or(model, "name", NULL);

		if (name && runs(model))
			names[count++] = name;
	}
	qsort(names, count, sizeof(*names), by_name);
	for (i = 0; i < count; i++)
		(void)json_array_append_new(list, json_string(names[i]));
	return list;
}

static int ask(struct qmp_tool *tool, void *ctx, struct error *err)
{
	json_auto_t *models = NULL;
	json_t **ret = ctx;
	int r = qmp_tool_call(tool, "query-cpu-definitions", NULL, &models, err);

	if (r >= 0)
		*ret = names_that_run(models);
	return r;
}

int qemu_build_cpus(const struct qemu_build *build, const char *data_dir, const char *accel,
		    const char *cache_dir, json_t **ret_names, struct error *err)
{
	CLEANUP_FREE char *kind = xasprintf("cpus-%s", accel);
	CLEANUP_FREE char *identity = NULL, *device = NULL;
	char boot[BOOT_ID_SIZE];
	json_auto_t *names = NULL;
	int r;

	if (strcmp(accel, "kvm") == 0) {
		r = cache_identity(CHILD_KVM, &device, err);
		if (r < 0)
			return r;
	}
	identity =
		xasprintf("%s %s %s", build->identity, clock_boot_id(boot), device ? device : "-");
	names = cache_load(cache_dir, kind, build->binary, identity);
	if (!json_is_array(names)) {
		json_decref(names);
		names = NULL;
		r = asked_run(build->binary, data_dir, accel, ask, &names, err);
		if (r < 0)
			return r;
		cache_store(cache_dir, kind, build->binary, identity, names);
	}
	*ret_names = json_incref(names);
	return 0;
}
