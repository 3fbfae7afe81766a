/* SPDX-License-Identifier: Apache-2.0 */
#include "node/keeper.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/config.h"
#include "node/disks.h"
#include "node/node.h"
#include "node/vm.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"
#include "util/mem.h"
#include "util/spawn.h"

char *keeper_program(void)
{
	CLEANUP_FREE char *own = xcalloc(1, 4096);
	ssize_t length = readlink("/proc/self/exe", own, 4095);
	char *slash = length > 0 ? strrchr(own, '/') : NULL;
	CLEANUP_FREE char *beside = NULL;

	if (slash) {
		*slash = '\0';
		beside = xasprintf("%s/drover-keeper", own);
		if (access(beside, X_OK) == 0)
			return TAKE_PTR(beside);
	}
	return xstrdup(DROVER_LIBEXECDIR "/drover-keeper");
}

struct log {
	char *dir;
	int fd;
};

static void log_drop(void *ctx)
{
	struct log *log = ctx;

	if (log->fd >= 0)
		(void)close(log->fd);
	free(log->dir);
	free(log);
}

static void log_run(void *ctx)
{
	struct log *log = ctx;
	CLEANUP_FREE char *path = xasprintf("%s/keeper.log", log->dir);

	(void)file_make_dirs(AT_FDCWD, log->dir, 0700, NULL);
	log->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* A log that cannot be opened is no reason not to have a keeper.  Without files it logs to where
 * the agent does. */
static int open_keeper_log(const struct node_vm *vm)
{
	struct log *log;
	int fd;

	if (!node_logs_to_file(vm->node))
		return fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	log = xcalloc(1, sizeof(*log));
	log->dir = xasprintf("%s/vms/%s", vm->node->config->paths.log, vm->name);
	log->fd = -1;
	if (disk_run(&disk_logs, log_run, log_drop, log, NULL) < 0)
		return -1;
	fd = TAKE_FD(log->fd);
	log_drop(log);
	return fd;
}

char *keeper_log_place(const struct node_vm *vm)
{
	if (!node_logs_to_file(vm->node))
		return xstrdup("where droverd logs");
	return xasprintf("'%s/vms/%s/keeper.log'", vm->node->config->paths.log, vm->name);
}

int keeper_start(const struct node_vm *vm, pid_t *ret_pid, int *ret_pidfd, struct error *err)
{
	CLEANUP_FREE char *program = keeper_program();
	CLEANUP_FD int log = open_keeper_log(vm);
	const char *root = vm->node->config->paths.root;
	const char *argv[] = { program, "--root", root, vm->name, NULL };
	const char *bare[] = { program, vm->name, NULL };
	const struct spawn what = {
		.argv = *root ? argv : bare,
		.stdin_fd = -1,
		.stdout_fd = log,
		.stderr_fd = log,
		.new_session = true,
	};
	int r;

	checkpoint("agent.keeper.spawn");
	r = spawn(&what, ret_pid, ret_pidfd, err);
	if (r < 0)
		return r;
	checkpoint("agent.keeper.spawned");
	return 0;
}
