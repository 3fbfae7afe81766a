/* SPDX-License-Identifier: Apache-2.0 */
/* drover-keeper: looks after one VM.  Started by droverd, outlives it; QEMU outlives both. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "keeper/agent.h"
#include "keeper/cleanup.h"
#include "keeper/console.h"
#include "keeper/copy.h"
#include "keeper/keeper.h"
#include "keeper/launch.h"
#include "keeper/lease.h"
#include "keeper/link.h"
#include "keeper/migration.h"
#include "keeper/monitor.h"
#include "keeper/ownership.h"
#include "keeper/proof.h"
#include "keeper/report.h"
#include "keeper/root.h"
#include "keeper/start.h"
#include "keeper/stop.h"
#include "model/config.h"
#include "qemu/hardware.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/log.h"
#include "util/mem.h"

static int open_dirs(struct keeper *keeper, struct error *err)
{
	const struct paths *paths = &keeper->config->paths;
	CLEANUP_FREE char *run = xasprintf("%s/vms/%s", paths->run, keeper->name);
	CLEANUP_FREE char *log = xasprintf("%s/vms/%s", paths->log, keeper->name);
	int r;

	r = file_make_dirs(AT_FDCWD, run, 0700, err);
	if (r == 0)
		r = file_make_dirs(AT_FDCWD, log, 0700, err);
	if (r < 0)
		return r;
	keeper->run_fd = open(run, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	keeper->log_fd = open(log, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	if (keeper->run_fd < 0 || keeper->log_fd < 0)
		return error_set(err, -errno, "cannot open '%s' or '%s': %m", run, log);
	checkpoint_open(paths->run);
	return 0;
}

/* One keeper a VM: held for life, freed by the kernel however we end. */
static int lock_vm(struct keeper *keeper, struct error *err)
{
	int r = file_lock(keeper->run_fd, "keeper.lock", 0, &keeper->lock_fd, err);

	if (r == -EWOULDBLOCK)
		return error_set_class(err, ERROR_REFUSED, r, "VM '%s' has a keeper already",
				       keeper->name);
	if (r == 0)
		file_remove_unfinished(keeper->run_fd);
	return r;
}

static int know_ourselves(struct keeper *keeper, struct error *err)
{
	char id[33];

	file_random_id(id);
	memcpy(keeper->life, id, sizeof(keeper->life) - 1);
	clock_boot_id(keeper->boot_id);
	keeper->backoff.first = keeper->config->timers.backoff_first;
	keeper->backoff.max = keeper->config->timers.backoff_max;
	keeper->backoff.forget = keeper->config->timers.backoff_forget;
	keeper->agent = agent_new(keeper);
	keeper->ownership = ownership_new();
	keeper->migration = migration_new(keeper);
	report_load(keeper);
	return root_id(keeper->config->paths.lib, keeper->root_id, err);
}

/* What runs goes on. */
static int adopt_copy(struct keeper *keeper, struct error *err)
{
	proof_begin(keeper);
	return 0;
}

static int listen_for_agent(struct keeper *keeper, struct error *err)
{
	int r;

	r = console_open(keeper, &keeper->console, err);
	if (r < 0)
		return r;
	return link_open(keeper, err);
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *ctx)
{
	struct keeper *keeper = ctx;

	log_info("ending by signal %u; the guest is left alone", info->ssi_signo);
	return sd_event_exit(keeper->loop, 0);
}

static int serve(struct keeper *keeper, struct error *err)
{
	int r;

	log_info("drover-keeper " DROVER_VERSION
		 " for VM '%s' on node '%s', root '%s', store '%s', "
		 "QEMU '%s'",
		 keeper->name, keeper->config->node, keeper->config->paths.root,
		 keeper->config->store, keeper->config->qemu_binary);
	keeper_look(keeper);
	r = sd_event_loop(keeper->loop);
	return r < 0 ? error_set(err, r, "event loop: %m") : 0;
}

static const struct phase {
	const char *what;
	int (*run)(struct keeper *keeper, struct error *err);
} phases[] = {
	{ "open the directories of the VM", open_dirs },
	{ "become the keeper of the VM", lock_vm },
	{ "know itself", know_ourselves },
	{ "adopt what runs", adopt_copy },
	{ "listen for the agent", listen_for_agent },
	{ "serve", serve },
};

static int open_loop(struct keeper *keeper)
{
	sigset_t signals;
	int r;

	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	(void)sigprocmask(SIG_BLOCK, &signals, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	r = sd_event_default(&keeper->loop);
	if (r >= 0)
		r = sd_event_add_signal(keeper->loop, NULL, SIGTERM, on_signal, keeper);
	if (r >= 0)
		r = sd_event_add_signal(keeper->loop, NULL, SIGINT, on_signal, keeper);
	return r;
}

static void keeper_done(struct keeper *keeper)
{
	start_cancel(keeper->start);
	stop_cancel(keeper->stop);
	cleanup_cancel(keeper->cleanup);
	monitor_close(TAKE_PTR(keeper->monitor));
	migration_free(keeper->migration);
	agent_free(keeper->agent);
	console_close(keeper->console);
	link_close(keeper->link);
	ownership_free(keeper->ownership);
	lease_guard_free(keeper->guard);
	if (keeper->dismissed)
		root_forget_vm(keeper);
	copy_free(keeper->copy);
	hardware_free(keeper->hardware);
	definition_free(keeper->want.definition);
	json_decref(keeper->want.tree);
	json_decref(keeper->want.move.offer);
	json_decref(keeper->told);
	free(keeper->pending);
	json_decref(keeper->report.last_exit);
	sd_event_source_disable_unref(keeper->look);
	sd_event_source_disable_unref(keeper->later);
	sd_event_unref(keeper->loop);
	cleanup_closep(&keeper->run_fd);
	cleanup_closep(&keeper->log_fd);
	cleanup_closep(&keeper->lock_fd);
	config_free(keeper->config);
}

struct options {
	const char *root, *vm;
	/* CPU model: ask QEMU what it can do, keep the answers, end; a child of a keeper. */
	const char *probe;
};

static int parse_options(int argc, char **argv, struct options *ret)
{
	static const struct option options[] = { { "root", required_argument, NULL, 'r' },
						 { "probe", required_argument, NULL, 'p' },
						 { "help", no_argument, NULL, 'h' },
						 { "version", no_argument, NULL, 'V' },
						 { 0 } };
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (option == 'h') {
			puts("usage: drover-keeper [--root DIR] VM\n"
			     "Looks after one VM.  droverd starts it; see drover-keeper(8).\n"
			     "  --root DIR  put etc, run, lib and log below DIR (default: "
			     "$DROVER_ROOT)\n"
			     "  --help      this text\n"
			     "  --version   the version");
			exit(0);
		}
		if (option == 'V') {
			puts("drover-keeper " DROVER_VERSION);
			exit(0);
		}
		if (option == 'p')
			ret->probe = optarg;
		else if (option == 'r')
			ret->root = optarg;
		else
			return -EINVAL;
	}
	if (optind + 1 != argc)
		return -EINVAL;
	ret->vm = argv[optind];
	return 0;
}

static int prepare(struct keeper *keeper, const struct options *options, struct error *err)
{
	int r, level;

	r = definition_check_name(options->vm, err);
	if (r < 0)
		return r;
	keeper->name = options->vm;
	r = config_load(options->root, &keeper->config, err);
	if (r < 0)
		return r;
	level = log_level_of(keeper->config->log_level);
	/* stderr is the keeper's log: droverd opened it. */
	log_open("drover-keeper", keeper->name, NULL, level < 0 ? LOG_LEVEL_INFO : level);
	r = open_loop(keeper);
	return r < 0 ? error_set(err, r, "event loop: %m") : 0;
}

static int probe(const struct options *options)
{
	struct config *config = NULL;
	struct error err = { 0 };
	int r;

	r = config_load(options->root, &config, &err);
	if (r == 0)
		r = launch_probe(config, options->probe, &err);
	if (r < 0)
		fprintf(stderr, "%s", err.text);
	config_free(config);
	return r < 0 ? error_exit_code(err.class) : 0;
}

int main(int argc, char **argv)
{
	struct keeper keeper = { .run_fd = -1, .log_fd = -1, .lock_fd = -1 };
	struct options options = { 0 };
	struct error err = { 0 };
	const char *what = "read the configuration";
	int r;

	if (parse_options(argc, argv, &options) < 0) {
		fputs("usage: drover-keeper [--root DIR] VM\n", stderr);
		return error_exit_code(ERROR_USAGE);
	}
	if (options.probe)
		return probe(&options);
	(void)prctl(PR_SET_DUMPABLE, 0);
	r = prepare(&keeper, &options, &err);
	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(phases); i++) {
		what = phases[i].what;
		r = phases[i].run(&keeper, &err);
	}
	if (r < 0)
		log_error("cannot %s: %s", what, err.text);
	keeper_done(&keeper);
	return r < 0 ? error_exit_code(err.class) : 0;
}
