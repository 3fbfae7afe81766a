/* SPDX-License-Identifier: Apache-2.0 */
/* drover rm: the VM goes, its data stays until its volume is named. */
#include <errno.h>

#include "cli/agent.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"

static void print_removed(const char *vm, const char *volume, const json_t *answer)
{
	json_t *left;
	size_t i;

	if (volume)
		printf("%s: volume %s removed\n", vm, volume);
	else
		printf("%s: removed\n", vm);
	json_array_foreach(json_object_get(answer, "volumes_left"), i, left)
	{
		const char *name = json_is_string(left) ? json_string_value(left)
							: json_string_or(left, "name", "?");
		const char *path = json_string_or(left, "path", NULL);
		CLEANUP_FREE char *line =
			xasprintf("%s%s%s", name, path ? "  " : "", path ? path : "");
		CLEANUP_FREE char *clean = print_clean(line);

		if (i == 0)
			printf("volumes left (drover rm %s --volume NAME removes one):\n", vm);
		printf("  %s\n", clean);
	}
}

int run_rm(struct cli *cli, struct error *err)
{
	struct question question = { .command = "rm", .order = true, .once = true };
	json_auto_t *args = NULL, *answer = NULL;
	char name[VM_ARGUMENT_SIZE];
	int r;

	r = vm_argument(cli->args[0], name, err);
	if (r < 0)
		return r;
	args = json_build(err, "{s:s, s:s?}", "vm", name, "volume", cli->options.volume);
	if (!args)
		return -EINVAL;
	question.vm = name;
	question.args = args;
	question.timeout_usec =
		cli->options.timeout_usec ? agent_patience(cli) : 300 * USEC_PER_SEC;
	r = agent_ask(cli, &question, &answer, err);
	if (r < 0)
		return r;
	if (cli->options.json)
		print_json(answer);
	else
		print_removed(name, cli->options.volume, answer);
	return 0;
}
