/* SPDX-License-Identifier: Apache-2.0 */
/* Who may write the owner record, and what: ownership protocol, sections 1 to 3 and 6.  Each
 * function makes the record that comes after `before` (NULL: there is none yet), or refuses.  The
 * epoch goes up by one at every write; the write itself compares the version (R3). */
#pragma once
#include <stdbool.h>

#include "model/records.h"

struct error;

struct writer {
	const char *node, *boot; /* the node that writes, and its kernel's boot id */
	const char *by;		 /* NODE/keeper life/sequence, for people */
};

/* off -> held(me).  `home` makes this node the one that has the local disks. */
int owner_claim(const struct owner *before, const struct writer *me, bool home, const char *lease,
		struct owner *ret, struct error *err);
/* held(me) -> held(me): before every cold start, and before a stopped copy may run again. */
int owner_renew(const struct owner *before, const struct writer *me, const char *lease,
		struct owner *ret, struct error *err);
/* held(me) -> off: the copy is gone, the volumes' claims are free.  `home` stays. */
int owner_release(const struct owner *before, const struct writer *me, struct owner *ret,
		  struct error *err);

/* held(me) -> moving(me, to): a receiver waits on `to` for exactly the epoch that this makes.
 * `mode`: "pre" or "post". */
int owner_move(const struct owner *before, const struct writer *me, const char *to,
	       const char *mode, struct owner *ret, struct error *err);
/* moving(S, me) -> held(me): everything is here and the source said that it cannot go on by itself.
 * Where the disks are (`home`) changes in the same write. */
int owner_take(const struct owner *before, const struct writer *me, struct owner *ret,
	       struct error *err);
/* moving(me, T) -> held(me): cancelled, or taken back; a stopped copy runs only after it. */
int owner_back(const struct owner *before, const struct writer *me, struct owner *ret,
	       struct error *err);
/* moving(S, me) -> held(S): there is no copy here for this move, or it is given up. */
int owner_decline(const struct owner *before, const struct writer *me, struct owner *ret,
		  struct error *err);
/* held(me), taken and never run -> held(S): QEMU answered `cont` with an error, the copy is gone.
 * `source` and its boot id are those of the record that was taken. */
int owner_give(const struct owner *before, const struct writer *me, const char *source,
	       const char *source_boot, struct owner *ret, struct error *err);
/* held(me) with a feeder -> held(me) without: all pages are here (postcopy). */
int owner_settle(const struct owner *before, const struct writer *me, struct owner *ret,
		 struct error *err);

/* R4: may `node` make `after` out of `before` (NULL: there is no record)?  For the agent, which
 * carries writes that keepers ask for; whether they conflict is the store's matter. */
int owner_check_write(const struct owner *before, const struct owner *after, const char *node,
		      struct error *err);

/* The write that comes before a cold start here: claim or renew, as the record says. */
int owner_acquire(const struct owner *before, const struct writer *me, bool home, const char *lease,
		  struct owner *ret, struct error *err);

/* A write was answered "conflict" and the record was then read: is it ours all the same?  Only when
 * it is this very write, landed by an earlier try: node, epoch and writer are equal.  One of a
 * former life of the keeper is not: who was told nothing has won nothing (sections 1 and 6). */
bool owner_won(const struct owner *now, const struct owner *asked);

/* The claim beside a volume, {node, epoch}, is written under an answered write of the record, so
 * one that the record has not come to yet tells that the store was set back to an older state, or
 * that another cluster uses the storage.  `owner` NULL: there is no record.  To be asked before a
 * write that no copy stands behind, for each write brings the record nearer to the claim: claim,
 * renew, release. */
int owner_check_claim(const struct owner *owner, const char *claimed_by, uint64_t epoch,
		      struct error *err);

/* Why this node may not have the VM, as a sentence; 0 when it may. */
int owner_check_here(const struct owner *owner, const char *node, struct error *err);
