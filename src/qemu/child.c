/* SPDX-License-Identifier: Apache-2.0 */
#include "qemu/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/process.h"

#define ERRORS_MAX (64u * 1024)
#define KILL_USEC (2 * USEC_PER_SEC)

int child_start(const char *const *argv, const int *fds, size_t n_fds, int stdout_fd,
		spawn_prepare_fn prepare, struct child *ret, struct error *err)
{
	struct child child = CHILD_NONE;
	int ends[2], r;
	struct spawn what = {
		.argv = argv,
		.fds = fds,
		.n_fds = n_fds,
		.stdin_fd = -1,
		.stdout_fd = stdout_fd,
		.uid = geteuid() == 0 ? CHILD_UID : 0,
		.gid = CHILD_UID,
		.die_with_parent = true,
		.prepare = geteuid() == 0 ? prepare : NULL,
	};

	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_set(err, -errno, "cannot make a pipe: %m");
	what.stderr_fd = ends[1];
	r = spawn(&what, &child.pid, &child.pidfd, err);
	(void)close(ends[1]);
	if (r < 0) {
		(void)close(ends[0]);
		return r;
	}
	child.stderr_fd = ends[0];
	(void)fcntl(child.stderr_fd, F_SETFL, O_NONBLOCK);
	*ret = child;
	return 0;
}

int child_private_dev(void *ctx, struct error *err)
{
	static const struct {
		const char *path;
		unsigned minor;
	} memory[] = { { "/dev/null", 3 }, { "/dev/zero", 5 }, { "/dev/urandom", 9 } };
	struct stat kvm;
	bool has_kvm = stat(CHILD_KVM, &kvm) == 0;

	if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC) < 0 ||
	    mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) < 0 ||
	    mount("dev", "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=64k") < 0)
		return error_set(err, -errno, "cannot mount a private /dev: %m");
	for (size_t i = 0; i < ARRAY_SIZE(memory); i++)
		if (mknod(memory[i].path, S_IFCHR | 0666, makedev(1, memory[i].minor)) < 0 ||
		    chmod(memory[i].path, 0666) < 0)
			return error_set(err, -errno, "cannot make '%s': %m", memory[i].path);
	if (has_kvm && (mknod(CHILD_KVM, S_IFCHR | 0600, kvm.st_rdev) < 0 ||
			chown(CHILD_KVM, CHILD_UID, CHILD_UID) < 0))
		return error_set(err, -errno, "cannot make '" CHILD_KVM "': %m");
	return 0;
}

/* 1: something came; 0: nothing now; -1: end of file. */
static int read_errors(struct child *child)
{
	char buffer[4096];
	bool came = false;

	while (child->stderr_fd >= 0) {
		ssize_t n = read(child->stderr_fd, buffer, sizeof(buffer));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return came;
		if (n <= 0) {
			(void)close(TAKE_FD(child->stderr_fd));
			break;
		}
		if (child->errors.length + (size_t)n <= ERRORS_MAX)
			text_add(&child->errors, buffer, (size_t)n);
		came = true;
	}
	return came ? 1 : -1;
}

int child_wait(struct child *child, uint64_t deadline)
{
	for (;;) {
		/* poll() passes over a negative descriptor */
		struct pollfd fds[] = { { .fd = child->pidfd, .events = POLLIN },
					{ .fd = child->stderr_fd, .events = POLLIN } };
		uint64_t now = clock_now();

		if (now >= deadline)
			return -ETIMEDOUT;
		if (poll(fds, ARRAY_SIZE(fds), (int)((deadline - now) / USEC_PER_MSEC + 1)) <= 0)
			continue;
		if (fds[1].revents && read_errors(child) > 0)
			return 0;
		if (fds[0].revents)
			return 1;
	}
}

static int reap(struct child *child)
{
	siginfo_t info = { 0 };
	int r;

	do
		r = waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return -1;
	return info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
}

int child_end(struct child *child, uint64_t grace_usec)
{
	bool killed = false;
	int status = -1;

	if (child->pidfd < 0)
		return -1;
	if (process_wait(child->pidfd, grace_usec) != 1) {
		killed = true;
		(void)process_signal(child->pidfd, SIGKILL, NULL);
	}
	/* What SIGKILL does not end hangs in the kernel: not waited for. */
	if (!killed || process_wait(child->pidfd, KILL_USEC) == 1)
		status = reap(child);
	(void)read_errors(child);
	(void)close(TAKE_FD(child->pidfd));
	return killed ? -1 : status;
}

char *child_last_words(const struct child *child)
{
	const char *text = child->errors.text ? child->errors.text : "";
	size_t end = strlen(text), start;
	char *line, *words;

	while (end > 0 && strchr("\r\n ", text[end - 1]))
		end--;
	for (start = end; start > 0 && text[start - 1] != '\n'; start--)
		;
	line = xasprintf("%.*s", (int)(end - start), text + start);
	words = strncmp(line, "qemu-system-", 12) == 0 ? strstr(line, ": ") : NULL;
	if (words)
		memmove(line, words + 2, strlen(words + 2) + 1);
	return line;
}

void child_done(struct child *child)
{
	(void)child_end(child, 0);
	if (child->stderr_fd >= 0)
		(void)close(TAKE_FD(child->stderr_fd));
	text_done(&child->errors);
}
