/* SPDX-License-Identifier: Apache-2.0 */
/* Reads and transactions of the embedded store.  A transaction takes the write lock first, compares
 * all versions, then writes: so it conflicts as a whole or happens as a whole.  New versions come
 * from one counter for all keys that only grows, so no key ever gets a version back. */
#include "store/local.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/mem.h"
#include "wire/json.h"

struct read_request {
	struct local_request request;
	char *key; /* or prefix */
	store_get_fn get;
	store_list_fn list;
	void *ctx;
	struct store_entry *entries;
	size_t count, room;
};

static void entries_drop(struct read_request *read)
{
	store_entries_free(read->entries, read->count);
	read->entries = NULL;
	read->count = read->room = 0;
}

static void read_free(struct local_request *request)
{
	struct read_request *read = container_of(request, struct read_request, request);

	entries_drop(read);
	free(read->key);
	free(read);
}

static int entry_add(struct local *local, struct read_request *read, sqlite3_stmt *row,
		     struct error *err)
{
	const char *key = (const char *)sqlite3_column_text(row, 0);
	const char *value = (const char *)sqlite3_column_text(row, 1);
	json_t *json = NULL;
	int r;

	if (!key || !value)
		return local_db_fail(&local->db, SQLITE_NOMEM, err);
	r = json_parse(value, (size_t)sqlite3_column_bytes(row, 1), &json, err);
	if (r < 0) {
		(void)error_prefix(err, r,
				   "the value of key '%s' in the store '%s' is damaged; "
				   "restore a backup of the store, or remove this key",
				   key, local->db.path);
		if (err)
			err->class = ERROR_BAD_DATA;
		return -EUCLEAN;
	}
	if (read->count == read->room) {
		read->room = read->room ? 2 * read->room : 8;
		read->entries = xrealloc(read->entries, read->room, sizeof(*read->entries));
	}
	read->entries[read->count++] = (struct store_entry){
		.key = xstrdup(key),
		.value = json,
		.version = (uint64_t)sqlite3_column_int64(row, 2),
	};
	return 0;
}

static int rows_read(struct local *local, struct read_request *read, sqlite3_stmt *statement,
		     struct error *err)
{
	int rc, r = 0;

	while ((rc = sqlite3_step(statement)) == SQLITE_ROW && r == 0)
		r = entry_add(local, read, statement, err);
	if (r == 0 && rc != SQLITE_DONE)
		r = local_db_fail(&local->db, rc, err);
	(void)sqlite3_reset(statement);
	if (r != 0)
		entries_drop(read);
	return r;
}

static int get_run(struct local *local, struct local_request *request, struct error *err)
{
	struct read_request *read = container_of(request, struct read_request, request);
	sqlite3_stmt *statement = local_db_statement(&local->db, LOCAL_GET);
	int r;

	(void)sqlite3_bind_text(statement, 1, read->key, -1, SQLITE_STATIC);
	r = rows_read(local, read, statement, err);
	if (r == 0 && read->count == 0)
		return error_set(err, -ENOENT, "the store has no key '%s'", read->key);
	return r;
}

static void get_answer(struct local_request *request, int r, const struct error *err)
{
	struct read_request *read = container_of(request, struct read_request, request);

	read->get(read->ctx, r, r == 0 ? &read->entries[0] : NULL, err);
}

/* The keys below "/a/b/" are those between it and "/a/b0": '0' follows '/'. */
static int list_run(struct local *local, struct local_request *request, struct error *err)
{
	struct read_request *read = container_of(request, struct read_request, request);
	sqlite3_stmt *statement = local_db_statement(&local->db, LOCAL_LIST);
	CLEANUP_FREE char *end = xstrdup(read->key);

	end[strlen(end) - 1] = '/' + 1;
	(void)sqlite3_bind_text(statement, 1, read->key, -1, SQLITE_STATIC);
	(void)sqlite3_bind_text(statement, 2, end, -1, SQLITE_TRANSIENT);
	return rows_read(local, read, statement, err);
}

static void list_answer(struct local_request *request, int r, const struct error *err)
{
	struct read_request *read = container_of(request, struct read_request, request);

	read->list(read->ctx, r, r == 0 ? read->entries : NULL, r == 0 ? read->count : 0, err);
}

static struct read_request *read_new(const char *key, void *ctx)
{
	struct read_request *read = xcalloc(1, sizeof(*read));

	read->request.free = read_free;
	read->key = xstrdup(key);
	read->ctx = ctx;
	return read;
}

int local_get(struct store *store, const char *key, store_get_fn reply, void *ctx,
	      struct error *err)
{
	struct read_request *read = read_new(key, ctx);

	read->request.run = get_run;
	read->request.answer = get_answer;
	read->get = reply;
	return local_queue(container_of(store, struct local, store), &read->request, err);
}

int local_list(struct store *store, const char *prefix, store_list_fn reply, void *ctx,
	       struct error *err)
{
	struct read_request *read = read_new(prefix, ctx);

	read->request.run = list_run;
	read->request.answer = list_answer;
	read->list = reply;
	return local_queue(container_of(store, struct local, store), &read->request, err);
}

struct write_op {
	enum store_op_kind kind;
	char *key;
	uint64_t expected;
	char *text; /* STORE_PUT */
	bool ephemeral;
};

struct write_request {
	struct local_request request;
	store_write_fn reply;
	void *ctx;
	size_t count;
	struct write_op *ops;
	uint64_t *versions;
};

static void write_free(struct local_request *request)
{
	struct write_request *write = container_of(request, struct write_request, request);

	for (size_t i = 0; i < write->count; i++) {
		free(write->ops[i].key);
		free(write->ops[i].text);
	}
	free(write->ops);
	free(write->versions);
	free(write);
}

/* 0 for a key that is not there. */
static int version_read(struct local_db *db, const char *key, uint64_t *ret, struct error *err)
{
	sqlite3_stmt *statement = local_db_statement(db, LOCAL_VERSION);
	int rc, r = 0;

	(void)sqlite3_bind_text(statement, 1, key, -1, SQLITE_STATIC);
	rc = sqlite3_step(statement);
	if (rc == SQLITE_ROW)
		*ret = (uint64_t)sqlite3_column_int64(statement, 0);
	else if (rc == SQLITE_DONE)
		*ret = 0;
	else
		r = local_db_fail(db, rc, err);
	(void)sqlite3_reset(statement);
	return r;
}

static int write_compare(struct local *local, struct write_request *write, struct error *err)
{
	for (size_t i = 0; i < write->count; i++) {
		const struct write_op *op = &write->ops[i];
		int r = version_read(&local->db, op->key, &write->versions[i], err);

		if (r != 0)
			return r;
		if (op->expected != STORE_ANY && op->expected != write->versions[i])
			return error_set_class(err, ERROR_TRY_AGAIN, -ESTALE,
					       "key '%s' has version %" PRIu64 ", not %" PRIu64
					       " as expected: somebody else changed it; read it "
					       "again",
					       op->key, write->versions[i], op->expected);
	}
	return 0;
}

static int op_write(struct local *local, const struct write_op *op, uint64_t version,
		    struct error *err)
{
	enum local_statement which = op->kind == STORE_PUT ? LOCAL_PUT : LOCAL_DELETE;
	sqlite3_stmt *statement = local_db_statement(&local->db, which);

	(void)sqlite3_bind_text(statement, 1, op->key, -1, SQLITE_STATIC);
	if (op->kind == STORE_PUT) {
		(void)sqlite3_bind_int64(statement, 2, (int64_t)version);
		if (op->ephemeral)
			(void)sqlite3_bind_text(statement, 3, local->session.id, -1, SQLITE_STATIC);
		else
			(void)sqlite3_bind_null(statement, 3);
		(void)sqlite3_bind_text(statement, 4, op->text, -1, SQLITE_STATIC);
	}
	return local_db_run(&local->db, which, err);
}

static int counter_read(struct local_db *db, uint64_t *ret, struct error *err)
{
	sqlite3_stmt *statement = local_db_statement(db, LOCAL_COUNTER);
	int rc = sqlite3_step(statement), r = 0;

	if (rc == SQLITE_ROW)
		*ret = (uint64_t)sqlite3_column_int64(statement, 0);
	else
		r = local_db_fail(db, rc == SQLITE_DONE ? SQLITE_CORRUPT : rc, err);
	(void)sqlite3_reset(statement);
	return r;
}

static int write_apply(struct local *local, struct write_request *write, struct error *err)
{
	uint64_t counter = 0;
	int r;

	r = counter_read(&local->db, &counter, err);
	for (size_t i = 0; i < write->count && r == 0; i++) {
		const struct write_op *op = &write->ops[i];

		if (op->kind == STORE_CHECK)
			continue;
		if (op->ephemeral)
			r = local_session_check(local, err);
		if (r != 0)
			return r;
		write->versions[i] = op->kind == STORE_PUT ? ++counter : 0;
		r = op_write(local, op, counter, err);
	}
	if (r != 0)
		return r;
	(void)sqlite3_bind_int64(local_db_statement(&local->db, LOCAL_COUNTER_SET), 1,
				 (int64_t)counter);
	return local_db_run(&local->db, LOCAL_COUNTER_SET, err);
}

static bool write_changes(const struct write_request *write)
{
	for (size_t i = 0; i < write->count; i++)
		if (write->ops[i].kind == STORE_PUT ||
		    (write->ops[i].kind == STORE_DELETE && write->versions[i] > 0))
			return true;
	return false;
}

static int write_run(struct local *local, struct local_request *request, struct error *err)
{
	struct write_request *write = container_of(request, struct write_request, request);
	bool changes = false;
	int r;

	r = local_db_begin(&local->db, err);
	if (r == 0)
		r = write_compare(local, write, err);
	if (r == 0)
		changes = write_changes(write);
	if (r == 0 && changes)
		r = write_apply(local, write, err);
	if (r == 0 && changes)
		r = local_db_commit(&local->db, err);
	local_db_rollback(&local->db);
	if (r != 0 || !changes)
		return r;
	local_watch_ring(local);
	for (size_t i = 0; i < write->count; i++)
		if (write->ops[i].kind != STORE_CHECK)
			local_watch_key(local, write->ops[i].key);
	return 0;
}

static void write_answer(struct local_request *request, int r, const struct error *err)
{
	struct write_request *write = container_of(request, struct write_request, request);

	write->reply(write->ctx, r, r == 0 ? write->versions : NULL, err);
}

int local_write(struct store *store, const struct store_op *ops, size_t count, store_write_fn reply,
		void *ctx, struct error *err)
{
	struct write_request *write = xcalloc(1, sizeof(*write));

	assert(count <= STORE_OPS_MAX);
	write->request = (struct local_request){ .run = write_run,
						 .answer = write_answer,
						 .free = write_free };
	write->reply = reply;
	write->ctx = ctx;
	write->count = count;
	write->ops = xcalloc(count, sizeof(*write->ops));
	write->versions = xcalloc(count, sizeof(*write->versions));
	for (size_t i = 0; i < count; i++)
		write->ops[i] = (struct write_op){
			.kind = ops[i].kind,
			.key = xstrdup(ops[i].key),
			.expected = ops[i].expected,
			.text = ops[i].kind == STORE_PUT ? json_print(ops[i].value) : NULL,
			.ephemeral = ops[i].kind == STORE_PUT && ops[i].ephemeral,
		};
	return local_queue(container_of(store, struct local, store), &write->request, err);
}
