/* SPDX-License-Identifier: Apache-2.0 */
/* QMP for programs that wait: probes, tools and tests.  One command after another over a socket,
 * each within the time given at the start; what is not the answer (events, late answers of
 * commands that were given up) is thrown away. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "qmp/qmp.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/stream.h"

#define READ_SIZE (64u * 1024)

struct qmp_tool {
	int fd;
	uint64_t timeout_usec;
	json_int_t last_id;
	char *buffer;
	size_t length, capacity, scanned; /* `scanned` bytes hold no newline */
};

/* Waits until the socket can be read or written; both directions share the deadline. */
static int tool_wait(struct qmp_tool *tool, short events, uint64_t deadline, struct error *err)
{
	struct pollfd pollfd = { .fd = tool->fd, .events = events };

	for (;;) {
		uint64_t now = clock_now();
		uint64_t left = deadline > now ? (deadline - now + 999) / USEC_PER_MSEC : 0;
		int r = poll(&pollfd, 1, left > INT32_MAX ? INT32_MAX : (int)left);

		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return error_set(err, -errno, "cannot wait for the QEMU monitor: %m");
		if (r == 0 && clock_now() >= deadline)
			return error_set(err, -ETIMEDOUT,
					 "the QEMU monitor did not answer within %.1f s",
					 (double)tool->timeout_usec / USEC_PER_SEC);
	}
}

static int tool_write(struct qmp_tool *tool, const char *text, size_t length, uint64_t deadline,
		      struct error *err)
{
	while (length > 0) {
		ssize_t n = send(tool->fd, text, length, MSG_NOSIGNAL | MSG_DONTWAIT);
		int r;

		if (n >= 0) {
			text += n;
			length -= (size_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return error_set(err, -ECONNRESET, "cannot write to the QEMU monitor: %m");
		r = tool_wait(tool, POLLOUT, deadline, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int tool_read(struct qmp_tool *tool, uint64_t deadline, struct error *err)
{
	ssize_t n;

	if (tool->length >= QMP_LINE_MAX)
		return error_set(err, -EMSGSIZE, "the QEMU monitor sent a line over %u MiB",
				 QMP_LINE_MAX >> 20);
	if (tool->capacity - tool->length < READ_SIZE) {
		tool->capacity = tool->capacity * 2 + READ_SIZE;
		tool->buffer = xrealloc(tool->buffer, tool->capacity, 1);
	}
	n = recv(tool->fd, tool->buffer + tool->length, READ_SIZE, MSG_DONTWAIT);
	if (n > 0) {
		tool->length += (size_t)n;
		return 0;
	}
	if (n == 0)
		return error_set(err, -ECONNRESET, "QEMU closed its monitor");
	if (errno == EINTR)
		return 0;
	if (errno != EAGAIN)
		return error_set(err, -ECONNRESET, "cannot read from the QEMU monitor: %m");
	return tool_wait(tool, POLLIN, deadline, err);
}

/* The next message, a new reference. */
static int tool_message(struct qmp_tool *tool, uint64_t deadline, json_t **ret, struct error *err)
{
	for (;;) {
		char *newline = NULL;
		size_t line;
		int r;

		if (tool->length > tool->scanned)
			newline = memchr(tool->buffer + tool->scanned, '\n',
					 tool->length - tool->scanned);
		if (!newline) {
			tool->scanned = tool->length;
			r = tool_read(tool, deadline, err);
			if (r < 0)
				return r;
			continue;
		}
		line = (size_t)(newline - tool->buffer);
		r = json_parse(tool->buffer, line, ret, err);
		tool->length -= line + 1;
		memmove(tool->buffer, newline + 1, tool->length);
		tool->scanned = 0;
		return r < 0 ? error_prefix(err, r, "QEMU monitor") : 0;
	}
}

static int tool_greeted(struct qmp_tool *tool, struct error *err)
{
	uint64_t deadline = clock_now() + tool->timeout_usec;
	json_auto_t *greeting = NULL;
	int r;

	r = tool_message(tool, deadline, &greeting, err);
	if (r < 0)
		return r;
	if (!json_is_object(json_object_get(greeting, "QMP")))
		return error_set(err, -EPROTO,
				 "this is no QEMU monitor: it does not open with a QMP greeting");
	return qmp_tool_call(tool, "qmp_capabilities", NULL, NULL, err);
}

int qmp_tool_open(int fd, uint64_t timeout_usec, struct qmp_tool **ret_tool, struct error *err)
{
	struct qmp_tool *tool = xcalloc(1, sizeof(*tool));
	int r;

	*tool = (struct qmp_tool){ .fd = fd, .timeout_usec = timeout_usec };
	r = tool_greeted(tool, err);
	if (r < 0) {
		qmp_tool_close(tool);
		return r;
	}
	*ret_tool = tool;
	return 0;
}

/* 1: it was the answer to `id`, with its value or error; 0: something else. */
static int answer_take(json_t *message, json_int_t id, const char *command, json_t **ret_value,
		       struct error *err)
{
	json_t *refusal = json_object_get(message, "error");
	json_t *value = json_object_get(message, "return");
	json_t *answer_id = json_object_get(message, "id");

	if (!json_is_integer(answer_id) || json_integer_value(answer_id) != id)
		return 0;
	if (refusal)
		return error_set(err, -EREMOTEIO, "%s: %s", command,
				 json_string_or(refusal, "desc", "refused without a reason"));
	if (!value)
		return 0;
	if (ret_value)
		*ret_value = json_incref(value);
	return 1;
}

int qmp_tool_call(struct qmp_tool *tool, const char *command, json_t *args, json_t **ret_value,
		  struct error *err)
{
	uint64_t deadline = clock_now() + tool->timeout_usec;
	json_int_t id = ++tool->last_id;
	json_auto_t *request = NULL;
	CLEANUP_FREE char *text = NULL;
	CLEANUP_FREE char *line = NULL;
	int r;

	request = json_build(err, "{s:s, s:O*, s:I}", "execute", command, "arguments", args, "id",
			     id);
	if (!request)
		return -EINVAL;
	text = json_print(request);
	line = xasprintf("%s\n", text);
	r = tool_write(tool, line, strlen(line), deadline, err);
	while (r == 0) {
		json_auto_t *message = NULL;

		r = tool_message(tool, deadline, &message, err);
		if (r < 0)
			break;
		r = answer_take(message, id, command, ret_value, err);
		if (r < 0)
			return r;
	}
	return r < 0 ? error_prefix(err, r, "%s", command) : 0;
}

struct qmp_tool *qmp_tool_close(struct qmp_tool *tool)
{
	if (!tool)
		return NULL;
	(void)close(tool->fd);
	free(tool->buffer);
	free(tool);
	return NULL;
}
