/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the embedded store, for its own files only.
 *
 *	local.c		the store: calls wait in one queue and are carried out by the loop, in order
 *	local-db.c	the file: made, checked, opened; words for what SQLite says
 *	local-entry.c	reads and transactions
 *	local-session.c	our session, and the end of those whose owner died
 *	local-watch.c	changes: how other processes hear of ours and we of theirs
 *
 * Beside STORE.DB lies the directory STORE.DB.sessions: one lock file per session, and the bell. */
#pragma once
#include <limits.h>
#include <sqlite3.h>

#include "store/ops.h"
#include "util/clock.h"
#include "util/error.h"

#define LOCAL_ID_SIZE 33

enum local_statement {
	LOCAL_BEGIN,
	LOCAL_COMMIT,
	LOCAL_GET,
	LOCAL_LIST,
	LOCAL_VERSION,
	LOCAL_PUT,
	LOCAL_DELETE,
	LOCAL_COUNTER,
	LOCAL_COUNTER_SET,
	LOCAL_DATA_VERSION,
	LOCAL_FINGERPRINT,
	LOCAL_SESSION_PUT,
	LOCAL_SESSION_GET,
	LOCAL_SESSION_LIST,
	LOCAL_SESSION_KEYS,
	LOCAL_SESSION_END,
	LOCAL_STATEMENTS,
};

struct local_db {
	char *path;
	sqlite3 *sqlite;
	sqlite3_stmt *statements[LOCAL_STATEMENTS];
};

struct local_session {
	enum {
		SESSION_NONE,
		SESSION_OPENING,
		SESSION_RESUMING,
		SESSION_CONNECTED,
		SESSION_CLOSING,
		SESSION_GONE, /* `changed` has still to be told */
	} phase;
	char id[LOCAL_ID_SIZE];
	int lock_fd; /* holds the lock for as long as we live */
	uint64_t timeout_usec;
	uint64_t give_up; /* resuming: until then a lock held by another is waited for */
	store_session_fn changed;
	void *ctx;
	sd_event_source *step; /* timer: the next try, or the callback */
};

struct local_request;
struct local_foreign;
struct local_watch;

struct local {
	struct store store;
	sd_event *loop;
	struct local_db db;

	struct local_request *first, **last;
	size_t queued;
	sd_event_source *turn;	/* carries out the first request */
	sd_event_source *retry; /* the same, after another process had the file */
	uint64_t retry_usec;

	int dir_fd; /* STORE.DB.sessions */
	char boot[BOOT_ID_SIZE];
	struct local_session session;
	struct local_foreign *foreign;
	sd_event_source *scan; /* timer: look at the foreign sessions again */

	int bell_fd;
	int inotify_fd;
	sd_event_source *inotify;
	int64_t data_version;
	struct local_watch *watches;
	bool uprooted; /* the directory went away under us */
};

/* local-db.c.  Where "busy" is said: 1 is returned, with nothing in `err`, when another process
 * has the file just now; nothing was done, come again soon. */
#define LOCAL_BUSY 1
int local_db_open(struct local_db *db, const char *path, struct error *err);
void local_db_close(struct local_db *db);
sqlite3_stmt *local_db_statement(struct local_db *db, enum local_statement which);
int local_db_fail(struct local_db *db, int rc, struct error *err); /* what SQLite said; or busy */
int local_db_run(struct local_db *db, enum local_statement which, struct error *err); /* or busy */
int local_db_begin(struct local_db *db, struct error *err);			      /* or busy */
int local_db_commit(struct local_db *db, struct error *err);			      /* or busy */
void local_db_rollback(struct local_db *db);					      /* if open */

/* local.c: room for one more in the queue?  Then it is carried out in its turn. */
struct local_request {
	struct local_request *next;
	uint64_t deadline;
	/* Carries it out; may say "busy". */
	int (*run)(struct local *local, struct local_request *request, struct error *err);
	/* Tells the caller.  The store may be gone afterwards. */
	void (*answer)(struct local_request *request, int r, const struct error *err);
	void (*free)(struct local_request *request);
};
int local_queue(struct local *local, struct local_request *request, struct error *err);
int local_intact(struct local *local, struct error *err); /* still the file that was opened? */

/* local-entry.c */
int local_get(struct store *store, const char *key, store_get_fn reply, void *ctx,
	      struct error *err);
int local_list(struct store *store, const char *prefix, store_list_fn reply, void *ctx,
	       struct error *err);
int local_write(struct store *store, const struct store_op *ops, size_t count, store_write_fn reply,
		void *ctx, struct error *err);

/* local-session.c */
int local_session_start(struct local *local, struct error *err);
void local_session_done(struct local *local);
int local_session_open(struct store *store, const char *resume, uint64_t timeout_usec,
		       store_session_fn changed, void *ctx, struct error *err);
int local_session_close(struct store *store, struct error *err);
const char *local_session_id(const struct store *store);
int local_session_timing(const struct store *store, struct store_timing *ret_timing);
int local_session_renew(struct store *store, store_renew_fn reply, void *ctx, struct error *err);
int local_session_check(struct local *local,
			struct error *err); /* does ours still exist? or busy */
void local_session_lost(struct local *local);
void local_session_scan(struct local *local); /* who of the others lives? */

/* local-watch.c */
int local_watch_start(struct local *local, struct error *err);
void local_watch_done(struct local *local);
int local_watch(struct store *store, const char *prefix, store_look_fn look, void *ctx,
		struct store_watch **ret_watch, struct error *err);
void local_unwatch(struct store_watch *watch);
void local_watch_key(struct local *local, const char *key); /* we changed this key */
void local_watch_ring(struct local *local);		    /* tell the other processes */
void local_watch_compare(struct local *local);		    /* keys went that nobody named */
void local_watch_check(struct local *local);		    /* did another process change things? */
