/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the ZooKeeper store, for its own files only.
 *
 *	zookeeper.c		the store: calls wait in one queue and are carried out in order
 *	zookeeper-address.c	what an address says
 *	zookeeper-link.c	the library's handle in our loop: connect, back off, drop
 *	zookeeper-request.c	one request to the server and its reply
 *	zookeeper-session.c	our session, and its end by our own clock
 *	zookeeper-tree.c	where keys lie in the tree of znodes
 *	zookeeper-entry.c	one key as it is stored; reading it
 *	zookeeper-list.c	all keys below a prefix
 *	zookeeper-write.c	transactions
 *	zookeeper-plan.c	the multi request of a transaction
 *	zookeeper-watch.c	changes
 *
 * The library is the single-threaded one.  Its completions only note what they were told and wake
 * our `turn`, from which callers are answered: they may close the store, which the library would
 * not survive inside a completion. */
#pragma once
#include <sys/types.h>
#include <zookeeper/zookeeper.h>

#include "store/ops.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"

struct zk;
struct zk_call;
struct zk_request;
struct zk_renewal;
struct zk_watch;

#define ZK_UID_SIZE 33
#define ZK_ID_SIZE 64 /* of a session, as text: SESSION:PASSWORD, in hex */

/* zookeeper-address.c */
struct zk_address {
	char *servers; /* as the library wants them */
	char *chroot;  /* "" or "/a/b" */
	unsigned count;
	uint64_t tick_usec;
};
int zk_address_parse(const char *text, struct zk_address *ret_address, struct error *err);
void zk_address_done(struct zk_address *address);

/* zookeeper-link.c */
struct zk_link {
	zhandle_t *handle;
	int fd;		/* our own descriptor of the handle's socket, -1: it has none */
	int library_fd; /* the library's */
	ino_t inode;	/* tells one socket from the next */
	bool writing;	/* the library has something to send */
	bool connected, expired;
	bool fresh; /* connected, and the others have not been told yet */
	unsigned failures;
	uint64_t not_before;  /* the next attempt to connect */
	uint64_t attempt_end; /* this one is given up then */
	sd_event_source *io, *timer;
	struct zk_request *requests; /* sent, not answered */
	int farewell_fd;	     /* the socket over which our session is being closed */
	sd_event_source *farewell;
};
int zk_link_start(struct zk *zk, struct error *err);
void zk_link_service(struct zk *zk);
void zk_link_drop(struct zk *zk); /* the session lives on */
void zk_link_farewell(struct zk *zk);
void zk_link_done(struct zk *zk);

/* zookeeper-session.c */
struct zk_session {
	enum {
		ZK_SESSION_NONE,
		ZK_SESSION_OPENING,
		ZK_SESSION_LIVE,
		ZK_SESSION_CLOSING,
		ZK_SESSION_GONE, /* `changed` has still to be told */
	} phase;
	bool suspended;
	bool told_suspended, told;
	bool reopen; /* a handle for it has to be opened as soon as nothing is under way */
	bool resuming;
	clientid_t resume;
	char id[ZK_ID_SIZE];
	uint64_t wanted_usec;	  /* time-out that was asked for */
	uint64_t negotiated_usec; /* and what the servers made of it */
	uint64_t give_up;	  /* opening, closing */
	uint64_t acked;		  /* when the last request was sent that the leader answered */
	bool beating;		  /* a request is on its way only to hear an answer */
	store_session_fn changed;
	void *ctx;
	sd_event_source *clock;
	struct zk_renewal *first, **last;
};
int zk_session_start(struct zk *zk, struct error *err);
void zk_session_done(struct zk *zk);
int zk_session_open(struct store *store, const char *resume, uint64_t timeout_usec,
		    store_session_fn changed, void *ctx, struct error *err);
int zk_session_close(struct store *store, struct error *err);
const char *zk_session_id(const struct store *store);
int zk_session_timing(const struct store *store, struct store_timing *ret_timing);
int zk_session_renew(struct store *store, store_renew_fn reply, void *ctx, struct error *err);
void zk_session_connected(struct zk *zk);
void zk_session_expired(struct zk *zk);
void zk_session_farewell_done(struct zk *zk);
void zk_session_acked(struct zk *zk, uint64_t sent);
bool zk_session_tell(struct zk *zk); /* true: a callback was called, the store may be gone */

/* zookeeper-entry.c: what was last known of some keys, so that a write needs no read before it. */
#define ZK_CACHE_SLOTS 1024
struct zk_node {
	uint64_t version; /* zxid of its last change; 0: there is no such key */
	int32_t count;	  /* ZooKeeper's own version of the znode, which starts again at 0 */
	int64_t owner;	  /* session, if ephemeral */
	char uid[ZK_UID_SIZE];
};
struct zk_slot {
	char *key;
	struct zk_node node;
};

struct zk {
	struct store store;
	sd_event *loop;
	struct zk_address address;
	struct zk_link link;
	struct zk_session session;
	sd_event_source *turn;

	struct zk_call *first, **last;
	size_t queued;
	sd_event_source *deadline;

	struct zk_slot cache[ZK_CACHE_SLOTS];
	struct zk_watch *watches;
	bool closing;
};

/* zookeeper.c */
void zk_turn(struct zk *zk); /* look soon what there is to do */

/* One call of the caller's.  The first of the queue is at work: `step` is called when it begins and
 * each time that all requests it has sent are answered (or `lost` in part).  It returns 0 when it
 * is done, a negative errno when it has failed, or one of these: */
#define ZK_WAIT 1  /* it sent requests */
#define ZK_AGAIN 2 /* from the beginning, when there is a connection */
struct zk_call {
	struct zk_call *next;
	struct zk *zk;
	uint64_t deadline;
	unsigned waiting; /* for so many requests */
	bool begun;
	bool lost; /* one of them got no answer */
	int (*step)(struct zk_call *call, bool lost, struct error *err);
	void (*answer)(struct zk_call *call, int r, const struct error *err);
	void (*free)(struct zk_call *call);
};
int zk_queue(struct zk *zk, struct zk_call *call, struct error *err);
void zk_call_progress(struct zk_call *call); /* the servers are at it: wait longer */

/* zookeeper-request.c */
struct zk_reply {
	int rc;
	const char *data;
	int length;
	const struct Stat *stat;
	const struct String_vector *names;
};
typedef void (*zk_reply_fn)(struct zk_request *request, const struct zk_reply *reply);
struct zk_request {
	struct zk_request *next, **at;
	struct zk *zk;
	struct zk_call *call; /* or NULL */
	void *subject;	      /* whatever `done` is about */
	zk_reply_fn done;     /* NULL: nobody is interested any more */
	uint64_t sent;
	bool proves;		  /* its answer comes from the leader: our session lives */
	zoo_op_result_t *results; /* of a multi */
	struct Stat stat;
};
void zk_sync(struct zk *zk, struct zk_call *call, void *subject, zk_reply_fn done);
void zk_get(struct zk *zk, struct zk_call *call, void *subject, const char *path, zk_reply_fn done);
void zk_children(struct zk *zk, struct zk_call *call, void *subject, const char *path,
		 zk_reply_fn done);
void zk_exists(struct zk *zk, struct zk_call *call, void *subject, const char *path,
	       zk_reply_fn done);
void zk_make(struct zk *zk, struct zk_call *call, const char *path, zk_reply_fn done);
void zk_multi(struct zk *zk, struct zk_call *call, zoo_op_t *ops, size_t count, zk_reply_fn done);
void zk_watch_node(struct zk *zk, void *subject, const char *path, watcher_fn heard,
		   zk_reply_fn done);
void zk_watch_children(struct zk *zk, void *subject, const char *path, watcher_fn heard,
		       zk_reply_fn done);
void zk_forget(struct zk *zk, const void *subject); /* nobody waits for answers about it */
bool zk_lost(int rc);				    /* no answer: it may have been done or not */
int zk_fail(int rc, struct error *err, const char *what);

/* zookeeper-tree.c */
char *zk_join(const char *dir, const char *name);
char *zk_dir(const struct zk *zk, const char *key, size_t length);
char *zk_key_dir(const struct zk *zk, const char *key);
char *zk_key_path(const struct zk *zk, const char *key);
char *zk_mark_path(const struct zk *zk, const char *key, const char *uid);
char *zk_shadow_dir(const char *dir);
size_t zk_parent(const char *key, size_t length);
void zk_dirs_add(const struct zk *zk, const char *key, bool shadows, json_t *dirs);
enum zk_name { ZK_NAME_KEY, ZK_NAME_DIR, ZK_NAME_OTHER };
enum zk_name zk_name_read(const char *name, const char **ret_part);

/* zookeeper-entry.c */
int zk_entry_read(const char *key, const struct zk_reply *reply, struct zk_node *ret_node,
		  json_t **ret_value, struct error *err);
char *zk_entry_text(const char *json, const char *uid);
const struct zk_node *zk_cache_get(const struct zk *zk, const char *key);
void zk_cache_put(struct zk *zk, const char *key, const struct zk_node *node);
void zk_cache_clear(struct zk *zk);
int zk_entry_get(struct store *store, const char *key, store_get_fn reply, void *ctx,
		 struct error *err);

/* zookeeper-list.c */
int zk_list(struct store *store, const char *prefix, store_list_fn reply, void *ctx,
	    struct error *err);

/* zookeeper-plan.c */
struct zk_op {
	enum store_op_kind kind;
	char *key;
	char *path; /* of its znode */
	uint64_t expected;
	char *text; /* STORE_PUT: the value with the uid that it gets if it is made */
	char uid[ZK_UID_SIZE];
	bool ephemeral;
	struct zk_node node; /* as it is now */
	bool made;	     /* by the plan: it gets `uid` */
};
struct zk_plan {
	zoo_op_t *ops;
	size_t count, room;
	size_t bytes;
	struct strv paths;
};
int zk_plan_make(struct zk *zk, struct zk_op *ops, size_t count, struct zk_plan *plan,
		 struct error *err);
void zk_plan_done(struct zk_plan *plan);

/* zookeeper-write.c */
int zk_write(struct store *store, const struct store_op *ops, size_t count, store_write_fn reply,
	     void *ctx, struct error *err);

/* zookeeper-watch.c.  The last listing of a prefix that is watched, as zookeeper-list.c keeps it:
 * NULL if there is none, or nobody watches. */
json_t *zk_watch_listing(const struct zk *zk, const char *prefix);
void zk_watch_listed(struct zk *zk, const char *prefix, json_t *listing);
int zk_watch(struct store *store, const char *prefix, store_look_fn look, void *ctx,
	     struct store_watch **ret_watch, struct error *err);
void zk_unwatch(struct store_watch *watch);
void zk_watch_all(struct zk *zk); /* there is a new connection */
void zk_watch_done(struct zk *zk);
