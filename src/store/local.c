/* SPDX-License-Identifier: Apache-2.0 */
/* The embedded store: an SQLite file that several agents of one machine may have open.  Calls wait
 * in one queue and are carried out from the loop, one per turn, so answers come in the order of the
 * calls.  When another process has the file, the first call waits by a timer, not inside SQLite:
 * the loop is never held up by more than our own disk. */
#include "store/local.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/mem.h"

#define QUEUE_MAX 10000
#define BUSY_USEC (5 * USEC_PER_SEC)
#define RETRY_FIRST_USEC (1 * USEC_PER_MSEC)
#define RETRY_LAST_USEC (32 * USEC_PER_MSEC)

int local_queue(struct local *local, struct local_request *request, struct error *err)
{
	if (local->queued >= QUEUE_MAX) {
		request->free(request);
		return error_try_again(err, "%d calls are waiting for the store '%s' already",
				       QUEUE_MAX, local->db.path);
	}
	request->deadline = clock_now() + BUSY_USEC;
	request->next = NULL;
	*local->last = request;
	local->last = &request->next;
	if (local->queued++ == 0)
		(void)sd_event_source_set_enabled(local->turn, SD_EVENT_ON);
	return 0;
}

int local_intact(struct local *local, struct error *err)
{
	int moved = 0;

	(void)sqlite3_file_control(local->db.sqlite, "main", SQLITE_FCNTL_HAS_MOVED, &moved);
	if (!moved && !local->uprooted)
		return 0;
	return error_set_class(
		err, ERROR_BAD_DATA, -EUCLEAN,
		"the store '%s' or its directory '.sessions' was moved, replaced or "
		"removed while it was in use: put it back, then restart this program",
		local->db.path);
}

static struct local_request *queue_pop(struct local *local)
{
	struct local_request *request = local->first;

	local->first = request->next;
	if (!local->first)
		local->last = &local->first;
	local->queued--;
	return request;
}

static void queue_wait(struct local *local)
{
	(void)sd_event_source_set_enabled(local->turn, SD_EVENT_OFF);
	(void)sd_event_source_set_time_relative(local->retry, local->retry_usec);
	(void)sd_event_source_set_enabled(local->retry, SD_EVENT_ONESHOT);
	if (local->retry_usec < RETRY_LAST_USEC)
		local->retry_usec *= 2;
}

static int turn_due(sd_event_source *source, void *userdata)
{
	struct local *local = userdata;
	struct local_request *request = local->first;
	struct error err = { 0 };
	int r;

	r = local_intact(local, &err);
	if (r == 0)
		r = request->run(local, request, &err);
	if (r == LOCAL_BUSY && clock_now() < request->deadline) {
		queue_wait(local);
		return 0;
	}
	if (r == LOCAL_BUSY)
		r = error_try_again(&err,
				    "another process has held the store '%s' for %d s: see with "
				    "'fuser' which one, and whether it hangs",
				    local->db.path, (int)(BUSY_USEC / USEC_PER_SEC));
	local->retry_usec = RETRY_FIRST_USEC;
	(void)queue_pop(local);
	if (!local->first)
		(void)sd_event_source_set_enabled(local->turn, SD_EVENT_OFF);
	request->answer(request, r, &err); /* may close the store */
	request->free(request);
	return 0;
}

static int retry_due(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct local *local = userdata;

	(void)sd_event_source_set_enabled(local->turn, SD_EVENT_ON);
	return 0;
}

static int queue_start(struct local *local, struct error *err)
{
	int r;

	local->last = &local->first;
	local->retry_usec = RETRY_FIRST_USEC;
	r = sd_event_add_defer(local->loop, &local->turn, turn_due, local);
	if (r >= 0)
		r = sd_event_source_set_enabled(local->turn, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_time(local->loop, &local->retry, CLOCK_BOOTTIME, 0, 1, retry_due,
				      local);
	if (r >= 0)
		r = sd_event_source_set_enabled(local->retry, SD_EVENT_OFF);
	if (r < 0)
		return error_set(err, r, "cannot serve the store '%s' from the event loop: %m",
				 local->db.path);
	return 0;
}

static void local_close(struct store *store)
{
	struct local *local = container_of(store, struct local, store);

	while (local->first) {
		struct local_request *request = queue_pop(local);

		request->free(request);
	}
	(void)sd_event_source_disable_unref(local->turn);
	(void)sd_event_source_disable_unref(local->retry);
	local_session_done(local);
	local_watch_done(local);
	local_db_close(&local->db);
	(void)sd_event_unref(local->loop);
	free(local);
}

static int local_open(const char *address, const char *base_dir, sd_event *loop,
		      struct store **ret_store, struct error *err)
{
	CLEANUP_FREE char *path = NULL;
	struct local *local;
	int r;

	if (!address[0] || (address[0] != '/' && !base_dir))
		return error_usage(err,
				   "'local:%s' does not name a file: write local:/PATH/TO/store.db",
				   address);
	path = address[0] == '/' ? xstrdup(address) : xasprintf("%s/%s", base_dir, address);
	local = xcalloc(1, sizeof(*local));
	local->loop = sd_event_ref(loop);
	local->dir_fd = local->bell_fd = local->inotify_fd = local->session.lock_fd = -1;
	local->last = &local->first;
	r = local_db_open(&local->db, path, err);
	if (r == 0)
		r = queue_start(local, err);
	if (r == 0)
		r = local_watch_start(local, err);
	if (r == 0)
		r = local_session_start(local, err);
	if (r < 0) {
		local_close(&local->store);
		return r;
	}
	local_session_scan(local);
	*ret_store = &local->store;
	return 0;
}

static struct store_limits local_limits(const struct store *store)
{
	return (struct store_limits){ .ops = STORE_OPS_MAX, .bytes = SIZE_MAX };
}

const struct store_ops store_local = {
	.scheme = "local",
	.open = local_open,
	.close = local_close,
	.get = local_get,
	.list = local_list,
	.write = local_write,
	.watch = local_watch,
	.unwatch = local_unwatch,
	.session_open = local_session_open,
	.session_close = local_session_close,
	.session_id = local_session_id,
	.session_timing = local_session_timing,
	.session_renew = local_session_renew,
	.limits = local_limits,
};
