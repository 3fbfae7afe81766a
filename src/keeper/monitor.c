/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/monitor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "keeper/agent.h"
#include "keeper/copy.h"
#include "keeper/keeper.h"
#include "keeper/migration.h"
#include "keeper/report.h"
#include "keeper/start.h"
#include "keeper/transfer.h"
#include "model/config.h"
#include "qmp/qmp.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/sock.h"

/* The id that src/qemu gives the guest agent's port and its chardev. */
#define AGENT_PORT_ID "agent0"

#define CONNECT_AGAIN (100 * USEC_PER_MSEC)

#define EVENTS 9    /* of QEMU that mean something here */
#define TELL_MAX 30 /* of one kind within TELL_USEC */
#define TELL_USEC (60 * USEC_PER_SEC)
#define TELL_DETAILS_MAX 4096 /* bytes; QEMU's own are a tenth of it */

/* How often an event of one kind was told lately. */
struct told {
	uint64_t since;
	unsigned count, more;
};

struct monitor {
	struct keeper *keeper;
	struct qmp *qmp;
	char run_state[32];
	bool answers, mute;
	uint64_t mute_at;	/* clock_now() by which it must have greeted */
	bool asking;		/* a query-status is open */
	unsigned unanswered;	/* in a row */
	bool again;		/* and something happened since it was asked */
	sd_event_source *timer; /* greeting deadline, then the next ping, or the next connection */
	struct told told[EVENTS];
};

static int on_timer(sd_event_source *source, uint64_t usec, void *ctx);

static void set_timer(struct monitor *monitor, uint64_t usec)
{
	int r;

	if (monitor->timer) {
		r = sd_event_source_set_time_relative(monitor->timer, usec);
		if (r >= 0)
			r = sd_event_source_set_enabled(monitor->timer, SD_EVENT_ONESHOT);
	} else {
		r = sd_event_add_time_relative(monitor->keeper->loop, &monitor->timer,
					       CLOCK_BOOTTIME, usec, 0, on_timer, monitor);
	}
	if (r < 0)
		log_error("cannot set a timer: %s", strerror(-r));
}

static void set_mute(struct monitor *monitor, bool mute)
{
	if (monitor->mute == mute)
		return;
	monitor->mute = mute;
	report_event(monitor->keeper, mute ? "monitor-mute" : "monitor-answers", NULL,
		     mute ? "QEMU's monitor does not answer" : "QEMU's monitor answers again");
	keeper_look(monitor->keeper);
}

/* What an earlier keeper may not have heard as an event. */
static void note_life_of_guest(struct keeper *keeper, const char *status)
{
	if (keeper->copy && strcmp(status, "shutdown") == 0)
		copy_note(keeper, &keeper->copy->powered_off);
	if (keeper->copy && strcmp(status, "guest-panicked") == 0)
		copy_note(keeper, &keeper->copy->panicked);
	/* Somebody has reset it at its monitor. */
	if (keeper->copy && keeper->copy->powered_off && strcmp(status, "running") == 0) {
		keeper->copy->powered_off = false;
		(void)copy_save(keeper, keeper->copy, NULL);
	}
}

static void on_status(void *ctx, int r, json_t *value, const struct error *err)
{
	struct monitor *monitor = ctx;
	const char *status;

	monitor->asking = false;
	if (r == -ECONNRESET)
		return; /* on_gone() comes */
	if (r == -ETIMEDOUT) {
		monitor->unanswered++;
		set_mute(monitor, true);
		monitor_refresh(monitor); /* answered whenever QEMU goes on */
		return;
	}
	monitor->unanswered = 0;
	set_timer(monitor, monitor->keeper->config->timers.qmp_ping);
	set_mute(monitor, false);
	status = json_string_or(value, "status", NULL);
	if (!status) {
		log_warning("query-status: %s", err ? err->text : "no status in the answer");
		return;
	}
	if (strcmp(status, monitor->run_state) != 0) {
		(void)snprintf(monitor->run_state, sizeof(monitor->run_state), "%s", status);
		log_info("QEMU is %s", status);
		note_life_of_guest(monitor->keeper, status);
	}
	if (monitor->again) {
		monitor->again = false;
		monitor_refresh(monitor);
	}
	keeper_look(monitor->keeper);
}

/* QEMU keeps eight commands that it has not come to, and then reads nothing any more, not even what
 * is sent out of band: so a mute one is asked ever more seldom. */
static uint64_t patience(const struct monitor *monitor)
{
	unsigned times = monitor->unanswered < 8 ? monitor->unanswered : 8;

	return monitor->keeper->config->timers.qmp << (2 * times);
}

void monitor_refresh(struct monitor *monitor)
{
	struct error err = { 0 };

	if (!monitor || !monitor->answers)
		return;
	if (monitor->asking) {
		monitor->again = true;
		return;
	}
	if (qmp_call(monitor->qmp, "query-status", NULL, patience(monitor), on_status, monitor,
		     &err) < 0) {
		log_warning("cannot ask QEMU: %s", err.text);
		return;
	}
	monitor->asking = true;
}

void monitor_outdated(struct monitor *monitor)
{
	if (!monitor)
		return;
	monitor->run_state[0] = '\0';
	monitor_refresh(monitor);
}

/* Was the agent's port open before this keeper came? */
static void on_chardevs(void *ctx, int r, json_t *value, const struct error *err)
{
	struct monitor *monitor = ctx;
	json_t *chardev;
	size_t i;

	json_array_foreach(value, i, chardev) if (strcmp(json_string_or(chardev, "label", ""),
							 AGENT_PORT_ID) == 0)
		agent_port(monitor->keeper->agent, json_bool_or(chardev, "frontend-open", false));
}

static void on_ready(void *ctx, json_t *greeting)
{
	struct monitor *monitor = ctx;
	struct error err = { 0 };

	monitor->answers = true;
	set_timer(monitor, monitor->keeper->config->timers.qmp_ping);
	monitor_refresh(monitor);
	transfer_ask(monitor->keeper);
	if (monitor->keeper->start) { /* a new guest has opened nothing yet */
		start_monitor_ready(monitor->keeper);
		return;
	}
	if (qmp_call(monitor->qmp, "query-chardev", NULL, monitor->keeper->config->timers.qmp,
		     on_chardevs, monitor, &err) < 0)
		log_warning("cannot ask QEMU: %s", err.text);
}

/* Also sent when we or a signal end QEMU: only the guest's own doing counts here. */
static bool guest_ended(const struct keeper *keeper, const json_t *data)
{
	return keeper->copy && json_bool_or(data, "guest", false) &&
	       strcmp(json_string_or(data, "reason", ""), "guest-reset") != 0;
}

static void note_shutdown(struct keeper *keeper, json_t *data)
{
	if (guest_ended(keeper, data) &&
	    strcmp(json_string_or(data, "reason", ""), "guest-panic") != 0)
		copy_note(keeper, &keeper->copy->powered_off);
}

static void note_panic(struct keeper *keeper, json_t *data)
{
	if (keeper->copy)
		copy_note(keeper, &keeper->copy->panicked);
}

static void note_port(struct keeper *keeper, json_t *data)
{
	if (strcmp(json_string_or(data, "id", ""), AGENT_PORT_ID) == 0)
		agent_port(keeper->agent, json_bool_or(data, "open", false));
}

static void tell_shutdown(struct keeper *keeper, json_t *data)
{
	if (guest_ended(keeper, data))
		report_event(keeper, "guest-powered-off", data, "the guest powered off (%.200s)",
			     json_string_or(data, "reason", ""));
}

static void tell_panic(struct keeper *keeper, json_t *data)
{
	report_event(keeper, "guest-panicked", data, "the guest's kernel panicked");
}

static void tell_reset(struct keeper *keeper, json_t *data)
{
	report_event(keeper, "guest-reset", data, "the guest was reset (%.200s)",
		     json_string_or(data, "reason", "unknown reason"));
}

static void tell_disk_error(struct keeper *keeper, json_t *data)
{
	report_event(keeper, "io-error", data, "%.200s on '%.200s' failed: %.200s; %.200s",
		     json_string_or(data, "operation", "i/o"), json_string_or(data, "device", ""),
		     json_string_or(data, "reason", "reason unknown"),
		     json_string_or(data, "action", ""));
}

/* `note` sees each, what is `told` is for people; `refresh`: the run state may be another now. */
static const struct {
	const char *name;
	void (*note)(struct keeper *keeper, json_t *data);
	void (*tell)(struct keeper *keeper, json_t *data);
	bool refresh;
} events[EVENTS] = {
	{ "STOP", NULL, NULL, true },
	{ "RESUME", NULL, NULL, true },
	{ "SHUTDOWN", note_shutdown, tell_shutdown, true },
	{ "RESET", NULL, tell_reset, true },
	{ "SUSPEND", NULL, NULL, true },
	{ "WAKEUP", NULL, NULL, true },
	{ "GUEST_PANICKED", note_panic, tell_panic, true },
	{ "BLOCK_IO_ERROR", NULL, tell_disk_error, true },
	{ "VSERPORT_CHANGE", note_port, NULL, false },
};

/* A guest that resets in a loop, or a QEMU in strange hands, says the same thing thousands of times
 * a second; each telling is a write of two logs and a message to the agent. */
static void tell(struct monitor *monitor, size_t i, json_t *data)
{
	struct told *told = &monitor->told[i];
	uint64_t now = clock_now();

	if (now - told->since >= TELL_USEC) {
		if (told->more)
			report_event(monitor->keeper, "events-dropped", NULL,
				     "%u more events %s of QEMU were not written down", told->more,
				     events[i].name);
		*told = (struct told){ .since = now };
	}
	if (told->count == TELL_MAX) {
		told->more++;
		return;
	}
	told->count++;
	events[i].tell(monitor->keeper,
		       json_dumpb(data, NULL, 0, JSON_ENCODE_ANY) > TELL_DETAILS_MAX ? NULL : data);
}

static void on_event(void *ctx, const char *name, json_t *data, uint64_t usec)
{
	struct monitor *monitor = ctx;

	log_debug("QEMU event %.200s", name);
	transfer_event(monitor->keeper, name, data, usec);
	for (size_t i = 0; i < EVENTS; i++) {
		if (strcmp(events[i].name, name) != 0)
			continue;
		if (events[i].note)
			events[i].note(monitor->keeper, data);
		if (events[i].tell)
			tell(monitor, i, data);
		if (events[i].refresh)
			monitor_refresh(monitor);
	}
}

/* QEMU closes its monitor when it ends, and a pidfd tells that better.  Else connect again. */
static void on_gone(void *ctx, const struct error *why)
{
	struct monitor *monitor = ctx;

	log_debug("the monitor is gone: %s", why->text);
	monitor->qmp = qmp_close(monitor->qmp);
	monitor->answers = monitor->asking = monitor->again = false;
	monitor->unanswered = 0;
	monitor->mute_at = clock_now() + monitor->keeper->config->timers.qmp_greeting;
	set_timer(monitor, CONNECT_AGAIN);
	keeper_look(monitor->keeper);
}

static const struct qmp_ops ops = { .ready = on_ready, .event = on_event, .gone = on_gone };

static int connect_monitor(struct monitor *monitor, struct error *err)
{
	struct keeper *keeper = monitor->keeper;
	int fd;

	fd = sock_connect(keeper->run_fd, "qmp.sock", err);
	if (fd < 0)
		return fd;
	return qmp_open(fd, keeper->loop, &ops, monitor, &monitor->qmp, err);
}

/* Connects, or sets the time of the next try. */
static void try_connect(struct monitor *monitor)
{
	uint64_t now = clock_now();
	struct error err = { 0 };

	if (connect_monitor(monitor, &err) < 0) {
		log_debug("monitor: %s", err.text);
		set_timer(monitor,
			  monitor->mute ? monitor->keeper->config->timers.qmp_ping : CONNECT_AGAIN);
	} else {
		set_timer(monitor, monitor->mute_at > now ? monitor->mute_at - now : CONNECT_AGAIN);
	}
	if (now >= monitor->mute_at)
		set_mute(monitor, true);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct monitor *monitor = ctx;

	if (monitor->answers) {
		monitor_refresh(monitor);
		agent_ping(monitor->keeper->agent);
	} else if (monitor->qmp) {
		/* No greeting in time: a stopped QEMU greets when it goes on, so the socket stays.
		 */
		set_mute(monitor, true);
	} else {
		try_connect(monitor);
	}
	return 0;
}

void monitor_open(struct keeper *keeper)
{
	struct monitor *monitor = xcalloc(1, sizeof(*monitor));

	monitor->keeper = keeper;
	monitor->mute_at = clock_now() + keeper->config->timers.qmp_greeting;
	keeper->monitor = monitor;
	try_connect(monitor);
}

struct monitor *monitor_close(struct monitor *monitor)
{
	if (!monitor)
		return NULL;
	sd_event_source_disable_unref(monitor->timer);
	qmp_close(monitor->qmp);
	free(monitor);
	return NULL;
}

bool monitor_answers(const struct monitor *monitor)
{
	return monitor && monitor->answers;
}

bool monitor_mute(const struct monitor *monitor)
{
	return monitor && monitor->mute;
}

const char *monitor_run_state(const struct monitor *monitor)
{
	return monitor && *monitor->run_state ? monitor->run_state : NULL;
}

struct qmp *monitor_qmp(struct monitor *monitor)
{
	return monitor && monitor->answers ? monitor->qmp : NULL;
}

int monitor_call_fd(struct monitor *monitor, const char *command, json_t *args, int fd,
		    peer_reply_fn reply, void *ctx, struct error *err)
{
	if (!monitor_answers(monitor))
		return error_try_again(err, "there is no QEMU that answers");
	return qmp_call_fd(monitor->qmp, command, args, fd, monitor->keeper->config->timers.qmp,
			   reply, ctx, err);
}

int monitor_call(struct monitor *monitor, const char *command, json_t *args, peer_reply_fn reply,
		 void *ctx, struct error *err)
{
	return monitor_call_fd(monitor, command, args, -1, reply, ctx, err);
}

int monitor_call_oob(struct monitor *monitor, const char *command, json_t *args,
		     peer_reply_fn reply, void *ctx, struct error *err)
{
	if (!monitor_answers(monitor))
		return error_try_again(err, "there is no QEMU that answers");
	return qmp_call_oob(monitor->qmp, command, args, monitor->keeper->config->timers.qmp, reply,
			    ctx, err);
}
