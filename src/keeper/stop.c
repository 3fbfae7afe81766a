/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/stop.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "keeper/agent.h"
#include "keeper/copy.h"
#include "keeper/keeper.h"
#include "keeper/monitor.h"
#include "keeper/report.h"
#include "model/config.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

enum stage { STAGE_ASK_GUEST, STAGE_QUIT, STAGE_TERM, STAGE_KILL, STAGE_WAIT };

struct stop {
	enum stage stage;
	sd_event_source *deadline, *repeat;
};

static void next_stage(struct keeper *keeper, enum stage stage);

static int on_deadline(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct keeper *keeper = ctx;
	enum stage stage = keeper->stop->stage;

	if (stage == STAGE_ASK_GUEST)
		report_event(keeper, "stop-timeout", NULL,
			     "the guest did not shut down in time; ending QEMU");
	if (stage != STAGE_WAIT)
		next_stage(keeper, stage + 1);
	keeper_look(keeper);
	return 0;
}

static void set_deadline(struct keeper *keeper, uint64_t usec)
{
	struct stop *stop = keeper->stop;
	int r;

	stop->deadline = sd_event_source_disable_unref(stop->deadline);
	r = sd_event_add_time_relative(keeper->loop, &stop->deadline, CLOCK_BOOTTIME, usec, 0,
				       on_deadline, keeper);
	if (r < 0)
		log_error("cannot set a timer: %s", strerror(-r));
}

static void on_asked(void *ctx, int r, json_t *value, const struct error *err)
{
	if (r < 0)
		log_info("asking QEMU to end: %s", err->text);
}

/* A monitor that is away or mute is no error here: the next stage needs none. */
static void tell_qemu(struct keeper *keeper, const char *command, json_t *args)
{
	struct error err = { 0 };

	if (monitor_call(keeper->monitor, command, args, on_asked, NULL, &err) < 0)
		log_debug("%s: %s", command, err.text);
}

static int on_repeat(sd_event_source *source, uint64_t usec, void *ctx);

/* A guest that is booting does not hear the button, so it is pressed again until it does. */
static void press_button(struct keeper *keeper)
{
	struct stop *stop = keeper->stop;
	json_auto_t *keys = NULL;
	int r;

	if (keeper_situation(keeper) == SITUATION_SUSPENDED)
		tell_qemu(keeper, "system_wakeup", NULL);
	if (keeper->want.definition->acpi_shutdown) {
		tell_qemu(keeper, "system_powerdown", NULL);
	} else {
		keys = json_pack("{s:[{s:s,s:s},{s:s,s:s},{s:s,s:s}]}", "keys", "type", "qcode",
				 "data", "ctrl", "type", "qcode", "data", "alt", "type", "qcode",
				 "data", "delete");
		tell_qemu(keeper, "send-key", keys);
	}
	stop->repeat = sd_event_source_disable_unref(stop->repeat);
	r = sd_event_add_time_relative(keeper->loop, &stop->repeat, CLOCK_BOOTTIME,
				       keeper->config->timers.stop_repeat, 0, on_repeat, keeper);
	if (r < 0)
		log_error("cannot set a timer: %s", strerror(-r));
}

static int on_repeat(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct keeper *keeper = ctx;

	if (!stop_is_graceful(keeper->stop))
		return 0;
	/* Some are deaf to the button (q35 after the guest's own sleep) but have an agent. */
	agent_shutdown(keeper->agent);
	press_button(keeper);
	return 0;
}

static void ask_guest(struct keeper *keeper)
{
	uint64_t graceful = keeper->want.definition->graceful_usec;

	press_button(keeper);
	set_deadline(keeper, graceful ? graceful : keeper->config->timers.graceful_stop);
}

static void signal_qemu(struct keeper *keeper, int signal)
{
	struct error err = { 0 };

	log_info("sending %s to QEMU (pid %d)", signal == SIGKILL ? "SIGKILL" : "SIGTERM",
		 (int)keeper->copy->id.pid);
	if (process_signal(keeper->copy->pidfd, signal, &err) < 0)
		log_error("%s", err.text);
}

static void next_stage(struct keeper *keeper, enum stage stage)
{
	keeper->stop->stage = stage;
	switch (stage) {
	case STAGE_ASK_GUEST:
		checkpoint("keeper.stop.ask");
		ask_guest(keeper);
		break;
	case STAGE_QUIT:
		checkpoint("keeper.stop.quit");
		tell_qemu(keeper, "quit", NULL);
		set_deadline(keeper,
			     monitor_answers(keeper->monitor) && !monitor_mute(keeper->monitor)
				     ? keeper->config->timers.kill / 3
				     : 1);
		break;
	case STAGE_TERM:
		checkpoint("keeper.stop.term");
		signal_qemu(keeper, SIGTERM);
		set_deadline(keeper, keeper->config->timers.kill / 3);
		break;
	case STAGE_KILL:
		checkpoint("keeper.stop.kill");
		signal_qemu(keeper, SIGKILL);
		set_deadline(keeper, keeper->config->timers.kill / 3);
		break;
	case STAGE_WAIT:
		report_event(keeper, "stuck", NULL,
			     "QEMU (pid %d) does not end even by SIGKILL: it hangs in the kernel, "
			     "most often on storage; it is waited for, nothing of it is freed",
			     (int)keeper->copy->id.pid);
		break;
	}
}

static void begin(struct keeper *keeper, enum stage stage)
{
	if (!keeper->stop)
		keeper->stop = xcalloc(1, sizeof(*keeper->stop));
	next_stage(keeper, stage);
}

void stop_shutdown(struct keeper *keeper)
{
	report_event(keeper, "stopping", NULL, "asking the guest to shut down");
	begin(keeper, STAGE_ASK_GUEST);
}

void stop_destroy(struct keeper *keeper, const char *why)
{
	if (keeper->stop && keeper->stop->stage != STAGE_ASK_GUEST)
		return;
	report_event(keeper, "ending", NULL, "ending QEMU: %s", why);
	begin(keeper, STAGE_QUIT);
}

void stop_kill(struct keeper *keeper, const char *why)
{
	begin(keeper, STAGE_KILL);
	report_event(keeper, "ending", NULL, "killing QEMU: %s", why);
}

void stop_give_up(struct keeper *keeper)
{
	if (!stop_is_graceful(keeper->stop))
		return;
	report_event(keeper, "stop-given-up", NULL,
		     "it is to run again; a guest that obeys all the same will be started again");
	keeper->copy->end_ordered = false;
	(void)copy_save(keeper, keeper->copy, NULL);
	keeper->stop = stop_cancel(keeper->stop);
	keeper_look(keeper);
}

struct stop *stop_cancel(struct stop *stop)
{
	if (!stop)
		return NULL;
	sd_event_source_disable_unref(stop->deadline);
	sd_event_source_disable_unref(stop->repeat);
	free(stop);
	return NULL;
}

bool stop_is_graceful(const struct stop *stop)
{
	return stop && stop->stage == STAGE_ASK_GUEST;
}

bool stop_is_kill(const struct stop *stop)
{
	return stop && stop->stage >= STAGE_KILL;
}

const char *stop_step(const struct stop *stop)
{
	static const char *const texts[] = {
		[STAGE_ASK_GUEST] = "the guest was asked to shut down",
		[STAGE_QUIT] = "QEMU was asked to end",
		[STAGE_TERM] = "QEMU was sent SIGTERM",
		[STAGE_KILL] = "QEMU was sent SIGKILL",
		[STAGE_WAIT] = "QEMU hangs in the kernel and cannot be ended",
	};

	return texts[stop->stage];
}
