/* SPDX-License-Identifier: Apache-2.0 */
/* drover ls and drover volume ls. */
#include <stdlib.h>
#include <string.h>

#include "cli/agent.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "cli/table.h"
#include "util/cleanup.h"
#include "util/mem.h"
#include "wire/json.h"

static int by_key(const json_t *a, const json_t *b, const char *key)
{
	return strcmp(json_string_or(a, key, ""), json_string_or(b, key, ""));
}

static int by_vm_and_name(const void *left, const void *right)
{
	const json_t *a = *(json_t *const *)left, *b = *(json_t *const *)right;
	int r = by_key(a, b, "vm");

	return r ? r : by_key(a, b, "name");
}

/* A new list in the order of `vm` and `name`; what has no vm is sorted by name. */
static json_t *sorted(const json_t *list)
{
	size_t count = json_array_size(list), n = 0;
	CLEANUP_FREE json_t **items = xcalloc(count + 1, sizeof(*items));
	json_t *ret = json_array();

	for (size_t i = 0; i < count; i++)
		items[n++] = json_array_get(list, i);
	qsort(items, n, sizeof(*items), by_vm_and_name);
	for (size_t i = 0; i < n; i++)
		(void)json_array_append(ret, items[i]);
	return ret;
}

int run_ls(struct cli *cli, struct error *err)
{
	static const char *const headers[] = { "NAME", "STATE",	 "WISH",  "NODE",   "CPU",
					       "MEM",  "UPTIME", "AGENT", "REASON", NULL };
	CLEANUP(table_done) struct table table = { 0 };
	json_auto_t *answer = NULL, *list = NULL;
	char buffer[QUANTITY_SIZE];
	json_t *vm;
	size_t i;
	int r;

	r = agent_list(cli, &answer, err);
	if (r < 0)
		return r;
	list = sorted(answer);
	if (cli->options.json) {
		print_json(list);
		return 0;
	}
	table_init(&table, headers, "STATE");
	json_array_foreach(list, i, vm)
	{
		table_add(&table, json_string_or(vm, "name", NULL));
		table_add(&table, json_string_or(vm, "state", NULL));
		table_add(&table, json_string_or(vm, "wish", NULL));
		table_add(&table, json_string_or(vm, "node", NULL));
		table_add(&table, print_number(json_object_get(vm, "cores"), buffer));
		table_add(&table, print_mib(json_object_get(vm, "memory_mib"), buffer));
		table_add(&table, print_seconds(json_object_get(vm, "uptime_s"), buffer));
		table_add(&table, json_string_or(vm, "guest_agent", NULL));
		table_add(&table, json_string_or(vm, "reason", NULL));
	}
	table_print(&table, cli);
	return 0;
}

static void add_volume(struct table *table, const json_t *volume)
{
	char buffer[QUANTITY_SIZE];

	table_add(table, json_string_or(volume, "vm", NULL));
	table_add(table, json_string_or(volume, "name", NULL));
	table_add(table, print_bytes(json_object_get(volume, "size_bytes"), buffer));
	table_add(table, print_bytes(json_object_get(volume, "allocated_bytes"), buffer));
	table_add(table, json_string_or(volume, "format", NULL));
	table_add(table, json_bool_or(volume, "free", false)
				 ? "free"
				 : json_string_or(volume, "claimed_by", NULL));
	table_add(table, json_string_or(volume, "path", NULL));
}

int run_volume_ls(struct cli *cli, struct error *err)
{
	static const char *const headers[] = { "VM",	 "NAME",  "SIZE", "USED",
					       "FORMAT", "CLAIM", "PATH", NULL };
	CLEANUP(table_done) struct table table = { 0 };
	json_auto_t *answer = NULL, *list = NULL, *wanted = json_array();
	char name[VM_ARGUMENT_SIZE];
	json_t *volume;
	size_t i;
	int r;

	if (cli->n_args > 0) {
		r = vm_argument(cli->args[0], name, err);
		if (r < 0)
			return r;
	}
	r = agent_ask_vm(cli, "volume-ls", NULL, &answer, err);
	if (r < 0)
		return r;
	list = sorted(answer);
	table_init(&table, headers, NULL);
	json_array_foreach(list, i, volume)
	{
		if (cli->n_args > 0 && strcmp(json_string_or(volume, "vm", ""), name) != 0)
			continue;
		(void)json_array_append(wanted, volume);
		add_volume(&table, volume);
	}
	if (cli->options.json)
		print_json(wanted);
	else
		table_print(&table, cli);
	return 0;
}
