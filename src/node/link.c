/* SPDX-License-Identifier: Apache-2.0 */
/* A keeper is reached in one way only: by its socket in the run directory of its VM.  Whether it
 * was there before us or was started a moment ago makes no difference after that. */
#include "node/link.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/wait.h>
#include <unistd.h>

#include "model/config.h"
#include "node/events.h"
#include "node/keeper.h"
#include "node/node.h"
#include "node/ownership.h"
#include "node/replacement.h"
#include "node/vm.h"
#include "node/wish.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/process.h"
#include "wire/json.h"
#include "wire/sock.h"

#define KEEPER_SOCKET "keeper.sock"
#define BACKOFF_FIRST (200 * USEC_PER_MSEC)
#define STEADY (5 * USEC_PER_SEC) /* a keeper that ran this long is replaced at once */
/* Our own loop was late by this much: then a missed deadline says nothing about the keeper. */
#define LOOP_LATE (500 * USEC_PER_MSEC)

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata);

void link_init(struct link *link)
{
	link->pidfd = -1;
	link->backoff.first = BACKOFF_FIRST;
}

static void drop_process(struct link *link)
{
	if (link->pidfd >= 0)
		(void)close(link->pidfd);
	link->pidfd = -1;
	link->pid = 0;
}

/* The process goes on; the loop reaps it one day, and then nobody needs to know. */
static void let_child_go(struct link *link)
{
	if (!link->child)
		return;
	(void)sd_event_source_set_userdata(link->child, NULL);
	(void)sd_event_source_set_floating(link->child, true);
	link->child = sd_event_source_unref(link->child);
}

void link_done(struct link *link)
{
	link->peer = peer_close(link->peer);
	sd_event_source_disable_unref(link->timer);
	sd_event_source_disable_unref(link->arrival);
	let_child_go(link);
	sd_event_source_disable_unref(link->death);
	drop_process(link);
}

static void set_trouble(struct link *link, const char *text)
{
	(void)snprintf(link->trouble, sizeof(link->trouble), "%s", text);
}

static void arm_timer(struct node_vm *vm, uint64_t usec)
{
	node_timer(vm->node, &vm->link.timer, usec, on_timer, vm);
}

static void stop_timer(struct link *link)
{
	if (link->timer)
		(void)sd_event_source_set_enabled(link->timer, SD_EVENT_OFF);
}

static void stop_arrival(struct link *link)
{
	link->arrival = sd_event_source_disable_unref(link->arrival);
}

/* No keeper now; the next try after a while that grows with each failure. */
static void link_wait(struct node_vm *vm, uint64_t ran)
{
	struct link *link = &vm->link;
	uint64_t wait;

	stop_arrival(link);
	link->backoff.max = vm->node->config->timers.backoff_max;
	link->backoff.forget = STEADY;
	wait = backoff_failed(&link->backoff, ran);
	link->state = LINK_WAITING;
	arm_timer(vm, ran >= STEADY ? 0 : wait);
	vm_touch(vm);
}

/* ---- dismissing ---- */

static bool wish_needs_keeper(const struct node_vm *vm)
{
	return vm->wish_known && (vm->wish == WISH_RUN || vm->wish == WISH_PAUSE);
}

/* A keeper that was killed after its last duty has left its sockets and its state. */
static bool run_dir_left(const struct node_vm *vm)
{
	CLEANUP_FREE char *path = xasprintf("vms/%s", vm->name);

	return faccessat(vm->node->run_fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Postcopy: pages of a guest that runs elsewhere are here, or were: then that has to be said. */
static bool is_feeder(const struct node_vm *vm)
{
	return vm->version[VM_OWNER] && vm->owner.phase == OWNER_HELD &&
	       strcmp(vm->owner.feeder, vm->node->config->node) == 0;
}

static bool keeper_needed(const struct node_vm *vm)
{
	if (wish_needs_keeper(vm) || is_feeder(vm))
		return true;
	/* One that went in peace has left nothing that another could clean up. */
	return !vm->link.dismissed &&
	       (vm_is_here(vm) || (vm->wish_known && (run_dir_left(vm) || vm->arrivals)));
}

/* It has said, of the wish that it was told last, that it wants nothing more. */
static bool keeper_idle(const struct node_vm *vm)
{
	int state = vm_state_of(json_string_or(vm->told, "state", ""));

	if (!vm->told_now || wish_needs_keeper(vm) || is_feeder(vm))
		return false;
	if (vm->removed)
		return state == VM_OFF || state == VM_FAILED;
	return state == VM_OFF && json_bool_or(vm->told, "settled", false);
}

static void on_dismiss_answer(void *ctx, int r, json_t *value, const struct error *err)
{
	struct node_vm *vm = ctx;

	/* Refused: it will tell of a new state, and then we ask again. */
	vm->link.dismissing = r == 0;
	vm->link.dismissed = r == 0;
	vm->arrivals = vm->arrivals && r < 0;
}

static void dismiss(struct node_vm *vm)
{
	struct link *link = &vm->link;

	if (link->dismissing || !keeper_idle(vm))
		return;
	if (peer_call(link->peer, "dismiss", NULL, vm->node->config->timers.keeper_silent,
		      on_dismiss_answer, vm, NULL) == 0)
		link->dismissing = true;
}

/* ---- the conversation ---- */

static void on_request(void *ctx, struct request *request)
{
	ownership_request(ctx, request);
}

static void on_event(void *ctx, const char *name, json_t *data, json_t *whole)
{
	struct node_vm *vm = ctx;

	if (strcmp(name, "state") == 0 && json_is_object(data))
		vm_set_told(vm, data);
	else if (strcmp(name, "event") == 0)
		events_look(vm);
}

static void disconnect(struct node_vm *vm)
{
	struct link *link = &vm->link;

	link->peer = peer_close(link->peer);
	link->sent = (struct wish_sent){ 0 };
	link->refusal[0] = '\0';
	link->telling = 0;
	link->pinging = false;
	vm->told_now = false;
}

static void on_gone(void *ctx, const struct error *why)
{
	struct node_vm *vm = ctx;
	struct link *link = &vm->link;
	bool dismissed = link->dismissing;

	disconnect(vm);
	events_look(vm);
	drop_process(link);
	link->dismissing = false;
	if (dismissed) {
		stop_timer(link);
		link->state = LINK_NONE;
		link->trouble[0] = '\0';
		vm_touch(vm);
		return;
	}
	if (link->replacing) {
		set_trouble(link, "its keeper is being replaced");
		link_wait(vm, STEADY);
		return;
	}
	log_vm(LOG_LEVEL_WARNING, vm->name, "its keeper is gone: %s", why->text);
	events_add(vm->node, vm->name, "keeper-gone", "%s", why->text);
	set_trouble(link, "its keeper is gone; another is being started");
	link_wait(vm, clock_now() - link->up_since);
}

static const struct peer_ops keeper_ops = {
	.request = on_request,
	.event = on_event,
	.gone = on_gone,
};

static void on_status(void *ctx, int r, json_t *value, const struct error *err)
{
	struct node_vm *vm = ctx;

	if (r == 0 && json_is_object(value))
		vm_set_told(vm, value);
	/* From here on it tells of each; before, nobody listened. */
	events_look(vm);
}

/* Who listens there, with a pidfd, while it can be proven (I5).  The socket was bound by a process
 * of that number; its command line must name this VM. */
static void prove_keeper(struct node_vm *vm, int fd)
{
	struct link *link = &vm->link;
	struct process_id id = { 0 };
	struct error err = { 0 };
	uid_t uid;
	int r;

	r = sock_peer(fd, &uid, &link->pid, &err);
	if (r == 0)
		r = process_identify(link->pid, vm->name, &id, &err);
	if (r == 0)
		r = process_open(&id, &link->pidfd, &err);
	if (r <= 0)
		log_vm(LOG_LEVEL_WARNING, vm->name,
		       "cannot prove which process its keeper is (%s); it could not be ended if it "
		       "hung",
		       r < 0 ? err.text : "it is gone or another");
}

/* Takes `fd`. */
static void link_up(struct node_vm *vm, int fd)
{
	const struct timers *timers = &vm->node->config->timers;
	struct link *link = &vm->link;
	struct error err = { 0 };

	stop_arrival(link);
	drop_process(link);
	prove_keeper(vm, fd);
	if (peer_open(fd, vm->node->loop, &keeper_ops, vm, &link->peer, &err) < 0) {
		set_trouble(link, err.text);
		link_wait(vm, 0);
		return;
	}
	link->state = LINK_UP;
	link->up_since = clock_now();
	link->dismissing = false;
	link->replacing = link->busy = false;
	link->outdated = replacement_is_outdated(link);
	link->trouble[0] = '\0';
	log_vm(LOG_LEVEL_INFO, vm->name, "keeper: pid %d", (int)link->pid);
	(void)peer_call(link->peer, "status", NULL, timers->keeper_silent, on_status, vm, NULL);
	arm_timer(vm, timers->keeper_ping);
	vm_touch(vm);
}

/* ---- pings ---- */

static int on_death(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct node_vm *vm = userdata;
	struct link *link = &vm->link;

	link->death = sd_event_source_disable_unref(link->death);
	drop_process(link);
	link_wait(vm, STEADY);
	return 0;
}

static void kill_hung(struct node_vm *vm)
{
	struct link *link = &vm->link;
	struct error err = { 0 };

	if (link->pidfd < 0) {
		set_trouble(link, "its keeper does not answer, and which process it is cannot be "
				  "proven; end 'drover-keeper' of this VM by hand");
		log_vm(LOG_LEVEL_ERROR, vm->name, "%s", link->trouble);
		return;
	}
	log_vm(LOG_LEVEL_WARNING, vm->name,
	       "its keeper (pid %d) does not answer; ending it, the next one takes over",
	       (int)link->pid);
	events_add(vm->node, vm->name, "keeper-killed", "pid %d did not answer", (int)link->pid);
	set_trouble(link, "its keeper hung and was ended; another is being started");
	disconnect(vm);
	link->state = LINK_KILLING;
	stop_timer(link);
	if (process_signal(link->pidfd, SIGKILL, &err) < 0)
		log_vm(LOG_LEVEL_ERROR, vm->name, "cannot end it: %s", err.text);
	if (sd_event_add_io(vm->node->loop, &link->death, link->pidfd, EPOLLIN, on_death, vm) < 0)
		link_wait(vm, 0);
	vm_touch(vm);
}

static void on_pong(void *ctx, int r, json_t *value, const struct error *err)
{
	struct node_vm *vm = ctx;
	struct link *link = &vm->link;
	uint64_t waited = clock_now() - link->ping_sent;

	link->pinging = false;
	if (r != -ETIMEDOUT)
		return;
	if (waited > vm->node->config->timers.keeper_silent + LOOP_LATE) {
		log_vm(LOG_LEVEL_WARNING, vm->name, "this agent was late itself; asking anew");
		return;
	}
	kill_hung(vm);
}

static void ping(struct node_vm *vm)
{
	struct link *link = &vm->link;
	const struct timers *timers = &vm->node->config->timers;

	arm_timer(vm, timers->keeper_ping);
	if (link->pinging)
		return;
	link->ping_sent = clock_now();
	link->pinging =
		peer_call(link->peer, "ping", NULL, timers->keeper_silent, on_pong, vm, NULL) == 0;
}

/* ---- finding and starting ---- */

/* 1 connected, 0 nobody listens. */
static int try_connect(struct node_vm *vm)
{
	CLEANUP_FREE char *path = xasprintf("vms/%s", vm->name);
	CLEANUP_FD int dir = openat(vm->node->run_fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct error err = { 0 };
	int fd;

	if (dir < 0)
		return 0;
	fd = sock_connect(dir, KEEPER_SOCKET, &err);
	if (fd < 0)
		return 0;
	link_up(vm, fd);
	return 1;
}

static int on_arrival(sd_event_source *source, const struct inotify_event *event, void *userdata)
{
	struct node_vm *vm = userdata;

	if (vm->link.state == LINK_STARTING)
		(void)try_connect(vm);
	return 0;
}

/* The child was reaped.  While it was still to listen, that is a failed start, unless another
 * keeper was there before it and listens by now. */
static int on_child(sd_event_source *source, const siginfo_t *info, void *userdata)
{
	struct node_vm *vm = userdata;
	CLEANUP_FREE char *log = NULL;
	struct link *link;
	char words[256];

	if (!vm) {
		(void)sd_event_source_set_floating(source, false); /* the last reference */
		return 0;
	}
	link = &vm->link;
	link->child = sd_event_source_disable_unref(link->child);
	if (link->state != LINK_STARTING || try_connect(vm) > 0)
		return 0;
	log = keeper_log_place(vm);
	(void)snprintf(words, sizeof(words), "its keeper ended at once (%s %d); see %s",
		       info->si_code == CLD_EXITED ? "exit code" : "signal", info->si_status, log);
	set_trouble(link, words);
	log_vm(LOG_LEVEL_ERROR, vm->name, "%s", words);
	link_wait(vm, 0);
	return 0;
}

static int start_process(struct node_vm *vm, struct error *err)
{
	struct link *link = &vm->link;
	int pidfd, r;
	pid_t pid;

	r = keeper_start(vm, &pid, &pidfd, err);
	if (r < 0)
		return r;
	let_child_go(link);
	r = sd_event_add_child_pidfd(vm->node->loop, &link->child, pidfd, WEXITED, on_child, vm);
	if (r < 0) {
		(void)close(pidfd);
		return error_set(err, r, "cannot watch the keeper");
	}
	(void)sd_event_source_set_child_pidfd_own(link->child, true);
	log_vm(LOG_LEVEL_INFO, vm->name, "started its keeper, pid %d", (int)pid);
	return 0;
}

static int find_or_start(struct node_vm *vm, struct error *err)
{
	CLEANUP_FREE char *dir = xasprintf("%s/vms/%s", vm->node->config->paths.run, vm->name);
	struct link *link = &vm->link;
	int r;

	r = file_make_dirs(AT_FDCWD, dir, 0700, err);
	if (r < 0)
		return r;
	stop_arrival(link);
	/* First the watch, then the look: nobody comes in between unseen. */
	r = sd_event_add_inotify(vm->node->loop, &link->arrival, dir, IN_MOVED_TO | IN_CREATE,
				 on_arrival, vm);
	if (r < 0)
		return error_set(err, r, "cannot watch '%s': %m", dir);
	if (try_connect(vm) > 0)
		return 0;
	return start_process(vm, err);
}

void link_adopt(struct node_vm *vm)
{
	if (vm->link.state == LINK_NONE)
		(void)try_connect(vm);
}

static void link_start(struct node_vm *vm)
{
	struct link *link = &vm->link;
	struct error err = { 0 };

	if (try_connect(vm) > 0)
		return;
	link->state = LINK_STARTING;
	set_trouble(link, "its keeper is being started");
	if (find_or_start(vm, &err) < 0) {
		set_trouble(link, err.text);
		log_vm(LOG_LEVEL_ERROR, vm->name, "cannot start its keeper: %s", err.text);
		link_wait(vm, 0);
		return;
	}
	if (link->state == LINK_STARTING)
		arm_timer(vm, vm->node->config->timers.qmp_greeting);
}

/* A keeper that was started never came to listen. */
static void start_timed_out(struct node_vm *vm)
{
	struct link *link = &vm->link;

	if (try_connect(vm) > 0)
		return;
	set_trouble(link, "its keeper was started and does not listen");
	log_vm(LOG_LEVEL_ERROR, vm->name, "%s; ending it", link->trouble);
	if (link->child) {
		int pidfd = sd_event_source_get_child_pidfd(link->child);

		(void)process_signal(pidfd, SIGKILL, NULL);
	}
	link_wait(vm, 0);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct node_vm *vm = userdata;

	switch (vm->link.state) {
	case LINK_STARTING:
		start_timed_out(vm);
		break;
	case LINK_UP:
		ping(vm);
		break;
	case LINK_WAITING:
		vm->link.state = LINK_NONE;
		vm_touch(vm);
		break;
	default:
		break;
	}
	return 0;
}

void link_look(struct node_vm *vm)
{
	struct link *link = &vm->link;

	switch (link->state) {
	case LINK_NONE:
		if (keeper_needed(vm))
			link_start(vm);
		break;
	case LINK_UP:
		wish_tell(vm);
		dismiss(vm);
		break;
	default:
		break;
	}
}

int link_call(struct node_vm *vm, const char *command, json_t *args, uint64_t timeout_usec,
	      peer_reply_fn reply, void *ctx, struct error *err)
{
	if (vm->link.state != LINK_UP)
		return error_try_again(err, "VM '%s' has no keeper that answers%s%s", vm->name,
				       vm->link.trouble[0] ? ": " : "", vm->link.trouble);
	return peer_call(vm->link.peer, command, args, timeout_usec, reply, ctx, err);
}

bool link_coming(const struct link *link)
{
	return link->state != LINK_NONE;
}

const char *link_words(const struct link *link)
{
	if (link->state == LINK_UP)
		return "its keeper has not told yet";
	return link->trouble[0] ? link->trouble : NULL;
}
