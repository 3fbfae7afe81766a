/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the sending side share: source.c the sending, dialogue.c the conversation,
 * switchover.c the moment in which the guest stands still, progress.c how far it is. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "keeper/progress.h"
#include "keeper/source.h"
#include "model/records.h"

struct dial;
struct keeper;
struct peer;
struct script;
struct sender;
struct timeline;
struct tls_identity;

struct source {
	struct keeper *keeper;
	uint64_t epoch; /* that the move has, or will have */
	char target[RECORD_NAME_SIZE], address[128], secret[64];
	bool late, agreed, failed;
	struct tls_identity *identity;
	struct dial *dial;
	struct peer *peer;
	struct script *script;
	struct sender *sender;
	bool begun;    /* source_send() was called */
	bool postcopy; /* asked for; then: agreed upon with the target */
	bool switching, continuing;
	bool posting; /* by postcopy, since its time was over */
	bool let_on;  /* from pre-switchover */
	bool lost;    /* there is no copy here: only to say so */
	bool running, gone;
	uint64_t own_fresh, peer_fresh; /* clock_now() of the last answers of the store */
	uint64_t deadline;		/* clock_now() */
	struct progress progress;
	uint64_t stop_usec;  /* QEMU's clock, when its vcpus stopped */
	uint64_t stop_heard; /* clock_now() */
	sd_event_source *poll, *fresh, *limit, *repeat;
};

struct timeline *source_timeline(const struct source *source);
/* QEMU is told to stop sending by core/migration, which sees that nobody is ready any more. */
void source_fail(struct source *source, const char *why);
void source_arm(struct source *source, sd_event_source **timer, uint64_t usec,
		sd_event_time_handler_t handler);

/* From pre-switchover. */
void switchover_let_go_on(struct source *source);
/* Its time is over: the guest goes on there, and its pages follow. */
void switchover_postcopy(struct source *source);
/* The vcpus stand still. */
void switchover_begin(struct source *source);
/* The store has answered one side: does it go on? */
void switchover_look_fresh(struct source *source);
