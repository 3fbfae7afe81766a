/* SPDX-License-Identifier: Apache-2.0 */
/* Who a process is.  A bare number is never enough to act on: the identity is pid + start time +
 * boot id + a token on the command line, all checked while a pidfd is held, so what was checked is
 * what gets the signal (invariant I5). */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/clock.h"

struct error;

#define PROCESS_TOKEN_SIZE 160

struct process_id {
	pid_t pid;
	uint64_t start_time; /* field 22 of /proc/PID/stat, clock ticks after boot (proc(5)) */
	char boot_id[BOOT_ID_SIZE];
	char token[PROCESS_TOKEN_SIZE]; /* a whole argument holds it: equal, or after `,` or `=` */
};

/* Fills start_time and boot_id of a live process. */
int process_identify(pid_t pid, const char *token, struct process_id *ret_id, struct error *err);

/* 1 and a pidfd (caller owns): the process lives and is proven to be `id`; also one that is dying
 * and has lost its command line already: its number is not free before the pidfd says so.
 * 0: there is no such process any more, or the number belongs to somebody else.
 * Negative: cannot be told.  -EBADE: number and start time are right, but the command line does not
 * hold the token: a process can rewrite its own, so this is no proof that ours has ended. */
int process_open(const struct process_id *id, int *ret_pidfd, struct error *err);

/* Sends a signal by pidfd; a process that is already gone is success. */
int process_signal(int pidfd, int signal, struct error *err);

/* Waits until the pidfd is readable (the process ended), at most that long: 1 ended, 0 not yet. */
int process_wait(int pidfd, uint64_t timeout_usec);

/* Looks through /proc for processes of these user ids with an argument that holds a word beginning
 * with `token_prefix`; calls `found` for each.  For adoption after a lost run directory, and for
 * proof that a copy is gone.  Other users' processes can say what they like and are not asked. */
struct uid_range {
	uid_t first;
	unsigned count;
};
typedef void (*process_found_fn)(void *ctx, pid_t pid, uid_t uid, const char *argument);
int process_scan(const char *token_prefix, struct uid_range uids, process_found_fn found, void *ctx,
		 struct error *err);
/* Calls `found` for the owner of every process in the range; `argument` is NULL. */
int process_owners(struct uid_range uids, process_found_fn found, void *ctx, struct error *err);

/* PSS and swap of a process in KiB (/proc/PID/smaps_rollup). */
int process_memory(pid_t pid, uint64_t *ret_pss_kib, uint64_t *ret_swap_kib, struct error *err);
