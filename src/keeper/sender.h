/* SPDX-License-Identifier: Apache-2.0 */
/* What QEMU is told to send, and over what: key and limits, mirrors of local disks, then the stream
 * of the guest itself. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct error;
struct keeper;
struct sender;

/* 0, or what went wrong.  From the loop. */
typedef void (*sender_fn)(void *ctx, int r, const struct error *err);

/* `address`: the target's door; `terms`: the target's answer to `prepare`; `postcopy`: it was
 * agreed upon.  `done` comes once QEMU
 * has taken the migration on; a failure may come at any time, also later. */
struct sender *sender_begin(struct keeper *keeper, const char *address, json_t *terms,
			    bool postcopy, sender_fn done, void *ctx);
bool sender_has_mirrors(const struct sender *sender); /* takes NULL */
/* Of an answer to query-block-jobs: how much of the disks is there.  Only with mirrors. */
void sender_mirrored(const struct sender *sender, json_t *jobs, uint64_t *ret_done,
		     uint64_t *ret_total);
/* The vcpus stand still: both sides of each disk are equal once `ended` comes. */
void sender_end_mirrors(struct sender *sender, sender_fn ended);
/* Ends the stream, which makes QEMU fail and its guest run on.  False: there is none. */
bool sender_shut(struct sender *sender);
/* Its mirrors have failed, if they have not ended.  Takes NULL. */
void sender_shut_mirrors(struct sender *sender);
void sender_event(struct sender *sender, const char *name, json_t *data);
/* Calls off what can be; takes NULL, returns NULL. */
struct sender *sender_free(struct sender *sender);
