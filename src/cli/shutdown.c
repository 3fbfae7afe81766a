/* SPDX-License-Identifier: Apache-2.0 */
/* drover shutdown-all: the one order that stops what many people work on, so it shows whom it will
 * stop and wants the whole word. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/agent.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "wire/json.h"

/* An unknown one may run. */
static bool may_run(const json_t *vm)
{
	const char *state = json_string_or(vm, "state", "unknown");

	return strcmp(state, "off") != 0 &&
	       (strcmp(state, "failed") != 0 || json_is_integer(json_object_get(vm, "pid")));
}

static int list_running(const struct cli *cli, struct error *err)
{
	const struct question node_question = { .command = "node",
						.timeout_usec = agent_patience(cli) };
	json_auto_t *node = NULL, *answer = NULL;
	size_t i, count = 0;
	json_t *vm;
	int r;

	r = agent_ask(cli, &node_question, &node, err);
	if (r == 0)
		r = agent_list(cli, &answer, err);
	if (r < 0)
		return r;
	json_array_foreach(answer, i, vm)
	{
		/* Those of other nodes are listed too. */
		if (!may_run(vm) ||
		    strcmp(json_string_or(vm, "node", ""), json_string_or(node, "name", "")) != 0)
			continue;
		if (count++ == 0)
			printf("These VMs will be stopped:\n");
		printf("  %s (%s)\n", json_string_or(vm, "name", "?"),
		       json_string_or(vm, "state", "unknown"));
	}
	if (count == 0)
		printf("No VM runs here.\n");
	return 0;
}

/* 1 yes, 0 no. */
static int confirm(const struct cli *cli, struct error *err)
{
	CLEANUP_FREE char *line = NULL;
	size_t size = 0;
	int r;

	if (!isatty(STDIN_FILENO))
		return error_usage(err,
				   "nobody can be asked here: write 'drover shutdown-all --yes'");
	r = list_running(cli, err);
	if (r < 0)
		return r;
	for (;;) {
		printf("Stop all VMs of this node? Write yes or no: ");
		(void)fflush(stdout);
		if (getline(&line, &size, stdin) < 0) {
			printf("\n");
			return 0;
		}
		line[strcspn(line, "\r\n")] = '\0';
		if (strcmp(line, "yes") == 0)
			return 1;
		if (strcmp(line, "no") == 0)
			return 0;
	}
}

int run_shutdown_all(struct cli *cli, struct error *err)
{
	struct question question = { .command = "shutdown-all", .order = true };
	json_auto_t *args = NULL, *answer = NULL;
	json_t *vm;
	size_t i;
	int r;

	if (!(cli->options.given & OPTION_YES)) {
		r = confirm(cli, err);
		if (r < 0)
			return r;
		if (r == 0)
			return error_refuse(err, "nothing was stopped");
	}
	args = agent_order_args(cli, NULL);
	question.args = args;
	question.timeout_usec = cli->options.no_wait ? 0 : agent_patience(cli);
	r = agent_ask(cli, &question, &answer, err);
	if (r < 0)
		return r;
	if (cli->options.json) {
		print_json(answer);
		return 0;
	}
	json_array_foreach(answer, i, vm) print_vm(cli, vm);
	printf("This node starts no VM until 'drover node ready'.\n");
	return 0;
}
