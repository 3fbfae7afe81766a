/* SPDX-License-Identifier: Apache-2.0 */
#include "node/console.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "model/config.h"
#include "node/job.h"
#include "node/node.h"
#include "node/remote.h"
#include "node/vm.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"
#include "util/mem.h"
#include "wire/base64.h"
#include "wire/json.h"
#include "wire/peer.h"
#include "wire/sock.h"

#define CHUNK 16384
#define CONNECT_PATIENCE (30 * USEC_PER_SEC) /* for the client to come to its socket */

/* Bytes that came as {"bytes": base64}, to a socket; who does not read in time misses some, as at
 * the keeper's own socket. */
static void give(int fd, json_t *data)
{
	CLEANUP_FREE unsigned char *bytes = NULL;
	size_t length;

	if (base64_decode(json_string_or(data, "bytes", ""), &bytes, &length, NULL) == 0 &&
	    length > 0)
		(void)send(fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* What there is to read as such an object; NULL: nothing now, `*ret_end`: nor ever. */
static json_t *take(int fd, bool *ret_end)
{
	CLEANUP_FREE char *text = NULL;
	char bytes[CHUNK];
	ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	*ret_end = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
	if (n <= 0)
		return NULL;
	text = base64_encode(bytes, (size_t)n);
	return json_pack("{s:s}", "bytes", text);
}

/* ---- where the user is ---- */

struct stand_in {
	struct job job;
	struct request *request; /* NULL once the path was told */
	struct remote *remote;
	char name[64]; /* of the socket, in RUN */
	int listener, client;
	sd_event_source *source, *deadline;
};

static void stand_in_done(struct job *job)
{
	struct stand_in *at = container_of(job, struct stand_in, job);
	struct error err = { 0 };

	(void)error_try_again(&err, "the agent is being ended");
	if (at->request)
		request_fail(at->request, &err);
	sd_event_source_disable_unref(at->source);
	sd_event_source_disable_unref(at->deadline);
	if (at->listener >= 0) {
		(void)unlinkat(job->node->run_fd, at->name, 0);
		(void)close(at->listener);
	}
	cleanup_closep(&at->client);
}

static void stand_in_end(struct stand_in *at)
{
	at->remote = remote_cancel(at->remote);
	job_end(&at->job);
}

static int on_typed(sd_event_source *source, int fd, uint32_t revents, void *ctx)
{
	struct stand_in *at = ctx;
	bool end;
	json_auto_t *data = take(fd, &end);

	if (data)
		remote_tell(at->remote, "input", data);
	else if (end)
		stand_in_end(at);
	return 0;
}

/* It was for one client, and that is there. */
static void close_door(struct stand_in *at)
{
	at->source = sd_event_source_disable_unref(at->source);
	at->deadline = sd_event_source_disable_unref(at->deadline);
	(void)unlinkat(at->job.node->run_fd, at->name, 0);
	(void)close(at->listener);
	at->listener = -1;
}

static int on_client(sd_event_source *source, int fd, uint32_t revents, void *ctx)
{
	struct stand_in *at = ctx;

	at->client = sock_accept(fd, NULL);
	if (at->client < 0)
		return 0;
	close_door(at);
	if (sd_event_add_io(at->job.node->loop, &at->source, at->client, EPOLLIN, on_typed, at) < 0)
		stand_in_end(at);
	return 0;
}

static int on_nobody(sd_event_source *source, uint64_t usec, void *ctx)
{
	stand_in_end(ctx);
	return 0;
}

static int open_door(struct stand_in *at, struct error *err)
{
	struct node *node = at->job.node;
	char id[33];

	file_random_id(id);
	(void)snprintf(at->name, sizeof(at->name), "console-%s.sock", id);
	at->listener = sock_listen(node->run_fd, at->name, 0600, err);
	if (at->listener < 0)
		return at->listener;
	node_timer(node, &at->deadline, CONNECT_PATIENCE, on_nobody, at);
	return sd_event_add_io(node->loop, &at->source, at->listener, EPOLLIN, on_client, at);
}

/* The first word says that the console is there: now there is something to connect to. */
static void tell_path(struct stand_in *at)
{
	CLEANUP_FREE char *path = NULL;
	json_auto_t *answer = NULL;
	struct error err = { 0 };

	if (open_door(at, &err) < 0) {
		request_fail(at->request, &err);
		at->request = NULL;
		stand_in_end(at);
		return;
	}
	path = xasprintf("%s/%s", at->job.node->config->paths.run, at->name);
	answer = json_pack("{s:s, s:n}", "socket", path, "log");
	request_return(at->request, answer);
	at->request = NULL;
}

static void on_said(void *ctx, json_t *data)
{
	struct stand_in *at = ctx;

	if (at->request)
		tell_path(at);
	else if (at->client >= 0)
		give(at->client, data);
}

static void on_end(void *ctx, int r, json_t *value, const struct error *err)
{
	struct stand_in *at = ctx;
	struct error why = { 0 };

	at->remote = NULL;
	if (r < 0)
		why = *err;
	else
		(void)error_try_again(&why, "the console closed");
	if (at->request)
		request_fail(at->request, &why);
	at->request = NULL;
	stand_in_end(at);
}

void console_request(struct node *node, struct request *request, const char *to,
		     const char *address)
{
	static const struct remote_ops ops = { .reply = on_end, .progress = on_said };
	struct stand_in *at = xcalloc(1, sizeof(*at));
	const struct remote_question question = {
		.address = address,
		.node = to,
		.command = "console-attach",
		.args = request_args(request),
		.timeout_usec = UINT64_MAX,
	};
	struct error err = { 0 };

	at->request = request;
	at->listener = at->client = -1;
	job_begin(&at->job, node, stand_in_done);
	if (remote_ask(node, &question, &ops, at, &at->remote, &err) >= 0)
		return;
	request_fail(request, &err);
	at->request = NULL;
	stand_in_end(at);
}

/* ---- where the VM is ---- */

struct caller_console {
	struct request *request;
	int fd; /* to the keeper */
	sd_event_source *source;
};

static int on_guest(sd_event_source *source, int fd, uint32_t revents, void *ctx)
{
	struct caller_console *console = ctx;
	bool end;
	json_auto_t *data = take(fd, &end);

	if (data)
		request_progress(console->request, data);
	else if (end && console->request) {
		(void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
		request_return(console->request, NULL);
		console->request = NULL;
	}
	return 0;
}

int console_attach(struct node *node, struct request *request, struct caller_console **ret,
		   struct error *err)
{
	const struct node_vm *vm = vm_of_request(node, request, err);
	CLEANUP_FREE char *path = NULL;
	char source[VM_SOURCE_SIZE];
	struct command_facts facts;
	struct caller_console *console;
	int fd, r;

	if (!vm)
		return -ENOENT;
	vm_facts(vm, &facts, source);
	r = command_check(COMMAND_CONSOLE, &facts, err);
	if (r < 0)
		return r;
	path = xasprintf("%s/vms/%s/console.sock", node->config->paths.run, vm->name);
	fd = sock_connect_path(path, err);
	if (fd < 0)
		return fd;
	console = xcalloc(1, sizeof(*console));
	console->fd = fd;
	console->request = request;
	r = sd_event_add_io(node->loop, &console->source, fd, EPOLLIN, on_guest, console);
	if (r < 0) {
		console->request = NULL;
		console_detach(console);
		return error_set(err, r, "cannot watch the console: %m");
	}
	request_progress(request, NULL);
	*ret = console;
	return 0;
}

void console_input(struct caller_console *console, json_t *data)
{
	give(console->fd, data);
}

struct caller_console *console_detach(struct caller_console *console)
{
	if (!console)
		return NULL;
	sd_event_source_disable_unref(console->source);
	(void)close(console->fd);
	/* Into the void, when who asked has gone. */
	if (console->request)
		request_return(console->request, NULL);
	free(console);
	return NULL;
}
