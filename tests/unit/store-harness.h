/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the store share: a scratch directory, a loop, and the calls of store.h in a
 * form that waits for the answer.  Nothing waits for a time: only for a fact, with a generous
 * deadline. */
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "store/store.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/file.h"
#include "util/mem.h"
#include "wire/json.h"

#define DEADLINE_USEC (60 * USEC_PER_SEC)

struct scene {
	char dir[64];
	sd_event *loop;
	const char *scheme; /* "local:", "fault:local:"; or "" */
	const char *server; /* beside it: the address of a server, which gets a part of its own */
	struct store *store;
};

/* One that fits every call. */
struct answer {
	bool done;
	int r;
	struct error err;
	struct store_entry entry; /* of a get; key is not kept */
	json_t *list;		  /* array of keys */
	uint64_t versions[STORE_OPS_MAX];
	size_t ops;
};

static inline void answer_done(struct answer *answer)
{
	json_decref(answer->entry.value);
	json_decref(answer->list);
	*answer = (struct answer){ 0 };
}
#define ANSWER CLEANUP(answer_done) struct answer

static inline void on_get(void *ctx, int r, const struct store_entry *entry,
			  const struct error *err)
{
	struct answer *answer = ctx;

	assert_false(answer->done);
	answer->done = true;
	answer->r = r;
	answer->err = *err;
	if (r == 0)
		answer->entry = (struct store_entry){ .value = json_incref(entry->value),
						      .version = entry->version };
}

static inline void on_list(void *ctx, int r, const struct store_entry *entries, size_t count,
			   const struct error *err)
{
	struct answer *answer = ctx;

	assert_false(answer->done);
	answer->done = true;
	answer->r = r;
	answer->err = *err;
	answer->list = json_array();
	for (size_t i = 0; i < count; i++)
		json_array_append_new(answer->list, json_string(entries[i].key));
}

static inline void on_write(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct answer *answer = ctx;

	assert_false(answer->done);
	answer->done = true;
	answer->r = r;
	answer->err = *err;
	if (r == 0)
		memcpy(answer->versions, versions, answer->ops * sizeof(*versions));
}

/* Runs the loop until the fact is there. */
static inline bool loop_until(sd_event *loop, const bool *fact)
{
	uint64_t end = clock_now() + DEADLINE_USEC;

	while (!*fact) {
		uint64_t now = clock_now();

		if (now >= end || sd_event_run(loop, end - now) < 0)
			return false;
	}
	return true;
}

/* All that is due now. */
static inline void loop_drain(sd_event *loop)
{
	while (sd_event_run(loop, 0) > 0)
		;
}

static inline int ask_get(sd_event *loop, struct store *store, const char *key,
			  struct answer *answer)
{
	int r;

	answer_done(answer);
	r = store_get(store, key, on_get, answer, &answer->err);
	if (r < 0)
		return r;
	return loop_until(loop, &answer->done) ? answer->r : -ETIMEDOUT;
}

static inline int ask_list(sd_event *loop, struct store *store, const char *prefix,
			   struct answer *answer)
{
	int r;

	answer_done(answer);
	r = store_list(store, prefix, on_list, answer, &answer->err);
	if (r < 0)
		return r;
	return loop_until(loop, &answer->done) ? answer->r : -ETIMEDOUT;
}

static inline int ask_write(sd_event *loop, struct store *store, const struct store_op *ops,
			    size_t count, struct answer *answer)
{
	int r;

	answer_done(answer);
	answer->ops = count;
	r = store_write(store, ops, count, on_write, answer, &answer->err);
	if (r < 0)
		return r;
	return loop_until(loop, &answer->done) ? answer->r : -ETIMEDOUT;
}

static inline int ask_put(sd_event *loop, struct store *store, const char *key, uint64_t expected,
			  int number, struct answer *answer)
{
	json_auto_t *value = json_pack("{s:i}", "n", number);
	const struct store_op op = { STORE_PUT, key, expected, value, false };

	return ask_write(loop, store, &op, 1, answer);
}

static inline int ask_delete(sd_event *loop, struct store *store, const char *key,
			     uint64_t expected, struct answer *answer)
{
	const struct store_op op = { .kind = STORE_DELETE, .key = key, .expected = expected };

	return ask_write(loop, store, &op, 1, answer);
}

/* "n" of the value, -1: no such key. */
static inline int ask_number(sd_event *loop, struct store *store, const char *key)
{
	ANSWER answer = { 0 };
	int r = ask_get(loop, store, key, &answer);

	if (r == -ENOENT)
		return -1;
	assert_int_equal(r, 0);
	return (int)json_int_or(answer.entry.value, "n", -2);
}

struct looks {
	bool any;
	int count;
};

static inline void on_look(void *ctx)
{
	struct looks *looks = ctx;

	looks->any = true;
	looks->count++;
}

struct session {
	bool any;
	enum store_session_state state;
};

static inline void on_session(void *ctx, enum store_session_state state)
{
	struct session *session = ctx;

	session->any = true;
	session->state = state;
}

static inline void session_await(sd_event *loop, struct session *session,
				 enum store_session_state wanted)
{
	assert_true(loop_until(loop, &session->any));
	assert_int_equal(session->state, wanted);
	session->any = false;
}

static inline int put_ephemeral(struct scene *scene, struct store *store, const char *key)
{
	json_auto_t *value = json_pack("{s:i}", "n", 1);
	const struct store_op op = { STORE_PUT, key, STORE_ANY, value, true };
	ANSWER answer = { 0 };

	return ask_write(scene->loop, store, &op, 1, &answer);
}

/* Waits until the key is gone, told by a watch. */
static inline void gone_await(struct scene *scene, struct store *store, const char *prefix,
			      const char *key)
{
	struct looks looks = { 0 };
	struct store_watch *watch = NULL;

	assert_int_equal(store_watch(store, prefix, on_look, &looks, &watch, NULL), 0);
	do {
		assert_true(loop_until(scene->loop, &looks.any));
		looks.any = false;
	} while (ask_number(scene->loop, store, key) >= 0);
	(void)store_unwatch(watch);
}

static inline struct store *scene_open(struct scene *scene)
{
	CLEANUP_FREE char *address = scene->server ? xasprintf("%s%s", scene->server, scene->dir)
						   : xasprintf("%sstore.db", scene->scheme);
	struct store *store = NULL;
	struct error err = { 0 };

	if (store_open(address, scene->dir, scene->loop, &store, &err) < 0)
		fail_msg("%s", err.text);
	return store;
}

static inline void scene_done(struct scene *scene)
{
	scene->store = store_close(scene->store);
	scene->loop = sd_event_unref(scene->loop);
	(void)file_remove_tree(AT_FDCWD, scene->dir, NULL);
}

static inline void scene_init(struct scene *scene, const char *scheme)
{
	*scene = (struct scene){ .dir = "/tmp/test-store-XXXXXX", .scheme = scheme };
	assert_non_null(mkdtemp(scene->dir));
	assert_return_code(sd_event_new(&scene->loop), 0);
}

/* A child that dies with us; what it writes to `out` the parent reads.  It has nothing of ours but
 * memory: it opens the store anew. */
struct child {
	pid_t pid;
	int out;
};

static inline struct child child_start(void (*run)(struct scene *scene, int out),
				       struct scene *scene)
{
	struct child child = { -1, -1 };
	int ends[2];

	assert_return_code(pipe2(ends, O_CLOEXEC), 0);
	child.pid = fork();
	assert_return_code(child.pid, 0);
	if (child.pid == 0) {
		struct scene own = *scene;

		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)close(ends[0]);
		if (sd_event_new(&own.loop) < 0)
			_exit(99);
		run(&own, ends[1]);
		_exit(0);
	}
	(void)close(ends[1]);
	child.out = ends[0];
	return child;
}

static inline int child_end(struct child *child, int signal)
{
	int status = 0;

	if (signal)
		(void)kill(child->pid, signal);
	assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
	(void)close(child->out);
	return status;
}

static inline char *store_path(const struct scene *s, const char *suffix)
{
	return xasprintf("%s/store.db%s", s->dir, suffix);
}

/* Another hand on the file. */
static inline sqlite3 *raw_open(const struct scene *s)
{
	CLEANUP_FREE char *path = store_path(s, "");
	sqlite3 *sqlite = NULL;

	assert_int_equal(sqlite3_open(path, &sqlite), SQLITE_OK);
	return sqlite;
}

static inline void raw_run(const struct scene *s, const char *sql)
{
	sqlite3 *sqlite = raw_open(s);

	assert_int_equal(sqlite3_exec(sqlite, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(sqlite), SQLITE_OK);
}
