/* SPDX-License-Identifier: Apache-2.0 */
/* drover console: bytes between the terminal and the guest's serial port, over a socket of the
 * keeper's.  Whatever ends it, the terminal is given back as it was; signals therefore come as
 * readable data (signalfd), not in the middle of something. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "cli/agent.h"
#include "cli/cli.h"
#include "cli/logs.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "wire/json.h"
#include "wire/sock.h"

#define ESCAPE 0x1d /* Ctrl-] */

enum { SOCKET, INPUT, SIGNALS, DESCRIPTORS };

struct line {
	struct pollfd fds[DESCRIPTORS]; /* fd is -1 once that side has ended */
	char pending[4096];		/* from the terminal, not yet taken by the guest */
	size_t n_pending;
	bool raw;
	struct termios before;
};

static void line_done(struct line *line)
{
	if (line->raw)
		(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &line->before);
	if (line->fds[SOCKET].fd >= 0)
		(void)close(line->fds[SOCKET].fd);
	if (line->fds[SIGNALS].fd >= 0)
		(void)close(line->fds[SIGNALS].fd);
}

static int catch_signals(struct line *line, struct error *err)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGHUP);
	(void)sigaddset(&set, SIGQUIT);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	line->fds[SIGNALS].fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (line->fds[SIGNALS].fd < 0)
		return error_set(err, -errno, "cannot wait for signals: %m");
	return 0;
}

static int make_raw(struct line *line, struct error *err)
{
	struct termios raw;

	if (!isatty(STDIN_FILENO))
		return 0;
	if (tcgetattr(STDIN_FILENO, &line->before) < 0)
		return error_set(err, -errno, "cannot read the state of the terminal: %m");
	raw = line->before;
	cfmakeraw(&raw);
	if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw) < 0)
		return error_set(err, -errno, "cannot make the terminal raw: %m");
	line->raw = true;
	return 0;
}

static int write_all(int fd, const char *bytes, size_t length)
{
	while (length > 0) {
		ssize_t n = write(fd, bytes, length);
		struct pollfd writable = { .fd = fd, .events = POLLOUT };

		if (n < 0 && errno == EAGAIN)
			(void)poll(&writable, 1, -1);
		else if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			bytes += n;
			length -= (size_t)n;
		}
	}
	return 0;
}

/* Each of these: 1 go on, 0 the end, negative an error. */
static int from_guest(struct line *line, struct error *err)
{
	char buffer[16384];
	ssize_t n = read(line->fds[SOCKET].fd, buffer, sizeof(buffer));
	int r;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 1;
	if (n < 0 && errno != ECONNRESET)
		return error_set(err, -errno, "cannot read from the console: %m");
	if (n <= 0)
		return 0;
	r = write_all(STDOUT_FILENO, buffer, (size_t)n);
	if (r == -EPIPE)
		return 0;
	return r < 0 ? error_set(err, r, "cannot write the output: %m") : 1;
}

static int from_terminal(struct line *line, struct error *err)
{
	size_t room = sizeof(line->pending) - line->n_pending;
	char buffer[sizeof(line->pending)];
	ssize_t n = read(STDIN_FILENO, buffer, sizeof(buffer));
	const char *escape;
	size_t length;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 1;
	/* The end of a pipe is only the end of what is said; a terminal that hung up says EIO. */
	if (n <= 0) {
		line->fds[INPUT].fd = -1;
		return line->raw || n < 0 ? 0 : 1;
	}
	escape = memchr(buffer, ESCAPE, (size_t)n);
	length = escape ? (size_t)(escape - buffer) : (size_t)n;
	length = length < room ? length : room;
	memcpy(line->pending + line->n_pending, buffer, length);
	line->n_pending += length;
	return escape ? 0 : 1;
}

static int to_guest(struct line *line, struct error *err)
{
	ssize_t n;

	if (line->n_pending == 0)
		return 1;
	n = write(line->fds[SOCKET].fd, line->pending, line->n_pending);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 1;
	/* What it said before it went is still to be read. */
	if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
		n = (ssize_t)line->n_pending;
	if (n < 0)
		return error_set(err, -errno, "cannot write to the console: %m");
	line->n_pending -= (size_t)n;
	memmove(line->pending, line->pending + n, line->n_pending);
	return 1;
}

/* A guest that does not read must not keep the user from leaving: a terminal is read all the same,
 * and what is typed past the buffer is lost, as on any serial line.  A pipe waits. */
static short input_events(const struct line *line)
{
	return line->raw || line->n_pending == 0 ? POLLIN : 0;
}

/* 128 + signal after one. */
static int signal_code(const struct line *line)
{
	struct signalfd_siginfo info = { .ssi_signo = SIGTERM };

	(void)!read(line->fds[SIGNALS].fd, &info, sizeof(info));
	return 128 + (int)info.ssi_signo;
}

static int carry(struct line *line, struct error *err)
{
	struct pollfd *fds = line->fds;
	int r = 1;

	while (r > 0) {
		fds[SOCKET].events = POLLIN | (line->n_pending > 0 ? POLLOUT : 0);
		fds[INPUT].events = input_events(line);
		fds[SIGNALS].events = POLLIN;
		if (poll(fds, DESCRIPTORS, -1) < 0) {
			if (errno == EINTR)
				continue;
			return error_set(err, -errno, "cannot wait for the console: %m");
		}
		if (fds[SIGNALS].revents)
			return signal_code(line);
		if (fds[SOCKET].revents & (POLLIN | POLLHUP | POLLERR))
			r = from_guest(line, err);
		if (r > 0 && fds[INPUT].revents && input_events(line)) {
			r = from_terminal(line, err);
			if (r == 0)
				(void)to_guest(line, err); /* what was typed before the escape */
		}
		if (r > 0)
			r = to_guest(line, err);
	}
	return r;
}

static int attach(struct cli *cli, struct error *err)
{
	CLEANUP(line_done)
	struct line line = { .fds = { { .fd = -1 }, { .fd = -1 }, { .fd = -1 } } };
	json_auto_t *answer = NULL;
	const char *path;
	int r;

	r = agent_ask_vm(cli, "console", cli->args[0], &answer, err);
	if (r < 0)
		return r;
	r = json_need_string(answer, "socket", &path, err);
	if (r < 0)
		return error_prefix(err, r, "the agent's answer");
	line.fds[SOCKET].fd = sock_connect_path(path, err);
	if (line.fds[SOCKET].fd < 0)
		return error_try_again(err,
				       "the console of '%s' does not answer at %s; 'drover status "
				       "%s' tells its state",
				       cli->args[0], path, cli->args[0]);
	line.fds[INPUT].fd = STDIN_FILENO;
	r = catch_signals(&line, err);
	if (r < 0)
		return r;
	r = make_raw(&line, err);
	if (r < 0)
		return r;
	if (line.raw)
		fprintf(stderr, "[console of %s: Ctrl-] ends]\r\n", cli->args[0]);
	r = carry(&line, err);
	if (line.raw)
		fprintf(stderr, "\r\n[end of console]\r\n");
	return r;
}

int run_console(struct cli *cli, struct error *err)
{
	if (!(cli->options.given & OPTION_LINES))
		return attach(cli, err);
	return logs_print(cli, cli->args[0], "serial", cli->options.lines, err);
}
