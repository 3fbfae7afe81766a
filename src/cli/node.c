/* SPDX-License-Identifier: Apache-2.0 */
/* drover node, config and version: what the agent says of itself. */
#include <errno.h>
#include <string.h>

#include "cli/agent.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "cli/table.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"

/* The installed program is tried, and what is open is waited for. */
#define REEXEC_PATIENCE (60 * USEC_PER_SEC)

/* The store's last answer. */
static const char *latency_words(const json_t *node, char buffer[QUANTITY_SIZE])
{
	int64_t usec = json_int_or(node, "store_usec", 0);

	if (usec <= 0)
		return "-";
	(void)snprintf(buffer, QUANTITY_SIZE, "%.1f ms", (double)usec / 1000);
	return buffer;
}

static void print_memory(const json_t *memory)
{
	char total[QUANTITY_SIZE], available[QUANTITY_SIZE], booked[QUANTITY_SIZE];
	char allocated[QUANTITY_SIZE], provisioned[QUANTITY_SIZE], rest[QUANTITY_SIZE];
	CLEANUP_FREE char *line =
		xasprintf("%s, %s available, %s booked, %s free to book",
			  print_mib(json_object_get(memory, "total"), total),
			  print_mib(json_object_get(memory, "available"), available),
			  print_mib(json_object_get(memory, "booked"), booked),
			  print_mib(json_object_get(memory, "free"), rest));
	CLEANUP_FREE char *guests =
		xasprintf("%s of guests that run, %s of all that belong here",
			  print_mib(json_object_get(memory, "allocated"), allocated),
			  print_mib(json_object_get(memory, "provisioned"), provisioned));

	print_field("memory", line);
	print_field("", guests);
}

static void print_qemu(const json_t *list)
{
	json_t *qemu;
	size_t i;

	json_array_foreach(list, i, qemu)
	{
		CLEANUP_FREE char *line =
			xasprintf("%s (%s, package %s)", json_string_or(qemu, "version", "?"),
				  json_string_or(qemu, "binary", "?"),
				  json_string_or(qemu, "package", "unknown"));

		print_field(i == 0 ? "QEMU" : "", line);
	}
}

static void print_counts(const json_t *states)
{
	CLEANUP(text_done) struct text line = { 0 };
	const char *state;
	json_t *count;

	json_object_foreach((json_t *)states, state, count) if (json_integer_value(count) > 0)
		text_addf(&line, "%s%lld %s", line.length ? ", " : "",
			  (long long)json_integer_value(count), state);
	print_field("VMs", line.length ? line.text : "none");
}

/* Load is a number, or the kernel's three. */
static void print_load(const json_t *load)
{
	CLEANUP(text_done) struct text line = { 0 };
	char buffer[QUANTITY_SIZE];
	json_t *number;
	size_t i;

	if (json_is_string(load) || !json_is_array(load)) {
		print_field("load", json_is_string(load) ? json_string_value(load)
							 : print_number(load, buffer));
		return;
	}
	json_array_foreach(load, i, number)
		text_addf(&line, "%s%s", i ? " " : "", print_number(number, buffer));
	print_field("load", line.text);
}

/* The host's own, and of QEMU's those that run on it. */
static void print_processors(const json_t *node)
{
	const json_t *models = json_object_get(node, "cpu_models");
	const char *own = json_string_or(node, "cpu_model", NULL);
	char buffer[QUANTITY_SIZE];
	CLEANUP_FREE char *line =
		xasprintf("%s%s%s%s", print_number(json_object_get(node, "cpus"), buffer),
			  own ? " (" : "", own ? own : "", own ? ")" : "");
	CLEANUP(text_done) struct text names = { 0 };
	json_t *name;
	size_t i;

	print_field("processors", line);
	json_array_foreach(models, i, name)
	{
		/* Versions of a model are in the JSON. */
		const char *text = json_string_value(name), *end = text ? strrchr(text, '-') : NULL;

		if (text && !(end && end[1] == 'v' && end[2] >= '0' && end[2] <= '9'))
			text_addf(&names, "%s%s", names.length ? " " : "", text);
	}
	print_field("CPU models", names.text);
}

static void print_store(const json_t *node)
{
	char latency[QUANTITY_SIZE];
	CLEANUP_FREE char *line = xasprintf("%s, %s, %s", json_string_or(node, "store", "-"),
					    json_string_or(node, "store_state", "as last told"),
					    latency_words(node, latency));

	print_field("store", line);
}

static void print_node(const json_t *node)
{
	const json_t *accelerator = json_object_get(node, "accelerator");
	const char *why = json_string_or(accelerator, "why", "");
	CLEANUP_FREE char *accel = xasprintf("%s%s%s", json_string_or(accelerator, "name", "-"),
					     *why ? ": " : "", why);
	const json_t *alive = json_object_get(node, "alive");

	printf("%s\n", json_string_or(node, "name", "?"));
	if (alive)
		print_field("alive", json_is_true(alive) ? "yes" : "no");
	print_field("mode", json_string_or(node, "mode", NULL));
	print_counts(json_object_get(node, "vms"));
	print_memory(json_object_get(node, "memory_mib"));
	print_processors(node);
	print_load(json_object_get(node, "load"));
	print_field("accelerator", accel);
	print_store(node);
	print_qemu(json_object_get(node, "qemu"));
	print_field("boot id", json_string_or(node, "boot_id", NULL));
}

/* All that are not off. */
static json_int_t count_up(const json_t *states)
{
	const char *state;
	json_int_t sum = 0;
	json_t *count;

	json_object_foreach((json_t *)states, state, count) if (strcmp(state, "off") != 0) sum +=
		json_integer_value(count);
	return sum;
}

static void add_node(struct table *table, const json_t *node)
{
	const json_t *memory = json_object_get(node, "memory_mib");
	const json_t *states = json_object_get(node, "vms");
	CLEANUP_FREE char *vms = states ? xasprintf("%lld", (long long)count_up(states)) : NULL;
	char buffer[QUANTITY_SIZE];

	table_add(table, json_string_or(node, "name", NULL));
	table_add(table, json_bool_or(node, "alive", false) ? "yes" : "no");
	table_add(table, json_string_or(node, "mode", NULL));
	table_add(table, vms);
	table_add(table, print_number(json_object_get(node, "cpus"), buffer));
	table_add(table, print_number(json_object_get(node, "load"), buffer));
	table_add(table, print_mib(json_object_get(memory, "total"), buffer));
	table_add(table, print_mib(json_object_get(memory, "booked"), buffer));
	table_add(table, print_mib(json_object_get(memory, "provisioned"), buffer));
	table_add(table, print_mib(json_object_get(memory, "allocated"), buffer));
	table_add(table, print_mib(json_object_get(memory, "free"), buffer));
	table_add(table, json_string_or(json_array_get(json_object_get(node, "qemu"), 0), "version",
					NULL));
	table_add(table, latency_words(node, buffer));
	table_add(table, json_string_or(node, "address", NULL));
	table_add(table, json_string_or(node, "version", NULL));
}

int run_node_ls(struct cli *cli, struct error *err)
{
	static const char *const headers[] = { "NODE",	      "ALIVE",	   "MODE",    "VMS",
					       "CPU",	      "LOAD",	   "MEMORY",  "BOOKED",
					       "PROVISIONED", "ALLOCATED", "FREE",    "QEMU",
					       "STORE",	      "ADDRESS",   "VERSION", NULL };
	CLEANUP(table_done) struct table table = { 0 };
	json_auto_t *list = NULL;
	json_t *node;
	size_t i;
	int r;

	r = agent_ask_vm(cli, "node-ls", NULL, &list, err);
	if (r < 0)
		return r;
	if (cli->options.json) {
		print_json(list);
		return 0;
	}
	table_init(&table, headers, NULL);
	json_array_foreach(list, i, node) add_node(&table, node);
	table_print(&table, cli);
	return 0;
}

int run_node_status(struct cli *cli, struct error *err)
{
	json_auto_t *args = json_build(err, "{s:s?}", "node", cli->args[0]);
	const struct question question = { .command = "node", .args = args };
	json_auto_t *node = NULL;
	int r;

	if (!args)
		return -EINVAL;
	r = agent_ask(cli, &question, &node, err);
	if (r < 0)
		return r;
	if (cli->options.json)
		print_json(node);
	else
		print_node(node);
	return 0;
}

int run_node_ready(struct cli *cli, struct error *err)
{
	json_auto_t *node = NULL;
	int r;

	r = agent_ask_vm(cli, "node-ready", NULL, &node, err);
	if (r < 0)
		return r;
	if (cli->options.json)
		print_json(node);
	else
		printf("%s: %s\n", json_string_or(node, "name", "?"),
		       json_string_or(node, "mode", "?"));
	return 0;
}

static int wait_for_keepers(struct cli *cli, json_t **ret_answer, struct error *err)
{
	json_auto_t *args = agent_order_args(cli, NULL);
	const struct question question = { .command = "keepers",
					   .args = args,
					   .timeout_usec = agent_patience(cli) };

	return agent_ask(cli, &question, ret_answer, err);
}

static void print_keepers(const json_t *answer)
{
	const json_t *waiting = json_object_get(answer, "waiting"), *name;
	size_t i;

	printf("%d keepers, %d of them still the earlier program\n",
	       (int)json_int_or(answer, "total", 0), (int)json_int_or(answer, "outdated", 0));
	json_array_foreach(waiting, i, name) print_field("waiting", json_string_value(name));
}

int run_node_reexec(struct cli *cli, struct error *err)
{
	const struct question question = { .command = "node-reexec",
					   .timeout_usec = REEXEC_PATIENCE,
					   .order = true,
					   .replaces = true };
	json_auto_t *answer = NULL;
	int r;

	r = agent_ask(cli, &question, NULL, err);
	if (r >= 0)
		r = wait_for_keepers(cli, &answer, err);
	if (r < 0)
		return r;
	if (cli->options.json)
		print_json(answer);
	else
		print_keepers(answer);
	return cli->options.no_wait || json_int_or(answer, "outdated", 0) == 0
		       ? 0
		       : error_exit_code(ERROR_TRY_AGAIN);
}

int run_config(struct cli *cli, struct error *err)
{
	static const char *const headers[] = { "KEY", "VALUE", "SOURCE", NULL };
	CLEANUP(table_done) struct table table = { 0 };
	json_auto_t *answer = NULL;
	const char *key;
	json_t *entry;
	int r;

	r = agent_ask_vm(cli, "config", NULL, &answer, err);
	if (r < 0)
		return r;
	if (cli->options.json) {
		print_json(answer);
		return 0;
	}
	table_init(&table, headers, NULL);
	json_object_foreach(answer, key, entry)
	{
		const json_t *value = json_object_get(entry, "value");
		CLEANUP_FREE char *text = json_is_string(value) ? xstrdup(json_string_value(value))
					  : value && !json_is_null(value) ? json_print(value)
									  : NULL;

		table_add(&table, key);
		table_add(&table, text);
		table_add(&table, json_string_or(entry, "source", NULL));
	}
	table_print(&table, cli);
	return 0;
}

/* Our own version is said even when no agent answers. */
int run_version(struct cli *cli, struct error *err)
{
	json_auto_t *answer = NULL;
	int r;

	if (!cli->options.json)
		printf("drover %s\n", DROVER_VERSION);
	r = agent_ask_vm(cli, "version", NULL, &answer, err);
	if (r < 0)
		return r;
	if (cli->options.json) {
		json_set_string(answer, "cli", DROVER_VERSION);
		print_json(answer);
		return 0;
	}
	printf("droverd %s on %s\n", json_string_or(answer, "version", "?"),
	       json_string_or(answer, "node", "?"));
	print_field("store", json_string_or(answer, "store", NULL));
	print_qemu(json_object_get(answer, "qemu"));
	return 0;
}
