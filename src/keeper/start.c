/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/start.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "keeper/booking.h"
#include "keeper/claims.h"
#include "keeper/console.h"
#include "keeper/copy.h"
#include "keeper/keeper.h"
#include "keeper/launch.h"
#include "keeper/lease.h"
#include "keeper/monitor.h"
#include "keeper/obstacle.h"
#include "keeper/ownership.h"
#include "keeper/pending.h"
#include "keeper/receive.h"
#include "keeper/report.h"
#include "keeper/stop.h"
#include "model/config.h"
#include "net/net.h"
#include "qemu/hardware.h"
#include "qmp/qmp.h"
#include "storage/storage.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/mem.h"

#define STEP_SHOWN (200 * USEC_PER_MSEC)

struct step {
	const char *checkpoint; /* named so for the kill tests */
	const char *what;
	void (*begin)(struct keeper *keeper);
};

struct start {
	const struct step *steps;
	size_t n_steps, step;
	uint64_t attempt;     /* receiving: the epoch that the move will have; 0: from nothing */
	struct launch launch; /* what the steps gather, and the launch uses up */
	struct tool *probe;
	struct storage *storage;
	struct volume_job *volume_job;
	struct hardware_check *check;
	bool waiting;  /* for a lease, before the vcpus may run */
	bool launched; /* there is a copy to end when this fails */
};

static void probe_qemu(struct keeper *keeper);
static void plan_hardware(struct keeper *keeper);
static void adopt_hardware(struct keeper *keeper);
static void check_claims(struct keeper *keeper);
static void own_record(struct keeper *keeper);
static void book_memory(struct keeper *keeper);
static void prepare_volumes(struct keeper *keeper);
static void make_taps(struct keeper *keeper);
static void launch_qemu(struct keeper *keeper);
static void meet_monitor(struct keeper *keeper);
static void verify_hardware(struct keeper *keeper);
static void run_vcpus(struct keeper *keeper);

/* Each ends with step_done() or step_failed(), at once or later. */
static const struct step cold_steps[] = {
	{ "keeper.start.probe", "finding out what QEMU can do here", probe_qemu },
	{ "keeper.start.plan", "planning the hardware", plan_hardware },
	{ "keeper.start.claims", "looking whether another node uses its volumes", check_claims },
	{ "keeper.start.own", "waiting for the owner record", own_record },
	{ "keeper.start.book", "booking memory", book_memory },
	{ "keeper.start.volumes", "preparing volumes", prepare_volumes },
	{ "keeper.start.taps", "making network interfaces", make_taps },
	{ "keeper.start.launch", "starting QEMU", launch_qemu },
	{ "keeper.start.meet", "waiting for QEMU's monitor", meet_monitor },
	{ "keeper.start.verify", "comparing QEMU with the hardware record", verify_hardware },
	{ "keeper.start.run", "starting the vcpus", run_vcpus },
};

/* The guest's hardware is what the record says, and the record stays another node's. */
static const struct step receive_steps[] = {
	{ "keeper.receive.probe", "finding out what QEMU can do here", probe_qemu },
	{ "keeper.receive.plan", "preparing for the hardware of the record", adopt_hardware },
	{ "keeper.receive.book", "booking memory", book_memory },
	{ "keeper.receive.volumes", "preparing volumes", prepare_volumes },
	{ "keeper.receive.taps", "making network interfaces", make_taps },
	{ "keeper.receive.launch", "starting a QEMU that receives", launch_qemu },
	{ "keeper.receive.meet", "waiting for QEMU's monitor", meet_monitor },
	{ "keeper.receive.verify", "comparing QEMU with the hardware record", verify_hardware },
};

static void begin_step(struct keeper *keeper)
{
	struct start *start = keeper->start;

	log_debug("start: %s", start->steps[start->step].what);
	checkpoint(start->steps[start->step].checkpoint);
	start->steps[start->step].begin(keeper);
}

static void step_done(struct keeper *keeper)
{
	struct start *start = keeper->start;
	bool receives = start->attempt != 0;

	if (++start->step < start->n_steps) {
		begin_step(keeper);
		return;
	}
	checkpoint(receives ? "keeper.receive.done" : "keeper.start.done");
	keeper->start = start_cancel(start);
	if (receives) {
		receive_begin(keeper);
		return;
	}
	keeper->failure[0] = '\0';
	console_next(keeper->console);
	report_event(keeper, "started", NULL, "QEMU runs as pid %d", (int)keeper->copy->id.pid);
	pending_look(keeper); /* the wish may have changed while it was started */
	keeper_look(keeper);
}

static void step_failed(struct keeper *keeper, const struct error *err)
{
	struct start *start = keeper->start;
	bool launched = start->launched;

	report_event(keeper, start->attempt ? "receive-failed" : "start-failed", NULL, "%s: %s",
		     start->steps[start->step].what, err->text);
	keeper_failed(keeper, 0, err->text);
	if (start->attempt)
		obstacle_met(keeper, start->attempt, err);
	keeper->start = start_cancel(start);
	keeper->remains = true;
	if (launched && keeper->copy) {
		copy_note(keeper, &keeper->copy->end_ordered);
		stop_destroy(keeper, "its start failed");
	}
	keeper_look(keeper);
}

struct start *start_cancel(struct start *start)
{
	struct keeper *keeper;

	if (!start)
		return NULL;
	keeper = start->launch.keeper;
	/* What never became a process books no memory; a copy gives its own back in cleanup. */
	if (!keeper->copy && start->launch.token[0])
		booking_remove(keeper);
	hardware_verify_cancel(start->check);
	tool_cancel(start->probe);
	volume_cancel(start->volume_job);
	storage_close(start->storage);
	launch_done(&start->launch);
	free(start);
	return NULL;
}

const char *start_step(const struct start *start)
{
	return start->waiting ? "waiting until the store answers droverd again, since the lease of "
				"this node is over"
			      : start->steps[start->step].what;
}

static void begin(struct keeper *keeper, const struct step *steps, size_t n_steps, uint64_t attempt)
{
	struct error err = { 0 };

	keeper->start = xcalloc(1, sizeof(*keeper->start));
	keeper->start->steps = steps;
	keeper->start->n_steps = n_steps;
	keeper->start->attempt = keeper->start->launch.attempt = attempt;
	keeper_look_in(keeper, STEP_SHOWN); /* a step that takes long is told */
	if (launch_init(&keeper->start->launch, keeper, &err) < 0)
		step_failed(keeper, &err);
	else
		begin_step(keeper);
}

void start_begin(struct keeper *keeper)
{
	begin(keeper, cold_steps, ARRAY_SIZE(cold_steps), 0);
}

void start_receive(struct keeper *keeper)
{
	begin(keeper, receive_steps, ARRAY_SIZE(receive_steps),
	      keeper->ownership->record.epoch + 1);
}

static void on_probed(void *ctx, int r, struct tool_result *result, const struct error *err)
{
	struct keeper *keeper = ctx;
	struct error why = { 0 };

	keeper->start->probe = NULL;
	if (r < 0) {
		step_failed(keeper, err);
	} else if (result->code != 0) {
		error_set(&why, -ECHILD, "%s", result->err_text);
		step_failed(keeper, &why);
	} else {
		step_done(keeper);
	}
}

static void probe_qemu(struct keeper *keeper)
{
	struct start *start = keeper->start;
	struct error err = { 0 };

	if (launch_probed(&start->launch))
		step_done(keeper);
	else if (launch_probe_start(&start->launch, on_probed, keeper, &start->probe, &err) < 0)
		step_failed(keeper, &err);
}

static void plan_hardware(struct keeper *keeper)
{
	struct error err = { 0 };

	if (launch_plan(&keeper->start->launch, &err) < 0)
		step_failed(keeper, &err);
	else
		step_done(keeper);
}

static void adopt_hardware(struct keeper *keeper)
{
	struct error err = { 0 };
	int r = receive_check(keeper, &err);

	keeper->remains = true;
	if (r == 0)
		r = launch_adopt(&keeper->start->launch, &err);
	if (r < 0)
		step_failed(keeper, &err);
	else
		step_done(keeper);
}

static void on_owned(struct keeper *keeper, int r, const struct error *err)
{
	struct start *start = keeper->start;

	/* Overtaken by a new wish: the record stays with us, cleanup gives it back. */
	if (!start) {
		keeper_look(keeper);
		return;
	}
	if (r < 0) {
		step_failed(keeper, err);
		return;
	}
	keeper->remains = true;
	hardware_free(keeper->hardware);
	keeper->hardware = TAKE_PTR(start->launch.hardware);
	step_done(keeper);
}

/* Before the record is written: each try would bring it nearer to a claim of a higher epoch. */
static void check_claims(struct keeper *keeper)
{
	struct error err = { 0 };

	if (claims_check(keeper, keeper->start->launch.definition, &err) < 0)
		step_failed(keeper, &err);
	else
		step_done(keeper);
}

static void own_record(struct keeper *keeper)
{
	const struct launch *launch = &keeper->start->launch;
	struct error err = { 0 };

	if (ownership_acquire(keeper, launch->definition, launch->hardware, on_owned, &err) < 0)
		step_failed(keeper, &err);
}

static void book_memory(struct keeper *keeper)
{
	struct launch *launch = &keeper->start->launch;
	struct error err = { 0 };

	launch->epoch = launch->attempt ? launch->attempt : keeper->ownership->record.epoch;
	copy_token(keeper, keeper->hardware->uuid, launch->epoch, launch->token);
	if (booking_make(keeper, launch->token, keeper->hardware->memory_mib, &launch->uid, &err) <
	    0)
		step_failed(keeper, &err);
	else
		step_done(keeper);
}

static void prepare_next_volume(struct keeper *keeper);

static void on_volume(void *ctx, int r, struct volume_open *open, const char *note,
		      const struct error *err)
{
	struct keeper *keeper = ctx;
	struct start *start = keeper->start;
	struct error why = { 0 };

	start->volume_job = NULL;
	if (r < 0) {
		why = *err;
		error_prefix(&why, r, "volume '%s'",
			     start->launch.definition->volumes[start->launch.n_volumes].name);
		step_failed(keeper, &why);
		return;
	}
	if (note)
		report_event(keeper, "volume", NULL, "%s", note);
	start->launch.volumes[start->launch.n_volumes++] = *open;
	*open = (struct volume_open){ 0 };
	prepare_next_volume(keeper);
}

/* A guest that is received brings what is on disks of its home along; what all can reach, or only
 * reads, is opened as it is. */
static enum volume_use volume_use(const struct keeper *keeper,
				  const struct definition_volume *volume)
{
	if (!keeper->start->attempt)
		return VOLUME_USE;
	if (!keeper->ownership->record.home[0] || volume->read_only)
		return VOLUME_SHARED;
	return VOLUME_ARRIVING;
}

static void prepare_next_volume(struct keeper *keeper)
{
	struct start *start = keeper->start;
	const struct definition *def = start->launch.definition;
	const struct definition_volume *volume;
	struct volume_want want;
	struct error err = { 0 };

	if (start->launch.n_volumes == def->n_volumes) {
		if (!start->attempt)
			keeper->claimed = start->launch.epoch;
		step_done(keeper);
		return;
	}
	volume = &def->volumes[start->launch.n_volumes];
	want = (struct volume_want){ .use = volume_use(keeper, volume),
				     .vm = keeper->name,
				     .name = volume->name,
				     .size = volume->size,
				     .format = (enum volume_format)volume->format,
				     .source = volume->source,
				     .overlay = volume->overlay,
				     .read_only = volume->read_only,
				     .uid = start->launch.uid,
				     .path = volume->path };
	if (volume_prepare(start->storage, &want, start->launch.epoch, keeper->config->node,
			   keeper->config->timers.volume, on_volume, keeper, &start->volume_job,
			   &err) < 0)
		step_failed(keeper, &err);
}

static void prepare_volumes(struct keeper *keeper)
{
	CLEANUP_FREE char *dir = xasprintf("%s/volumes", keeper->config->paths.lib);
	struct error err = { 0 };

	if (storage_open(dir, keeper->loop, &keeper->start->storage, &err) < 0)
		step_failed(keeper, &err);
	else
		prepare_next_volume(keeper);
}

static void make_taps(struct keeper *keeper)
{
	struct error err = { 0 };

	if (launch_taps(&keeper->start->launch, &err) < 0)
		step_failed(keeper, &err);
	else
		step_done(keeper);
}

static void launch_qemu(struct keeper *keeper)
{
	struct start *start = keeper->start;
	struct error err = { 0 };
	int r;

	r = launch_run(&start->launch, &err);
	start->launched = keeper->copy != NULL;
	if (r < 0) {
		step_failed(keeper, &err);
		return;
	}
	checkpoint("keeper.start.launched");
	step_done(keeper);
}

static void meet_monitor(struct keeper *keeper)
{
	monitor_open(keeper);
}

/* For the first time, or again after the connection broke in the middle of the comparison. */
void start_monitor_ready(struct keeper *keeper)
{
	struct start *start = keeper->start;

	if (keeper->copy->ran)
		return;
	while (start->steps[start->step].begin != meet_monitor)
		start->step--;
	step_done(keeper);
}

/* A QEMU that hangs before its guest has begun may go; one whose vcpus were let run may not. */
void start_look(struct keeper *keeper)
{
	struct error err = { 0 };

	keeper_look_in(keeper, STEP_SHOWN);
	if (!keeper->copy || keeper->copy->ran)
		return;
	if (!monitor_mute(keeper->monitor)) {
		if (keeper->start->waiting && !keeper->ownership->write)
			run_vcpus(keeper);
		return;
	}
	error_set(&err, -ETIMEDOUT, "QEMU (pid %d) does not answer at its monitor",
		  (int)keeper->copy->id.pid);
	step_failed(keeper, &err);
}

/* QEMU says on stderr why it ends; its monitor only closes. */
void start_copy_ended(struct keeper *keeper)
{
	struct error err = { 0 };

	launch_last_words(&keeper->start->launch, &err);
	keeper->start->launched = false;
	step_failed(keeper, &err);
}

/* The connection is gone: QEMU is about to end, and then its last words say why; or it comes back.
 */
static bool is_broken(int r)
{
	return r == -ECONNRESET || r == -EPIPE || r == -EAGAIN;
}

static void on_verified(void *ctx, int r, const struct error *err)
{
	struct keeper *keeper = ctx;

	keeper->start->check = NULL;
	if (r < 0 && !is_broken(r))
		step_failed(keeper, err);
	else if (r == 0)
		step_done(keeper);
}

static void verify_hardware(struct keeper *keeper)
{
	struct start *start = keeper->start;
	struct error err = { 0 };
	int r;

	r = hardware_verify(monitor_qmp(keeper->monitor), keeper->hardware,
			    keeper->config->timers.qmp, on_verified, keeper, &start->check, &err);
	if (r < 0 && !is_broken(r))
		step_failed(keeper, &err);
}

static void on_running(void *ctx, int r, json_t *value, const struct error *err)
{
	struct keeper *keeper = ctx;

	keeper->letting_run = false;
	if (!keeper->start)
		return;
	monitor_outdated(keeper->monitor);
	/* Only QEMU's own "no" means that they do not run.  Silence is no reason to end a guest
	 * that may have begun: then the start is over, and what is to be seen is what counts. */
	if (r == -EREMOTEIO) {
		step_failed(keeper, err);
		return;
	}
	if (r < 0)
		log_warning("cont: %s; going by what QEMU says next", err->text);
	step_done(keeper);
}

static void on_owned_again(struct keeper *keeper, int r, const struct error *err)
{
	if (!keeper->start)
		keeper_look(keeper);
	else if (r < 0)
		step_failed(keeper, err);
	else
		run_vcpus(keeper);
}

/* R1: vcpus run only after an answered write of this keeper's own; R2: and under the lease that was
 * valid then.  0: not now, start_look() or an answer comes back to it. */
static int may_run(struct keeper *keeper, struct error *err)
{
	struct start *start = keeper->start;
	int r;

	if (!keeper->ownership->permitted)
		return error_try_again(err, "the owner record is not ours any more");
	lease_begin(keeper);
	r = lease_check(keeper, 0, err);
	start->waiting = r < 0;
	if (r == -ESTALE)
		r = ownership_acquire(keeper, start->launch.definition, NULL, on_owned_again, err);
	else if (r < 0)
		r = 0;
	return r < 0 ? r : !start->waiting;
}

static void run_vcpus(struct keeper *keeper)
{
	struct error err = { 0 };
	int r = may_run(keeper, &err);

	if (r == 0)
		return;
	if (r > 0) {
		keeper->copy->ran = true;
		r = copy_save(keeper, keeper->copy, &err);
	}
	if (r >= 0)
		r = monitor_call(keeper->monitor, "cont", NULL, on_running, keeper, &err);
	keeper->letting_run = r == 0;
	if (r < 0)
		step_failed(keeper, &err);
}
