/* SPDX-License-Identifier: Apache-2.0 */
/* drover monitor, qmp, guest and hardware: straight to what runs the VM, past nothing: the keeper
 * refuses what would break its promises. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/agent.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "qemu/hardware.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"

#define QEMU_USEC (60 * USEC_PER_SEC)

static void add_timeout(const struct cli *cli, json_t *args)
{
	if (cli->options.timeout_usec)
		(void)json_object_set_new(
			args, "timeout_ms",
			json_integer((json_int_t)(cli->options.timeout_usec / USEC_PER_MSEC)));
}

static int say(const struct cli *cli, const char *vm, const char *line, struct error *err)
{
	struct question question = { .command = "hmp", .once = true };
	json_auto_t *args = NULL, *answer = NULL;
	const char *text;
	int r;

	args = json_build(err, "{s:s, s:s}", "vm", vm, "line", line);
	if (!args)
		return -EINVAL;
	add_timeout(cli, args);
	question.args = args;
	question.timeout_usec = cli->options.timeout_usec ? agent_patience(cli) : QEMU_USEC;
	r = agent_ask(cli, &question, &answer, err);
	if (r < 0)
		return r;
	text = json_string_or(answer, "text", "");
	if (cli->options.json) {
		print_json(answer);
	} else {
		print_untrusted(stdout, text, strlen(text));
		if (*text && text[strlen(text) - 1] != '\n')
			printf("\n");
	}
	(void)fflush(stdout);
	return 0;
}

/* What went wrong with a line is said, and the next line is read; the exit code tells of the
 * first. */
static int converse(const struct cli *cli, const char *vm, struct error *err)
{
	bool terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
	CLEANUP_FREE char *line = NULL;
	size_t size = 0;
	int code = 0;

	for (;;) {
		ssize_t length;
		int r;

		if (terminal)
			printf("(%s) ", vm);
		(void)fflush(stdout);
		length = getline(&line, &size, stdin);
		if (length < 0)
			break;
		line[strcspn(line, "\r\n")] = '\0';
		if (*line == '\0')
			continue;
		r = say(cli, vm, line, err);
		if (r == -EINTR || r == -ENOENT || r == -ECONNREFUSED || r == -EACCES)
			return r;
		if (r < 0)
			print_error(err);
		if (r < 0 && code == 0)
			code = error_exit_code(err->class);
	}
	if (terminal)
		printf("\n");
	return code;
}

int run_monitor(struct cli *cli, struct error *err)
{
	CLEANUP(text_done) struct text line = { 0 };
	char name[VM_ARGUMENT_SIZE];
	int r;

	r = vm_argument(cli->args[0], name, err);
	if (r < 0)
		return r;
	if (cli->n_args == 1)
		return converse(cli, name, err);
	for (size_t i = 1; i < cli->n_args; i++)
		text_addf(&line, "%s%s", i > 1 ? " " : "", cli->args[i]);
	return say(cli, name, line.text, err);
}

/* `guest` and `qmp`: VM COMMAND [JSON]. */
static int call(struct cli *cli, uint64_t timeout_usec, struct error *err)
{
	struct question question = { .command = cli->command->name, .once = true };
	json_auto_t *args = NULL, *answer = NULL, *arguments = NULL;
	const char *text = cli->n_args > 2 ? cli->args[2] : "{}";
	char name[VM_ARGUMENT_SIZE];
	int r;

	r = vm_argument(cli->args[0], name, err);
	if (r < 0)
		return r;
	r = json_parse(text, strlen(text), &arguments, err);
	if (r < 0) {
		if (err)
			err->class = ERROR_BAD_DATA;
		return error_prefix(err, r, "the arguments of %s", cli->args[1]);
	}
	if (!json_is_object(arguments))
		return error_bad_data(err,
				      "the arguments of %s: write a JSON object, such as '{\"a\": "
				      "1}'",
				      cli->args[1]);
	args = json_build(err, "{s:s, s:s, s:O}", "vm", name, "command", cli->args[1], "arguments",
			  arguments);
	if (!args)
		return -EINVAL;
	add_timeout(cli, args);
	question.vm = name;
	question.args = args;
	question.timeout_usec = timeout_usec;
	r = agent_ask(cli, &question, &answer, err);
	if (r < 0)
		return r;
	print_json(answer);
	return 0;
}

int run_qmp(struct cli *cli, struct error *err)
{
	return call(cli, cli->options.timeout_usec ? agent_patience(cli) : QEMU_USEC, err);
}

/* The agent waits until the one in the guest is there. */
int run_guest(struct cli *cli, struct error *err)
{
	return call(cli, agent_patience(cli), err);
}

int run_hardware(struct cli *cli, struct error *err)
{
	CLEANUP(text_done) struct text text = { 0 };
	json_auto_t *answer = NULL;
	struct hardware *hardware;
	int r;

	r = agent_ask_vm(cli, "hardware", cli->args[0], &answer, err);
	if (r < 0)
		return r;
	if (cli->options.json) {
		print_json(answer);
		return 0;
	}
	r = hardware_parse(answer, &hardware, err);
	if (r < 0)
		return r;
	hardware_print(hardware, &text);
	hardware_free(hardware);
	fputs(text.text, stdout);
	return 0;
}
