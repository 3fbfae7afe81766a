/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "guest/guest.h"
#include "keeper/keeper.h"
#include "model/config.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/base64.h"
#include "wire/json.h"
#include "wire/peer.h"
#include "wire/sock.h"

#define ASKS_MAX 64
#define ARGV_MAX 256
#define CONNECT_AGAIN (1 * USEC_PER_SEC)

/* A user's command, from the moment it came until it was answered. */
struct ask {
	struct ask *next;
	struct agent *agent;
	struct request *request;
	uint64_t deadline; /* clock_now() */
	bool sent;
	sd_event_source *timer; /* while it waits for the agent to appear */
	void (*send)(struct ask *ask);
};

struct agent {
	struct keeper *keeper;
	struct guest *guest; /* while the port is open */
	bool open, answering, pinging;
	sd_event_source *again; /* the next connection, after one broke while the port is open */
	struct ask *asks;
	size_t n_asks;
};

static void ask_end(struct ask *ask)
{
	struct agent *agent = ask->agent;

	for (struct ask **at = &agent->asks; *at; at = &(*at)->next) {
		if (*at != ask)
			continue;
		*at = ask->next;
		agent->n_asks--;
		break;
	}
	sd_event_source_disable_unref(ask->timer);
	free(ask);
}

static void ask_fail(struct ask *ask, const struct error *err)
{
	request_fail(ask->request, err);
	ask_end(ask);
}

static uint64_t time_left(const struct ask *ask)
{
	uint64_t now = clock_now();

	return ask->deadline > now ? ask->deadline - now : 1;
}

static void set_answering(struct agent *agent, bool answering)
{
	if (agent->answering == answering)
		return;
	agent->answering = answering;
	keeper_look(agent->keeper);
}

static void on_answer(void *ctx, int r, json_t *value, const struct error *err)
{
	struct ask *ask = ctx;

	set_answering(ask->agent, r != -ETIMEDOUT);
	if (r < 0) {
		ask_fail(ask, err);
		return;
	}
	request_return(ask->request, value);
	ask_end(ask);
}

static void send_guest(struct ask *ask)
{
	json_t *args = request_args(ask->request);
	struct error err = { 0 };
	const char *command;
	int r;

	r = json_need_string(args, "command", &command, &err);
	if (r == 0)
		r = guest_call(ask->agent->guest, command, json_object_get(args, "arguments"),
			       time_left(ask), on_answer, ask, &err);
	if (r < 0)
		ask_fail(ask, &err);
}

static int argv_of(json_t *array, const char *argv[ARGV_MAX + 1], struct error *err)
{
	json_t *item;
	size_t i;

	if (json_array_size(array) == 0 || json_array_size(array) > ARGV_MAX)
		return error_usage(err, "a command of 1 to %d words is needed", ARGV_MAX);
	json_array_foreach(array, i, item)
	{
		argv[i] = json_string_value(item);
		if (!argv[i])
			return error_usage(err, "word %zu of the command is no text", i);
	}
	argv[json_array_size(array)] = NULL;
	return 0;
}

static void send_exec(struct ask *ask)
{
	json_t *args = request_args(ask->request);
	const char *argv[ARGV_MAX + 1];
	const char *base64 = json_string_or(args, "input", NULL);
	CLEANUP_FREE unsigned char *input = NULL;
	struct error err = { 0 };
	size_t length = 0;
	int r;

	r = argv_of(json_object_get(args, "argv"), argv, &err);
	if (r == 0 && base64)
		r = base64_decode(base64, &input, &length, &err);
	if (r == 0)
		r = guest_exec(ask->agent->guest, argv, input, length, time_left(ask), on_answer,
			       ask, &err);
	if (r < 0)
		ask_fail(ask, &err);
}

static void send_waiting(struct agent *agent)
{
	struct ask *next;

	for (struct ask *ask = agent->asks; ask; ask = next) {
		next = ask->next;
		if (ask->sent || !agent->guest)
			continue;
		ask->sent = true;
		ask->timer = sd_event_source_disable_unref(ask->timer);
		ask->send(ask);
	}
}

static int on_too_late(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct ask *ask = ctx;
	struct error err = { 0 };

	error_try_again(&err,
			"the guest agent of VM '%s' did not appear in time; is "
			"qemu-guest-agent installed and started in the guest?",
			ask->agent->keeper->name);
	ask_fail(ask, &err);
	return 0;
}

static void ask_begin(struct agent *agent, struct request *request, void (*send)(struct ask *ask))
{
	int64_t timeout_ms = json_int_or(request_args(request), "timeout_ms", 0);
	uint64_t timeout = timeout_ms > 0 ? (uint64_t)timeout_ms * USEC_PER_MSEC
					  : agent->keeper->config->timers.guest_agent;
	struct error err = { 0 };
	struct ask *ask;

	if (!agent->keeper->copy || agent->n_asks >= ASKS_MAX) {
		error_try_again(&err,
				agent->keeper->copy ? "too many commands for the guest agent "
						      "of VM '%s' are open"
						    : "VM '%s' is not running",
				agent->keeper->name);
		request_fail(request, &err);
		return;
	}
	ask = xcalloc(1, sizeof(*ask));
	*ask = (struct ask){
		.agent = agent, .request = request, .deadline = clock_now() + timeout, .send = send
	};
	for (struct ask **at = &agent->asks;; at = &(*at)->next) {
		if (*at)
			continue;
		*at = ask;
		break;
	}
	agent->n_asks++;
	(void)sd_event_add_time_relative(agent->keeper->loop, &ask->timer, CLOCK_BOOTTIME, timeout,
					 0, on_too_late, ask);
	send_waiting(agent);
}

void agent_guest(struct agent *agent, struct request *request)
{
	ask_begin(agent, request, send_guest);
}

void agent_exec(struct agent *agent, struct request *request)
{
	ask_begin(agent, request, send_exec);
}

static void on_ping(void *ctx, int r, json_t *value, const struct error *err)
{
	struct agent *agent = ctx;

	agent->pinging = false;
	set_answering(agent, r >= 0);
}

void agent_ping(struct agent *agent)
{
	struct error err = { 0 };

	/* A command of a user's tells as much, and must not wait behind a ping. */
	if (!agent->guest || agent->pinging || agent->asks)
		return;
	if (guest_call(agent->guest, "guest-ping", NULL, agent->keeper->config->timers.guest_agent,
		       on_ping, agent, &err) < 0)
		log_warning("guest agent: %s", err.text);
	else
		agent->pinging = true;
}

/* Open commands are not answered by a guest client that is closed: they wait for the next one. */
static void drop_guest(struct agent *agent)
{
	struct error err = { 0 };
	struct ask *next;

	agent->guest = guest_close(agent->guest);
	agent->answering = agent->pinging = false;
	for (struct ask *ask = agent->asks; ask; ask = next) {
		next = ask->next;
		if (!ask->sent)
			continue;
		error_set(&err, -ECONNRESET, "the guest agent of VM '%s' went away",
			  agent->keeper->name);
		ask_fail(ask, &err);
	}
}

static void connect_guest(struct agent *agent);

static int on_again(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct agent *agent = ctx;

	if (agent->open && !agent->guest)
		connect_guest(agent);
	return 0;
}

static void connect_later(struct agent *agent)
{
	int r;

	agent->again = sd_event_source_disable_unref(agent->again);
	r = sd_event_add_time_relative(agent->keeper->loop, &agent->again, CLOCK_BOOTTIME,
				       CONNECT_AGAIN, 0, on_again, agent);
	if (r < 0)
		log_error("cannot set a timer: %s", strerror(-r));
}

/* QEMU ended, which its pidfd tells as well, or the guest broke a limit of ours. */
static void on_gone(void *ctx)
{
	struct agent *agent = ctx;

	drop_guest(agent);
	connect_later(agent);
	keeper_look(agent->keeper);
}

static void connect_guest(struct agent *agent)
{
	struct error err = { 0 };
	int fd = sock_connect(agent->keeper->run_fd, "agent.sock", &err);

	if (fd < 0 ||
	    guest_open(fd, agent->keeper->loop, on_gone, agent, &agent->guest, &err) < 0) {
		log_warning("guest agent: %s; retrying", err.text);
		connect_later(agent);
		return;
	}
	send_waiting(agent);
	agent_ping(agent);
}

void agent_port(struct agent *agent, bool open)
{
	if (agent->open == open)
		return;
	agent->open = open;
	log_info("the guest agent's port is %s", open ? "open" : "closed");
	drop_guest(agent);
	agent->again = sd_event_source_disable_unref(agent->again);
	if (open)
		connect_guest(agent);
	keeper_look(agent->keeper);
}

void agent_shutdown(struct agent *agent)
{
	json_auto_t *args = json_pack("{s:s}", "mode", "powerdown");
	struct error err = { 0 };

	if (agent->answering &&
	    guest_call(agent->guest, "guest-shutdown", args,
		       agent->keeper->config->timers.guest_agent, NULL, NULL, &err) < 0)
		log_warning("guest agent: %s", err.text);
}

void agent_reset(struct agent *agent)
{
	struct error err = { 0 };

	agent_port(agent, false);
	error_try_again(&err, "VM '%s' is not running any more", agent->keeper->name);
	while (agent->asks)
		ask_fail(agent->asks, &err);
}

bool agent_busy(const struct agent *agent)
{
	return agent->n_asks > 0;
}

const char *agent_state(const struct agent *agent)
{
	if (!agent->open)
		return "absent";
	return agent->answering ? "answering" : "silent";
}

struct agent *agent_new(struct keeper *keeper)
{
	struct agent *agent = xcalloc(1, sizeof(*agent));

	agent->keeper = keeper;
	return agent;
}

struct agent *agent_free(struct agent *agent)
{
	if (!agent)
		return NULL;
	agent_reset(agent);
	free(agent);
	return NULL;
}
