/* SPDX-License-Identifier: Apache-2.0 */
/* The file of the embedded store.  It is there whole or not at all: made under another name and
 * linked into place, so that an empty, a cut or a foreign file is never taken for a new store. What
 * cannot be trusted is refused and left exactly as it is. */
#include "store/local.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "util/cleanup.h"
#include "util/mem.h"

#define APPLICATION_ID 0x44726f76 /* "Drov" */
#define SCHEMA_VERSION 1
#define OPEN_BUSY_MSEC 5000 /* while opening we may wait: nothing else runs yet */

/* `version` before `value`: it is read for many rows, and a long value moves to other pages. */
static const char schema[] =
	"CREATE TABLE keys (key TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL, session TEXT,"
	" value TEXT NOT NULL) STRICT;"
	"CREATE INDEX keys_session ON keys (session) WHERE session IS NOT NULL;"
	"CREATE TABLE sessions (id TEXT PRIMARY KEY NOT NULL, boot TEXT NOT NULL,"
	" timeout_usec INTEGER NOT NULL) STRICT;"
	"CREATE TABLE counter (version INTEGER NOT NULL) STRICT;"
	"INSERT INTO counter VALUES (0);";

static const char *const statements[LOCAL_STATEMENTS] = {
	[LOCAL_BEGIN] = "BEGIN IMMEDIATE",
	[LOCAL_COMMIT] = "COMMIT",
	[LOCAL_GET] = "SELECT key, value, version FROM keys WHERE key = ?1",
	[LOCAL_LIST] = "SELECT key, value, version FROM keys WHERE key > ?1 AND key < ?2"
		       " ORDER BY key",
	[LOCAL_VERSION] = "SELECT version FROM keys WHERE key = ?1",
	[LOCAL_PUT] = "INSERT INTO keys (key, version, session, value) VALUES (?1, ?2, ?3, ?4)"
		      " ON CONFLICT (key) DO UPDATE SET version = excluded.version,"
		      " session = excluded.session, value = excluded.value",
	[LOCAL_DELETE] = "DELETE FROM keys WHERE key = ?1",
	[LOCAL_COUNTER] = "SELECT version FROM counter",
	[LOCAL_COUNTER_SET] = "UPDATE counter SET version = ?1",
	[LOCAL_DATA_VERSION] = "PRAGMA data_version",
	[LOCAL_FINGERPRINT] = "SELECT coalesce(max(version), 0), count(*) FROM keys"
			      " WHERE key > ?1 AND key < ?2",
	[LOCAL_SESSION_PUT] =
		"INSERT INTO sessions (id, boot, timeout_usec) VALUES (?1, ?2, ?3)"
		" ON CONFLICT (id) DO UPDATE SET timeout_usec = excluded.timeout_usec",
	[LOCAL_SESSION_GET] = "SELECT boot FROM sessions WHERE id = ?1",
	[LOCAL_SESSION_LIST] = "SELECT id, boot, timeout_usec FROM sessions",
	[LOCAL_SESSION_KEYS] = "DELETE FROM keys WHERE session = ?1",
	[LOCAL_SESSION_END] = "DELETE FROM sessions WHERE id = ?1",
};

static int file_damaged(const char *path, struct error *err, const char *why)
{
	return error_set_class(
		err, ERROR_BAD_DATA, -EUCLEAN,
		"the store '%s' cannot be used: %s.  It was left as it is: restore a "
		"backup of it, or move it away to begin with an empty store; either "
		"way move '-wal', '-shm' and '.sessions' beside it away too",
		path, why);
}

int local_db_fail(struct local_db *db, int rc, struct error *err)
{
	int number = sqlite3_system_errno(db->sqlite);
	const char *words = sqlite3_errmsg(db->sqlite);

	if (rc == SQLITE_FULL ||
	    ((rc & 0xff) == SQLITE_IOERR && (number == ENOSPC || number == EDQUOT)))
		return error_set_class(err, ERROR_TRY_AGAIN, -ENOSPC,
				       "no room left for the store '%s': free some space on its "
				       "file system; nothing was written",
				       db->path);
	switch (rc & 0xff) {
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return LOCAL_BUSY;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
	case SQLITE_FORMAT:
		return file_damaged(db->path, err, words);
	case SQLITE_READONLY:
	case SQLITE_PERM:
	case SQLITE_CANTOPEN:
		return error_set(err, number > 0 ? -number : -EACCES,
				 "cannot write the store '%s' (%s%s%s): check the rights and mount "
				 "options of its directory",
				 db->path, words, number > 0 ? ": " : "",
				 number > 0 ? strerror(number) : "");
	case SQLITE_IOERR: /* a commit that failed here may still be found by a later recovery */
		return error_try_again(err,
				       "reading or writing the store '%s' did not work (%s%s%s): "
				       "look for disk errors in the kernel log",
				       db->path, words, number > 0 ? ": " : "",
				       number > 0 ? strerror(number) : "");
	case SQLITE_ERROR: /* our statements are fixed: then the tables are not ours */
		return file_damaged(db->path, err, words);
	default:
		return error_set(err, -EIO, "the store '%s': SQLite says '%s' (%d)", db->path,
				 words, rc);
	}
}

/* Ready to bind; the caller resets it, for an open read keeps the log from being emptied. */
sqlite3_stmt *local_db_statement(struct local_db *db, enum local_statement which)
{
	sqlite3_stmt **statement = &db->statements[which];

	if (!*statement) /* a failure shows in the step of NULL: SQLITE_MISUSE */
		(void)sqlite3_prepare_v3(db->sqlite, statements[which], -1,
					 SQLITE_PREPARE_PERSISTENT, statement, NULL);
	else
		(void)sqlite3_reset(*statement);
	return *statement;
}

int local_db_run(struct local_db *db, enum local_statement which, struct error *err)
{
	sqlite3_stmt *statement = db->statements[which];
	int rc, r = 0;

	do
		rc = sqlite3_step(statement);
	while (rc == SQLITE_ROW);
	if (rc != SQLITE_DONE)
		r = local_db_fail(db, rc, err);
	(void)sqlite3_reset(statement);
	return r;
}

int local_db_begin(struct local_db *db, struct error *err)
{
	(void)local_db_statement(db, LOCAL_BEGIN);
	return local_db_run(db, LOCAL_BEGIN, err);
}

int local_db_commit(struct local_db *db, struct error *err)
{
	(void)local_db_statement(db, LOCAL_COMMIT);
	return local_db_run(db, LOCAL_COMMIT, err);
}

void local_db_rollback(struct local_db *db)
{
	if (!sqlite3_get_autocommit(db->sqlite))
		(void)sqlite3_exec(db->sqlite, "ROLLBACK", NULL, NULL, NULL);
}

static int pragma_number(struct local_db *db, const char *sql, int64_t *ret, struct error *err)
{
	sqlite3_stmt *statement = NULL;
	int rc, r = 0;

	rc = sqlite3_prepare_v2(db->sqlite, sql, -1, &statement, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_step(statement);
	if (rc == SQLITE_ROW)
		*ret = sqlite3_column_int64(statement, 0);
	else
		r = local_db_fail(db, rc, err);
	(void)sqlite3_finalize(statement);
	return r;
}

/* Runs a check or setting that answers with one word, which must be `wanted`. */
static int pragma_word(struct local_db *db, const char *sql, const char *wanted, struct error *err)
{
	sqlite3_stmt *statement = NULL;
	const char *word;
	int rc, r = 0;

	rc = sqlite3_prepare_v2(db->sqlite, sql, -1, &statement, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_step(statement);
	if (rc == SQLITE_ROW) {
		word = (const char *)sqlite3_column_text(statement, 0);
		if (!word || strcmp(word, wanted) != 0)
			r = file_damaged(db->path, err, word ? word : "a check gave no answer");
	} else {
		r = local_db_fail(db, rc, err);
	}
	(void)sqlite3_finalize(statement);
	return r;
}

/* A handle on `path`, which exists. */
static int handle_open(struct local_db *db, const char *path, struct error *err)
{
	int rc;

	db->path = xstrdup(path);
	rc = sqlite3_open_v2(path, &db->sqlite,
			     SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
			     NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_busy_timeout(db->sqlite, OPEN_BUSY_MSEC);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db->sqlite,
				  "PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY;"
				  "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON",
				  NULL, NULL, NULL);
	if (rc != SQLITE_OK)
		return local_db_fail(db, rc, err);
	if (sqlite3_db_readonly(db->sqlite, "main") == 1)
		return error_set(err, -EROFS,
				 "cannot write the store '%s': check its rights and whether its "
				 "file system is mounted read-only",
				 path);
	return 0;
}

static int store_fill(const char *path, struct error *err)
{
	CLEANUP(local_db_close) struct local_db db = { 0 };
	CLEANUP_FREE char *marks = xasprintf("PRAGMA application_id = %d; PRAGMA user_version = %d",
					     APPLICATION_ID, SCHEMA_VERSION);
	int r, rc;

	r = handle_open(&db, path, err);
	if (r != 0)
		return r;
	r = pragma_word(&db, "PRAGMA journal_mode = WAL", "wal", err);
	if (r != 0)
		return r;
	rc = sqlite3_exec(db.sqlite, "BEGIN", NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db.sqlite, schema, NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db.sqlite, marks, NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db.sqlite, "COMMIT", NULL, NULL, NULL);
	if (rc != SQLITE_OK)
		return local_db_fail(&db, rc, err);
	return 0;
}

static int directory_sync(const char *path, struct error *err)
{
	CLEANUP_FREE char *copy = xstrdup(path);
	CLEANUP_FD int dir = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0 || fsync(dir) < 0)
		return error_set(err, -errno, "cannot make the name of the store '%s' safe: %m",
				 path);
	return 0;
}

static int store_make(const char *path, struct error *err)
{
	CLEANUP_FREE char *fresh = xasprintf("%s.new-XXXXXX", path);
	CLEANUP_FREE char *log = NULL;
	CLEANUP_FD int fd = mkostemp(fresh, O_CLOEXEC); /* 0600 */
	int r;

	if (fd < 0)
		return error_set(err, -errno, "cannot make the store '%s': %m", path);
	(void)close(TAKE_FD(fd)); /* before SQLite has it: a later close would drop its locks */
	r = store_fill(fresh, err);
	if (r == 0 && link(fresh, path) < 0 && errno != EEXIST) /* EEXIST: another was faster */
		r = error_set(err, -errno, "cannot make the store '%s': %m", path);
	(void)unlink(fresh);
	if (r == 0)
		return directory_sync(path, err);
	log = xasprintf("%s-wal", fresh);
	(void)unlink(log);
	return r;
}

/* SQLite makes files beside its own; what it says when it cannot is no help to anybody. */
static int directory_check(const char *path, struct error *err)
{
	CLEANUP_FREE char *copy = xstrdup(path);
	const char *dir = dirname(copy);

	if (faccessat(AT_FDCWD, dir, W_OK | X_OK, AT_EACCESS) < 0)
		return error_set(err, -errno,
				 "cannot use the directory '%s' for the store '%s': %m; it must "
				 "exist and be writable",
				 dir, path);
	return 0;
}

/* 1: there is a file to open.  0: there is none, nor a trace of one. */
static int store_look(const char *path, struct error *err)
{
	CLEANUP_FREE char *log = xasprintf("%s-wal", path);
	CLEANUP_FREE char *sessions = xasprintf("%s.sessions", path);
	/* In this order: whoever makes a store makes the file first. */
	bool traces = access(log, F_OK) == 0 || access(sessions, F_OK) == 0;
	struct stat status;

	if (stat(path, &status) == 0) {
		if (!S_ISREG(status.st_mode))
			return file_damaged(path, err, "it is not a regular file");
		if (status.st_size == 0)
			return file_damaged(path, err, "the file is empty, which no store ever is");
		if (faccessat(AT_FDCWD, path, R_OK | W_OK, AT_EACCESS) < 0)
			return error_set(err, -errno, "cannot write the store '%s': %m", path);
		return 1;
	}
	if (errno != ENOENT)
		return error_set(err, -errno, "cannot look at the store '%s': %m", path);
	if (traces)
		return error_set_class(err, ERROR_BAD_DATA, -EUCLEAN,
				       "the store '%s' is gone, but what lay beside it is still "
				       "there: restore a backup, or remove '%s' and '%s' too to "
				       "begin with an empty store",
				       path, sessions, log);
	return 0;
}

static int store_verify(struct local_db *db, struct error *err)
{
	CLEANUP_FREE char *why = NULL;
	int64_t id = 0, version = 0;
	int r;

	r = pragma_number(db, "PRAGMA application_id", &id, err);
	if (r != 0)
		return r;
	r = pragma_number(db, "PRAGMA user_version", &version, err);
	if (r != 0)
		return r;
	if (id != APPLICATION_ID)
		return file_damaged(db->path, err, "it is an SQLite file of another program");
	if (version > SCHEMA_VERSION) {
		why = xasprintf(
			"it was written by a newer Drover (format %lld, this one knows %d): "
			"install that version again",
			(long long)version, SCHEMA_VERSION);
		return file_damaged(db->path, err, why);
	}
	if (version < SCHEMA_VERSION)
		return file_damaged(db->path, err, "its format is not known");
	return pragma_word(db, "PRAGMA quick_check(1)", "ok", err);
}

static int store_attach(struct local_db *db, const char *path, struct error *err)
{
	int r;

	r = handle_open(db, path, err);
	if (r != 0)
		return r;
	r = store_verify(db, err);
	if (r != 0)
		return r;
	r = pragma_word(db, "PRAGMA journal_mode = WAL", "wal", err);
	if (r != 0)
		return r;
	for (int i = 0; i < LOCAL_STATEMENTS; i++)
		if (!local_db_statement(db, i))
			return local_db_fail(db, sqlite3_errcode(db->sqlite), err);
	(void)sqlite3_busy_timeout(db->sqlite, 0); /* from here on the loop waits, not we */
	return 0;
}

int local_db_open(struct local_db *db, const char *path, struct error *err)
{
	int r;

	*db = (struct local_db){ 0 };
	r = directory_check(path, err);
	if (r == 0)
		r = store_look(path, err);
	if (r == 0)
		r = store_make(path, err);
	if (r < 0)
		return r;
	r = store_attach(db, path, err);
	if (r == LOCAL_BUSY)
		r = error_try_again(err,
				    "another process has held the store '%s' for %d s: see with "
				    "'fuser' which one, and whether it hangs",
				    path, OPEN_BUSY_MSEC / 1000);
	if (r < 0)
		local_db_close(db);
	return r;
}

void local_db_close(struct local_db *db)
{
	for (int i = 0; i < LOCAL_STATEMENTS; i++)
		(void)sqlite3_finalize(db->statements[i]);
	(void)sqlite3_close(db->sqlite);
	free(db->path);
	*db = (struct local_db){ 0 };
}
