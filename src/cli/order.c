/* SPDX-License-Identifier: Apache-2.0 */
/* start, stop, restart, kill, pause, resume and ensure are one shape: a word, a VM, a wait. */
#include <string.h>

#include "cli/agent.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "util/error.h"
#include "wire/json.h"

/* True when it was waited for and came to nothing. */
static bool report(const struct cli *cli, const json_t *vm)
{
	if (!cli->options.no_wait && print_failure(vm))
		return true;
	if (!cli->options.json)
		print_vm(cli, vm);
	return false;
}

int run_order(struct cli *cli, struct error *err)
{
	struct question question = { .command = cli->command->name, .order = true };
	json_auto_t *args = NULL, *answer = NULL;
	char name[VM_ARGUMENT_SIZE];
	bool failed = false;
	json_t *vm;
	size_t i;
	int r;

	/* Asked twice it would be done twice; it stands, so what is left is to wait for it. */
	if (strcmp(question.command, "restart") == 0)
		question.then = "ensure";
	if (cli->n_args > 0) {
		r = vm_argument(cli->args[0], name, err);
		if (r < 0)
			return r;
		question.vm = name;
	}
	args = agent_order_args(cli, question.vm);
	question.args = args;
	question.timeout_usec = cli->options.no_wait ? 0 : agent_patience(cli);
	r = agent_ask(cli, &question, &answer, err);
	if (r < 0)
		return r;
	if (cli->options.json)
		print_json(answer);
	if (!json_is_array(answer))
		failed = report(cli, answer);
	json_array_foreach(answer, i, vm) failed |= report(cli, vm);
	return failed ? error_exit_code(ERROR_FAILED) : 0;
}
