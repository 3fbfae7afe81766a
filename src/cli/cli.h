/* SPDX-License-Identifier: Apache-2.0 */
/* The command line.  Each command is one row of the table in commands.c and one `run` function; the
 * help, the check of the command line and what the man page and the completions are held against
 * all come from that table and from the one of options in options.c. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "model/config.h"

struct cli;
struct error;

#define EXIT_INTERRUPTED 130 /* 128 + SIGINT */

enum option_id {
	OPTION_ROOT = 1 << 0,
	OPTION_FORMAT = 1 << 1,
	OPTION_NO_COLOR = 1 << 2,
	OPTION_HELP = 1 << 3,
	OPTION_VERSION = 1 << 4,
	OPTION_GLOBAL = (1 << 5) - 1, /* all of the above: go with every command */
	OPTION_WAIT = 1 << 5,
	OPTION_NO_WAIT = 1 << 6,
	OPTION_TIMEOUT = 1 << 7,
	OPTION_LINES = 1 << 8,
	OPTION_FOLLOW = 1 << 9,
	OPTION_DRY_RUN = 1 << 10,
	OPTION_VOLUME = 1 << 11,
	OPTION_YES = 1 << 12,
	OPTION_STDIN = 1 << 13,
	OPTION_AGENT = 1 << 14,
	OPTION_KEEPER = 1 << 15,
	OPTION_QEMU = 1 << 16,
	OPTION_SERIAL = 1 << 17,
	OPTION_TO = 1 << 18,
	OPTION_METHOD = 1 << 19,
	OPTION_MAX_DOWNTIME = 1 << 20,
	OPTION_BANDWIDTH = 1 << 21,
	OPTION_CANCEL = 1 << 22,
	OPTION_POSTCOPY = 1 << 23,
	OPTION_WAITING = OPTION_WAIT | OPTION_NO_WAIT | OPTION_TIMEOUT,
	OPTION_LOGS = OPTION_AGENT | OPTION_KEEPER | OPTION_QEMU | OPTION_SERIAL,
};

struct option {
	const char *name;  /* without the dashes */
	const char *value; /* what stands for its value in the help; NULL: takes none */
	enum option_id id;
	char letter; /* 0: none */
	const char *meaning;
};

struct options {
	unsigned given; /* enum option_id */
	const char *root;
	bool json;
	bool no_wait;
	uint64_t timeout_usec; /* 0: not given */
	int64_t lines;
	const char *volume;
	const char *to, *method;
	uint64_t max_downtime_ms, bandwidth; /* 0: not given */
	const char *log; /* "agent", "keeper", "qemu", "serial"; NULL: not given */
};

struct command {
	const char *name; /* one word, or two: "volume ls" */
	const char *args; /* as in the help; what is in brackets may be left out */
	size_t min_args, max_args;
	bool verbatim; /* from its second argument on nothing is an option of ours */
	unsigned options;
	/* An exit code, or negative with `err`. */
	int (*run)(struct cli *cli, struct error *err);
	const char *summary;
	const char *details; /* more for --help, or NULL */
};

struct cli {
	const struct command *command;
	const char **words; /* all that is no option; owned, the words are argv's */
	const char **args;  /* what came after the command's name; NULL-terminated */
	size_t n_args;
	struct options options;
	struct paths paths;
	bool color;
	unsigned width; /* of the terminal on stdout; 0: it is none, cut nothing */
};

/* Reads the command line into `cli`; `cli->command` is NULL when none was named. */
int options_parse(struct cli *cli, int argc, char **argv, struct error *err);
const struct option *options_all(size_t *ret_count);

/* The command that the words name and how many of them do; NULL: none. */
const struct command *command_find(const char *const *words, size_t count, size_t *ret_used);
const struct command *commands_all(size_t *ret_count);

void help_print(FILE *out);
void help_print_command(const struct command *command, FILE *out);

/* A VM as the user named it: a path to its file means the VM (fc-K15).  Into `buffer`. */
#define VM_ARGUMENT_SIZE 256
int vm_argument(const char *argument, char buffer[VM_ARGUMENT_SIZE], struct error *err);

/* The commands. */
int run_apply(struct cli *cli, struct error *err);
int run_cluster_init(struct cli *cli, struct error *err);
int run_cluster_join(struct cli *cli, struct error *err);
int run_cluster_leave(struct cli *cli, struct error *err);
int run_cluster_status(struct cli *cli, struct error *err);
int run_cluster_token(struct cli *cli, struct error *err);
int run_config(struct cli *cli, struct error *err);
int run_console(struct cli *cli, struct error *err);
int run_events(struct cli *cli, struct error *err);
int run_exec(struct cli *cli, struct error *err);
int run_explain(struct cli *cli, struct error *err);
int run_guest(struct cli *cli, struct error *err);
int run_handle_consul_event(struct cli *cli, struct error *err);
int run_hardware(struct cli *cli, struct error *err);
int run_help(struct cli *cli, struct error *err);
int run_logs(struct cli *cli, struct error *err);
int run_migrations(struct cli *cli, struct error *err);
int run_move(struct cli *cli, struct error *err); /* migrate, move, unmigrate */
int run_ls(struct cli *cli, struct error *err);
int run_monitor(struct cli *cli, struct error *err);
int run_node_ls(struct cli *cli, struct error *err);
int run_node_reexec(struct cli *cli, struct error *err);
int run_node_ready(struct cli *cli, struct error *err);
int run_node_status(struct cli *cli, struct error *err);
int run_order(struct cli *cli, struct error *err); /* start, stop, ... ensure */
int run_qmp(struct cli *cli, struct error *err);
int run_rm(struct cli *cli, struct error *err);
int run_shutdown_all(struct cli *cli, struct error *err);
int run_status(struct cli *cli, struct error *err);
int run_version(struct cli *cli, struct error *err);
int run_volume_ls(struct cli *cli, struct error *err);
