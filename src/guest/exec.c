/* SPDX-License-Identifier: Apache-2.0 */
/* A program in the guest, from guest-exec to its end.  The agent does not tell when it ends, so it
 * is asked again and again, soon at first and then every half second. */
#include <errno.h>
#include <string.h>

#include "guest/internal.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/base64.h"
#include "wire/json.h"

#define INPUT_MAX (1u * 1024 * 1024)
#define POLL_FIRST_USEC (20 * USEC_PER_MSEC)
#define POLL_MAX_USEC (500 * USEC_PER_MSEC)

struct exec {
	struct follow follow;
	char *program;
	json_int_t pid;
	uint64_t deadline;
	uint64_t interval;
	sd_event_source *timer;
	peer_reply_fn reply;
	void *ctx;
};

static void exec_free(struct exec *exec)
{
	follow_remove(&exec->follow);
	sd_event_source_disable_unref(exec->timer);
	free(exec->program);
	free(exec);
}

/* The guest may be closed when this returns. */
static void exec_answer(struct exec *exec, int r, json_t *value, const struct error *err)
{
	peer_reply_fn reply = exec->reply;
	void *ctx = exec->ctx;

	exec_free(exec);
	if (reply)
		reply(ctx, r, value, err);
}

static void exec_fail(struct exec *exec, int r, const struct error *err)
{
	struct error why = *err;

	if (r == -ETIMEDOUT && exec->pid)
		(void)error_set(&why, r, "%s still runs in the guest (pid %lld) after its time",
				exec->program, (long long)exec->pid);
	else
		(void)error_prefix(&why, r, "%s", exec->program);
	exec_answer(exec, r, NULL, &why);
}

static void on_end(struct follow *follow, const struct error *why)
{
	struct exec *exec = container_of(follow, struct exec, follow);

	if (why)
		exec_fail(exec, -ECONNRESET, why);
	else
		exec_free(exec);
}

/* Only what the guest said in the right type gets through. */
static json_t *exec_result(json_t *status)
{
	json_t *result = json_object();
	json_t *code = json_object_get(status, "exitcode");
	json_t *sign = json_object_get(status, "signal");

	if (json_is_integer(sign))
		json_object_set(result, "signal", sign);
	else
		json_object_set_new(
			result, "exitcode",
			json_integer(json_is_integer(code) ? json_integer_value(code) : 0));
	json_set_string(result, "out", json_string_or(status, "out-data", ""));
	json_set_string(result, "err", json_string_or(status, "err-data", ""));
	json_object_set_new(result, "out-truncated",
			    json_boolean(json_bool_or(status, "out-truncated", false)));
	json_object_set_new(result, "err-truncated",
			    json_boolean(json_bool_or(status, "err-truncated", false)));
	return result;
}

static int exec_wait(struct exec *exec, struct error *err);

static void on_status(void *ctx, int r, json_t *value, const struct error *err)
{
	struct exec *exec = ctx;
	json_auto_t *result = NULL;
	struct error why = { 0 };

	if (r < 0) {
		exec_fail(exec, r, err);
		return;
	}
	if (json_bool_or(value, "exited", false)) {
		result = exec_result(value);
		exec_answer(exec, 0, result, NULL);
		return;
	}
	r = exec_wait(exec, &why);
	if (r < 0)
		exec_fail(exec, r, &why);
}

static int exec_ask(struct exec *exec, struct error *err)
{
	json_auto_t *args = json_build(err, "{s:I}", "pid", exec->pid);
	uint64_t now = clock_now();

	if (!args)
		return -EINVAL;
	if (now >= exec->deadline)
		return error_set(err, -ETIMEDOUT, "its time is over");
	return guest_call(exec->follow.guest, "guest-exec-status", args, exec->deadline - now,
			  on_status, exec, err);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct exec *exec = ctx;
	struct error err = { 0 };
	int r;

	r = exec_ask(exec, &err);
	/* Others fill the queue: later, then. */
	if (r == -EAGAIN)
		r = exec_wait(exec, &err);
	if (r < 0)
		exec_fail(exec, r, &err);
	return 0;
}

static int exec_wait(struct exec *exec, struct error *err)
{
	uint64_t now = clock_now();
	uint64_t when =
		now + exec->interval < exec->deadline ? now + exec->interval : exec->deadline;
	int r;

	if (now >= exec->deadline)
		return error_set(err, -ETIMEDOUT, "its time is over");
	exec->interval = exec->interval * 2 < POLL_MAX_USEC ? exec->interval * 2 : POLL_MAX_USEC;
	exec->timer = sd_event_source_disable_unref(exec->timer);
	r = sd_event_add_time(guest_loop(exec->follow.guest), &exec->timer, CLOCK_BOOTTIME, when, 0,
			      on_timer, exec);
	return r < 0 ? error_set(err, r, "cannot set a timer: %m") : 0;
}

static void on_started(void *ctx, int r, json_t *value, const struct error *err)
{
	struct exec *exec = ctx;
	struct error why = { 0 };
	int64_t pid = 0;

	if (r < 0) {
		exec_fail(exec, r, err);
		return;
	}
	r = json_need_int(value, "pid", &pid, &why);
	if (r == 0) {
		exec->pid = pid;
		r = exec_wait(exec, &why);
	}
	if (r < 0)
		exec_fail(exec, r, &why);
}

static json_t *exec_args(const char *const *argv, const void *input, size_t input_length,
			 struct error *err)
{
	json_auto_t *list = json_array();
	CLEANUP_FREE char *base64 = NULL;

	for (size_t i = 1; argv[i]; i++)
		if (json_array_append_new(list, json_string(argv[i])) < 0) {
			(void)error_bad_data(err,
					     "argument %zu is not UTF-8, which the guest agent "
					     "cannot carry",
					     i);
			return NULL;
		}
	if (input)
		base64 = base64_encode(input, input_length);
	return json_build(err, "{s:s, s:O, s:s*, s:b}", "path", argv[0], "arg", list, "input-data",
			  base64, "capture-output", 1);
}

int guest_exec(struct guest *guest, const char *const *argv, const void *input, size_t input_length,
	       uint64_t timeout_usec, peer_reply_fn reply, void *ctx, struct error *err)
{
	json_auto_t *args = NULL;
	struct exec *exec;
	int r;

	if (!argv[0])
		return error_bad_data(err, "there is no command to run in the guest");
	if (input && input_length > INPUT_MAX)
		return error_bad_data(err, "the input for %s is larger than %u MiB", argv[0],
				      INPUT_MAX >> 20);
	args = exec_args(argv, input, input_length, err);
	if (!args)
		return error_prefix(err, -EINVAL, "%s", argv[0]);
	exec = xcalloc(1, sizeof(*exec));
	*exec = (struct exec){
		.program = xstrdup(argv[0]),
		.deadline = clock_now() + timeout_usec,
		.interval = POLL_FIRST_USEC,
		.reply = reply,
		.ctx = ctx,
		.follow.end = on_end,
	};
	follow_add(guest, &exec->follow);
	r = guest_call(guest, "guest-exec", args, timeout_usec, on_started, exec, err);
	if (r < 0) {
		exec_free(exec);
		return error_prefix(err, r, "%s", argv[0]);
	}
	return 0;
}
