/* SPDX-License-Identifier: Apache-2.0 */
/* Asks a QEMU binary what it can do.  `-machine none` answers within 30 ms, and without touching
 * /dev/kvm; what it said stays true as long as the file is the same. */
#include "qemu/build.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/cpu-model.h"
#include "qemu/asked.h"
#include "qemu/cache.h"
#include "qmp/qmp.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"

#define PACKAGE "qemu-system-x86"

static void buildp(struct qemu_build **build)
{
	qemu_build_free(*build);
}

struct qemu_build *qemu_build_free(struct qemu_build *build)
{
	if (!build)
		return NULL;
	free(build->binary);
	free(build->version);
	free(build->package);
	free(build->identity);
	json_decref(build->machines);
	json_decref(build->cpu_models);
	json_decref(build->commands);
	free(build);
	return NULL;
}

static bool holds(const json_t *names, const char *name)
{
	size_t i;
	json_t *item;

	json_array_foreach(names, i, item)
	{
		if (strcmp(json_string_value(item), name) == 0)
			return true;
	}
	return false;
}

bool qemu_build_has_command(const struct qemu_build *build, const char *command)
{
	return holds(build->commands, command);
}

bool qemu_build_has_cpu_model(const struct qemu_build *build, const char *model)
{
	return holds(build->cpu_models, model);
}

bool qemu_cpu_is_named(const char *model)
{
	size_t length = cpu_model_name_length(model);

	return (length != strlen("host") || memcmp(model, "host", length) != 0) &&
	       (length != strlen("max") || memcmp(model, "max", length) != 0);
}

static int no_binary(const char *binary, struct error *err)
{
	return error_set(err, -ENOENT,
			 "cannot find the program '%s': install the package " PACKAGE
			 ", or set qemu.binary in drover.yaml",
			 binary);
}

/* As a shell would find it; absolute, so that the VM's keeper starts the same file. */
static int find_binary(const char *binary, char **ret_path, struct error *err)
{
	const char *path = getenv("PATH"), *end;

	if (strchr(binary, '/')) {
		*ret_path = access(binary, X_OK) == 0 ? realpath(binary, NULL) : NULL;
		return *ret_path ? 0 : no_binary(binary, err);
	}
	for (path = path ? path : "/usr/bin:/bin"; *path; path = *end ? end + 1 : end) {
		CLEANUP_FREE char *candidate = NULL;

		end = strchrnul(path, ':');
		candidate = xasprintf("%.*s/%s", (int)(end - path), path, binary);
		if (*candidate == '/' && access(candidate, X_OK) == 0) {
			*ret_path = TAKE_PTR(candidate);
			return 0;
		}
	}
	return no_binary(binary, err);
}

/* The values of "name", as a list of texts. */
static json_t *names_of(const json_t *array)
{
	json_t *names = json_array();
	size_t i;
	json_t *item;

	json_array_foreach(array, i, item)
		json_array_append_new(names, json_string(json_string_or(item, "name", "")));
	return names;
}

static int ask_names(struct qmp_tool *tool, const char *command, json_t **ret, struct error *err)
{
	json_auto_t *answer = NULL;
	int r = qmp_tool_call(tool, command, NULL, &answer, err);

	if (r < 0)
		return r;
	*ret = names_of(answer);
	return 0;
}

#define OLDEST_MAJOR 6 /* the first with -action */

static int ask_version(struct qmp_tool *tool, struct qemu_build *build, struct error *err)
{
	json_auto_t *answer = NULL;
	json_t *numbers;
	int r;

	r = qmp_tool_call(tool, "query-version", NULL, &answer, err);
	if (r < 0)
		return r;
	r = json_need_object(answer, "qemu", &numbers, err);
	if (r < 0)
		return r;
	build->version = xasprintf("%d.%d.%d", (int)json_int_or(numbers, "major", 0),
				   (int)json_int_or(numbers, "minor", 0),
				   (int)json_int_or(numbers, "micro", 0));
	build->package = xstrdup(json_string_or(answer, "package", ""));
	if (json_int_or(numbers, "major", 0) < OLDEST_MAJOR)
		return error_refuse(err, "QEMU %s is too old: %d.0 or later is needed",
				    build->version, OLDEST_MAJOR);
	return 0;
}

static int ask_all(struct qmp_tool *tool, void *ctx, struct error *err)
{
	struct qemu_build *build = ctx;
	int r;

	r = ask_version(tool, build, err);
	if (r < 0)
		return r;
	r = qmp_tool_call(tool, "query-machines", NULL, &build->machines, err);
	if (r < 0)
		return r;
	r = ask_names(tool, "query-cpu-definitions", &build->cpu_models, err);
	if (r < 0)
		return r;
	r = ask_names(tool, "query-commands", &build->commands, err);
	if (r < 0)
		return r;
	return 0;
}

static json_t *build_json(const struct qemu_build *build)
{
	return json_pack("{s:s, s:s, s:O, s:O, s:O}", "version", build->version, "package",
			 build->package, "machines", build->machines, "cpu_models",
			 build->cpu_models, "commands", build->commands);
}

static bool all_strings(const json_t *names)
{
	size_t i;
	json_t *name;

	json_array_foreach(names, i, name)
	{
		if (!json_is_string(name))
			return false;
	}
	return json_is_array(names);
}

static bool load_build(const char *cache_dir, struct qemu_build *build)
{
	json_auto_t *known = cache_load(cache_dir, "build", build->binary, build->identity);
	json_t *machines = json_object_get(known, "machines");
	json_t *cpu_models = json_object_get(known, "cpu_models");
	json_t *commands = json_object_get(known, "commands");

	if (!json_is_array(machines) || !all_strings(cpu_models) || !all_strings(commands))
		return false;
	build->version = xstrdup(json_string_or(known, "version", ""));
	build->package = xstrdup(json_string_or(known, "package", ""));
	build->machines = json_incref(machines);
	build->cpu_models = json_incref(cpu_models);
	build->commands = json_incref(commands);
	return true;
}

int qemu_build_probe(const char *binary, const char *data_dir, const char *cache_dir,
		     struct qemu_build **ret_build, struct error *err)
{
	CLEANUP(buildp) struct qemu_build *build = xcalloc(1, sizeof(*build));
	json_auto_t *value = NULL;
	int r;

	r = find_binary(binary, &build->binary, err);
	if (r < 0)
		return r;
	r = cache_identity(build->binary, &build->identity, err);
	if (r < 0)
		return r;
	if (!cache_dir || !load_build(cache_dir, build)) {
		r = asked_run(build->binary, data_dir, NULL, ask_all, build, err);
		if (r < 0)
			return r;
		value = build_json(build);
		if (cache_dir && value)
			cache_store(cache_dir, "build", build->binary, build->identity, value);
	}
	*ret_build = TAKE_PTR(build);
	return 0;
}

bool qemu_build_known(const char *binary, const char *cache_dir)
{
	CLEANUP(buildp) struct qemu_build *build = xcalloc(1, sizeof(*build));

	return find_binary(binary, &build->binary, NULL) == 0 &&
	       cache_identity(build->binary, &build->identity, NULL) == 0 &&
	       load_build(cache_dir, build);
}
