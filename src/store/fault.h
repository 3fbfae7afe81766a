/* SPDX-License-Identifier: Apache-2.0 */
/* How a test steers a store that was opened as "fault:ADDRESS".  Without orders it passes
 * everything through to ADDRESS and back.  With them it does what networks and servers do: nothing
 * here is told to the code under test, which sees only the contract of store.h. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct store;

enum fault_kind {
	FAULT_NONE,
	FAULT_HOLD,	    /* done, but the answer waits for fault_release() */
	FAULT_DROP_REQUEST, /* not done, -EAGAIN */
	FAULT_DROP_ANSWER,  /* done, -EAGAIN */
	FAULT_LATE,	    /* -EAGAIN; a write is done only at fault_land() (reads: not at all) */
	FAULT_TWICE,	    /* a write arrives twice; the answer to the first is given */
	FAULT_FAIL,	    /* not done, `code` */
};

/* What counts as a call. */
enum fault_calls { FAULT_READS = 1, FAULT_WRITES = 2, FAULT_CALLS = 3, FAULT_RENEWALS = 4 };

/* The next `count` calls of these sorts, beginning after `skip` of them, get this fault.  `code` is
 * for FAULT_FAIL.  A new order replaces the former one. */
struct fault {
	enum fault_kind kind;
	enum fault_calls calls;
	unsigned skip, count;
	int code;
};
void fault_order(struct store *store, const struct fault *fault);
unsigned fault_pending(const struct store *store); /* how many of the order are still to come */

void fault_release(struct store *store); /* gives the held answers, in the order of the calls */
void fault_land(struct store *store);	 /* the late writes arrive, in their order */

/* The link to the store.  Cut: the session is SUSPENDED, each call is -EAGAIN and not done, watches
 * are silent.  Mended: CONNECTED (or LOST, if it was expired meanwhile), and all watches look. */
void fault_cut(struct store *store);
void fault_mend(struct store *store);
/* The store ends our session and its keys; told at once, or by fault_mend() when the link is cut.
 */
void fault_expire(struct store *store);
