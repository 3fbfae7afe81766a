/* SPDX-License-Identifier: Apache-2.0 */
#include "node/keeper.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "model/config.h"
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

static int open_keeper_log(const struct node_vm *vm)
{
	const char *log = vm->node->config->paths.log;
	CLEANUP_FREE char *dir = xasprintf("%s/vms/%s", log, vm->name);
	CLEANUP_FREE char *path = xasprintf("%s/keeper.log", dir);

	(void)file_make_dirs(AT_FDCWD, dir, 0700, NULL);
	/* A log that cannot be opened is no reason not to have a keeper. */
	return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
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
