/* SPDX-License-Identifier: Apache-2.0 */
/* One QEMU process.  copy.json in the run directory names it before it exists (token, no pid) and
 * after (pid, start time), so that whatever dies in between, the next keeper finds it or proves
 * that there is none. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "core/lease.h"
#include "util/process.h"

struct error;
struct keeper;

struct copy {
	struct process_id id; /* id.pid is 0 until it was spawned */
	int pidfd;	      /* -1 until then */
	bool child;	      /* ours: the kernel will tell us its exit code */
	bool ran;	      /* its vcpus were started */
	bool paused;	      /* by `drover pause` */
	bool lease_paused;    /* by the end of the lease */
	bool held;	      /* a pause was seen, and no `cont` was said since */
	bool powered_off;     /* the guest said so before the end */
	bool panicked;
	bool end_ordered;	 /* its end is wanted, not a failure */
	enum lease_policy lease; /* that its keeper obeys now */
	bool incoming;	  /* launched to receive a guest; until `ran` its vcpus never ran here */
	uint64_t attempt; /* epoch of the move under which it is sent, or was prepared; 0: none */
	bool still;	  /* stopped by us for the time of its move */
	uint64_t epoch, generation, restarts;
	uint64_t started; /* wall clock, microseconds */
	uint64_t memory_mib;
	uid_t uid;
	sd_event_source *exit_source;
};

/* "drover:ROOT:UUID:EPOCH" (DESIGN 2: identity of a process). */
void copy_token(const struct keeper *keeper, const char *uuid, uint64_t epoch,
		char token[PROCESS_TOKEN_SIZE]);

/* Writes copy.json; the file is what the next keeper goes by. */
int copy_save(const struct keeper *keeper, const struct copy *copy, struct error *err);

/* At the start of a keeper: 1 the copy of the last keeper lives and is keeper->copy now; 0 there is
 * none, keeper->remains tells whether there was; negative: it cannot be told (SITUATION_UNPROVEN).
 */
int copy_adopt(struct keeper *keeper, struct error *err);
/* The same by searching /proc for a token of this root and the uuid of the hardware record: run
 * directories get lost. */
int copy_search(struct keeper *keeper, struct error *err);
/* A copy.json that cannot be read is kept beside for a look. */
int copy_set_aside(const struct keeper *keeper);

/* Watches the pidfd; when the process ends the keeper is told by copy_ended(). */
int copy_watch(struct keeper *keeper, struct copy *copy, struct error *err);

/* Something about the guest that the next keeper must know as well. */
void copy_note(struct keeper *keeper, bool *what);

/* The process is gone, proven by pidfd: notes how it ended, drops keeper->copy. */
void copy_ended(struct keeper *keeper);
struct copy *copy_free(struct copy *copy);
