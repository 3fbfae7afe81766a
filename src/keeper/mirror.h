/* SPDX-License-Identifier: Apache-2.0 */
/* The sending side of local disks: QEMU mirrors each to the target's NBD server and, once all is
 * there, writes to both (protocol, section 10). */
#pragma once
#include <jansson.h>
#include <stdint.h>

struct error;
struct keeper;
struct mirror;

typedef void (*mirror_fn)(void *ctx, int r, const struct error *err);

/* `disks`: what the target's export_json() said; `host`: where it is; `speed`: bytes a second of
 * all together, 0: without a limit.  `ready` comes once all blocks are there, or with what went
 * wrong, also later. */
int mirror_begin(struct keeper *keeper, const char *host, json_t *disks, uint64_t speed,
		 mirror_fn ready, void *ctx, struct mirror **ret, struct error *err);
/* The vcpus stand still: both sides are equal once `ended` comes. */
void mirror_end(struct mirror *mirror, mirror_fn ended);
/* Nothing more goes to the target, whatever becomes of it: what waits for it has failed.  Takes
 * NULL. */
void mirror_shut(struct mirror *mirror);
/* Calls it off, or forgets what has ended.  Takes NULL, returns NULL. */
struct mirror *mirror_free(struct mirror *mirror);
/* Those of a keeper that died: a disk takes one at a time.  Before a new move is begun. */
void mirror_call_off_old(struct keeper *keeper);
/* `jobs`: QEMU's answer to query-block-jobs.  Bytes of all disks together. */
void mirror_progress(struct mirror *mirror, json_t *jobs, uint64_t *ret_done, uint64_t *ret_total);
void mirror_event(struct mirror *mirror, const char *name, json_t *data);
