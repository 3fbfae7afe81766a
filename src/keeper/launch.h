/* SPDX-License-Identifier: Apache-2.0 */
/* What it takes to launch a QEMU: the planned hardware, opened volumes and taps, sockets and logs,
 * a user id, a jail; and the launch itself. */
#pragma once
#include <stdint.h>
#include <sys/types.h>

#include "keeper/jail.h"
#include "model/definition.h"
#include "net/net.h"
#include "qemu/hardware.h"
#include "storage/storage.h"
#include "util/process.h"
#include "util/spawn.h"

struct config;
struct error;
struct keeper;
struct text;

struct launch {
	struct keeper *keeper;
	/* The definition of the moment when this start began: the wish may bring another meanwhile.
	 */
	struct definition *definition;
	uint64_t generation, restarts;
	uint64_t attempt; /* to receive a guest: the epoch that the move will have; 0: to start one
			   */
	struct hardware *hardware; /* as planned; the keeper takes it once the record is ours */
	struct sections template_binding;
	char *binary;
	uint64_t epoch;
	uid_t uid;
	char token[PROCESS_TOKEN_SIZE];
	struct volume_open volumes[DEFINITION_VOLUMES_MAX];
	size_t n_volumes;
	enum nic_mode nic_modes[DEFINITION_NICS_MAX]; /* known with the taps */
	int taps[DEFINITION_NICS_MAX];		      /* -1: none */
	off_t log_offset; /* where this QEMU's words begin in qemu.log */
};

int launch_init(struct launch *launch, struct keeper *keeper, struct error *err);
void launch_done(struct launch *launch);

/* What the guest would find changed at its next start, a line each; empty: nothing. */
int launch_changes(struct keeper *keeper, struct text *ret, struct error *err);

/* Is it known, without asking, what this QEMU can do and which accelerator works? Asking takes
 * seconds: a child of ours does it, `drover-keeper --probe MODEL VM`. */
bool launch_probed(const struct launch *launch);
int launch_probe_start(struct launch *launch, tool_done_fn done, void *ctx, struct tool **ret_tool,
		       struct error *err);
/* The child's part. */
int launch_probe(const struct config *config, const char *cpu_model, struct error *err);

/* Asks the QEMU build and the accelerator probe (both cached), and plans the hardware. */
int launch_plan(struct launch *launch, struct error *err);
/* Instead of a plan of its own: the hardware that the guest has where it runs. */
int launch_adopt(struct launch *launch, struct error *err);
int launch_taps(struct launch *launch, struct error *err);
/* On success keeper->copy is the new process, stopped before its first instruction. On failure
 * there may be one as well (its copy.json could not be written): the caller ends it. */
int launch_run(struct launch *launch, struct error *err);
/* What QEMU wrote to stderr before it ended, as the error of the start. */
void launch_last_words(const struct launch *launch, struct error *err);
