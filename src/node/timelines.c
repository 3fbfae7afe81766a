/* SPDX-License-Identifier: Apache-2.0 */
#include "node/timelines.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "model/definition.h"
#include "node/disks.h"
#include "node/node.h"
#include "node/tail.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"

#define FILE_NAME "migrations.jsonl"
#define LINES_MAX 100 /* of one VM */
#define BYTES_MAX (1u << 20)

static void add_lines(json_t *list, char *text)
{
	for (char *line = text, *end; *line && json_array_size(list) < TIMELINES_MAX; line = end) {
		json_t *value = NULL;

		end = line + strcspn(line, "\n");
		/* One that a crash cut short, or that is older than the tail, is no object. */
		if (json_parse(line, (size_t)(end - line), &value, NULL) == 0 &&
		    json_is_object(value))
			(void)json_array_append(list, value);
		json_decref(value);
		end += *end == '\n';
	}
}

static int add_file(json_t *list, const char *path, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	size_t length = 0;
	int r;

	r = tail_read(path, LINES_MAX, BYTES_MAX, &text, &length, err);
	if (r == -ENOENT)
		return 0;
	if (r == 0)
		add_lines(list, text);
	return r;
}

static int add_vm(const struct node *node, const char *vm, json_t *list, struct error *err)
{
	CLEANUP_FREE char *path = xasprintf("%s/vms/%s/" FILE_NAME, node->config->paths.log, vm);
	CLEANUP_FREE char *older = xasprintf("%s.1", path);
	int r;

	r = add_file(list, older, err);
	return r < 0 ? r : add_file(list, path, err);
}

/* Names of the VMs that have logs; for a disk that hangs, see node/disks.h. */
struct names {
	char *path;
	json_t *list;
	int r;
	struct error err;
};

static void names_drop(void *ctx)
{
	struct names *names = ctx;

	free(names->path);
	json_decref(names->list);
	free(names);
}

static void names_run(void *ctx)
{
	struct names *names = ctx;
	DIR *dir = opendir(names->path);
	struct dirent *entry;

	if (!dir) {
		if (errno != ENOENT)
			names->r =
				error_set(&names->err, -errno, "cannot read '%s': %m", names->path);
		return;
	}
	while ((entry = readdir(dir)))
		if (definition_check_name(entry->d_name, NULL) == 0)
			(void)json_array_append_new(names->list, json_string(entry->d_name));
	(void)closedir(dir);
}

static int add_all(const struct node *node, json_t *list, struct error *err)
{
	struct names *names = xcalloc(1, sizeof(*names));
	int r;

	names->path = xasprintf("%s/vms", node->config->paths.log);
	names->list = json_array();
	r = disk_run(&disk_logs, names_run, names_drop, names, err);
	if (r < 0)
		return r;
	r = names->r;
	if (r < 0)
		*err = names->err;
	for (size_t i = 0; r == 0 && i < json_array_size(names->list); i++)
		r = add_vm(node, json_string_value(json_array_get(names->list, i)), list, err);
	names_drop(names);
	return r;
}

static int by_start(const void *left, const void *right)
{
	const json_t *a = *(json_t *const *)left, *b = *(json_t *const *)right;

	return strcmp(json_string_or(a, "started", ""), json_string_or(b, "started", ""));
}

json_t *timelines_sorted(const json_t *list)
{
	size_t count = json_array_size(list);
	CLEANUP_FREE json_t **items = xcalloc(count + 1, sizeof(*items));
	json_t *ret = json_array();

	for (size_t i = 0; i < count; i++)
		items[i] = json_array_get(list, i);
	qsort(items, count, sizeof(*items), by_start);
	for (size_t i = 0; i < count; i++)
		(void)json_array_append(ret, items[i]);
	return ret;
}

int timelines_read(const struct node *node, const char *vm, json_t *list, struct error *err)
{
	return vm ? add_vm(node, vm, list, err) : add_all(node, list, err);
}
