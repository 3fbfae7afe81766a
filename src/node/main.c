/* SPDX-License-Identifier: Apache-2.0 */
/* droverd, the agent of one host: from its phases on, everything happens in one loop. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "node/facts.h"
#include "node/node.h"
#include "node/reexec.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/log.h"
#include "util/writer.h"

struct options {
	const char *root;
	const char *probe; /* what our own child is to find out, or NULL */
	bool check;	   /* can this program take over? */
	bool done;	   /* --help, --version */
};

static int configure(struct node *node, const struct options *options, struct error *err)
{
	return node_configure(node, options->root, err);
}

static int lock(struct node *node, const struct options *options, struct error *err)
{
	return node_lock(node, err);
}

static int open_store(struct node *node, const struct options *options, struct error *err)
{
	return node_open_store(node, err);
}

static int adopt_keepers(struct node *node, const struct options *options, struct error *err)
{
	return node_adopt_keepers(node, err);
}

static int listen_for_commands(struct node *node, const struct options *options, struct error *err)
{
	return node_listen(node, err);
}

static int serve(struct node *node, const struct options *options, struct error *err)
{
	return node_serve(node, err);
}

static const struct phase {
	const char *what;
	int (*run)(struct node *node, const struct options *options, struct error *err);
} phases[] = {
	{ "read the configuration", configure },	{ "lock the root", lock },
	{ "open the cluster store", open_store },	{ "adopt running VMs", adopt_keepers },
	{ "listen for commands", listen_for_commands }, { "serve", serve }, /* until SIGTERM */
};

static const char help[] =
	"usage: droverd [--root DIR]\n"
	"\n"
	"The agent of one host: keeps VMs as their definitions say, through one keeper each.\n"
	"\n"
	"  --root DIR   put etc, run, lib and log below DIR (default: $DROVER_ROOT, else "
	"/etc/drover\n"
	"               and so on); one root has one agent\n"
	"  --check      look whether this program can serve here, print what it is as JSON and "
	"end\n"
	"  --version    print the version and end\n"
	"  --help       print this and end\n";

static int parse_options(int argc, char **argv, struct options *ret, struct error *err)
{
	static const struct option table[] = {
		{ "root", required_argument, NULL, 'r' }, { "probe", required_argument, NULL, 'p' },
		{ "check", no_argument, NULL, 'c' },	  { "version", no_argument, NULL, 'V' },
		{ "help", no_argument, NULL, 'h' },	  { 0 },
	};
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, "+:h", table, NULL)) >= 0) {
		switch (c) {
		case 'r':
			ret->root = optarg;
			break;
		case 'p':
			ret->probe = optarg;
			break;
		case 'c':
			ret->check = true;
			break;
		case 'V':
			(void)puts("droverd " DROVER_VERSION);
			ret->done = true;
			break;
		case 'h':
			(void)fputs(help, stdout);
			ret->done = true;
			break;
		case ':':
			return error_usage(err, "'%s' needs a value; see --help", argv[optind - 1]);
		default:
			return error_usage(err, "there is no option '%s'; see --help",
					   argv[optind - 1]);
		}
	}
	if (optind < argc)
		return error_usage(err, "'%s' is not expected; see --help", argv[optind]);
	return 0;
}

/* Children are reaped, and a client that hangs up is seen, from the loop. */
static void prepare_signals(void)
{
	sigset_t set;

	(void)signal(SIGPIPE, SIG_IGN);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGCHLD);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGHUP);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
}

/* Three descriptors for each VM: the usual soft limit of 1024 would end at some 300. */
static void raise_limits(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

static int fail(const struct error *err)
{
	(void)fprintf(stderr, "droverd: %s\n", err->text);
	return error_exit_code(err->class);
}

static int run(const struct options *options, char **argv)
{
	CLEANUP_FREE char *next = NULL;
	struct node *node = node_new();
	struct error err = { 0 };
	int code = 0;

	reexec_open(node, argv);
	for (size_t i = 0; i < ARRAY_SIZE(phases); i++) {
		if (phases[i].run(node, options, &err) < 0) {
			log_error("cannot %s: %s", phases[i].what, err.text);
			/* Who started us may not look into a log file. */
			if (node_logs_to_file(node))
				(void)fprintf(stderr, "droverd: cannot %s: %s\n", phases[i].what,
					      err.text);
			code = error_exit_code(err.class);
			break;
		}
	}
	next = reexec_program(node);
	node_free(node);
	writer_stop();
	if (next && reexec_run(next, argv, &err) < 0)
		code = fail(&err);
	return code;
}

int main(int argc, char **argv)
{
	struct options options = { 0 };
	struct error err = { 0 };

	log_open("droverd", NULL, NULL, LOG_LEVEL_INFO);
	if (parse_options(argc, argv, &options, &err) < 0)
		return fail(&err);
	if (options.done)
		return 0;
	if (options.probe)
		return facts_probe(options.root, options.probe, &err) < 0 ? fail(&err) : 0;
	if (options.check)
		return reexec_check(options.root, &err) < 0 ? fail(&err) : 0;
	prepare_signals();
	raise_limits();
	return run(&options, argv);
}
