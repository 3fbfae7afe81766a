/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the store in Consul, for its own files only.
 *
 *	consul.c		address, token, servers; one question and its answer
 *	consul-call.c		the queue: several calls are under way, answers come in their order
 *	consul-entry.c		reads
 *	consul-write.c		transactions
 *	consul-session.c	our session and its deadline
 *	consul-watch.c		blocking queries
 *
 * The version of a key is Consul's ModifyIndex, the number of the write in the servers' log: no key
 * ever gets one back.  Sessions hang on a node of the catalog that is ours alone, CONSUL_NODE: one
 * that hung on the node of an agent would end at once, however long its TTL, when that agent leaves
 * Consul, as it does when it is restarted. */
#pragma once
#include "store/http.h"
#include "store/ops.h"
#include "util/clock.h"
#include "util/error.h"

#define CONSUL_NODE "drover-store"
#define CONSUL_SERVERS_MAX 9
#define CONSUL_ID_SIZE 37
#define CONSUL_ANSWER_MAX (256u * 1024 * 1024) /* 20,000 records of VMs are 40 MiB */
#define CONSUL_SMALL_MAX (1024u * 1024)	       /* all but lists and values */

struct consul;
struct consul_call;
struct consul_watch;

/* One question under way; embedded by who asks. */
struct consul_ask {
	struct consul *consul;
	struct http_transfer *transfer; /* NULL: none */
	size_t server;
	void (*answer)(struct consul_ask *ask, const struct http_answer *answer);
};

struct consul_session {
	enum {
		CONSUL_NONE,
		CONSUL_REGISTER, /* opening: our node in the catalog, */
		CONSUL_CREATE,	 /* the session, */
		CONSUL_PROVE,	 /* its first renewal, which tells the TTL */
		CONSUL_RESUME,
		CONSUL_CONNECTED,
		CONSUL_CLOSE,
		CONSUL_OVER, /* which has still to be told */
	} phase;
	enum store_session_state told, truth;
	char id[CONSUL_ID_SIZE];
	uint64_t ttl_usec; /* asked for, later as negotiated */
	uint64_t asked;	   /* when the request under way was sent */
	uint64_t sent;	   /* when the request of the last answered renewal was sent */
	uint64_t end;	   /* then it is lost, whatever we hear or do not hear */
	char trouble[256]; /* since the last renewal; the first was logged */
	store_session_fn changed;
	void *ctx;
	struct consul_ask ask;
	sd_event_source *step, *over, *tell;
};

struct consul {
	struct store store;
	sd_event *loop;
	struct http *http;
	const char *scheme; /* "http", "https" */
	char *servers[CONSUL_SERVERS_MAX];
	size_t count, server; /* the one asked now */
	bool rotating;	      /* no answer since the last change of server: told once */
	char *prefix;	      /* of all keys: "" or "a/b/" */
	char *token_file, *ca_file;
	char *token_header; /* NULL: no token */

	struct consul_call *first, **last;
	size_t queued, under_way;
	sd_event_source *deliver;
	struct consul_session session;
	struct consul_watch *watches;
	size_t residents;	    /* those of them that wait as long as they like, */
	struct consul_watch *turns; /* and those whose turn comes next, */
	size_t turns_taken;	    /* of which so many are asking */
};

/* consul.c.  `path` is what follows "/v1/".  The answer comes from the loop. */
struct consul_question {
	const char *method, *path, *body;
	size_t length;
	uint64_t timeout_usec;
	size_t limit;
};
int consul_ask(struct consul_ask *ask, const struct consul_question *question, struct error *err);
void consul_ask_cancel(struct consul_ask *ask);
/* Says what an answer means that is not the one hoped for; a negative errno. */
int consul_trouble(struct consul_ask *ask, const struct http_answer *answer, struct error *err);
/* "kv/" and the key as it is written in a URL; owned by the caller. */
char *consul_kv_path(const struct consul *consul, const char *key);
/* The key as Consul has it, and back (NULL: not one of ours).  Owned by the caller. */
char *consul_key(const struct consul *consul, const char *key);
char *consul_key_of(const struct consul *consul, const char *theirs);
int consul_parse(const char *body, size_t length, json_t **ret, struct error *err);

/* consul-call.c */
struct consul_call {
	struct consul_call *next;
	struct consul_ask ask;
	uint64_t deadline;
	unsigned tries;
	bool started, done;
	int r;
	struct error err;
	enum { CONSUL_READ, CONSUL_WRITE, CONSUL_RENEW } kind;
	const struct store_op *ops; /* of a write, whose keys it shares with others or not */
	size_t count;
	void *ctx;

	/* Asks its question, more than once if it has several or must repeat one. */
	int (*start)(struct consul_call *call, struct error *err);
	/* Understands an answer: 0 and less is the outcome, 1: there is another question. */
	int (*answered)(struct consul_call *call, const struct http_answer *answer,
			struct error *err);
	void (*reply)(struct consul_call *call); /* the store may be gone afterwards */
	void (*free)(struct consul_call *call);
};
int consul_call_ask(struct consul_call *call, const char *method, const char *path,
		    const char *body, size_t limit, struct error *err);
int consul_call_add(struct consul *consul, struct consul_call *call, uint64_t timeout_usec,
		    struct error *err);
int consul_call_start(struct consul *consul, struct error *err);
void consul_call_done(struct consul *consul);
void consul_calls_again(struct consul *consul); /* another server is asked now */

/* consul-entry.c */
int consul_get(struct store *store, const char *key, store_get_fn reply, void *ctx,
	       struct error *err);
int consul_list(struct store *store, const char *prefix, store_list_fn reply, void *ctx,
		struct error *err);
/* An entry of Consul's: 0, or -EUCLEAN.  `value` is a new reference. */
int consul_entry(const struct consul *consul, const json_t *entry, struct store_entry *ret,
		 struct error *err);

/* consul-write.c */
struct store_limits consul_limits(const struct store *store);
int consul_write(struct store *store, const struct store_op *ops, size_t count,
		 store_write_fn reply, void *ctx, struct error *err);

/* consul-session.c */
int consul_session_start(struct consul *consul, struct error *err);
void consul_session_done(struct consul *consul);
int consul_session_open(struct store *store, const char *resume, uint64_t timeout_usec,
			store_session_fn changed, void *ctx, struct error *err);
int consul_session_close(struct store *store, struct error *err);
const char *consul_session_id(const struct store *store);
int consul_session_timing(const struct store *store, struct store_timing *ret_timing);
int consul_session_renew(struct store *store, store_renew_fn reply, void *ctx, struct error *err);

/* consul-watch.c */
int consul_watch(struct store *store, const char *prefix, store_look_fn look, void *ctx,
		 struct store_watch **ret_watch, struct error *err);
void consul_unwatch(struct store_watch *watch);
void consul_watch_done(struct consul *consul);
void consul_watch_again(struct consul *consul); /* another server is asked now */
