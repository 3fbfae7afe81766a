/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/agent.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/print.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"
#include "wire/sock.h"

#define ANSWER_USEC (15 * USEC_PER_SEC)
#define REPLACED_MAX 3 /* times in the course of one question */
#define GRACE_USEC (15 * USEC_PER_SEC)
/* Without --timeout the agent's own (timers.command) ends a wait; this is only for its death. */
#define PATIENCE_USEC (7 * 86400 * USEC_PER_SEC)

struct wait {
	const struct cli *cli;
	const struct question *question;
	struct peer *peer;
	sd_event *loop;
	bool line; /* there is a progress line on the terminal */
	bool interrupted;
	bool replaced; /* the agent has said that another program takes over */
	int result;
	json_t *value;
	struct error *err;
};

static void wait_done(struct wait *wait)
{
	wait->peer = peer_close(wait->peer);
	wait->loop = sd_event_unref(wait->loop);
	if (wait->line)
		fprintf(stderr, "\r\033[K");
}

static int connect_agent(const struct cli *cli, struct error *err)
{
	CLEANUP_FREE char *path = xasprintf("%s/control.sock", cli->paths.run);
	int fd;

	fd = sock_connect_path(path, err);
	if (fd >= 0)
		return fd;
	if (fd == -EACCES || fd == -EPERM)
		return error_set(err, fd, "you may not talk to the agent at %s: run this as root",
				 path);
	if ((fd == -ENOENT || fd == -ENOTDIR || fd == -ECONNREFUSED) && *cli->paths.root)
		return error_set_class(err, ERROR_TRY_AGAIN, fd,
				       "no agent answers at %s: start it with 'droverd --root %s'",
				       path, cli->paths.root);
	if (fd == -ENOENT || fd == -ENOTDIR || fd == -ECONNREFUSED)
		return error_set_class(err, ERROR_TRY_AGAIN, fd,
				       "no agent answers at %s: start droverd ('systemctl start "
				       "droverd'), or name its directory with --root",
				       path);
	return error_prefix(err, fd, "cannot reach the agent at %s", path);
}

/* What to do when the answer did not come, in place of what the wire knows. */
static int explain(const struct wait *wait, int r, const struct error *why)
{
	const char *vm = wait->question->vm;
	const char *look = wait->question->order
				   ? "; the order may stand, look with 'drover status'"
				   : "; is it alive? 'systemctl status droverd' and its log tell";

	*wait->err = *why;
	if (r == -ETIMEDOUT && !wait->question->order)
		return error_set_class(wait->err, ERROR_TRY_AGAIN, r,
				       "the agent took the question '%s' and did not answer%s",
				       wait->question->command, look);
	if (r == -ETIMEDOUT || r == -ECONNRESET)
		return error_set_class(wait->err, ERROR_TRY_AGAIN, r,
				       "the agent %s before it answered '%s%s%s'%s",
				       r == -ETIMEDOUT ? "fell silent" : "went away",
				       wait->question->command, vm ? " " : "", vm ? vm : "", look);
	return r;
}

static void on_reply(void *ctx, int r, json_t *value, const struct error *err)
{
	struct wait *wait = ctx;

	wait->result = r < 0 ? explain(wait, r, err) : 0;
	if (r >= 0)
		wait->value = json_incref(value);
	(void)sd_event_exit(wait->loop, 0);
}

static void on_event(void *ctx, const char *name, json_t *data, json_t *whole)
{
	struct wait *wait = ctx;
	CLEANUP_FREE char *text = NULL;
	const char *reason, *vm;

	if (strcmp(name, "agent-replaced") == 0)
		wait->replaced = true;
	if (strcmp(name, "progress") != 0 || !data)
		return;
	if (wait->question->progress) {
		wait->question->progress(wait->question->ctx, data);
		/* Nobody reads any more (`| head`). */
		if (ferror(stdout))
			(void)sd_event_exit(wait->loop, 0);
		return;
	}
	if (!isatty(STDERR_FILENO))
		return;
	reason = json_string_or(data, "reason", "");
	vm = json_string_or(data, "vm", wait->question->vm);
	text = xasprintf("%s%s%s%s%s", vm ? vm : "", vm ? ": " : "",
			 json_string_or(data, "state", "waiting"), *reason ? ": " : "", reason);
	print_progress(text);
	wait->line = true;
}

/* The agent ended the conversation; our question was answered with that before. */
static void on_gone(void *ctx, const struct error *why)
{
	struct wait *wait = ctx;

	(void)sd_event_exit(wait->loop, 0);
}

static int on_interrupt(sd_event_source *source, const struct signalfd_siginfo *info,
			void *userdata)
{
	struct wait *wait = userdata;

	wait->interrupted = true;
	return sd_event_exit(wait->loop, 0);
}

static int interrupted(const struct question *question, struct error *err)
{
	if (question->order && question->vm)
		return error_set(
			err, -EINTR,
			"no longer waiting; the order to %s '%s' stands, see 'drover status "
			"%s'",
			question->command, question->vm, question->vm);
	if (question->order)
		return error_set(err, -EINTR,
				 "no longer waiting; the order '%s' stands, see 'drover ls'",
				 question->command);
	return error_set(err, -EINTR, "interrupted");
}

static int ask(struct wait *wait, const char *command, int fd, struct error *err)
{
	static const struct peer_ops ops = { .event = on_event, .gone = on_gone };
	const struct question *question = wait->question;
	uint64_t timeout = question->timeout_usec ? question->timeout_usec : ANSWER_USEC;
	int r;

	r = sd_event_new(&wait->loop);
	if (r < 0) {
		(void)close(fd);
		return error_set(err, r, "cannot make an event loop: %m");
	}
	r = peer_open(fd, wait->loop, &ops, wait, &wait->peer, err);
	if (r < 0)
		return r;
	r = sd_event_add_signal(wait->loop, NULL, SIGINT, on_interrupt, wait);
	if (r < 0)
		return error_set(err, r, "cannot wait for Ctrl-C: %m");
	r = peer_call(wait->peer, command, question->args, timeout, on_reply, wait, err);
	if (r < 0)
		return r;
	r = sd_event_loop(wait->loop);
	if (r < 0)
		return error_set(err, r, "cannot wait for the agent: %m");
	if (wait->interrupted && !question->endless)
		return interrupted(question, err);
	return wait->result;
}

/* `ret_again`: the agent became another program, which may be asked the same. */
static int ask_once(const struct cli *cli, const struct question *question, const char *command,
		    json_t **ret_value, bool *ret_again, struct error *err)
{
	CLEANUP(wait_done) struct wait wait = { .cli = cli, .question = question, .err = err };
	sigset_t interrupt, before;
	int fd, r;

	fd = connect_agent(cli, err);
	if (fd < 0)
		return fd;
	(void)sigemptyset(&interrupt);
	(void)sigaddset(&interrupt, SIGINT);
	(void)sigprocmask(SIG_BLOCK, &interrupt, &before);
	r = ask(&wait, command, fd, err);
	(void)sigprocmask(SIG_SETMASK, &before, NULL);
	if (r >= 0 && ret_value)
		*ret_value = TAKE_PTR(wait.value);
	json_decref(wait.value);
	*ret_again = r < 0 && wait.replaced && err->class == ERROR_TRY_AGAIN;
	return r;
}

int agent_ask(const struct cli *cli, const struct question *question, json_t **ret_value,
	      struct error *err)
{
	const char *command = question->command;
	bool again = true;
	int r = 0;

	for (int i = 0; again && i < REPLACED_MAX; i++) {
		r = ask_once(cli, question, command, ret_value, &again, err);
		if (again && question->replaces)
			return 0;
		again = again && !question->once && !question->endless;
		if (question->then)
			command = question->then;
	}
	return r;
}

int agent_ask_vm(const struct cli *cli, const char *command, const char *vm, json_t **ret_value,
		 struct error *err)
{
	struct question question = { .command = command, .vm = vm };
	char name[VM_ARGUMENT_SIZE];
	json_auto_t *args = NULL;
	int r;

	if (vm) {
		r = vm_argument(vm, name, err);
		if (r < 0)
			return r;
	}
	args = json_build(err, "{s:s?}", "vm", vm ? name : NULL);
	if (!args)
		return -EINVAL;
	question.args = args;
	return agent_ask(cli, &question, ret_value, err);
}

uint64_t agent_patience(const struct cli *cli)
{
	if (cli->options.timeout_usec)
		return cli->options.timeout_usec + GRACE_USEC;
	return PATIENCE_USEC;
}

json_t *agent_order_args(const struct cli *cli, const char *vm)
{
	json_t *args = json_object();

	json_set_string(args, "vm", vm);
	(void)json_object_set_new(args, "wait", json_boolean(!cli->options.no_wait));
	if (cli->options.timeout_usec)
		(void)json_object_set_new(
			args, "timeout_ms",
			json_integer((json_int_t)(cli->options.timeout_usec / USEC_PER_MSEC)));
	return args;
}

/* A part of the list.  An agent that has replaced the one that was asked begins anew. */
static void on_part(void *ctx, json_t *data)
{
	json_t *list = ctx;

	if (json_int_or(data, "before", 0) == 0)
		(void)json_array_clear(list);
	(void)json_array_extend(list, json_object_get(data, "vms"));
}

/* Agents of earlier versions answer with the whole. */
int agent_list(const struct cli *cli, json_t **ret_list, struct error *err)
{
	json_auto_t *args = json_pack("{s:b}", "parts", 1), *parts = json_array(), *rest = NULL;
	const struct question question = {
		.command = "ls",
		.args = args,
		.timeout_usec = agent_patience(cli),
		.progress = on_part,
		.ctx = parts,
	};
	int r = agent_ask(cli, &question, &rest, err);

	if (r < 0)
		return r;
	(void)json_array_extend(parts, rest);
	*ret_list = json_incref(parts);
	return 0;
}
