/* SPDX-License-Identifier: Apache-2.0 */
/* Tools: programs run to their end for what they print.  The pidfd says when one has ended, so no
 * SIGCHLD is needed.  A tool gets a session of its own: past its deadline it goes with all that it
 * started.  One that even SIGKILL does not end (a dead disk, a dead NFS) is given up, not waited
 * for; it is reaped if it ever ends. */
#include "util/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "util/process.h"

#define OUTPUT_MAX (64u * 1024)
#define KILL_GRACE_USEC (2 * USEC_PER_SEC)
#define TIMER_ACCURACY USEC_PER_MSEC

struct output {
	int fd; /* non-blocking; -1 at its end */
	sd_event_source *source;
	struct text text;
};

struct tool {
	char *name;
	pid_t pid;
	int pidfd;
	bool killed;
	bool timed_out;
	struct output out, errors;
	sd_event_source *exit_source;
	sd_event_source *timer;
	uint64_t timeout_usec;
	tool_done_fn done;
	void *ctx;
};

void tool_result_done(struct tool_result *result)
{
	free(result->out);
	free(result->err_text);
	*result = (struct tool_result){ 0 };
}

static void output_close(struct output *output)
{
	output->source = sd_event_source_disable_unref(output->source);
	if (output->fd >= 0)
		(void)close(output->fd);
	output->fd = -1;
}

static void tool_free(struct tool *tool)
{
	output_close(&tool->out);
	output_close(&tool->errors);
	text_done(&tool->out.text);
	text_done(&tool->errors.text);
	tool->timer = sd_event_source_disable_unref(tool->timer);
	if (tool->pidfd >= 0)
		(void)close(tool->pidfd);
	free(tool->name);
	free(tool);
}

/* The group is named by the number of a child that was not reaped: it cannot be anybody else's. */
static void tool_kill(struct tool *tool)
{
	if (tool->killed)
		return;
	tool->killed = true;
	(void)kill(-tool->pid, SIGKILL);
	(void)process_signal(tool->pidfd, SIGKILL, NULL);
}

/* One pass: false when there is nothing more for now. */
static bool output_read(struct output *output)
{
	char chunk[16384];
	ssize_t n = read(output->fd, chunk, sizeof(chunk));
	size_t room = OUTPUT_MAX - output->text.length;

	if (n < 0)
		return errno == EINTR;
	if (n == 0) {
		output_close(output);
		return false;
	}
	/* What is too much is read and dropped, so that the tool never waits for us. */
	text_add(&output->text, chunk, (size_t)n < room ? (size_t)n : room);
	return true;
}

static int on_output(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct output *output = ctx;

	(void)output_read(output);
	return 0;
}

/* What it wrote before it ended; a descendant that still holds the pipe may write on for ever, so
 * this stops at twice what can be kept. */
static void output_drain(struct output *output)
{
	for (size_t passes = 0; output->fd >= 0 && passes < 2 * OUTPUT_MAX / 16384; passes++)
		if (!output_read(output))
			break;
	output_close(output);
}

/* Tells the owner, once.  From here on the tool lives for `exit_source` only. */
static void tool_finish(struct tool *tool, int r, int code, const struct error *err)
{
	struct tool_result result = { .code = code };
	tool_done_fn done = tool->done;

	output_drain(&tool->out);
	output_drain(&tool->errors);
	text_add(&tool->out.text, "", 0);
	text_add(&tool->errors.text, "", 0);
	result.out_length = tool->out.text.length;
	result.out = TAKE_PTR(tool->out.text.text);
	result.err_text = TAKE_PTR(tool->errors.text.text);
	tool->timer = sd_event_source_disable_unref(tool->timer);
	tool->done = NULL;
	done(tool->ctx, r, &result, err);
	tool_result_done(&result);
}

static int tool_give_up(struct tool *tool)
{
	struct error err;
	int r;

	r = error_set(&err, -ETIMEDOUT, "'%s' did not end within %.1f s and was killed", tool->name,
		      (double)tool->timeout_usec / USEC_PER_SEC);
	tool_finish(tool, r, 128 + SIGKILL, &err);
	return 0;
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct tool *tool = ctx;

	if (tool->timed_out)
		return tool_give_up(tool);
	tool->timed_out = true;
	tool_kill(tool);
	(void)sd_event_source_set_time_relative(source, KILL_GRACE_USEC);
	(void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

/* Freed with the source, so that a loop that ends takes its tools along. */
static void on_source_gone(void *ctx)
{
	tool_free(ctx);
}

/* on_end() ends this way: the source goes, and on_source_gone() frees the tool. */
static void tool_release(struct tool *tool)
{
	sd_event_source *source = sd_event_source_ref(tool->exit_source);

	(void)sd_event_source_set_floating(source, false);
	(void)sd_event_source_disable_unref(source);
}

static int on_end(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct tool *tool = ctx;
	siginfo_t info = { 0 };
	struct error err;
	int code, r;

	/* The group first: as long as its leader is not reaped, its number is ours. */
	if (tool->timed_out || !tool->done)
		(void)kill(-tool->pid, SIGKILL);
	r = waitid(P_PIDFD, (id_t)tool->pidfd, &info, WEXITED | WNOHANG) < 0 ? -errno : 0;
	if (r == 0 && info.si_pid == 0)
		return 0;
	if (r < 0)
		(void)error_set(&err, r, "'%s' ended, but its exit code cannot be told: %m",
				tool->name);
	code = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
	tool->killed = true; /* reaped: the number may be anybody's from now on */
	if (tool->done && tool->timed_out)
		(void)tool_give_up(tool);
	else if (tool->done)
		tool_finish(tool, r, code, r < 0 ? &err : NULL);
	tool_release(tool);
	return 0;
}

static int output_open(struct output *output, int *ret_write_end)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	output->fd = ends[0];
	*ret_write_end = ends[1];
	return fcntl(output->fd, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

static int tool_watch(struct tool *tool, sd_event *loop)
{
	int r;

	r = sd_event_add_io(loop, &tool->out.source, tool->out.fd, EPOLLIN, on_output, &tool->out);
	if (r < 0)
		return r;
	r = sd_event_add_io(loop, &tool->errors.source, tool->errors.fd, EPOLLIN, on_output,
			    &tool->errors);
	if (r < 0)
		return r;
	r = sd_event_add_time_relative(loop, &tool->timer, CLOCK_BOOTTIME, tool->timeout_usec,
				       TIMER_ACCURACY, on_deadline, tool);
	if (r < 0)
		return r;
	return sd_event_add_io(loop, &tool->exit_source, tool->pidfd, EPOLLIN, on_end, tool);
}

/* Opens the pipes and starts the program. */
static int tool_spawn(struct tool *tool, const struct spawn *what, struct error *err)
{
	struct spawn mine = *what;
	CLEANUP_FD int out = -1;
	CLEANUP_FD int errors = -1;
	int r;

	r = output_open(&tool->out, &out);
	if (r >= 0)
		r = output_open(&tool->errors, &errors);
	if (r < 0)
		return error_set(err, r, "cannot make a pipe for '%s': %m", tool->name);
	mine.stdout_fd = out;
	mine.stderr_fd = errors;
	mine.new_session = true;
	mine.die_with_parent = true;
	return spawn(&mine, &tool->pid, &tool->pidfd, err);
}

int tool_start(sd_event *loop, const struct spawn *what, uint64_t timeout_usec, tool_done_fn done,
	       void *ctx, struct tool **ret_tool, struct error *err)
{
	struct tool *tool = xcalloc(1, sizeof(*tool));
	int r;

	*tool = (struct tool){ .name = xstrdup(what->argv[0]),
			       .pidfd = -1,
			       .out.fd = -1,
			       .errors.fd = -1,
			       .timeout_usec = timeout_usec,
			       .done = done,
			       .ctx = ctx };
	r = tool_spawn(tool, what, err);
	if (r < 0) {
		tool_free(tool);
		return r;
	}
	r = tool_watch(tool, loop);
	if (r < 0) {
		(void)error_set(err, r, "cannot watch '%s': %m", tool->name);
		tool_kill(tool);
		while (waitid(P_PIDFD, (id_t)tool->pidfd, NULL, WEXITED) < 0 && errno == EINTR)
			;
		tool_free(tool);
		return r;
	}
	(void)sd_event_source_set_destroy_callback(tool->exit_source, on_source_gone);
	(void)sd_event_source_set_floating(tool->exit_source, true);
	(void)sd_event_source_unref(tool->exit_source); /* the loop has its own reference now */
	if (ret_tool)
		*ret_tool = tool;
	return 0;
}

struct tool *tool_cancel(struct tool *tool)
{
	if (!tool)
		return NULL;
	tool->done = NULL;
	output_close(&tool->out);
	output_close(&tool->errors);
	tool->timer = sd_event_source_disable_unref(tool->timer);
	tool_kill(tool);
	return NULL;
}

struct run {
	sd_event *loop;
	struct tool_result *ret;
	struct error *err;
};

static void on_run_done(void *ctx, int r, struct tool_result *result, const struct error *err)
{
	struct run *run = ctx;

	if (r < 0 && run->err)
		*run->err = *err;
	if (r >= 0 && run->ret) {
		*run->ret = *result;
		*result = (struct tool_result){ 0 };
	}
	(void)sd_event_exit(run->loop, r);
}

int tool_run(const struct spawn *what, uint64_t timeout_usec, struct tool_result *ret,
	     struct error *err)
{
	CLEANUP(sd_event_unrefp) sd_event *loop = NULL;
	struct run run = { .ret = ret, .err = err };
	int r;

	r = sd_event_new(&loop);
	if (r < 0)
		return error_set(err, r, "cannot make an event loop: %m");
	run.loop = loop;
	r = tool_start(loop, what, timeout_usec, on_run_done, &run, NULL, err);
	if (r < 0)
		return r;
	return sd_event_loop(loop);
}
