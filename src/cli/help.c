/* SPDX-License-Identifier: Apache-2.0 */
/* Help, printed from the tables. */
#include <string.h>

#include "cli/cli.h"
#include "util/error.h"

static void print_options(unsigned wanted, FILE *out)
{
	const struct option *options;
	size_t count;

	options = options_all(&count);
	for (size_t i = 0; i < count; i++) {
		const struct option *option = &options[i];
		char left[64];

		if (!(wanted & option->id))
			continue;
		(void)snprintf(left, sizeof(left), "%c%c%s --%s%s%s", option->letter ? '-' : ' ',
			       option->letter ? option->letter : ' ', option->letter ? "," : " ",
			       option->name, option->value ? " " : "",
			       option->value ? option->value : "");
		fprintf(out, "  %-26s %s\n", left, option->meaning);
	}
}

void help_print(FILE *out)
{
	const struct command *commands;
	size_t count;

	commands = commands_all(&count);
	fprintf(out, "Usage: drover [OPTIONS] COMMAND [ARGUMENTS]\n\nCommands:\n");
	for (size_t i = 0; i < count; i++) {
		char left[64];

		(void)snprintf(left, sizeof(left), "%s %s", commands[i].name, commands[i].args);
		fprintf(out, "  %-26s %s\n", left, commands[i].summary);
	}
	fprintf(out, "\nOptions of all commands:\n");
	print_options(OPTION_GLOBAL, out);
	fprintf(out, "\nOptions of some commands ('drover COMMAND --help' tells which):\n");
	print_options(~(unsigned)OPTION_GLOBAL, out);
	fprintf(out,
		"\n"
		"VM is a name, or the path of its definition.\n"
		"Exit codes: 0 done, 1 failed, 64 usage, 65 bad data, 69 refused, 75 try again.\n"
		"More: man drover\n");
}

void help_print_command(const struct command *command, FILE *out)
{
	fprintf(out, "Usage: drover %s%s%s%s\n\n%s\n", command->name,
		command->options ? " [OPTIONS]" : "", *command->args ? " " : "", command->args,
		command->summary);
	if (command->details)
		fprintf(out, "\n%s\n", command->details);
	if (command->options) {
		fprintf(out, "\nOptions:\n");
		print_options(command->options, out);
	}
	fprintf(out, "\nOptions of all commands:\n");
	print_options(OPTION_GLOBAL, out);
}

int run_help(struct cli *cli, struct error *err)
{
	const struct command *command;
	size_t used;

	if (cli->n_args == 0) {
		help_print(stdout);
		return 0;
	}
	command = command_find(cli->args, cli->n_args, &used);
	if (!command || used < cli->n_args)
		return error_usage(err, "there is no command '%s'; see 'drover help'",
				   cli->args[0]);
	help_print_command(command, stdout);
	return 0;
}
