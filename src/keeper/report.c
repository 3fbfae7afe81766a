/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/report.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/ownership.h"
#include "core/wish.h"
#include "keeper/agent.h"
#include "keeper/cleanup.h"
#include "keeper/copy.h"
#include "keeper/keeper.h"
#include "keeper/lease.h"
#include "keeper/link.h"
#include "keeper/migration.h"
#include "keeper/monitor.h"
#include "keeper/obstacle.h"
#include "keeper/ownership.h"
#include "keeper/start.h"
#include "keeper/stop.h"
#include "keeper/transfer.h"
#include "model/config.h"
#include "net/net.h"
#include "qemu/hardware.h"
#include "qmp/qmp.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

#define STATE_FILE "state.json"
#define EVENTS_MAX (4 * 1024 * 1024)

/* A moment of the keeper's clock as people's time. */
static const char *moment_text(uint64_t moment, char buffer[CLOCK_TEXT_SIZE])
{
	uint64_t now = clock_now();

	return clock_text(clock_wall() + (moment > now ? moment - now : 0), buffer);
}

static enum vm_state set_reason(char *reason, size_t size, enum vm_state state, const char *fmt,
				...) __attribute__((format(printf, 4, 5)));

static enum vm_state set_reason(char *reason, size_t size, enum vm_state state, const char *fmt,
				...)
{
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(reason, size, fmt, args);
	va_end(args);
	return state;
}

/* Nobody tries then, whatever failed before. */
static bool off_with_disks_elsewhere(const struct keeper *keeper)
{
	return ownership_held_elsewhere(keeper) && keeper->ownership->record.phase == OWNER_OFF;
}

static const char *target_of(const struct keeper *keeper)
{
	const char *target = keeper->want.move.target;

	return *target ? target : keeper->want.definition->kvm_host;
}

/* Nothing runs: why not, and what would change that (I2). */
static enum vm_state describe_absent(const struct keeper *keeper, char *reason, size_t size)
{
	char next[CLOCK_TEXT_SIZE];

	if (wish_explain_off(keeper->want.wish, keeper->name, target_of(keeper), reason, size))
		return VM_OFF;
	if (migration_may_receive(keeper) && !*keeper->failure)
		return set_reason(reason, size, VM_OFF, "about to take it over from node '%s'",
				  keeper->ownership->record.node);
	if (off_with_disks_elsewhere(keeper))
		return set_reason(reason, size, VM_FAILED,
				  "it is off and its disks are on node '%s'; 'drover move %s --to "
				  "%s' starts it there",
				  keeper->ownership->record.home, keeper->name,
				  keeper->ownership->record.home);
	if (ownership_held_elsewhere(keeper) && !*keeper->failure) {
		struct error why = { 0 };

		(void)owner_check_here(&keeper->ownership->record, keeper->config->node, &why);
		return set_reason(reason, size, VM_FAILED, "%s", why.text);
	}
	if (lease_over(keeper))
		return set_reason(reason, size, VM_OFF,
				  "the lease of this node is over; it is started as soon as the "
				  "store answers droverd, see 'drover node'");
	if (*keeper->failure && ownership_held_elsewhere(keeper))
		return set_reason(reason, size, VM_FAILED,
				  "%s; tried again at %s, 'drover migrate %s --to %s' tries now",
				  keeper->failure, moment_text(keeper->not_before, next),
				  keeper->name, keeper->config->node);
	if (*keeper->failure)
		return set_reason(reason, size, VM_FAILED,
				  "%s; tried again at %s, 'drover start %s' tries now",
				  keeper->failure, moment_text(keeper->not_before, next),
				  keeper->name);
	return set_reason(reason, size, VM_OFF, "about to start");
}

static enum vm_state describe_present(const struct keeper *keeper, char *reason, size_t size)
{
	switch (keeper_situation(keeper)) {
	case SITUATION_RUNNING:
		if (keeper->want.wish == WISH_ELSEWHERE)
			return set_reason(
				reason, size, VM_RUNNING,
				"it belongs on node '%s' and runs here until that node "
				"takes it over; 'drover ls' there shows what it waits for",
				target_of(keeper));
		/* A pause that failed, say. */
		return set_reason(reason, size, VM_RUNNING, "%s", keeper->failure);
	case SITUATION_PAUSED:
		if (keeper->copy->lease_paused && keeper->want.wish != WISH_PAUSE)
			return set_reason(
				reason, size, VM_PAUSED,
				"paused since the lease of this node is over; it goes on "
				"as soon as the store answers droverd, see 'drover node'");
		return set_reason(reason, size, VM_PAUSED,
				  keeper->copy->paused || keeper->copy->lease_paused
					  ? "paused by 'drover pause'; 'drover resume %s' goes on"
					  : "stopped at its monitor, not by drover; 'drover resume "
					    "%s' goes on",
				  keeper->name);
	case SITUATION_SUSPENDED:
		return set_reason(reason, size, VM_SUSPENDED, "the guest sleeps (ACPI S3)");
	case SITUATION_POWERED_OFF:
		return set_reason(reason, size, VM_STOPPING, "the guest has powered off");
	case SITUATION_PANICKED:
		return set_reason(reason, size, VM_PANICKED,
				  "the guest's kernel panicked: see 'drover console %s --lines "
				  "50'; 'drover restart %s' starts it anew",
				  keeper->name, keeper->name);
	case SITUATION_IO_ERROR:
		return set_reason(reason, size, VM_IO_ERROR,
				  "a disk failed: see 'drover events %s'; 'drover resume %s' tries "
				  "again",
				  keeper->name, keeper->name);
	case SITUATION_INTERNAL_ERROR:
		return set_reason(reason, size, VM_INTERNAL_ERROR,
				  "KVM cannot run this guest: see 'drover logs %s --qemu'; "
				  "'drover restart %s' starts it anew",
				  keeper->name, keeper->name);
	case SITUATION_MUTE:
		return set_reason(reason, size, VM_UNRESPONSIVE,
				  "QEMU (pid %d) lives, but its monitor does not answer; 'drover "
				  "kill %s' ends it",
				  (int)keeper->copy->id.pid, keeper->name);
	default: /* not yet heard from: what was last known stands until it answers, or is mute */
		return set_reason(reason, size, keeper->report.state, "%s", keeper->report.reason);
	}
}

/* Between two hosts; false: it is not. */
static bool describe_moving(const struct keeper *keeper, enum vm_state *ret, char *reason,
			    size_t size)
{
	switch (transfer_copy(keeper)) {
	case COPY_INCOMING:
	case COPY_LOADED:
		*ret = VM_STARTING;
		break;
	case COPY_RUNNING:
	case COPY_SENDING:
	case COPY_SWITCHING: /* milliseconds */
	case COPY_FAULTING:
		*ret = VM_RUNNING;
		break;
	case COPY_COMPLETED:
	case COPY_FEEDING:
		*ret = migration_hangs(keeper) ? VM_PAUSED : VM_RUNNING;
		break;
	default:
		return false;
	}
	return migration_words(keeper, reason, size);
}

static enum vm_state describe(const struct keeper *keeper, char *reason, size_t size)
{
	enum situation situation = keeper_situation(keeper);
	enum vm_state state;

	if (situation == SITUATION_UNPROVEN)
		return set_reason(reason, size, VM_UNKNOWN, "%s", keeper->failure);
	if (keeper->start)
		return set_reason(reason, size, VM_STARTING, "%s", start_step(keeper->start));
	if (!keeper->stop && !keeper->cleanup && describe_moving(keeper, &state, reason, size))
		return state;
	if (keeper->stop)
		return set_reason(reason, size, VM_STOPPING, "%s", stop_step(keeper->stop));
	if (keeper->cleanup || situation == SITUATION_REMAINS)
		return set_reason(reason, size, VM_STOPPING, "cleaning up%s%s",
				  *cleanup_trouble(keeper->cleanup) ? ", tried again: " : "",
				  cleanup_trouble(keeper->cleanup));
	if (!keeper->copy && !keeper->want.known)
		return set_reason(reason, size, VM_UNKNOWN, "waiting for the agent");
	if (!keeper->copy)
		return describe_absent(keeper, reason, size);
	return describe_present(keeper, reason, size);
}

static json_t *volumes_json(const struct keeper *keeper)
{
	const struct definition *def = keeper->want.definition;
	json_t *volumes = json_array();

	for (size_t i = 0; def && i < def->n_volumes; i++)
		json_array_append_new(volumes,
				      json_pack("{s:s, s:I, s:s?}", "name", def->volumes[i].name,
						"size_bytes", (json_int_t)def->volumes[i].size,
						"path", def->volumes[i].path));
	return volumes;
}

static json_t *nics_json(const struct keeper *keeper)
{
	const struct definition *def = keeper->want.definition;
	json_t *nics = json_array();

	for (size_t i = 0; def && i < def->n_nics; i++) {
		const struct definition_nic *nic = &def->nics[i];
		char tap[NET_NAME_SIZE], bridge[16];
		enum nic_mode mode;
		bool bridged = config_nic(keeper->config, nic, &mode, bridge, NULL) == 0 &&
			       mode == NIC_BRIDGE;

		net_tap_name(keeper->root_id, keeper->name, nic->name, tap);
		json_array_append_new(nics, json_pack("{s:s, s:s, s:s, s:s?, s:s?}", "name",
						      nic->name, "network", nic->network, "mac",
						      nic->mac, "bridge", bridged ? bridge : NULL,
						      "tap", bridged ? tap : NULL));
	}
	return nics;
}

static void add_copy(const struct keeper *keeper, json_t *report)
{
	const struct copy *copy = keeper->copy;
	char text[CLOCK_TEXT_SIZE];
	uint64_t now = clock_wall();

	json_object_set_new(report, "pid",
			    copy && copy->id.pid ? json_integer(copy->id.pid) : json_null());
	json_set_string(report, "started", copy ? clock_text(copy->started, text) : NULL);
	json_object_set_new(
		report, "uptime_s",
		copy && now > copy->started
			? json_integer((json_int_t)((now - copy->started) / USEC_PER_SEC))
			: json_null());
	json_set_string(report, "guest_agent", copy ? agent_state(keeper->agent) : NULL);
	json_set_string(report, "pending", copy ? keeper->pending : NULL);
	json_object_set_new(report, "running_generation",
			    copy ? json_integer((json_int_t)copy->generation) : json_null());
}

/* What the guest has, or would have. */
static void add_hardware(const struct keeper *keeper, json_t *report)
{
	const struct hardware *hw = keeper->hardware;
	const struct definition *def = keeper->want.definition;
	const struct qmp *qmp = keeper->copy ? monitor_qmp(keeper->monitor) : NULL;
	bool live = hw && keeper->copy;
	char runs[40];

	json_set_string(report, "accelerator", hw ? hw->accelerator : NULL);
	json_set_string(report, "machine_type", hw ? hw->machine_type : NULL);
	/* It may have come here from an older or newer one. */
	json_set_string(report, "qemu_version",
			qmp && qmp_version_text(qmp, runs, sizeof(runs)) ? runs
			: hw						 ? hw->qemu_version
									 : NULL);
	json_set_string(report, "uuid", hw ? hw->uuid : NULL);
	json_object_set_new(report, "memory_mib",
			    live  ? json_integer((json_int_t)hw->memory_mib)
			    : def ? json_integer((json_int_t)def->memory_mib)
				  : json_null());
	json_object_set_new(report, "cores",
			    live  ? json_integer(hw->cores)
			    : def ? json_integer(def->cores)
				  : json_null());
}

static void add_migration(const struct keeper *keeper, json_t *report)
{
	json_t *migration = migration_json(keeper);

	json_object_set_new(report, "migration", migration ? migration : json_null());
	json_object_set_new(report, "obstacle", obstacle_json(keeper));
	json_object_set_new(report, "migration_failures",
			    json_integer((json_int_t)keeper->migration->backoff.failures));
}

json_t *report_json(const struct keeper *keeper)
{
	json_t *report = json_object();
	char since[CLOCK_TEXT_SIZE];

	json_set_string(report, "name", keeper->name);
	json_set_string(report, "keeper_version", DROVER_VERSION);
	json_set_string(report, "state", vm_state_name(keeper->report.state));
	json_set_string(report, "reason", *keeper->report.reason ? keeper->report.reason : NULL);
	json_set_string(report, "wish",
			keeper->want.known ? vm_wish_name(keeper->want.wish) : NULL);
	json_set_string(report, "since", clock_text(keeper->report.since, since));
	json_object_set_new(report, "settled", json_boolean(keeper->settled));
	json_object_set_new(report, "restarts",
			    json_integer((json_int_t)(keeper->copy ? keeper->copy->restarts
								   : keeper->want.restarts)));
	json_object_set_new(report, "retry", json_integer((json_int_t)keeper->retry_done));
	json_object_set_new(report, "generation",
			    keeper->want.known ? json_integer((json_int_t)keeper->want.generation)
					       : json_null());
	json_object_set_new(report, "epoch",
			    keeper->ownership->exists
				    ? json_integer((json_int_t)keeper->ownership->record.epoch)
				    : json_null());
	json_object_set(report, "exit",
			keeper->report.last_exit ? keeper->report.last_exit : json_null());
	add_copy(keeper, report);
	add_hardware(keeper, report);
	add_migration(keeper, report);
	json_object_set_new(report, "volumes", volumes_json(keeper));
	json_object_set_new(report, "nics", nics_json(keeper));
	return report;
}

void report_save(const struct keeper *keeper)
{
	struct error err = { 0 };
	json_auto_t *value = json_pack(
		"{s:i, s:s, s:s, s:I, s:O?, s:s, s:I, s:I}", "v", 1, "state",
		vm_state_name(keeper->report.state), "reason", keeper->report.reason, "since_usec",
		(json_int_t)keeper->report.since, "exit", keeper->report.last_exit, "failure",
		keeper->failure, "failures", (json_int_t)keeper->backoff.failures, "retry_done",
		(json_int_t)keeper->retry_done);

	if (json_write_file(keeper->run_fd, STATE_FILE, value, 0600, &err) < 0)
		log_warning("%s; the next keeper would not know", err.text);
}

void report_load(struct keeper *keeper)
{
	json_auto_t *value = NULL;
	int state;

	keeper->report.state = VM_UNKNOWN;
	keeper->report.since = clock_wall();
	if (json_read_file(keeper->run_fd, STATE_FILE, &value, NULL) < 0)
		return;
	state = vm_state_of(json_string_or(value, "state", ""));
	if (state >= 0)
		keeper->report.state = (enum vm_state)state;
	(void)snprintf(keeper->report.reason, sizeof(keeper->report.reason), "%s",
		       json_string_or(value, "reason", ""));
	keeper->report.since =
		(uint64_t)json_int_or(value, "since_usec", (int64_t)keeper->report.since);
	if (json_is_object(json_object_get(value, "exit")))
		keeper->report.last_exit = json_incref(json_object_get(value, "exit"));
	(void)snprintf(keeper->failure, sizeof(keeper->failure), "%s",
		       json_string_or(value, "failure", ""));
	keeper->backoff.failures = (unsigned)json_int_or(value, "failures", 0);
	keeper->retry_done = (uint64_t)json_int_or(value, "retry_done", 0);
}

void report_update(struct keeper *keeper, bool settled)
{
	char reason[sizeof(keeper->report.reason)] = "";
	enum vm_state state = describe(keeper, reason, sizeof(reason));
	bool changed = state != keeper->report.state;
	json_auto_t *now = NULL;

	/* The time that is left in a reason is no news. */
	if (changed) {
		keeper->report.since = clock_wall();
		keeper->report.state = state;
	}
	memcpy(keeper->report.reason, reason, sizeof(reason));
	keeper->settled = settled;
	now = report_json(keeper);
	json_object_del(now, "uptime_s");
	if (keeper->told && json_equal(now, keeper->told))
		return;
	json_decref(keeper->told);
	keeper->told = json_incref(now);
	report_save(keeper);
	if (changed)
		report_event(keeper, "state", NULL, "%s%s%s", vm_state_name(state),
			     *reason ? ": " : "", reason);
	link_event(keeper->link, "state", now);
}

static void append_line(struct keeper *keeper, const json_t *entry)
{
	CLEANUP_FREE char *line = json_print(entry);
	CLEANUP_FREE char *whole = xasprintf("%s\n", line);
	struct stat st;
	CLEANUP_FD int fd = openat(keeper->log_fd, "events.jsonl",
				   O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

	/* The event log must never be the reason that anything else fails. */
	if (fd < 0 || write(fd, whole, strlen(whole)) < 0)
		return;
	if (fstat(fd, &st) == 0 && st.st_size > EVENTS_MAX)
		(void)renameat(keeper->log_fd, "events.jsonl", keeper->log_fd, "events.jsonl.1");
}

void report_event(struct keeper *keeper, const char *event, json_t *details, const char *fmt, ...)
{
	CLEANUP_FREE char *words = NULL;
	char now[CLOCK_TEXT_SIZE];
	json_auto_t *entry = json_object();
	va_list args;

	va_start(args, fmt);
	if (vasprintf(&words, fmt, args) < 0)
		words = NULL;
	va_end(args);
	if (words)
		log_info("%s: %s", event, words);
	json_set_string(entry, "time", clock_text(clock_wall(), now));
	json_set_string(entry, "vm", keeper->name);
	json_set_string(entry, "node", keeper->config->node);
	json_set_string(entry, "event", event);
	json_object_set_new(entry, "reason",
			    json_text(words ? words : "", words ? strlen(words) : 0));
	if (details)
		json_object_set(entry, "details", details);
	append_line(keeper, entry);
	link_event(keeper->link, "event", entry);
}
