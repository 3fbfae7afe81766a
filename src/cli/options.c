/* SPDX-License-Identifier: Apache-2.0 */
/* Options of all commands in one table: an option means the same wherever it is taken.  They may
 * stand before or after the command; `--` ends them. */
#include "cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/key.h"
#include "model/records.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/document.h"

#define LINES_MAX 1000000
#define DOWNTIME_MAX (2000 * USEC_PER_SEC) /* QEMU takes no more */
#define BANDWIDTH_MIN (UINT64_C(1) << 16)
#define BANDWIDTH_MAX (UINT64_C(1) << 40)
#define TIMEOUT_MAX (24 * 3600 * USEC_PER_SEC) /* the agent takes no more */

/* clang-format off */
static const struct option options[] = {
	{ "root", "DIR", OPTION_ROOT, 0, "all files of Drover are below DIR (default: $DROVER_ROOT)" },
	{ "format", "table|json", OPTION_FORMAT, 0, "how to print data" },
	{ "no-color", NULL, OPTION_NO_COLOR, 0, "no colours on a terminal (also: $NO_COLOR)" },
	{ "help", NULL, OPTION_HELP, 'h', "show help, also of a command" },
	{ "version", NULL, OPTION_VERSION, 0, "show the version of this program" },
	{ "wait", NULL, OPTION_WAIT, 0, "come back when it is done (default)" },
	{ "no-wait", NULL, OPTION_NO_WAIT, 0, "come back when the order is stored" },
	{ "timeout", "TIME", OPTION_TIMEOUT, 0, "wait at most so long: 30, 30s, 500ms, 5min, 1h" },
	{ "lines", "N", OPTION_LINES, 'n', "the last N lines" },
	{ "follow", NULL, OPTION_FOLLOW, 'f', "go on with what happens from now, until Ctrl-C" },
	{ "dry-run", NULL, OPTION_DRY_RUN, 0, "show what would change, change nothing" },
	{ "volume", "NAME", OPTION_VOLUME, 0, "remove this volume and its data" },
	{ "yes", NULL, OPTION_YES, 'y', "do not ask" },
	{ "stdin", NULL, OPTION_STDIN, 0, "hand standard input to the command" },
	{ "to", "NODE", OPTION_TO, 0, "the node that it is to be on" },
	{ "method", "auto|live|shutdown", OPTION_METHOD, 0, "how (default: as the definition says)" },
	{ "max-downtime", "TIME", OPTION_MAX_DOWNTIME, 0, "how long the guest may stand still: 300, 300ms" },
	{ "bandwidth", "SIZE", OPTION_BANDWIDTH, 0, "bytes a second at most: 100M" },
	{ "postcopy", NULL, OPTION_POSTCOPY, 0, "it may go on there before all of its memory is" },
	{ "cancel", NULL, OPTION_CANCEL, 0, "let it stay where it is now" },
	{ "agent", NULL, OPTION_AGENT, 0, "the log of the agent, droverd" },
	{ "keeper", NULL, OPTION_KEEPER, 0, "the log of the VM's keeper" },
	{ "qemu", NULL, OPTION_QEMU, 0, "what the VM's QEMU printed" },
	{ "serial", NULL, OPTION_SERIAL, 0, "the log of the VM's serial console" },
};
/* clang-format on */

const struct option *options_all(size_t *ret_count)
{
	*ret_count = ARRAY_SIZE(options);
	return options;
}

static int parse_timeout(const char *value, uint64_t *ret_usec, struct error *err)
{
	size_t digits = strspn(value, "0123456789");
	uint64_t usec = 0;

	if (digits > 0 && digits < 10 && value[digits] == '\0')
		usec = strtoull(value, NULL, 10) * USEC_PER_SEC;
	else if (!key_parse_duration(value, &usec))
		usec = 0;
	if (usec < USEC_PER_MSEC || usec > TIMEOUT_MAX)
		return error_usage(
			err,
			"--timeout '%s': write seconds, or a time such as 30s, 500ms, 5min "
			"or 1h, at most 24h",
			value);
	*ret_usec = usec;
	return 0;
}

static int parse_lines(const char *value, int64_t *ret_lines, struct error *err)
{
	size_t digits = strspn(value, "0123456789");
	int64_t lines = digits > 0 && digits < 10 ? strtoll(value, NULL, 10) : -1;

	if (value[digits] != '\0' || lines < 0 || lines > LINES_MAX)
		return error_usage(err, "--lines '%s': write a number from 0 to %d", value,
				   LINES_MAX);
	*ret_lines = lines;
	return 0;
}

/* A plain number is milliseconds, as QEMU counts. */
static int parse_downtime(const char *value, uint64_t *ret_ms, struct error *err)
{
	size_t digits = strspn(value, "0123456789");
	uint64_t usec = 0;

	if (digits > 0 && digits < 8 && value[digits] == '\0')
		usec = strtoull(value, NULL, 10) * USEC_PER_MSEC;
	else if (!key_parse_duration(value, &usec))
		usec = 0;
	if (usec < USEC_PER_MSEC || usec > DOWNTIME_MAX)
		return error_usage(err,
				   "--max-downtime '%s': write milliseconds, or a time such as "
				   "300ms or 2s, at most 2000s",
				   value);
	*ret_ms = usec / USEC_PER_MSEC;
	return 0;
}

static int parse_bandwidth(const char *value, uint64_t *ret_bytes, struct error *err)
{
	size_t digits = strspn(value, "0123456789");
	uint64_t bytes = 0;

	if (digits > 0 && digits < 14 && value[digits] == '\0')
		bytes = strtoull(value, NULL, 10);
	else if (!key_parse_size(value, &bytes))
		bytes = 0;
	if (bytes < BANDWIDTH_MIN || bytes > BANDWIDTH_MAX)
		return error_usage(err,
				   "--bandwidth '%s': write bytes a second, such as 100M, between "
				   "64K and 1T",
				   value);
	*ret_bytes = bytes;
	return 0;
}

static int parse_method(const char *value, const char **ret_method, struct error *err)
{
	*ret_method = value;
	if (placement_method_of(value) >= 0)
		return 0;
	return error_usage(err, "--method '%s': write auto, live or shutdown", value);
}

static int take(struct options *ret, const struct option *option, const char *value,
		struct error *err)
{
	ret->given |= option->id;
	switch (option->id) {
	case OPTION_ROOT:
		ret->root = value;
		return *value ? 0 : error_usage(err, "--root needs the name of a directory");
	case OPTION_FORMAT:
		ret->json = strcmp(value, "json") == 0;
		if (ret->json || strcmp(value, "table") == 0)
			return 0;
		return error_usage(err, "--format '%s': write table or json", value);
	case OPTION_WAIT:
	case OPTION_NO_WAIT:
		ret->no_wait = option->id == OPTION_NO_WAIT;
		return 0;
	case OPTION_TIMEOUT:
		return parse_timeout(value, &ret->timeout_usec, err);
	case OPTION_LINES:
		return parse_lines(value, &ret->lines, err);
	case OPTION_VOLUME:
		ret->volume = value;
		return *value ? 0 : error_usage(err, "--volume needs the name of a volume");
	case OPTION_TO:
		ret->to = value;
		return *value ? 0 : error_usage(err, "--to needs the name of a node");
	case OPTION_METHOD:
		return parse_method(value, &ret->method, err);
	case OPTION_MAX_DOWNTIME:
		return parse_downtime(value, &ret->max_downtime_ms, err);
	case OPTION_BANDWIDTH:
		return parse_bandwidth(value, &ret->bandwidth, err);
	case OPTION_AGENT:
	case OPTION_KEEPER:
	case OPTION_QEMU:
	case OPTION_SERIAL:
		if (ret->log && strcmp(ret->log, option->name) != 0)
			return error_usage(err, "--%s and --%s: one log at a time", ret->log,
					   option->name);
		ret->log = option->name;
		return 0;
	default:
		return 0;
	}
}

static int unknown(const char *name, struct error *err)
{
	const char *candidates[ARRAY_SIZE(options) + 1] = { NULL };
	const char *nearest;

	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		candidates[i] = options[i].name;
	nearest = document_nearest(name, candidates);
	if (nearest)
		return error_usage(err, "there is no option --%s; did you mean --%s?", name,
				   nearest);
	return error_usage(err, "there is no option --%s; see 'drover help'", name);
}

/* `--name`, `--name=value`, `--name value`; *index moves over the value. */
static int parse_long(struct options *ret, int argc, char **argv, int *index, struct error *err)
{
	const char *name = argv[*index] + 2;
	const char *equals = strchrnul(name, '=');
	size_t length = equals - name;
	CLEANUP_FREE char *word = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		const struct option *option = &options[i];

		if (strlen(option->name) != length || strncmp(option->name, name, length) != 0)
			continue;
		if (!option->value && *equals)
			return error_usage(err, "--%s takes no value", option->name);
		if (!option->value || *equals)
			return take(ret, option, *equals ? equals + 1 : NULL, err);
		if (*index + 1 >= argc)
			return error_usage(err, "--%s needs a value: %s", option->name,
					   option->value);
		return take(ret, option, argv[++*index], err);
	}
	word = xasprintf("%.*s", (int)length, name);
	return unknown(word, err);
}

/* `-f`, `-n5`, `-n 5`; letters do not combine. */
static int parse_short(struct options *ret, int argc, char **argv, int *index, struct error *err)
{
	const char *word = argv[*index];

	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		const struct option *option = &options[i];

		if (option->letter == 0 || option->letter != word[1])
			continue;
		if (!option->value && word[2] == '\0')
			return take(ret, option, NULL, err);
		if (option->value && word[2] != '\0')
			return take(ret, option, word + 2, err);
		if (option->value && *index + 1 < argc)
			return take(ret, option, argv[++*index], err);
	}
	return error_usage(err, "there is no option %s; see 'drover help'", word);
}

static int check(const struct cli *cli, struct error *err)
{
	const struct command *command = cli->command;
	unsigned wrong = cli->options.given & ~(command->options | OPTION_GLOBAL);

	/* Whoever asks for help need not have got the rest right. */
	if (cli->options.given & (OPTION_HELP | OPTION_VERSION))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (wrong & options[i].id)
			return error_usage(err, "'%s' takes no --%s; see 'drover %s --help'",
					   command->name, options[i].name, command->name);
	if (cli->n_args < command->min_args)
		return error_usage(err, "write: drover %s %s", command->name, command->args);
	if (cli->n_args > command->max_args)
		return error_usage(err, "'%s' is one argument too many; write: drover %s%s%s",
				   cli->args[command->max_args], command->name,
				   *command->args ? " " : "", command->args);
	return 0;
}

static int name_command(struct cli *cli, struct error *err)
{
	const char *candidates[64] = { NULL };
	const struct command *commands;
	const char *nearest;
	size_t count, used;

	if (cli->n_args == 0)
		return 0;
	cli->command = command_find(cli->args, cli->n_args, &used);
	if (cli->command) {
		cli->args += used;
		cli->n_args -= used;
		return check(cli, err);
	}
	commands = commands_all(&count);
	for (size_t i = 0; i < count && i + 1 < ARRAY_SIZE(candidates); i++)
		candidates[i] = commands[i].name;
	nearest = document_nearest(cli->args[0], candidates);
	if (nearest)
		return error_usage(err, "there is no command '%s'; did you mean '%s'?",
				   cli->args[0], nearest);
	return error_usage(err, "there is no command '%s'; see 'drover help'", cli->args[0]);
}

/* From the guest's command on nothing is ours: `drover exec web01 ls -l` needs no `--`. */
static bool is_verbatim(const struct cli *cli)
{
	const struct command *command;
	size_t used;

	command = command_find(cli->args, cli->n_args, &used);
	return command && command->verbatim && cli->n_args > used + 1;
}

int options_parse(struct cli *cli, int argc, char **argv, struct error *err)
{
	bool ended = false;
	int r = 0;

	cli->words = cli->args = xcalloc((size_t)argc + 1, sizeof(*cli->args));
	for (int i = 1; i < argc && r >= 0; i++) {
		const char *word = argv[i];

		if (!ended && strcmp(word, "--") == 0)
			ended = true;
		else if (!ended && strncmp(word, "--", 2) == 0)
			r = parse_long(&cli->options, argc, argv, &i, err);
		else if (!ended && word[0] == '-' && word[1] != '\0')
			r = parse_short(&cli->options, argc, argv, &i, err);
		else
			cli->args[cli->n_args++] = word;
		ended = ended || is_verbatim(cli);
	}
	return r < 0 ? r : name_command(cli, err);
}
