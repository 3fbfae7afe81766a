/* SPDX-License-Identifier: Apache-2.0 */
/* drover status and drover explain: one VM for people, or as the agent says it.  The exit code of
 * `status` is for scripts, so a question that cannot be answered is told from "not running". */
#include <string.h>

#include "cli/agent.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"

static void print_string(const json_t *vm, const char *title, const char *key)
{
	print_field(title, json_string_or(vm, key, NULL));
}

/* Who said so, when the wish is not the definition's. */
static void print_order(const json_t *order)
{
	CLEANUP_FREE char *line =
		xasprintf("%s since %s, by %s", json_string_or(order, "kind", "?"),
			  json_string_or(order, "since", "-"), json_string_or(order, "by", "-"));

	print_field("order", line);
}

/* Who moved it, and where its own node is. */
static void print_placement(const json_t *placement)
{
	const char *home = json_string_or(placement, "return_to", NULL);
	CLEANUP_FREE char *line = xasprintf(
		"%s to %s at %s, by %s%s%s", json_string_or(placement, "kind", "?"),
		json_string_or(placement, "node", "?"), json_string_or(placement, "since", "-"),
		json_string_or(placement, "by", "-"), home ? "; its own node is " : "",
		home ? home : "");

	print_field("placement", line);
}

static void print_exit(const json_t *exit)
{
	const json_t *code = json_object_get(exit, "code");
	char buffer[QUANTITY_SIZE];
	CLEANUP_FREE char *line = xasprintf("%s%s%s at %s", json_string_or(exit, "how", "?"),
					    json_is_integer(code) ? " " : "",
					    json_is_integer(code) ? print_number(code, buffer) : "",
					    json_string_or(exit, "time", "-"));

	print_field("last exit", line);
}

static void print_volumes(const json_t *volumes)
{
	char buffer[QUANTITY_SIZE];
	json_t *volume;
	size_t i;

	json_array_foreach(volumes, i, volume)
	{
		CLEANUP_FREE char *line = xasprintf(
			"%s, %s, %s, %s", json_string_or(volume, "name", "?"),
			print_bytes(json_object_get(volume, "size_bytes"), buffer),
			json_string_or(volume, "format", "-"), json_string_or(volume, "path", "-"));

		print_field(i == 0 ? "volumes" : "", line);
	}
}

static void print_nics(const json_t *nics)
{
	json_t *nic;
	size_t i;

	json_array_foreach(nics, i, nic)
	{
		CLEANUP_FREE char *line = xasprintf(
			"%s, %s, on %s, tap %s", json_string_or(nic, "name", "?"),
			json_string_or(nic, "mac", "-"), json_string_or(nic, "network", "-"),
			json_string_or(nic, "tap", "-"));

		print_field(i == 0 ? "nics" : "", line);
	}
}

static void print_block(const struct cli *cli, const json_t *vm)
{
	const char *since = json_string_or(vm, "since", "-");
	const char *state = json_string_or(vm, "state", "unknown");
	char buffer[QUANTITY_SIZE];

	printf("%s\n", json_string_or(vm, "name", "?"));
	printf("  %-14s %s%s%s since %s\n", "state", print_paint(cli, state), state,
	       print_unpaint(cli), since);
	print_string(vm, "wish", "wish");
	print_string(vm, "reason", "reason");
	if (json_string_or(vm, "pending", NULL))
		print_string(vm, "pending", "pending");
	if (json_is_object(json_object_get(vm, "order")))
		print_order(json_object_get(vm, "order"));
	if (json_is_object(json_object_get(vm, "exit")))
		print_exit(json_object_get(vm, "exit"));
	print_string(vm, "node", "node");
	if (strcmp(json_string_or(vm, "target", ""), json_string_or(vm, "node", "")) != 0)
		print_string(vm, "belongs on", "target");
	if (json_is_object(json_object_get(vm, "placement")))
		print_placement(json_object_get(vm, "placement"));
	print_field("pid", print_number(json_object_get(vm, "pid"), buffer));
	print_field("uptime", print_seconds(json_object_get(vm, "uptime_s"), buffer));
	print_field("cores", print_number(json_object_get(vm, "cores"), buffer));
	print_field("memory", print_mib(json_object_get(vm, "memory_mib"), buffer));
	print_string(vm, "accelerator", "accelerator");
	print_string(vm, "machine type", "machine_type");
	print_string(vm, "QEMU", "qemu_version");
	print_string(vm, "guest agent", "guest_agent");
	print_string(vm, "source", "source");
	print_field("generation", print_number(json_object_get(vm, "generation"), buffer));
	print_volumes(json_object_get(vm, "volumes"));
	print_nics(json_object_get(vm, "nics"));
}

int run_status(struct cli *cli, struct error *err)
{
	int unknown = error_exit_code(ERROR_TRY_AGAIN);
	json_auto_t *vm = NULL;
	const char *state;
	int r;

	r = agent_ask_vm(cli, "status", cli->args[0], &vm, err);
	if (r < 0 && err->class == ERROR_FAILED)
		err->class = ERROR_TRY_AGAIN; /* 1 would say: it does not run */
	if (r < 0)
		return r;
	if (cli->options.json)
		print_json(vm);
	else
		print_block(cli, vm);
	state = json_string_or(vm, "state", "unknown");
	if (strcmp(state, "unknown") == 0)
		return unknown;
	return strcmp(state, "running") == 0 ? 0 : 1;
}

int run_explain(struct cli *cli, struct error *err)
{
	json_auto_t *answer = NULL;
	json_t *sentence;
	size_t i;
	int r;

	r = agent_ask_vm(cli, "explain", cli->args[0], &answer, err);
	if (r < 0)
		return r;
	if (cli->options.json) {
		print_json(answer);
		return 0;
	}
	json_array_foreach(json_object_get(answer, "sentences"), i, sentence)
	{
		const char *text = json_string_value(sentence);
		CLEANUP_FREE char *clean = print_clean(text ? text : "");

		printf("%s\n", clean);
	}
	return 0;
}
