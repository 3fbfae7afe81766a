/* SPDX-License-Identifier: Apache-2.0 */
/* fork and exec.  The idea: a close-on-exec pipe tells the parent what happened: it ends without a
 * word when exec succeeded, and otherwise carries the errno and the sentence of what did not. */
#include "util/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <paths.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"

#define FIRST_FD 3
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

struct failure {
	int code;
	struct error error;
};

/* All that the child needs, made before fork. */
struct child {
	const struct spawn *what;
	char **env;
	pid_t parent;
	int null_fd;
	int status_fd;
};

static void reset_signals(void)
{
	sigset_t none;

	/* Those of libc itself (32, 33) and KILL, STOP refuse: nothing to reset there. */
	for (int i = 1; i < _NSIG; i++)
		(void)signal(i, SIG_DFL);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Moves descriptors to 0, 1, 2, 3...  Sources and targets overlap in any way, so all sources are
 * first copied to numbers above all targets. */
static int arrange_fds(struct child *child, struct error *err)
{
	const struct spawn *what = child->what;
	const int stdio[FIRST_FD] = { what->stdin_fd, what->stdout_fd, what->stderr_fd };
	int n = FIRST_FD + (int)what->n_fds;
	CLEANUP_FREE int *above = xcalloc((size_t)n, sizeof(*above));
	int status_fd;

	status_fd = fcntl(child->status_fd, F_DUPFD_CLOEXEC, n + 1);
	if (status_fd < 0)
		return error_set(err, -errno, "cannot move the status pipe: %m");
	child->status_fd = status_fd;
	for (int i = 0; i < n; i++) {
		int fd = i >= FIRST_FD	? what->fds[i - FIRST_FD]
			 : stdio[i] > 0 ? stdio[i]
					: child->null_fd;

		above[i] = fcntl(fd, F_DUPFD_CLOEXEC, n + 1);
		if (above[i] < 0)
			return error_set(err, -errno, "cannot hand over descriptor %d: %m", fd);
	}
	for (int i = 0; i < n; i++)
		if (dup2(above[i], i) < 0)
			return error_set(err, -errno, "cannot hand over descriptor %d: %m", i);
	if (close_range((unsigned)n, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
		return error_set(err, -errno, "cannot close other descriptors: %m");
	return 0;
}

static int drop_rights(const struct spawn *what, struct error *err)
{
	if (what->uid == 0)
		return 0;
	if (setgroups(0, NULL) < 0)
		return error_set(err, -errno, "cannot leave the groups of root: %m");
	if (setresgid(what->gid, what->gid, what->gid) < 0)
		return error_set(err, -errno, "cannot become group %u: %m", (unsigned)what->gid);
	if (setresuid(what->uid, what->uid, what->uid) < 0)
		return error_set(err, -errno, "cannot become user %u: %m", (unsigned)what->uid);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_set(err, -errno, "cannot give up new privileges: %m");
	return 0;
}

/* Last of all, because the kernel forgets this with a change of user; prctl(2). */
static int tie_to_parent(const struct child *child, struct error *err)
{
	if (!child->what->die_with_parent)
		return 0;
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return error_set(err, -errno, "cannot tie the child to its parent: %m");
	if (getppid() != child->parent)
		return error_set(err, -ESRCH, "the parent has gone");
	return 0;
}

static int become(struct child *child, struct error *err)
{
	const struct spawn *what = child->what;
	int r;

	reset_signals();
	if (what->new_session && setsid() < 0)
		return error_set(err, -errno, "cannot make a session: %m");
	if (chdir("/") < 0)
		return error_set(err, -errno, "cannot change to the root directory: %m");
	(void)umask(022);
	/* Before descriptors move, so that those that `prepare` knows of still mean the same. */
	r = what->prepare ? what->prepare(what->prepare_ctx, err) : 0;
	if (r < 0)
		return r;
	r = arrange_fds(child, err);
	if (r < 0)
		return r;
	r = drop_rights(what, err);
	if (r < 0)
		return r;
	return tie_to_parent(child, err);
}

static int run_program(const struct child *child, struct error *err)
{
	const char *program = child->what->argv[0];

	environ = child->env; /* execvp looks at its PATH */
	(void)execvp(program, (char *const *)child->what->argv);
	if (errno == ENOENT && !strchr(program, '/'))
		return error_set(
			err, -ENOENT,
			"program '%s' is not there: install the package that brings it, or "
			"correct PATH",
			program);
	return error_set(err, -errno, "cannot run '%s': %m", program);
}

static void __attribute__((noreturn)) child_main(struct child *child)
{
	struct failure failure = { 0 };

	failure.code = become(child, &failure.error);
	if (failure.code >= 0)
		failure.code = run_program(child, &failure.error);
	/* Smaller than PIPE_BUF: goes whole or not at all. */
	(void)!write(child->status_fd, &failure, sizeof(failure));
	_exit(127);
}

static char **make_environment(const struct spawn *what, struct strv *own)
{
	const char *path = getenv("PATH");

	if (what->env)
		return (char **)what->env;
	strv_addf(own, "PATH=%s", path && path[0] ? path : DEFAULT_PATH);
	strv_add(own, "LANG=C");
	strv_add(own, "HOME=/");
	return own->items;
}

/* All signals stay blocked from before fork until the child has reset its handlers, so that no
 * handler of ours runs there. */
static pid_t fork_child(struct child *child)
{
	sigset_t all, before;
	int saved;
	pid_t pid;

	sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, &before);
	pid = fork();
	if (pid == 0)
		child_main(child);
	saved = errno;
	(void)sigprocmask(SIG_SETMASK, &before, NULL);
	errno = saved;
	return pid;
}

/* 0 when exec succeeded. */
static int read_failure(int fd, struct failure *ret)
{
	size_t have = 0;

	while (have < sizeof(*ret)) {
		ssize_t n = read(fd, (char *)ret + have, sizeof(*ret) - have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		have += (size_t)n;
	}
	return ret->code;
}

static void reap(pid_t pid)
{
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

int spawn(const struct spawn *what, pid_t *ret_pid, int *ret_pidfd, struct error *err)
{
	CLEANUP(strv_done) struct strv own = { 0 };
	CLEANUP_FD int null_fd = open(_PATH_DEVNULL, O_RDWR | O_CLOEXEC);
	CLEANUP_FD int status = -1;
	CLEANUP_FD int pidfd = -1;
	struct failure failure = { 0 };
	struct child child;
	int ends[2];
	pid_t pid;
	int r;

	if (null_fd < 0)
		return error_set(err, -errno, "cannot open '%s': %m", _PATH_DEVNULL);
	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_set(err, -errno, "cannot make a pipe: %m");
	status = ends[0];
	child = (struct child){ .what = what,
				.env = make_environment(what, &own),
				.parent = getpid(),
				.null_fd = null_fd,
				.status_fd = ends[1] };
	pid = fork_child(&child);
	r = -errno;
	(void)close(ends[1]);
	if (pid < 0)
		return error_set(err, r, "cannot start a process for '%s': %m", what->argv[0]);
	/* Nobody but us reaps it, so the number still means this child. */
	pidfd = pidfd_open(pid, 0);
	r = pidfd < 0 ? error_set(err, -errno, "cannot open the new process: %m") : 0;
	if (r < 0)
		(void)kill(pid, SIGKILL);
	else
		r = read_failure(status, &failure);
	if (r < 0) {
		reap(pid);
		if (failure.code < 0 && err)
			*err = failure.error;
		else if (pidfd >= 0)
			(void)error_set(err, r, "cannot tell whether '%s' started: %m",
					what->argv[0]);
		return r;
	}
	if (ret_pid)
		*ret_pid = pid;
	*ret_pidfd = TAKE_FD(pidfd);
	return 0;
}
