/* SPDX-License-Identifier: Apache-2.0 */
/* The side that a guest leaves: the conversation with the target's keeper, what QEMU is told to
 * send, and the switch.  When to do what is core/migration's matter. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "wire/peer.h"

struct keeper;
struct source;

/* Goes in by the offer's address and says hello; with `late` (QEMU has sent everything under a
 * keeper before this one, or the connection broke) only to say that it has stopped. */
void source_begin(struct keeper *keeper, json_t *offer, bool late);
/* Says why to the target.  Takes NULL, returns NULL. */
struct source *source_end(struct source *source, const char *why);
#define PHASE_MIRRORING "mirroring disks"

struct source *source_free(struct source *source);

uint64_t source_agreed(const struct source *source); /* epoch that the target waits for; 0 */
const char *source_target(const struct source *source);
bool source_ready(const struct source *source); /* the target can still be sent to */
/* QEMU has not been told to migrate: what it says is of an older migration. */
bool source_early(const struct source *source);
/* It was begun when all was sent, to be heard: it sends nothing. */
bool source_late(const struct source *source);
bool source_failed(const struct source *source);
bool source_running_heard(const struct source *source);
bool source_gone_heard(const struct source *source);
/* Is the offer that it came by still the one that stands? */
bool source_fits(const struct source *source, json_t *offer);

bool source_postcopy(const struct source *source); /* agreed upon with the target */
const char *source_address(const struct source *source);
/* Postcopy: the copy that had pages is gone, which is all that there is to say. */
void source_lost(struct source *source);
/* Something of the target's keeper; -EAGAIN: it is not reached. */
int source_ask(struct source *source, const char *command, json_t *args, peer_reply_fn reply,
	       void *ctx, struct error *err);

/* Ends the stream of bytes, which makes QEMU fail and its guest run on.  False: it is not ours. */
bool source_shut(struct source *source);
/* Begins to send, once. */
void source_send(struct source *source);
void source_say_stopped(struct source *source);
/* QEMU's migration has another status, or told how far it is. */
void source_status(struct source *source, const char *status, json_t *info);
void source_event(struct source *source, const char *name, json_t *data, uint64_t usec);

/* {phase, percent, bytes, total, rounds, rate, deadline} */
json_t *source_json(const struct source *source);
