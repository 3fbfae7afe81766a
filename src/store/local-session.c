/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions of the embedded store.  A session is a row in the file and a lock on
 * STORE.DB.sessions/ID (an open file description lock: it belongs to the descriptor, survives no
 * process, and other descriptors of the same process do not drop it).  The kernel frees the lock
 * when its owner dies and tells everybody (IN_CLOSE_WRITE); the session lives on for its time-out,
 * then whoever gets the lock removes the row and the session's keys in one transaction.  Who comes
 * back in time takes the lock again.  So nobody can be both alive and expired. */
#include "store/local.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/file.h"
#include "util/log.h"
#include "util/mem.h"

#define AGAIN_USEC (20 * USEC_PER_MSEC) /* somebody has the file or lock for a moment */

struct local_foreign {
	struct local_foreign *next;
	char id[LOCAL_ID_SIZE];
	uint64_t timeout_usec;
	uint64_t end; /* 0: its owner lives; else it is over then */
	bool seen;
};

static bool id_valid(const char *id)
{
	return strlen(id) == LOCAL_ID_SIZE - 1 && strspn(id, "0123456789abcdef") == strlen(id);
}

static int lock_fcntl(int fd, int command, struct flock *lock)
{
	*lock = (struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET };
	return fcntl(fd, command, lock) < 0 ? -errno : 0;
}

/* Opens the lock file of a session and takes the lock.  1: somebody else has it. */
static int lock_take(struct local *local, const char *id, int flags, int *ret_fd, struct error *err)
{
	CLEANUP_FD int fd =
		openat(local->dir_fd, id, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
	struct flock lock;
	int r;

	if (fd < 0)
		return error_set(err, -errno, "cannot open the lock file '%s.sessions/%s': %m",
				 local->db.path, id);
	r = lock_fcntl(fd, F_OFD_SETLK, &lock);
	if (r == -EAGAIN || r == -EACCES)
		return LOCAL_BUSY;
	if (r < 0)
		return error_set(err, r, "cannot lock '%s.sessions/%s': %m", local->db.path, id);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* In doubt it lives: missing information is never a reason to end somebody. */
static bool owner_lives(struct local *local, const char *id)
{
	CLEANUP_FD int fd = openat(local->dir_fd, id, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct flock lock;

	if (fd < 0)
		return errno != ENOENT;
	return lock_fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type != F_UNLCK;
}

static int row_put(struct local *local, const char *id, uint64_t timeout_usec, struct error *err)
{
	sqlite3_stmt *statement = local_db_statement(&local->db, LOCAL_SESSION_PUT);

	(void)sqlite3_bind_text(statement, 1, id, -1, SQLITE_STATIC);
	(void)sqlite3_bind_text(statement, 2, local->boot, -1, SQLITE_TRANSIENT);
	(void)sqlite3_bind_int64(statement, 3, (int64_t)timeout_usec);
	return local_db_run(&local->db, LOCAL_SESSION_PUT, err);
}

/* Is there such a session, of this boot?  -ENOTCONN: no.  May say "busy". */
static int row_check(struct local *local, const char *id, struct error *err)
{
	sqlite3_stmt *statement = local_db_statement(&local->db, LOCAL_SESSION_GET);
	int rc, r;

	(void)sqlite3_bind_text(statement, 1, id, -1, SQLITE_TRANSIENT);
	rc = sqlite3_step(statement);
	if (rc == SQLITE_ROW &&
	    strcmp((const char *)sqlite3_column_text(statement, 0), local->boot) == 0)
		r = 0;
	else if (rc == SQLITE_ROW || rc == SQLITE_DONE)
		r = error_set(err, -ENOTCONN,
			      "our session in the store '%s' is over: it needs a new one",
			      local->db.path);
	else
		r = local_db_fail(&local->db, rc, err);
	(void)sqlite3_reset(statement);
	return r;
}

/* Removes the session with its keys; the caller holds its lock.  May say "busy". */
static int session_end(struct local *local, const char *id, struct error *err)
{
	static const enum local_statement steps[] = { LOCAL_SESSION_KEYS, LOCAL_SESSION_END };
	int r;

	r = local_db_begin(&local->db, err);
	for (size_t i = 0; i < ARRAY_SIZE(steps) && r == 0; i++) {
		(void)sqlite3_bind_text(local_db_statement(&local->db, steps[i]), 1, id, -1,
					SQLITE_STATIC);
		r = local_db_run(&local->db, steps[i], err);
	}
	if (r == 0)
		r = local_db_commit(&local->db, err);
	local_db_rollback(&local->db);
	if (r != 0)
		return r;
	(void)unlinkat(local->dir_fd, id, 0);
	local_watch_ring(local);
	local_watch_compare(local);
	return 0;
}

static void session_step_in(struct local_session *session, uint64_t usec)
{
	(void)sd_event_source_set_time_relative(session->step, usec);
	(void)sd_event_source_set_enabled(session->step, SD_EVENT_ONESHOT);
}

/* The lock before the row: who sees the row finds the lock taken. */
static int session_make(struct local *local, struct error *err)
{
	struct local_session *session = &local->session;
	struct stat ours, named;
	CLEANUP_FD int fd = -1;
	int r;

	file_random_id(session->id);
	r = lock_take(local, session->id, O_CREAT | O_EXCL, &fd, err);
	if (r != 0)
		return r;
	if (fstat(fd, &ours) < 0 || fstatat(local->dir_fd, session->id, &named, 0) < 0 ||
	    ours.st_ino != named.st_ino)
		return LOCAL_BUSY; /* somebody cleared it away before it was locked */
	r = row_put(local, session->id, session->timeout_usec, err);
	if (r != 0) {
		(void)unlinkat(local->dir_fd, session->id, 0);
		return r;
	}
	session->lock_fd = TAKE_FD(fd);
	return 0;
}

static int session_resume(struct local *local, struct error *err)
{
	struct local_session *session = &local->session;
	CLEANUP_FD int fd = -1;
	int r;

	if (faccessat(local->dir_fd, session->id, F_OK, 0) < 0 && errno == ENOENT)
		return -ENOTCONN; /* it is over, as sessions end: no words for the log */
	r = lock_take(local, session->id, 0, &fd, err);
	if (r == 0)
		r = row_check(local, session->id, NULL);
	if (r == 0)
		r = row_put(local, session->id, session->timeout_usec, err);
	if (r == 0)
		session->lock_fd = TAKE_FD(fd);
	return r;
}

/* The owner of the lock may be our forerunner, who is still dying; -ETIMEDOUT: he is not. */
static int session_try(struct local *local, struct error *err)
{
	struct local_session *session = &local->session;
	int r;

	if (session->phase == SESSION_CLOSING)
		return session_end(local, session->id, err);
	if (session->phase == SESSION_OPENING)
		r = session_make(local, err);
	else
		r = session_resume(local, err);
	if (r == LOCAL_BUSY && clock_now() >= session->give_up)
		return error_set(err, -ETIMEDOUT,
				 "another process still uses this session of the store '%s'",
				 local->db.path);
	return r;
}

static void session_drop(struct local_session *session)
{
	if (session->lock_fd >= 0)
		(void)close(TAKE_FD(session->lock_fd));
	session->phase = SESSION_NONE;
}

static int session_step(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct local *local = userdata;
	struct local_session *session = &local->session;
	struct error err = { 0 };
	int r = -ENOTCONN;

	if (session->phase != SESSION_GONE)
		r = session_try(local, &err);
	if (r == LOCAL_BUSY) {
		session_step_in(session, AGAIN_USEC);
		return 0;
	}
	if (r == 0 && session->phase != SESSION_CLOSING) {
		session->phase = SESSION_CONNECTED;
		(void)futimens(session->lock_fd, NULL); /* the others should know it */
		session->changed(session->ctx, STORE_CONNECTED);
		return 0;
	}
	if (r < 0 && err.text[0])
		log_warning("%s", err.text);
	session_drop(session);
	local_session_scan(local); /* it is a foreign one now */
	session->changed(session->ctx, STORE_LOST);
	return 0;
}

int local_session_open(struct store *store, const char *resume, uint64_t timeout_usec,
		       store_session_fn changed, void *ctx, struct error *err)
{
	struct local *local = container_of(store, struct local, store);
	struct local_session *session = &local->session;

	if (session->phase != SESSION_NONE)
		return error_refuse(err, "there is a session already: close it first");
	session->timeout_usec = timeout_usec;
	session->changed = changed;
	session->ctx = ctx;
	session->phase = SESSION_OPENING;
	session->give_up = clock_now() + timeout_usec;
	if (resume) {
		session->phase = id_valid(resume) ? SESSION_RESUMING : SESSION_GONE;
		(void)strncpy(session->id, resume, sizeof(session->id) - 1);
	}
	session_step_in(session, 0);
	return 0;
}

int local_session_close(struct store *store, struct error *err)
{
	struct local *local = container_of(store, struct local, store);

	if (local->session.phase != SESSION_CONNECTED)
		return error_refuse(err, "there is no session to close");
	local->session.phase = SESSION_CLOSING;
	session_step_in(&local->session, 0);
	return 0;
}

const char *local_session_id(const struct store *store)
{
	const struct local *local = container_of(store, const struct local, store);

	return local->session.phase == SESSION_CONNECTED ? local->session.id : NULL;
}

/* The lock holds it for as long as we live; when we die, the others count from the moment at which
 * the kernel frees it, and look again a tenth of a second later at the latest. */
#define SCAN_SLACK_USEC (100 * USEC_PER_MSEC)

int local_session_timing(const struct store *store, struct store_timing *ret_timing)
{
	const struct local *local = container_of(store, const struct local, store);

	if (local->session.phase != SESSION_CONNECTED)
		return -ENOTCONN;
	*ret_timing = (struct store_timing){
		.earliest_usec = local->session.timeout_usec,
		.latest_usec = local->session.timeout_usec + SCAN_SLACK_USEC,
	};
	return 0;
}

struct renew_request {
	struct local_request request;
	store_renew_fn reply;
	void *ctx;
};

static int renew_run(struct local *local, struct local_request *request, struct error *err)
{
	return local_session_check(local, err);
}

static void renew_answer(struct local_request *request, int r, const struct error *err)
{
	struct renew_request *renew = container_of(request, struct renew_request, request);

	renew->reply(renew->ctx, r, err);
}

static void renew_free(struct local_request *request)
{
	free(container_of(request, struct renew_request, request));
}

int local_session_renew(struct store *store, store_renew_fn reply, void *ctx, struct error *err)
{
	struct renew_request *renew = xcalloc(1, sizeof(*renew));

	renew->request.run = renew_run;
	renew->request.answer = renew_answer;
	renew->request.free = renew_free;
	renew->reply = reply;
	renew->ctx = ctx;
	return local_queue(container_of(store, struct local, store), &renew->request, err);
}

int local_session_check(struct local *local, struct error *err)
{
	if (local->session.phase != SESSION_CONNECTED)
		return error_set(err, -ENOTCONN, "the session of the store '%s' is closed",
				 local->db.path);
	return row_check(local, local->session.id, err);
}

void local_session_lost(struct local *local)
{
	local->session.phase = SESSION_GONE;
	session_step_in(&local->session, 0);
}

static struct local_foreign *foreign_find(struct local *local, const char *id)
{
	struct local_foreign *foreign = local->foreign;

	while (foreign && strcmp(foreign->id, id) != 0)
		foreign = foreign->next;
	if (!foreign) {
		foreign = xcalloc(1, sizeof(*foreign));
		memcpy(foreign->id, id, LOCAL_ID_SIZE);
		foreign->next = local->foreign;
		local->foreign = foreign;
	}
	return foreign;
}

static void foreign_row(struct local *local, sqlite3_stmt *row, uint64_t now)
{
	const char *id = (const char *)sqlite3_column_text(row, 0);
	const char *boot = (const char *)sqlite3_column_text(row, 1);
	struct local_foreign *foreign;

	if (!id || !boot || !id_valid(id))
		return;
	if (local->session.phase != SESSION_NONE && strcmp(id, local->session.id) == 0)
		return;
	foreign = foreign_find(local, id);
	foreign->seen = true;
	foreign->timeout_usec = (uint64_t)sqlite3_column_int64(row, 2);
	if (strcmp(boot, local->boot) != 0)
		foreign->timeout_usec = 0; /* no process lives longer than its kernel */
	if (owner_lives(local, id))
		foreign->end = 0;
	else if (!foreign->end)
		foreign->end = now + foreign->timeout_usec;
}

/* May say "busy". */
static int foreign_list(struct local *local, uint64_t now)
{
	sqlite3_stmt *statement = local_db_statement(&local->db, LOCAL_SESSION_LIST);
	struct local_foreign **at = &local->foreign;
	int rc;

	for (struct local_foreign *foreign = local->foreign; foreign; foreign = foreign->next)
		foreign->seen = false;
	while ((rc = sqlite3_step(statement)) == SQLITE_ROW)
		foreign_row(local, statement, now);
	(void)sqlite3_reset(statement);
	if (rc != SQLITE_DONE)
		return LOCAL_BUSY;
	while (*at) {
		struct local_foreign *foreign = *at;

		if (foreign->seen) {
			at = &foreign->next;
			continue;
		}
		*at = foreign->next;
		free(foreign);
	}
	return 0;
}

/* The lock is what decides: whoever has it, ends or resumes the session. */
static void foreign_end(struct local *local, struct local_foreign *foreign, uint64_t now)
{
	struct error err = { 0 };
	CLEANUP_FD int fd = -1;
	int r;

	r = lock_take(local, foreign->id, O_CREAT, &fd, &err);
	if (r == 0)
		r = session_end(local, foreign->id, &err);
	if (r == 0) {
		foreign->end = UINT64_MAX; /* gone with the next list */
		return;
	}
	/* Not at once: closing the lock file wakes us up again. */
	foreign->end = now + (r == LOCAL_BUSY ? AGAIN_USEC : USEC_PER_SEC);
	if (r < 0)
		log_warning("%s; an expired session stays, retrying in 1 s", err.text);
}

/* While others live, look again every third of the shortest time-out: a second line behind the
 * kernel's message, which may come a moment before the lock is free. */
void local_session_scan(struct local *local)
{
	uint64_t now = clock_now(), next = UINT64_MAX;

	if (foreign_list(local, now) != 0)
		next = now + AGAIN_USEC;
	for (struct local_foreign *foreign = local->foreign; foreign; foreign = foreign->next) {
		uint64_t look;

		if (foreign->end && foreign->end <= now)
			foreign_end(local, foreign, now);
		look = foreign->end ? foreign->end : now + foreign->timeout_usec / 3 + AGAIN_USEC;
		if (look < next)
			next = look;
	}
	if (next == UINT64_MAX) {
		(void)sd_event_source_set_enabled(local->scan, SD_EVENT_OFF);
		return;
	}
	if (next < now + USEC_PER_MSEC)
		next = now + USEC_PER_MSEC;
	(void)sd_event_source_set_time(local->scan, next);
	(void)sd_event_source_set_enabled(local->scan, SD_EVENT_ONESHOT);
}

static int scan_due(sd_event_source *source, uint64_t usec, void *userdata)
{
	local_session_scan(userdata);
	return 0;
}

/* Lock files whose makers died before they wrote the row. */
static void orphans_clear(struct local *local)
{
	int copy = openat(local->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = copy >= 0 ? fdopendir(copy) : NULL;
	struct dirent *entry;

	if (!dir) {
		if (copy >= 0)
			(void)close(copy);
		return;
	}
	while ((entry = readdir(dir))) {
		CLEANUP_FD int fd = -1;

		if (!id_valid(entry->d_name) || lock_take(local, entry->d_name, 0, &fd, NULL) != 0)
			continue;
		(void)sqlite3_bind_text(local_db_statement(&local->db, LOCAL_SESSION_GET), 1,
					entry->d_name, -1, SQLITE_TRANSIENT);
		if (sqlite3_step(local->db.statements[LOCAL_SESSION_GET]) == SQLITE_DONE)
			(void)unlinkat(local->dir_fd, entry->d_name, 0);
		(void)sqlite3_reset(local->db.statements[LOCAL_SESSION_GET]);
	}
	(void)closedir(dir);
}

int local_session_start(struct local *local, struct error *err)
{
	int r;

	r = sd_event_add_time(local->loop, &local->session.step, CLOCK_BOOTTIME, 0, 1, session_step,
			      local);
	if (r >= 0)
		r = sd_event_source_set_enabled(local->session.step, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_time(local->loop, &local->scan, CLOCK_BOOTTIME, 0, 1, scan_due,
				      local);
	if (r < 0)
		return error_set(err, r, "cannot make timers for the store '%s': %m",
				 local->db.path);
	(void)clock_boot_id(local->boot);
	orphans_clear(local);
	return 0;
}

void local_session_done(struct local *local)
{
	session_drop(&local->session); /* frees the lock: the session lives for its time-out */
	(void)sd_event_source_disable_unref(local->session.step);
	(void)sd_event_source_disable_unref(local->scan);
	while (local->foreign) {
		struct local_foreign *foreign = local->foreign;

		local->foreign = foreign->next;
		free(foreign);
	}
}
