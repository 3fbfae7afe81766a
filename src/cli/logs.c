/* SPDX-License-Identifier: Apache-2.0 */
/* drover logs and drover events. */
#include "cli/logs.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "cli/agent.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "wire/base64.h"
#include "wire/json.h"

#define LINES_DEFAULT 50

/* NULL arguments mean the same as absent ones. */
static int build_args(const char *vm, char name[VM_ARGUMENT_SIZE], json_t **ret_args,
		      struct error *err)
{
	int r;

	if (vm) {
		r = vm_argument(vm, name, err);
		if (r < 0)
			return r;
	}
	*ret_args = json_build(err, "{s:s?}", "vm", vm ? name : NULL);
	return *ret_args ? 0 : -EINVAL;
}

int logs_print(const struct cli *cli, const char *vm, const char *which, int64_t lines,
	       struct error *err)
{
	struct question question = { .command = "logs" };
	json_auto_t *args = NULL, *answer = NULL;
	CLEANUP_FREE unsigned char *bytes = NULL;
	char name[VM_ARGUMENT_SIZE];
	size_t length, hole = 0;
	int r;

	r = build_args(vm, name, &args, err);
	if (r < 0)
		return r;
	json_set_string(args, "which", which);
	(void)json_object_set_new(args, "lines", json_integer(lines));
	question.args = args;
	r = agent_ask(cli, &question, &answer, err);
	if (r < 0)
		return r;
	if (cli->options.json) {
		print_json(answer);
		return 0;
	}
	r = base64_decode(json_string_or(answer, "text", ""), &bytes, &length, err);
	if (r < 0)
		return r;
	/* Rotation punches a hole into the front of a log; what is left of it in its last block
	 * reads as zeroes. */
	while (hole < length && bytes[hole] == 0)
		hole++;
	print_untrusted(stdout, (const char *)bytes + hole, length - hole);
	return 0;
}

int run_logs(struct cli *cli, struct error *err)
{
	const char *vm = cli->n_args > 0 ? cli->args[0] : NULL;
	const char *which = cli->options.log;
	bool lines = cli->options.given & OPTION_LINES;

	if (!which)
		which = vm ? "keeper" : "agent";
	if (!vm && strcmp(which, "agent") != 0)
		return error_usage(err, "--%s is the log of one VM; write: drover logs VM --%s",
				   which, which);
	return logs_print(cli, vm, which, lines ? cli->options.lines : LINES_DEFAULT, err);
}

static void on_event(void *ctx, json_t *data)
{
	const struct cli *cli = ctx;
	CLEANUP_FREE char *line = NULL;

	(void)json_object_del(data, "id"); /* of our question */
	if (cli->options.json) {
		line = json_print(data);
		printf("%s\n", line);
	} else {
		print_event(cli, data);
	}
	(void)fflush(stdout);
}

int run_events(struct cli *cli, struct error *err)
{
	bool follow = cli->options.given & OPTION_FOLLOW;
	bool lines = cli->options.given & OPTION_LINES;
	struct question question = { .command = "events", .endless = follow };
	json_auto_t *args = NULL, *answer = NULL;
	char name[VM_ARGUMENT_SIZE];
	json_t *events, *event;
	size_t i;
	int r;

	r = build_args(cli->n_args > 0 ? cli->args[0] : NULL, name, &args, err);
	if (r < 0)
		return r;
	(void)json_object_set_new(args, "lines",
				  json_integer(lines ? cli->options.lines : LINES_DEFAULT));
	(void)json_object_set_new(args, "follow", json_boolean(follow));
	question.args = args;
	if (follow) {
		question.timeout_usec = agent_patience(cli);
		question.progress = on_event;
		question.ctx = cli;
	}
	r = agent_ask(cli, &question, &answer, err);
	if (r < 0)
		return r;
	events = json_object_get(answer, "events");
	if (cli->options.json && !follow) {
		print_json(events);
		return 0;
	}
	json_array_foreach(events, i, event) on_event(cli, event);
	return 0;
}
