/* SPDX-License-Identifier: Apache-2.0 */
/* What the cluster remembers: a small tree of JSON values with versions.  One contract, several
 * backends, one conformance suite (tests/unit/test-store.c).
 *
 * Every call is accepted (0) or refused at once (negative, nothing will follow).  For each accepted
 * call `reply` is called exactly once, from the loop, never from inside the call.  Outcomes:
 *	0		done
 *	-EAGAIN		unknown: no answer, it may or may not have happened, or happen later.
 *			Ask the very same thing again (ownership protocol, section 6)
 *	-ESTALE		conflict: some version was not as expected; nothing was written
 *	-ENOENT		no such key
 *	-ENOSPC		the store's disk is full; nothing was written
 *	-ENOTCONN	an ephemeral put, and our session is over; nothing was written
 *	-EUCLEAN	the stored data are damaged; `err` names the way out
 * Any other failure: not done, and asking again will not help before somebody repaired something.
 * Answers come in the order of the calls.
 *
 * Keys look like /drover/vms/web01/owner: absolute, no empty parts, no "." or "..", printable ASCII
 * without blanks, at most STORE_KEY_MAX bytes.  Values are at most STORE_VALUE_MAX bytes of compact
 * JSON.  A version is never 0 for a key that exists, and a key that was
 * deleted and made again never has a version it had before. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

struct error;
struct store;
struct store_watch;

#define STORE_KEY_MAX 512
#define STORE_VALUE_MAX (512u * 1024)
#define STORE_OPS_MAX 1024   /* a directory of definitions is applied in one transaction */
#define STORE_ANY UINT64_MAX /* expected version: whatever is there, or nothing */
#define STORE_ABSENT 0	     /* expected version: the key must not exist */

struct store_entry {
	const char *key;
	json_t *value; /* borrowed */
	uint64_t version;
};

/* Entries that are to outlive the answer they came in: keys and values are the copy's own. */
struct store_entry *store_entries_copy(const struct store_entry *entries, size_t count);
/* Of a copy, or of entries made like one. */
void store_entries_free(struct store_entry *entries, size_t count);

/* Addresses: "local:PATH" (SQLite file; PATH may be relative to `base_dir`),
 * "zookeeper:ADDRESS:PORT,ADDRESS:PORT/PATH?tick=MS",
 * "consul:http://ADDRESS:PORT,ADDRESS:PORT/PREFIX?token-file=PATH", "fault:ADDRESS" in tests. */
int store_open(const char *address, const char *base_dir, sd_event *loop, struct store **ret_store,
	       struct error *err);
/* Open calls are not answered any more, watches end (do not unwatch them afterwards), and the
 * session lives on for its time-out, so that a restarted program can resume it.  NULL is allowed.
 */
struct store *store_close(struct store *store);
const char *store_address(const struct store *store);

typedef void (*store_get_fn)(void *ctx, int r, const struct store_entry *entry,
			     const struct error *err);
typedef void (*store_list_fn)(void *ctx, int r, const struct store_entry *entries, size_t count,
			      const struct error *err);
/* After a done write, `versions[i]` is the new version of operation i (0 for deletes, and the
 * version that was checked for checks). */
typedef void (*store_write_fn)(void *ctx, int r, const uint64_t *versions, const struct error *err);

/* Reads are linearizable: they see every write answered before they were asked. */
int store_get(struct store *store, const char *key, store_get_fn reply, void *ctx,
	      struct error *err);
/* All keys below `prefix` ("/drover/vms/"), sorted by key.  Not each store can give a snapshot:
 * what changes meanwhile is seen or not, key by key, and a watch tells of it. */
int store_list(struct store *store, const char *prefix, store_list_fn reply, void *ctx,
	       struct error *err);

enum store_op_kind { STORE_PUT, STORE_DELETE, STORE_CHECK };
struct store_op {
	enum store_op_kind kind;
	const char *key;
	uint64_t expected; /* version, STORE_ANY or STORE_ABSENT */
	json_t *value;	   /* STORE_PUT; borrowed */
	bool ephemeral;	   /* STORE_PUT: goes with our session */
};
/* All or nothing; the answer comes after the data are safe.  At most STORE_OPS_MAX operations, each
 * key at most once.  Deleting with STORE_ANY what is not there is done. */
int store_write(struct store *store, const struct store_op *ops, size_t count, store_write_fn reply,
		void *ctx, struct error *err);

/* Level-triggered: `look` says "something below prefix changed, look again"; it is called once soon
 * after store_watch() as well, and several changes may come as one call.  Writes of our own count.
 */
typedef void (*store_look_fn)(void *ctx);
int store_watch(struct store *store, const char *prefix, store_look_fn look, void *ctx,
		struct store_watch **ret_watch, struct error *err);
struct store_watch *store_unwatch(struct store_watch *watch);

/* The session: ephemeral keys live as long as it does.  `local`: an advisory lock of ours that the
 * kernel frees when we die, plus the session's time-out. */
enum store_session_state { STORE_CONNECTED, STORE_SUSPENDED, STORE_LOST };
typedef void (*store_session_fn)(void *ctx, enum store_session_state state);
/* One session per store; after STORE_LOST another one can be opened.  (When it cannot be opened at
 * all, that is STORE_LOST too; the reason is in the log.)
 * `resume` is the id of a former session, or NULL; within its time-out its ephemeral keys are ours
 * again.  The reply comes through `changed` (STORE_CONNECTED first). */
int store_session_open(struct store *store, const char *resume, uint64_t timeout_usec,
		       store_session_fn changed, void *ctx, struct error *err);
/* Ends it now with its ephemeral keys, for a program that leaves for good: STORE_LOST follows. */
int store_session_close(struct store *store, struct error *err);
const char *store_session_id(const struct store *store); /* NULL before it is connected */

/* When others may see our session end, counted from the moment at which the request of its last
 * answered renewal was sent (ownership protocol, section 7.1): never before `earliest_usec`, and no
 * later than `latest_usec`.  As negotiated, not as asked for.  -ENOTCONN: there is no session. */
struct store_timing {
	uint64_t earliest_usec, latest_usec;
};
int store_session_timing(const struct store *store, struct store_timing *ret_timing);
/* One real request that renews our session; it may be answered before calls made earlier.  Outcomes
 * as above: 0 means that the store had our session after the call was made, -ENOTCONN that it is
 * over. */
typedef void (*store_renew_fn)(void *ctx, int r, const struct error *err);
int store_session_renew(struct store *store, store_renew_fn reply, void *ctx, struct error *err);

/* What one transaction may hold here; never more than the limits above. */
struct store_limits {
	size_t ops;   /* operations */
	size_t bytes; /* all keys and values together */
};
struct store_limits store_limits(const struct store *store);
