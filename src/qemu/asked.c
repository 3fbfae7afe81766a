/* SPDX-License-Identifier: Apache-2.0 */
#include "qemu/asked.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "qemu/child.h"
#include "qmp/qmp.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"

#define ASK_USEC (10 * USEC_PER_SEC)
#define QUIT_USEC (1 * USEC_PER_SEC)

static void tool_closep(struct qmp_tool **tool)
{
	qmp_tool_close(*tool);
}

static int start(const char *binary, const char *data_dir, const char *accel, int qmp_fd,
		 struct child *ret, struct error *err)
{
	CLEANUP(strv_done) struct strv argv = { 0 };

	strv_add(&argv, binary);
	for (const char *const *word =
		     (const char *const[]){ "-machine", "none", "-nodefaults", "-no-user-config",
					    "-display", "none", "-S", "-sandbox", CHILD_SANDBOX,
					    "-chardev", "socket,id=qmp,fd=3", "-mon",
					    "chardev=qmp,mode=control", NULL };
	     *word; word++)
		strv_add(&argv, *word);
	if (data_dir && *data_dir) {
		strv_add(&argv, "-L");
		strv_add(&argv, data_dir);
	}
	if (accel) {
		strv_add(&argv, "-accel");
		strv_add(&argv, accel);
	}
	return child_start((const char *const *)argv.items, &qmp_fd, 1, -1,
			   accel ? child_private_dev : NULL, ret, err);
}

static int open_qmp(const char *binary, const char *data_dir, const char *accel,
		    struct child *child, struct qmp_tool **ret, struct error *err)
{
	int ends[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return error_set(err, -errno, "cannot make a socket pair: %m");
	r = start(binary, data_dir, accel, ends[1], child, err);
	(void)close(ends[1]);
	if (r < 0) {
		(void)close(ends[0]);
		return r;
	}
	return qmp_tool_open(ends[0], ASK_USEC, ret, err);
}

int asked_run(const char *binary, const char *data_dir, const char *accel, asked_fn ask, void *ctx,
	      struct error *err)
{
	CLEANUP(child_done) struct child child = CHILD_NONE;
	CLEANUP(tool_closep) struct qmp_tool *tool = NULL;
	CLEANUP_FREE char *words = NULL;
	int r;

	r = open_qmp(binary, data_dir, accel, &child, &tool, err);
	if (r == 0)
		r = ask(tool, ctx, err);
	if (child.pidfd < 0)
		return r;
	if (r == 0)
		(void)qmp_tool_call(tool, "quit", NULL, NULL, NULL);
	child_end(&child, r == 0 ? QUIT_USEC : QUIT_USEC / 10);
	if (r == 0)
		return 0;
	words = child_last_words(&child);
	if (*words)
		return error_set(err, r, "'%s' cannot be asked what it can do: %s", binary, words);
	return error_prefix(err, r, "'%s' cannot be asked what it can do", binary);
}
