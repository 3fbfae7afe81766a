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

/* The write that comes before a cold start here: claim or renew, as the record says. */
int owner_acquire(const struct owner *before, const struct writer *me, bool home, const char *lease,
		  struct owner *ret, struct error *err);

/* A write was answered "conflict" and the record was then read: is it ours all the same?  Only when
 * it is this very write, landed by an earlier try: node, epoch and writer are equal.  One of a
 * former life of the keeper is not: who was told nothing has won nothing (sections 1 and 6). */
bool owner_won(const struct owner *now, const struct owner *asked);

/* Why this node may not have the VM, as a sentence; 0 when it may. */
int owner_check_here(const struct owner *owner, const char *node, struct error *err);
