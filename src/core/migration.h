/* SPDX-License-Identifier: Apache-2.0 */
/* The next step of a live migration, for the keeper on either side: a pure function of what this
 * keeper knows (ownership protocol, sections 4 to 6, 8 and 10).  It is asked again after whatever
 * happened, so a keeper that was started a moment ago decides as one that was there from the
 * beginning: nothing but the facts counts.
 *
 *	source	move -> SEND -> QEMU stops -> QEMU completed -> SAY_STOPPED -> FINISH
 *						    no "running" in time -> BACK -> CONT
 *	target	   receiver -> LOADED and "stopped" heard -> TAKE -> CONT
 *
 * A write that is not answered stops everything here: nothing is run and nothing destroyed. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "model/records.h"

/* What this host has of the VM. */
enum migration_copy {
	COPY_NONE,
	COPY_COLD,	/* started here from nothing, vcpus never ran */
	COPY_RUNNING,	/* vcpus run, nothing is being sent */
	COPY_STOPPED,	/* ran, stopped by a user, the guest itself or an error */
	COPY_SENDING,	/* vcpus run, QEMU copies */
	COPY_SWITCHING, /* vcpus stopped for the switch; QEMU may let them run again by itself */
	COPY_COMPLETED, /* `postmigrate`: everything was sent; it cannot resume by itself */
	COPY_FEEDING,	/* postcopy source: stopped for good, hands out pages */
	COPY_INCOMING,	/* waits for the stream, or reads it */
	COPY_LOADED,	/* has read everything, vcpus never ran here */
	COPY_FAULTING,	/* postcopy target: runs, pages are missing */
	COPIES,
};
const char *migration_copy_name(enum migration_copy copy);
/* Is something still being sent, by QEMU's word (MigrationStatus of QAPI)?  One that we do not know
 * is a step on the way of a newer QEMU: only the words for an end are an end.
 * Postcopy is another matter: there the guest is elsewhere already. */
bool migration_status_sends(const char *status);

struct migration_facts {
	const char *node;	    /* this one */
	const struct owner *record; /* as last read or written; NULL: there is none */
	bool write_open;	    /* a write of this keeper is not answered (R9) */
	bool permitted;		    /* R1: an answered write of this keeper's own, void since the
				     * copy completed */
	bool lease;		    /* R2: of this moment */
	enum migration_copy copy;
	uint64_t
		attempt; /* epoch of the `move` that the copy was sent or prepared under; 0: none */

	/* As source. */
	bool wanted;	      /* the VM belongs elsewhere, and nothing speaks against going now */
	uint64_t offered;     /* epoch that a receiver, agreed upon with its keeper, waits for; 0 */
	const char *target;   /* node of that receiver */
	bool ready;	      /* the receiver of the move that was written can still be sent to */
	bool told_long;	      /* `stopped` was said, and the time for an answer is over */
	bool released;	      /* the target runs, or time enough has passed since it took */
	bool other_copy_gone; /* proven: said by the other side's keeper, or that node is fenced */

	/* As target. */
	bool stopped_heard; /* for this attempt */
	bool unwanted;	    /* this side gives up: time over, stream lost, or told so */
	bool cont_refused;  /* QEMU answered `cont` with an error in this life of the keeper, and
			     * the copy never ran */
	bool source_known;  /* whom to give it back to */
	bool postcopy; /* agreed upon with this very copy, and not called off by the source: it may
			* run before all pages are there (R7) */
	bool ended;    /* a user wants it to run nowhere */
};

enum migration_action {
	MIGRATION_NONE,	       /* nothing of a migration: core/reconcile decides */
	MIGRATION_WAIT,	       /* something will happen by itself, or its time comes */
	MIGRATION_WRITE_MOVE,  /* owner_move() to `target` */
	MIGRATION_SEND,	       /* let QEMU copy */
	MIGRATION_CANCEL,      /* stop QEMU copying; it lets the guest run again */
	MIGRATION_SAY_STOPPED, /* to the target, for this attempt; again and again */
	MIGRATION_WRITE_BACK,  /* owner_back() */
	MIGRATION_WRITE_RENEW, /* owner_renew() */
	MIGRATION_WRITE_TAKE,  /* owner_take() */
	MIGRATION_WRITE_DECLINE,
	MIGRATION_WRITE_GIVE,
	MIGRATION_WRITE_SETTLE, /* all pages are here: the feeder may go */
	MIGRATION_CONT,		/* let the vcpus run; the lease is looked at once more */
	MIGRATION_FINISH,	/* end the copy that was sent away, free what it had */
	MIGRATION_DESTROY,	/* end a copy that must not or cannot run */
	MIGRATION_ACTIONS,
};
const char *migration_action_name(enum migration_action action);

struct migration_decision {
	enum migration_action action;
	const char *why; /* half a sentence for the log */
};
struct migration_decision migration_decide(const struct migration_facts *facts);
