/* SPDX-License-Identifier: Apache-2.0 */
/* Named steps of a test build.  The request is a file, so that a test can ask before the process
 * exists; the answer is a line appended with one write, so that several processes may answer. */
#include "util/checkpoint.h"

#ifdef DROVER_CHECKPOINTS

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/file.h"
#include "util/mem.h"

#define REQUEST_MAX 65536

static struct {
	char *run_dir;
	struct strv fired;
} state;

void checkpoint_open(const char *run_dir)
{
	free(state.run_dir);
	state.run_dir = xstrdup(run_dir);
}

static bool is_asked_for(const char *name)
{
	CLEANUP_FREE char *path = xasprintf("%s/checkpoint", state.run_dir);
	CLEANUP_FREE char *text = NULL;
	char *rest;

	if (file_read(AT_FDCWD, path, REQUEST_MAX, &text, NULL, NULL) < 0)
		return false;
	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		if (strcmp(line, name) == 0)
			return true;
	return false;
}

static void say_reached(const char *name)
{
	CLEANUP_FREE char *path = xasprintf("%s/checkpoint.reached", state.run_dir);
	CLEANUP_FREE char *line = xasprintf("%s %d\n", name, (int)getpid());
	CLEANUP_FD int fd = -1;

	fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0)
		(void)!write(fd, line, strlen(line));
}

void checkpoint(const char *name)
{
	if (!state.run_dir)
		return;
	for (size_t i = 0; i < state.fired.count; i++)
		if (strcmp(state.fired.items[i], name) == 0)
			return;
	if (!is_asked_for(name))
		return;
	strv_add(&state.fired, name);
	say_reached(name);
	(void)raise(SIGSTOP);
}

#endif
