/* SPDX-License-Identifier: Apache-2.0 */
/* The handle of the library, in our loop.  zookeeper_interest() says what it waits for and until
 * when, zookeeper_process() does what is due.
 *
 * The library opens and closes its socket when it likes, and a new one often gets the number of the
 * last: the loop watches a descriptor of our own, and the inode tells whether it is still the same
 * socket.  zookeeper_close() would end the session (and wait for that); a session that shall live
 * on is left by putting an end of a dead socket under the library, which then thinks itself cut
 * off. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "store/zookeeper.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/mem.h"

#define ANONYMOUS_USEC (10 * USEC_PER_SEC) /* time-out of a session that nobody asked for */
#define BACKOFF_FIRST_USEC (20 * USEC_PER_MSEC)
#define BACKOFF_LAST_USEC (1 * USEC_PER_SEC)
#define REPLIES_AT_ONCE 64
#define ATTEMPT_MIN_USEC (1 * USEC_PER_SEC)
#define ATTEMPT_MAX_USEC (4 * USEC_PER_SEC)

static void on_library_log(const char *message)
{
	log_debug("zookeeper: %s", message);
}

static void on_session_event(zhandle_t *handle, int type, int state, const char *path, void *ctx)
{
	struct zk *zk = ctx;
	struct zk_link *link = &zk->link;

	if (zk->closing || handle != link->handle || type != ZOO_SESSION_EVENT)
		return;
	if (state == ZOO_CONNECTED_STATE) {
		link->connected = link->fresh = true;
		link->failures = 0;
	} else {
		link->connected = link->fresh = false;
	}
	if (state == ZOO_EXPIRED_SESSION_STATE || state == ZOO_AUTH_FAILED_STATE)
		link->expired = true;
	zk_turn(zk);
}

static void io_drop(struct zk_link *link)
{
	link->io = sd_event_source_disable_unref(link->io);
	if (link->fd >= 0)
		(void)close(TAKE_FD(link->fd));
	link->writing = false;
}

static uint64_t session_timeout(const struct zk *zk)
{
	const struct zk_session *session = &zk->session;

	return session->phase == ZK_SESSION_NONE || session->phase == ZK_SESSION_GONE
		       ? ANONYMOUS_USEC
		       : session->wanted_usec;
}

static void handle_open(struct zk *zk)
{
	struct zk_session *session = &zk->session;
	bool resume = session->phase == ZK_SESSION_OPENING && session->resuming;
	struct zk_link *link = &zk->link;

	zoo_set_debug_level(ZOO_LOG_LEVEL_WARN);
	link->expired = link->connected = link->fresh = false;
	link->handle = zookeeper_init2(
		zk->address.servers, on_session_event, (int)(session_timeout(zk) / USEC_PER_MSEC),
		resume ? &session->resume : NULL, zk, ZOO_NO_LOG_CLIENTENV, on_library_log);
	if (!link->handle) {
		log_warning("cannot make a ZooKeeper handle: %s; retrying in 1 s", strerror(errno));
		link->not_before = clock_now() + BACKOFF_LAST_USEC;
		return;
	}
	/* Addresses stay what they are; without this the library would resolve them again. */
	(void)zoo_set_servers_resolution_delay(link->handle, -1);
}

/* Makes the library think that the server has closed the connection. */
static void handle_cut(struct zk_link *link)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
		return;
	(void)close(ends[1]);
	if (dup3(ends[0], link->library_fd, O_CLOEXEC) >= 0)
		(void)zookeeper_process(link->handle, ZOOKEEPER_READ);
	(void)close(ends[0]);
}

void zk_link_drop(struct zk *zk)
{
	struct zk_link *link = &zk->link;
	bool open = link->fd >= 0;
	zhandle_t *handle = link->handle;

	if (!handle)
		return;
	if (open && zoo_state(handle) == ZOO_CONNECTED_STATE)
		handle_cut(link);
	link->handle = NULL; /* what still wants to send something finds nothing */
	(void)zookeeper_close(handle);
	io_drop(link);
	link->connected = link->fresh = link->expired = false;
}

/* An attempt came to nothing.  Each server once at once, then slower and slower. */
static void link_failed(struct zk *zk)
{
	struct zk_link *link = &zk->link;
	uint64_t last = session_timeout(zk) / 8, delay = BACKOFF_FIRST_USEC;
	unsigned rounds = link->failures++ / zk->address.count;

	io_drop(link);
	if (last > BACKOFF_LAST_USEC)
		last = BACKOFF_LAST_USEC;
	while (rounds-- > 0 && delay < last)
		delay *= 2;
	if (link->failures < zk->address.count)
		delay = USEC_PER_MSEC;
	link->not_before = clock_now() + (delay < last ? delay : last);
	zk_turn(zk);
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct zk *zk = userdata;
	int events = 0, rc = ZOK;

	if (revents & (EPOLLIN | EPOLLHUP | EPOLLERR))
		events |= ZOOKEEPER_READ;
	if (revents & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		events |= ZOOKEEPER_WRITE;
	/* Each call takes one reply. */
	for (int i = 0; i < REPLIES_AT_ONCE && rc == ZOK; i++) {
		rc = zookeeper_process(zk->link.handle, events);
		events = ZOOKEEPER_READ;
	}
	if (rc != ZOK && rc != ZNOTHING)
		link_failed(zk);
	zk_turn(zk);
	return 0;
}

static uint64_t attempt_usec(const struct zk *zk)
{
	uint64_t usec = session_timeout(zk) / 3;

	if (usec < ATTEMPT_MIN_USEC)
		return ATTEMPT_MIN_USEC;
	return usec < ATTEMPT_MAX_USEC ? usec : ATTEMPT_MAX_USEC;
}

/* The library has this socket now; -1: none. */
static void io_follow(struct zk *zk, int library_fd)
{
	struct zk_link *link = &zk->link;
	struct stat stat;

	if (library_fd < 0 || fstat(library_fd, &stat) < 0) {
		io_drop(link);
		return;
	}
	link->library_fd = library_fd;
	if (link->fd >= 0 && stat.st_ino == link->inode)
		return;
	io_drop(link);
	link->fd = fcntl(library_fd, F_DUPFD_CLOEXEC, 0);
	link->inode = stat.st_ino;
	link->attempt_end = clock_now() + attempt_usec(zk);
	if (link->fd < 0 || sd_event_add_io(zk->loop, &link->io, link->fd, 0, on_io, zk) < 0) {
		log_warning("cannot watch the connection to ZooKeeper: no descriptors left");
		link_failed(zk);
	}
}

static void wake_at(struct zk_link *link, uint64_t when)
{
	(void)sd_event_source_set_time(link->timer, when);
	(void)sd_event_source_set_enabled(link->timer, SD_EVENT_ONESHOT);
}

/* Asks the library what it waits for, and waits for that.  To be called after all that may have
 * changed it. */
void zk_link_service(struct zk *zk)
{
	struct zk_link *link = &zk->link;
	uint64_t now = clock_now(), wake;
	struct timeval tv = { 0 };
	int fd = -1, interest = 0;

	if (!link->handle && now >= link->not_before)
		handle_open(zk);
	if (!link->handle || (link->fd < 0 && now < link->not_before)) {
		wake_at(link, link->not_before);
		return;
	}
	if (link->fd >= 0 && !link->connected && now >= link->attempt_end) {
		handle_cut(link);
		link_failed(zk);
		return;
	}
	if (zookeeper_interest(link->handle, &fd, &interest, &tv) != ZOK) {
		link_failed(zk);
		return;
	}
	io_follow(zk, fd);
	link->writing = interest & ZOOKEEPER_WRITE;
	if (link->io)
		(void)sd_event_source_set_io_events(link->io,
						    ((interest & ZOOKEEPER_READ) ? EPOLLIN : 0u) |
							    (link->writing ? EPOLLOUT : 0u));
	wake = now + (uint64_t)tv.tv_sec * USEC_PER_SEC + (uint64_t)tv.tv_usec + USEC_PER_MSEC;
	if (link->fd >= 0 && !link->connected && wake > link->attempt_end)
		wake = link->attempt_end;
	wake_at(link, wake);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	zk_turn(userdata);
	return 0;
}

static void farewell_end(struct zk *zk)
{
	struct zk_link *link = &zk->link;

	link->farewell = sd_event_source_disable_unref(link->farewell);
	if (link->farewell_fd >= 0)
		(void)close(TAKE_FD(link->farewell_fd));
}

static int on_farewell(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct zk *zk = userdata;
	char rest[4096];

	if (recv(fd, rest, sizeof(rest), MSG_DONTWAIT) > 0)
		return 0;
	farewell_end(zk); /* the server closes the connection when the session is closed */
	zk_session_farewell_done(zk);
	return 0;
}

/* Closes the session.  The library would wait for it; it is one request of 12 bytes, and all that
 * is needed is that nothing else is under way on the socket. */
void zk_link_farewell(struct zk *zk)
{
	const uint32_t request[] = { htonl(8), htonl(1), htonl((uint32_t)-11) }; /* closeSession */
	struct zk_link *link = &zk->link;

	if (link->connected && !link->writing && link->fd >= 0 && link->farewell_fd < 0) {
		link->farewell_fd = TAKE_FD(link->fd);
		link->io = sd_event_source_disable_unref(link->io);
		handle_cut(link);
	}
	zk_link_drop(zk);
	if (link->farewell_fd < 0 ||
	    send(link->farewell_fd, request, sizeof(request), MSG_NOSIGNAL | MSG_DONTWAIT) !=
		    (ssize_t)sizeof(request) ||
	    sd_event_add_io(zk->loop, &link->farewell, link->farewell_fd, EPOLLIN, on_farewell,
			    zk) < 0) {
		farewell_end(zk);
		zk_session_farewell_done(zk);
	}
}

int zk_link_start(struct zk *zk, struct error *err)
{
	int r;

	zk->link.fd = zk->link.farewell_fd = -1;
	r = sd_event_add_time(zk->loop, &zk->link.timer, CLOCK_BOOTTIME, 0, 1, on_timer, zk);
	if (r >= 0)
		r = sd_event_source_set_enabled(zk->link.timer, SD_EVENT_OFF);
	if (r < 0)
		return error_set(err, r, "cannot serve ZooKeeper from the event loop: %m");
	return 0;
}

void zk_link_done(struct zk *zk)
{
	zk_link_drop(zk);
	farewell_end(zk);
	zk->link.timer = sd_event_source_disable_unref(zk->link.timer);
}
