/* SPDX-License-Identifier: Apache-2.0 */
/* fork and exec live here and nowhere else.  A child gets exactly the descriptors it is handed, a
 * reset signal state, and a pidfd for its parent; a tool that is run to its end gets a deadline. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

struct error;

/* Runs in the child between fork and exec, still with full rights: private mounts and the like.
 * The parent's descriptors are all still there, the working directory is `/`.  Returns 0, or -errno
 * with a sentence in `err`, which then reaches the parent of the spawn. */
typedef int (*spawn_prepare_fn)(void *ctx, struct error *err);

struct spawn {
	const char *const *argv; /* argv[0] is looked up in PATH unless it holds a slash */
	const char *const *env;	 /* NULL: PATH, LANG=C and HOME=/ only */
	const int *fds;		 /* arrive in the child as 3, 4, ... in this order */
	size_t n_fds;
	int stdin_fd, stdout_fd, stderr_fd; /* 0 or -1: /dev/null, so that none named is safe */
	uid_t uid;			    /* 0: stay as we are; else setgroups(0), gid, uid and
					     * no_new_privs, after `prepare` */
	gid_t gid;
	bool new_session;	  /* setsid: survives our terminal and our process group */
	bool die_with_parent;	  /* PR_SET_PDEATHSIG SIGKILL: tools, never a QEMU or keeper */
	spawn_prepare_fn prepare; /* may be NULL */
	void *prepare_ctx;
};

/* Returns once exec has succeeded; a failure of prepare or exec is reported here, with the name of
 * the missing program.  The caller owns `ret_pidfd`. */
int spawn(const struct spawn *what, pid_t *ret_pid, int *ret_pidfd, struct error *err);

/* A tool run to its end, in a session of its own and tied to us.  `code` is the exit code, or
 * 128 + signal; `out` and `err_text` are what it wrote, each cut at 64 KiB.  Past the deadline it
 * is killed with all it started: -ETIMEDOUT.  `what` needs no stdout_fd and stderr_fd. */
struct tool_result {
	int code;
	char *out;
	size_t out_length;
	char *err_text;
};
void tool_result_done(struct tool_result *result);

typedef void (*tool_done_fn)(void *ctx, int r, struct tool_result *result, const struct error *err);
struct tool;

/* Asynchronous: `done` is called exactly once, from the loop, and then the tool is gone;
 * `result` is borrowed (take what you keep), `err` is NULL unless r < 0.  tool_cancel() kills it,
 * and then `done` is never called; it takes NULL and returns NULL. */
int tool_start(sd_event *loop, const struct spawn *what, uint64_t timeout_usec, tool_done_fn done,
	       void *ctx, struct tool **ret_tool, struct error *err);
struct tool *tool_cancel(struct tool *tool);

/* The same, waiting; for programs without a loop, and for start-up. */
int tool_run(const struct spawn *what, uint64_t timeout_usec, struct tool_result *ret,
	     struct error *err);
