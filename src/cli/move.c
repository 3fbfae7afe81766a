/* SPDX-License-Identifier: Apache-2.0 */
/* drover migrate, move and unmigrate: an order, and a bar while it is carried out. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/agent.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"

#define BAR_WIDTH 20

static void add_bar(struct text *line, int64_t percent)
{
	int64_t filled = percent < 0 ? 0 : percent > 100 ? BAR_WIDTH : percent * BAR_WIDTH / 100;

	text_addf(line, " [");
	for (int i = 0; i < BAR_WIDTH; i++)
		text_add(line, i < filled ? "#" : ".", 1);
	text_addf(line, "] %d %%", (int)percent);
}

/* "web01: copying to beta [####......] 43 %, 1.2 GiB of 2.5 GiB, 110 MiB/s". */
static void say_migration(struct text *line, const json_t *migration)
{
	char bytes[QUANTITY_SIZE], total[QUANTITY_SIZE], rate[QUANTITY_SIZE];
	const json_t *sent = json_object_get(migration, "bytes");

	text_addf(line, "%s to %s", json_string_or(migration, "phase", "moving"),
		  json_string_or(migration, "to", "?"));
	if (json_is_integer(json_object_get(migration, "percent")))
		add_bar(line, json_int_or(migration, "percent", 0));
	if (json_is_integer(sent))
		text_addf(line, ", %s of %s", print_bytes(sent, bytes),
			  print_bytes(json_object_get(migration, "total"), total));
	if (json_int_or(migration, "rate", 0) > 0)
		text_addf(line, ", %s/s", print_bytes(json_object_get(migration, "rate"), rate));
}

static void on_progress(void *ctx, json_t *data)
{
	const json_t *migration = json_object_get(data, "migration");
	CLEANUP(text_done) struct text line = { 0 };

	bool *shown = ctx;

	if (!isatty(STDERR_FILENO))
		return;
	*shown = true;
	text_addf(&line, "%s: ", json_string_or(data, "vm", "?"));
	if (json_is_object(migration))
		say_migration(&line, migration);
	else
		text_addf(&line, "%s", json_string_or(data, "reason", "waiting"));
	print_progress(line.text);
}

static json_t *arguments(const struct cli *cli, const char *vm)
{
	const struct options *options = &cli->options;
	json_t *args = agent_order_args(cli, vm);

	if (options->to)
		json_set_string(args, "to", options->to);
	if (options->method)
		json_set_string(args, "method", options->method);
	if (options->max_downtime_ms)
		(void)json_object_set_new(args, "max_downtime_ms",
					  json_integer((json_int_t)options->max_downtime_ms));
	if (options->bandwidth)
		(void)json_object_set_new(args, "bandwidth",
					  json_integer((json_int_t)options->bandwidth));
	if (options->given & OPTION_POSTCOPY)
		(void)json_object_set_new(args, "postcopy", json_true());
	if (options->given & OPTION_CANCEL)
		(void)json_object_set_new(args, "cancel", json_true());
	return args;
}

static int check(const struct cli *cli, struct error *err)
{
	unsigned given = cli->options.given;

	if (strcmp(cli->command->name, "move") == 0 && !(given & OPTION_TO))
		return error_usage(err, "write: drover move VM --to NODE");
	if ((given & OPTION_CANCEL) && (given & (OPTION_TO | OPTION_METHOD | OPTION_MAX_DOWNTIME |
						 OPTION_BANDWIDTH | OPTION_POSTCOPY)))
		return error_usage(err, "--cancel lets it stay where it is, and takes nothing "
					"beside it");
	return 0;
}

/* Its reason is still that of before: its keeper hears of it in this moment. */
static void print_stays(const json_t *vm)
{
	CLEANUP_FREE char *name = print_clean(json_string_or(vm, "name", "?"));
	CLEANUP_FREE char *node = print_clean(json_string_or(vm, "node", "?"));

	printf("%s: it stays on node '%s'\n", name, node);
}

int run_move(struct cli *cli, struct error *err)
{
	bool shown = false;
	struct question question = {
		.command = cli->command->name, .order = true, .progress = on_progress, .ctx = &shown
	};
	json_auto_t *args = NULL, *answer = NULL;
	char name[VM_ARGUMENT_SIZE];
	int r;

	r = check(cli, err);
	if (r == 0)
		r = vm_argument(cli->args[0], name, err);
	if (r < 0)
		return r;
	args = arguments(cli, name);
	question.vm = name;
	question.args = args;
	question.timeout_usec = cli->options.no_wait ? 0 : agent_patience(cli);
	r = agent_ask(cli, &question, &answer, err);
	if (shown)
		fputs("\r\033[K", stderr);
	if (r < 0)
		return r;
	if (cli->options.json)
		print_json(answer);
	else if (cli->options.given & OPTION_CANCEL)
		print_stays(answer);
	else
		print_vm(cli, answer);
	return 0;
}
