/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "keeper/agent.h"
#include "keeper/copy.h"
#include "keeper/keeper.h"
#include "keeper/migration.h"
#include "keeper/monitor.h"
#include "keeper/obstacle.h"
#include "keeper/ownership.h"
#include "keeper/pending.h"
#include "keeper/report.h"
#include "model/config.h"
#include "qemu/hardware.h"
#include "qmp/qmp.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/sock.h"

struct link {
	struct keeper *keeper;
	int listener;
	sd_event_source *accept;
	struct peer *peer; /* the agent; NULL while there is none */
	struct passed *passed;
};

static int take_hardware(struct keeper *keeper, json_t *value, struct error *err)
{
	struct hardware *hardware;
	int r;

	/* Of what runs or starts here the record that we have is newer; a copy that was adopted
	 * came without one. */
	if ((keeper->hardware && (keeper->copy || keeper->start)) || !json_is_object(value))
		return 0;
	r = hardware_parse(value, &hardware, err);
	if (r < 0)
		return error_prefix(err, r, "hardware record");
	hardware_free(keeper->hardware);
	keeper->hardware = hardware;
	return 0;
}

static int take_definition(struct keeper *keeper, json_t *tree, uint64_t generation,
			   struct error *err)
{
	struct want *want = &keeper->want;
	struct definition *definition;
	int r;

	if (want->definition && json_equal(want->tree, tree)) {
		want->generation = generation;
		return 0;
	}
	r = definition_from_json(tree, &definition, err);
	if (r < 0)
		return error_prefix(err, r, "definition");
	definition_free(want->definition);
	json_decref(want->tree);
	want->definition = definition;
	want->tree = json_incref(tree);
	want->generation = generation;
	return 0;
}

/* A VM that was defined anew from a mended file, or ordered here anew, deserves a try without
 * waiting. */
static void forget_failures(struct keeper *keeper)
{
	backoff_reset(&keeper->backoff);
	keeper->not_before = 0;
	obstacle_forget(keeper);
}

/* Where it should be, and how it gets there.  An agent that says nothing of it is of the time
 * before migrations: then nothing moves. */
static void take_move(struct keeper *keeper, json_t *args)
{
	struct want_move *move = &keeper->want.move;
	json_t *placement = json_object_get(args, "placement");
	json_t *offer = json_object_get(args, "offer");
	uint64_t number = (uint64_t)json_int_or(placement, "number", 0);
	uint64_t cancel = (uint64_t)json_int_or(args, "cancel", 0);

	if (number > move->number)
		forget_failures(keeper);
	json_decref(move->offer);
	*move = (struct want_move){
		.offer = json_is_object(offer) ? json_incref(offer) : NULL,
		.max_downtime_ms = (uint64_t)json_int_or(placement, "max_downtime_ms", 0),
		.bandwidth = (uint64_t)json_int_or(placement, "bandwidth", 0),
		.postcopy = json_bool_or(placement, "postcopy", false),
		.number = number,
		.cancelled = cancel && cancel >= number,
		.may_send = json_bool_or(args, "may_send", false),
		.may_receive = json_bool_or(args, "may_receive", false),
	};
	(void)snprintf(move->target, sizeof(move->target), "%s",
		       json_string_or(args, "target", ""));
	(void)snprintf(move->method, sizeof(move->method), "%s",
		       json_string_or(placement, "method", ""));
}

static void on_wish(struct keeper *keeper, struct request *request)
{
	json_t *args = request_args(request);
	struct want *want = &keeper->want;
	struct error err = { 0 };
	const char *name;
	int64_t generation = 0;
	json_t *tree;
	int wish, r;

	r = json_need_string(args, "wish", &name, &err);
	wish = r == 0 ? vm_wish_of(name) : -1;
	if (r == 0 && wish < 0)
		r = error_bad_data(&err, "'%s' is no wish", name);
	if (r == 0)
		r = json_need_object(args, "definition", &tree, &err);
	if (r == 0)
		r = json_need_int(args, "generation", &generation, &err);
	if (r == 0)
		r = ownership_told(keeper, json_object_get(args, "owner"), &err);
	if (r == 0)
		r = take_hardware(keeper, json_object_get(args, "hardware"), &err);
	if (r == 0 && want->known && (uint64_t)generation > want->generation)
		forget_failures(keeper);
	if (r == 0)
		r = take_definition(keeper, tree, (uint64_t)generation, &err);
	if (r < 0) {
		log_error("wish of the agent refused: %s", err.text);
		request_fail(request, &err);
		return;
	}
	if (!want->known || want->wish != (enum vm_wish)wish)
		log_info("wish: %s", name);
	want->known = true;
	want->wish = (enum vm_wish)wish;
	want->kill = json_bool_or(args, "kill", false);
	want->restarts = (uint64_t)json_int_or(args, "restarts", 0);
	want->retry = (uint64_t)json_int_or(args, "retry", 0);
	if (want->retry > keeper->retry_done)
		forget_failures(keeper);
	take_move(keeper, args);
	pending_look(keeper);
	checkpoint("keeper.link.wish");
	request_return(request, NULL);
	keeper_look(keeper);
}

static void on_status(struct keeper *keeper, struct request *request)
{
	json_auto_t *report = report_json(keeper);

	request_return(request, report);
}

static void on_ping(struct keeper *keeper, struct request *request)
{
	request_return(request, NULL);
}

/* A user's question to QEMU.  A copy that ends answers nothing any more; then we do. */
struct passed {
	struct passed *next;
	struct link *link;
	struct request *request;
	bool text; /* the answer is the text of the human monitor */
};

static struct request *passed_end(struct passed *passed)
{
	struct request *request = passed->request;

	for (struct passed **at = &passed->link->passed; *at; at = &(*at)->next) {
		if (*at != passed)
			continue;
		*at = passed->next;
		break;
	}
	free(passed);
	return request;
}

void link_drop_passed(struct link *link)
{
	struct error err = { 0 };

	error_try_again(&err, "VM '%s' ended before its QEMU answered", link->keeper->name);
	while (link->passed)
		request_fail(passed_end(link->passed), &err);
}

static void on_passed_answer(void *ctx, int r, json_t *value, const struct error *err)
{
	struct passed *passed = ctx;
	bool text = passed->text;
	struct request *request = passed_end(passed);
	json_auto_t *answer = NULL;

	if (r < 0) {
		request_fail(request, err);
		return;
	}
	answer = text ? json_pack("{s:O}", "text", value) : json_incref(value);
	request_return(request, answer);
}

static void refuse(struct request *request, const char *why)
{
	struct error err = { 0 };

	error_refuse(&err, "%s", why);
	request_fail(request, &err);
}

static void pass(struct keeper *keeper, struct request *request, const char *command, json_t *args,
		 bool text)
{
	struct link *link = keeper->link;
	struct passed *passed = xcalloc(1, sizeof(*passed));
	struct error err = { 0 };
	int r = 0;

	*passed = (struct passed){
		.next = link->passed, .link = link, .request = request, .text = text
	};
	link->passed = passed;
	if (monitor_mute(keeper->monitor))
		r = error_try_again(&err, "the monitor of VM '%s' does not answer", keeper->name);
	if (r == 0)
		r = monitor_call(keeper->monitor, command, args, on_passed_answer, passed, &err);
	if (r < 0)
		request_fail(passed_end(passed), &err);
}

static void on_qmp(struct keeper *keeper, struct request *request)
{
	json_t *args = json_object_get(request_args(request), "arguments");
	const char *command = json_string_or(request_args(request), "command", "");
	const char *why = qmp_refusal(command);

	if (!why && strcmp(command, "human-monitor-command") == 0)
		why = hmp_refusal(json_string_or(args, "command-line", ""));
	if (why)
		refuse(request, why);
	else
		pass(keeper, request, command, json_is_object(args) ? args : NULL, false);
}

static void on_hmp(struct keeper *keeper, struct request *request)
{
	const char *line = json_string_or(request_args(request), "line", "");
	json_auto_t *args = json_pack("{s:s}", "command-line", line);
	const char *why = hmp_refusal(line);

	if (why)
		refuse(request, why);
	else
		pass(keeper, request, "human-monitor-command", args, true);
}

static void on_guest(struct keeper *keeper, struct request *request)
{
	agent_guest(keeper->agent, request);
}

static void on_exec(struct keeper *keeper, struct request *request)
{
	agent_exec(keeper->agent, request);
}

static void on_console(struct keeper *keeper, struct request *request)
{
	CLEANUP_FREE char *socket =
		xasprintf("%s/vms/%s/console.sock", keeper->config->paths.run, keeper->name);
	CLEANUP_FREE char *log =
		xasprintf("%s/vms/%s/serial.log", keeper->config->paths.log, keeper->name);
	json_auto_t *answer = json_pack("{s:s, s:s}", "socket", socket, "log", log);

	request_return(request, answer);
}

static void on_dismiss(struct keeper *keeper, struct request *request)
{
	if (keeper->copy || keeper->remains || keeper->unproven || keeper->start ||
	    keeper->cleanup || keeper->ownership->write) {
		refuse(request, "there is still something to look after");
		return;
	}
	request_return(request, NULL);
	log_info("dismissed by the agent");
	keeper->dismissed = true;
	keeper_look(keeper);
}

/* It may have to be looked after by another program; what is under way ends here. */
static const char *busy_with(const struct keeper *keeper)
{
	if (keeper->start || keeper->stop || keeper->cleanup)
		return "it is starting, stopping or cleaning up";
	if (migration_is_under_way(keeper))
		return "its VM is on its way";
	if (keeper->ownership->write || keeper->resuming || keeper->pausing ||
	    keeper->letting_run || keeper->ordering || keeper->link->passed ||
	    agent_busy(keeper->agent))
		return "an answer is open";
	return NULL;
}

static void on_replace(struct keeper *keeper, struct request *request)
{
	const char *why = busy_with(keeper);

	if (why) {
		refuse(request, why);
		return;
	}
	request_return(request, NULL);
	log_info("making way for another keeper; the guest is left alone");
	(void)sd_event_exit(keeper->loop, 0);
}

static const struct {
	const char *command;
	void (*answer)(struct keeper *keeper, struct request *request);
} requests[] = {
	{ "wish", on_wish },	   { "status", on_status },   { "ping", on_ping },
	{ "qmp", on_qmp },	   { "hmp", on_hmp },	      { "guest", on_guest },
	{ "exec", on_exec },	   { "console", on_console }, { "dismiss", on_dismiss },
	{ "replace", on_replace },
};

static void on_request(void *ctx, struct request *request)
{
	struct link *link = ctx;
	struct error err = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		if (strcmp(requests[i].command, request_command(request)) != 0)
			continue;
		requests[i].answer(link->keeper, request);
		return;
	}
	error_refuse(&err, "this keeper does not know '%s'", request_command(request));
	request_fail(request, &err);
}

static void on_gone(void *ctx, const struct error *why)
{
	struct link *link = ctx;

	link->keeper->ordering = false; /* its answer will not come any more */
	log_info("the agent is gone (%s); the VM is looked after all the same", why->text);
	link->peer = peer_close(link->peer);
}

static const struct peer_ops ops = { .request = on_request, .gone = on_gone };

/* A new connection is a new agent: the old one is dead, or hangs and is replaced. */
static int on_accept(sd_event_source *source, int fd, uint32_t revents, void *ctx)
{
	struct link *link = ctx;
	struct error err = { 0 };
	json_auto_t *report = NULL;
	int r = sock_accept(fd, &err);

	if (r < 0)
		return 0;
	link->peer = peer_close(link->peer);
	if (peer_open(r, link->keeper->loop, &ops, link, &link->peer, &err) < 0) {
		log_warning("agent: %s", err.text);
		return 0;
	}
	report = report_json(link->keeper);
	link_event(link, "state", report);
	ownership_link_up(link->keeper);
	migration_link_up(link->keeper);
	keeper_look(link->keeper);
	return 0;
}

int link_open(struct keeper *keeper, struct error *err)
{
	struct link *link = xcalloc(1, sizeof(*link));
	int r;

	link->keeper = keeper;
	link->listener = sock_listen(keeper->run_fd, "keeper.sock", 0600, err);
	r = link->listener;
	if (r >= 0)
		r = sd_event_add_io(keeper->loop, &link->accept, link->listener, EPOLLIN, on_accept,
				    link);
	if (r < 0) {
		link_close(link);
		return r;
	}
	keeper->link = link;
	return 0;
}

struct link *link_close(struct link *link)
{
	if (!link)
		return NULL;
	peer_close(link->peer);
	sd_event_source_disable_unref(link->accept);
	cleanup_closep(&link->listener);
	free(link);
	return NULL;
}

bool link_up(const struct link *link)
{
	return link && link->peer;
}

int link_call(struct link *link, const char *command, json_t *args, uint64_t timeout_usec,
	      peer_reply_fn reply, void *ctx, struct error *err)
{
	return peer_call(link->peer, command, args, timeout_usec, reply, ctx, err);
}

void link_event(struct link *link, const char *name, json_t *data)
{
	if (link_up(link))
		(void)peer_event(link->peer, name, data);
}
