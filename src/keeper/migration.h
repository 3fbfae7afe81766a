/* SPDX-License-Identifier: Apache-2.0 */
/* A VM on its way from one host to another, as this keeper sees it: gathers the facts for
 * core/migration, carries out what that decides, and keeps what both sides need.
 *
 *	source	the side that the guest leaves: conversation, copying, the switch
 *	receive	the side that it comes to: the door, the offer, taking over
 *	recovery  postcopy: another stream when one broke
 *	step	what the core decided, carried out
 *	mirror	local disks that come along */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/backoff.h"
#include "core/migration.h"
#include "keeper/obstacle.h"

struct keeper;
struct migration;
struct receive;
struct recovery;
struct source;
struct timeline;

struct migration {
	struct keeper *keeper;
	struct source *source;	   /* NULL: no conversation as source */
	struct receive *receive;   /* NULL: none as target */
	struct recovery *recovery; /* NULL: no pages are handed out */
	struct timeline *timeline;
	char status[24];  /* of QEMU's migration, as it last said; "" not known */
	bool asking;	  /* a query-migrate is open */
	bool changed;	  /* an event has told more than its answer may */
	bool withdrawing; /* an offer is being withdrawn */
	bool acting;	  /* a `cont` or `migrate_cancel` is open */
	bool never_ran;	  /* for certain: the copy, before the `cont` of this keeper */
	bool cont_refused;
	bool arrived;		      /* what follows from that it runs here was done */
	char refusal[200];	      /* what QEMU last said against a `cont`; "": nothing */
	uint64_t cont_after;	      /* not tried again before; 0 */
	bool asking_disks;	      /* query-block-jobs is open */
	uint64_t cancel_after;	      /* likewise */
	char from[72], from_boot[40]; /* of the record that was taken: whom to give it back to */
	bool called_off;	      /* QEMU was told to send no more, for nobody wants it to */
	uint64_t told_since;	      /* `stopped` is said since; 0: not yet */
	uint64_t redial;	      /* when the target's door is tried again */
	uint64_t taken_since;	      /* the record names the target since; 0 */
	uint64_t not_before;	      /* of the next try as source */
	struct backoff backoff;	      /* between tries as source */
	uint64_t resumed;	      /* by QEMU's clock, when vcpus last began to run */
	char trouble[256];	      /* why the last try came to nothing; "" */
	struct obstacle obstacle;
};

struct migration *migration_new(struct keeper *keeper);
struct migration *migration_free(struct migration *migration);

/* Before core/reconcile: true when the VM is on its way, and nothing else may be done with it. */
bool migration_look(struct keeper *keeper);
/* For core/reconcile. */
bool migration_may_receive(const struct keeper *keeper);
bool migration_is_cold(const struct keeper *keeper);

/* Of a move that is under way: does it go where the VM is to be? */
bool migration_goes_on(const struct keeper *keeper);

/* The process is gone, the monitor closed. */
void migration_copy_ended(struct keeper *keeper);
void migration_link_up(struct keeper *keeper);

#define MIGRATION_NOT_WANTED "it is not wanted any more"
/* The conversation as source ends. */
void migration_end_source(struct keeper *keeper, const char *result, const char *why);
/* This try comes to nothing: the reason, for people; the next one waits a while. */
void migration_failed(struct keeper *keeper, const char *why);

/* The vcpus have stood still for longer than a switch takes: the store has to say who goes on. */
bool migration_hangs(const struct keeper *keeper);
/* Another keeper could go on with it, but not without anybody noticing. */
bool migration_is_under_way(const struct keeper *keeper);
/* For the state of the VM: an object, or NULL when it is not on its way; and in words. */
json_t *migration_json(const struct keeper *keeper);
bool migration_words(const struct keeper *keeper, char *buffer, size_t size);
