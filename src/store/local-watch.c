/* SPDX-License-Identifier: Apache-2.0 */
/* How changes are noticed without polling.  After each commit a process touches the file "bell" in
 * STORE.DB.sessions, and all others hear it by inotify.  (The log of SQLite itself would not do: it
 * is written before the commit can be seen.)  Each process also holds the bell open for writing, so
 * the kernel rings it (IN_CLOSE_WRITE) for one that was killed between commit and touch.
 *
 * Whether a prefix changed is told by its fingerprint, (highest version, count of keys): a key that
 * is new or was written has a version above all former ones, and if only deletions happened the
 * count is smaller. */
#include "store/local.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "util/cleanup.h"
#include "util/mem.h"

#define BELL "bell"

struct fingerprint {
	int64_t version, count;
};

struct local_watch {
	struct store_watch watch;
	struct local_watch *next;
	char *prefix;
	char *end; /* first text behind all keys of the prefix */
	struct fingerprint seen;
	store_look_fn look;
	void *ctx;
	sd_event_source *due; /* enabled: `look` has to be called */
};

static int fingerprint_read(struct local_watch *watch, struct fingerprint *ret)
{
	struct local *local = container_of(watch->watch.store, struct local, store);
	sqlite3_stmt *statement = local_db_statement(&local->db, LOCAL_FINGERPRINT);
	int r = -EAGAIN;

	(void)sqlite3_bind_text(statement, 1, watch->prefix, -1, SQLITE_STATIC);
	(void)sqlite3_bind_text(statement, 2, watch->end, -1, SQLITE_STATIC);
	if (sqlite3_step(statement) == SQLITE_ROW) {
		*ret = (struct fingerprint){ sqlite3_column_int64(statement, 0),
					     sqlite3_column_int64(statement, 1) };
		r = 0;
	}
	(void)sqlite3_reset(statement);
	return r;
}

/* The fingerprint is taken before the caller looks: what changes in between is told again. */
static int watch_due(sd_event_source *source, void *userdata)
{
	struct local_watch *watch = userdata;

	if (fingerprint_read(watch, &watch->seen) < 0)
		watch->seen = (struct fingerprint){ -1, -1 };
	watch->look(watch->ctx);
	return 0;
}

static void watch_fire(struct local_watch *watch)
{
	(void)sd_event_source_set_enabled(watch->due, SD_EVENT_ONESHOT);
}

void local_watch_key(struct local *local, const char *key)
{
	for (struct local_watch *watch = local->watches; watch; watch = watch->next)
		if (strncmp(key, watch->prefix, strlen(watch->prefix)) == 0)
			watch_fire(watch);
}

void local_watch_ring(struct local *local)
{
	(void)futimens(local->bell_fd, NULL); /* no room is needed for it */
}

void local_watch_compare(struct local *local)
{
	for (struct local_watch *watch = local->watches; watch; watch = watch->next) {
		struct fingerprint now;

		if (fingerprint_read(watch, &now) < 0 || now.version != watch->seen.version ||
		    now.count != watch->seen.count)
			watch_fire(watch);
	}
}

void local_watch_check(struct local *local)
{
	sqlite3_stmt *statement = local_db_statement(&local->db, LOCAL_DATA_VERSION);
	int64_t version = -1; /* cannot be told: compare */

	if (sqlite3_step(statement) == SQLITE_ROW)
		version = sqlite3_column_int64(statement, 0);
	(void)sqlite3_reset(statement);
	if (version >= 0 && version == local->data_version)
		return;
	local->data_version = version;
	local_watch_compare(local);
	if (local->session.phase == SESSION_CONNECTED &&
	    local_session_check(local, NULL) == -ENOTCONN)
		local_session_lost(local);
}

static int inotify_ready(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	_Alignas(struct inotify_event) char buffer[4096];
	struct local *local = userdata;
	bool sessions = false;
	ssize_t length;

	while ((length = read(fd, buffer, sizeof(buffer))) > 0) {
		const struct inotify_event *event;

		for (char *at = buffer; at < buffer + length; at += sizeof(*event) + event->len) {
			event = (const struct inotify_event *)(void *)at;
			if (event->mask & (IN_IGNORED | IN_MOVE_SELF))
				local->uprooted = true;
			if (event->len == 0 || strcmp(event->name, BELL) != 0)
				sessions = true;
			else if (event->mask & (IN_DELETE | IN_MOVED_FROM))
				local->uprooted = true; /* nobody would hear us any more */
		}
	}
	if (local->uprooted && local->session.phase == SESSION_CONNECTED)
		local_session_lost(local); /* without the lock file others will think us dead */
	local_watch_check(local);
	if (sessions)
		local_session_scan(local);
	return 0;
}

static int beside_fail(struct local *local, int number, struct error *err)
{
	return error_set(err, -number,
			 "cannot write '%s.sessions', which every user of the store needs: %s; "
			 "check its rights, and whether its file system is full or read-only",
			 local->db.path, strerror(number));
}

static int bell_open(struct local *local, struct error *err)
{
	CLEANUP_FREE char *path = xasprintf("%s.sessions", local->db.path);

	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return beside_fail(local, errno, err);
	local->dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (local->dir_fd < 0)
		return beside_fail(local, errno, err);
	local->bell_fd =
		openat(local->dir_fd, BELL, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (local->bell_fd < 0)
		return beside_fail(local, errno, err);
	local->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (local->inotify_fd < 0 ||
	    inotify_add_watch(local->inotify_fd, path,
			      IN_ATTRIB | IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM |
				      IN_MOVED_TO | IN_MOVE_SELF | IN_ONLYDIR) < 0)
		return error_set(err, -errno,
				 "cannot be told of changes of the store '%s': %m; when it says "
				 "that there are too many or no space, raise "
				 "fs.inotify.max_user_instances and max_user_watches (sysctl)",
				 local->db.path);
	return 0;
}

int local_watch_start(struct local *local, struct error *err)
{
	int r;

	r = bell_open(local, err);
	if (r < 0)
		return r;
	r = sd_event_add_io(local->loop, &local->inotify, local->inotify_fd, EPOLLIN, inotify_ready,
			    local);
	if (r < 0)
		return error_set(err, r, "cannot watch the store '%s': %m", local->db.path);
	local->data_version = -1; /* the first look compares */
	return 0;
}

static void watch_free(struct local_watch *watch)
{
	(void)sd_event_source_disable_unref(watch->due);
	free(watch->prefix);
	free(watch->end);
	free(watch);
}

void local_watch_done(struct local *local)
{
	while (local->watches) {
		struct local_watch *watch = local->watches;

		local->watches = watch->next;
		watch_free(watch);
	}
	(void)sd_event_source_disable_unref(local->inotify);
	if (local->inotify_fd >= 0)
		(void)close(local->inotify_fd);
	if (local->bell_fd >= 0)
		(void)close(local->bell_fd);
	if (local->dir_fd >= 0)
		(void)close(local->dir_fd);
}

int local_watch(struct store *store, const char *prefix, store_look_fn look, void *ctx,
		struct store_watch **ret_watch, struct error *err)
{
	struct local *local = container_of(store, struct local, store);
	struct local_watch *watch = xcalloc(1, sizeof(*watch));
	int r;

	*watch = (struct local_watch){
		.watch.store = store,
		.prefix = xstrdup(prefix),
		.end = xstrdup(prefix),
		.seen = { -1, -1 },
		.look = look,
		.ctx = ctx,
	};
	watch->end[strlen(watch->end) - 1] = '/' + 1;
	r = sd_event_add_defer(local->loop, &watch->due, watch_due, watch); /* fires once: "soon" */
	if (r < 0) {
		watch_free(watch);
		return error_set(err, r, "cannot watch the store '%s': %m", local->db.path);
	}
	watch->next = local->watches;
	local->watches = watch;
	*ret_watch = &watch->watch;
	return 0;
}

void local_unwatch(struct store_watch *base)
{
	struct local *local = container_of(base->store, struct local, store);
	struct local_watch *watch = container_of(base, struct local_watch, watch);
	struct local_watch **at = &local->watches;

	while (*at != watch)
		at = &(*at)->next;
	*at = watch->next;
	watch_free(watch);
}
