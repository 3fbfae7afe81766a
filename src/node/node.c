/* SPDX-License-Identifier: Apache-2.0 */
#include "node/node.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-id128.h>
#include <unistd.h>

#include "model/config.h"
#include "model/definition.h"
#include "node/channel.h"
#include "node/consul.h"
#include "node/control.h"
#include "node/directory.h"
#include "node/disks.h"
#include "node/events.h"
#include "node/facts.h"
#include "node/feed.h"
#include "node/info.h"
#include "node/job.h"
#include "node/lease.h"
#include "node/membership.h"
#include "node/mode.h"
#include "node/moves.h"
#include "node/near.h"
#include "node/orders.h"
#include "node/records.h"
#include "node/reexec.h"
#include "node/renewal.h"
#include "node/replacement.h"
#include "node/services.h"
#include "node/session.h"
#include "node/taking.h"
#include "node/upgrade.h"
#include "node/vm.h"
#include "storage/storage.h"
#include "store/store.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/writer.h"
#include "wire/json.h"

#define LOCK_FILE "droverd.lock"
#define LOCK_WAIT (2 * USEC_PER_SEC) /* for our forerunner, who may be dying still */

struct node *node_new(void)
{
	struct node *node = xcalloc(1, sizeof(*node));

	node->run_fd = -1;
	node->lock_fd = -1;
	node->mode = NODE_READY;
	return node;
}

/* Guests and keepers stay as they are: only our own ends of things are closed. */
struct node *node_free(struct node *node)
{
	if (!node)
		return NULL;
	if (node->control)
		orders_close(node);
	moves_close(node);
	if (node->events)
		node->events = events_close(node->events);
	node->control = control_close(node->control);
	node->channel = channel_close(node->channel);
	jobs_end(node);
	node->reexec = reexec_close(node->reexec);
	node->services = services_close(node->services);
	node->consul = consul_feed_close(node->consul);
	node->feed = feed_close(node->feed);
	facts_close(node->facts);
	node->replacement = replacement_close(node->replacement);
	node->info = info_close(node->info);
	membership_close(node->membership);
	renewal_close(node->renewal);
	directory_close(node->directory);
	near_close(node->near);
	node->taking = taking_close(node->taking);
	records_close(node->records);
	mode_close(node);
	node->upgrade = upgrade_close(node->upgrade);
	session_close(node->session);
	lease_close(node->lease);
	while (node->n_vms)
		vm_free(node->vms[node->n_vms - 1]);
	free(node->vms);
	/* Whoever hangs on it has it still. */
	if (!atomic_load(&disk_volumes.hangs))
		storage_close(node->storage);
	store_close(node->store);
	sd_event_source_disable_unref(node->slots);
	sd_event_source_disable_unref(node->settle);
	sd_event_source_disable_unref(node->states);
	sd_event_unref(node->loop);
	if (node->lock_fd >= 0)
		(void)close(node->lock_fd);
	if (node->run_fd >= 0)
		(void)close(node->run_fd);
	config_free(node->config);
	free(node);
	return NULL;
}

void node_timer(struct node *node, sd_event_source **source, uint64_t usec,
		sd_event_time_handler_t handler, void *ctx)
{
	if (!*source) {
		int r = sd_event_add_time_relative(node->loop, source, CLOCK_BOOTTIME, usec, 1,
						   handler, ctx);

		if (r < 0)
			log_error("cannot arm a timer: %s", strerror(-r));
		return;
	}
	(void)sd_event_source_set_time_relative(*source, usec);
	(void)sd_event_source_set_enabled(*source, SD_EVENT_ONESHOT);
}

bool node_logs_to_file(const struct node *node)
{
	return node->config && node->config->log_to_file;
}

/* ---- phases ---- */

static int open_log(const struct config *config, struct error *err)
{
	CLEANUP_FREE char *file = xasprintf("%s/droverd.log", config->paths.log);
	int level = log_level_of(config->log_level);

	if (config->log_to_file)
		(void)file_make_dirs(AT_FDCWD, config->paths.log, 0755, NULL);
	log_open("droverd", NULL, config->log_to_file ? file : NULL,
		 level < 0 ? LOG_LEVEL_INFO : (enum log_level)level);
	return 0;
}

static void read_machine_id(struct node *node)
{
	sd_id128_t id;

	if (sd_id128_get_machine(&id) == 0)
		(void)sd_id128_to_string(id, node->machine_id);
	else
		(void)snprintf(node->machine_id, sizeof(node->machine_id), "unknown");
}

int node_configure(struct node *node, const char *root, struct error *err)
{
	int r;

	r = config_load(root, &node->config, err);
	if (r < 0)
		return r;
	r = open_log(node->config, err);
	if (r == 0)
		r = writer_start(err);
	if (r < 0)
		return r;
	(void)clock_boot_id(node->boot_id);
	node->started = clock_wall();
	read_machine_id(node);
	r = file_make_dirs(AT_FDCWD, node->config->paths.run, 0755, err);
	if (r < 0)
		return r;
	node->run_fd = open(node->config->paths.run, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (node->run_fd < 0)
		return error_set(err, -errno, "cannot open '%s': %m", node->config->paths.run);
	r = sd_event_new(&node->loop);
	if (r < 0)
		return error_set(err, r, "cannot make an event loop: %m");
	reexec_adopt_children(node);
	return 0;
}

/* One root, one agent.  The lock is what counts; the pid in it is for people. */
int node_lock(struct node *node, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	char pid[32];
	int r;

	node->lock_fd = reexec_lock(node);
	r = node->lock_fd >= 0 ? 0
			       : file_lock(node->run_fd, LOCK_FILE, LOCK_WAIT, &node->lock_fd, err);
	if (r == -EWOULDBLOCK) {
		(void)file_read(node->run_fd, LOCK_FILE, 32, &text, NULL, NULL);
		if (text)
			text[strcspn(text, "\n")] = '\0';
		return error_refuse(
			err,
			"another droverd (pid %s) serves '%s' already; one root has one "
			"agent: give this one its own --root",
			text && *text ? text : "unknown", node->config->paths.run);
	}
	if (r < 0)
		return r;
	file_remove_unfinished(node->run_fd);
	(void)snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (ftruncate(node->lock_fd, 0) < 0 ||
	    pwrite(node->lock_fd, pid, strlen(pid), 0) != (ssize_t)strlen(pid))
		log_warning("cannot write our pid into '%s/%s'; ignoring", node->config->paths.run,
			    LOCK_FILE);
	checkpoint_open(node->config->paths.run);
	return 0;
}

int node_open_store(struct node *node, struct error *err)
{
	const struct config *config = node->config;
	CLEANUP_FREE char *volumes = xasprintf("%s/volumes", config->paths.lib);
	int r;

	r = file_make_dirs(AT_FDCWD, config->paths.lib, 0700, err);
	if (r < 0)
		return r;
	r = store_open(config->store, config->paths.lib, node->loop, &node->store, err);
	if (r < 0)
		return r;
	r = storage_open(volumes, node->loop, &node->storage, err);
	if (r < 0)
		return r;
	events_open(node);
	r = lease_open(node, err);
	if (r < 0)
		return r;
	upgrade_open(node);
	r = session_open(node, err);
	if (r < 0)
		return r;
	return records_open(node, err);
}

/* Reality first: who is there?  What is wanted of them comes with the records. */
int node_adopt_keepers(struct node *node, struct error *err)
{
	int fd = openat(node->run_fd, "vms", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const struct dirent *entry;
	DIR *dir;

	if (fd < 0)
		return errno == ENOENT ? 0
				       : error_set(err, -errno, "cannot read '%s/vms': %m",
						   node->config->paths.run);
	dir = fdopendir(fd);
	if (!dir) {
		(void)close(fd);
		return error_set(err, -errno, "cannot read '%s/vms': %m", node->config->paths.run);
	}
	while ((entry = readdir(dir)))
		if (definition_check_name(entry->d_name, NULL) == 0)
			link_adopt(vm_need(node, entry->d_name));
	(void)closedir(dir);
	return 0;
}

int node_listen(struct node *node, struct error *err)
{
	int r;

	r = control_open(node, err);
	if (r < 0)
		return r;
	r = membership_open(node, err);
	if (r < 0)
		return r;
	directory_open(node);
	feed_open(node);
	r = consul_feed_open(node, err);
	if (r < 0)
		return r;
	services_open(node);
	facts_open(node);
	info_open(node);
	replacement_open(node);
	return 0;
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	struct node *node = userdata;

	if (info->ssi_signo == SIGHUP) {
		reexec_begin(node, NULL);
		return 0;
	}
	log_info("ended by signal %u; guests and keepers go on", info->ssi_signo);
	return sd_event_exit(node->loop, 0);
}

int node_serve(struct node *node, struct error *err)
{
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP };
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		r = sd_event_add_signal(node->loop, NULL, signals[i], on_signal, node);
		if (r < 0)
			return error_set(err, r, "cannot wait for signals: %m");
	}
	(void)sd_notify(0, "READY=1");
	events_add(node, NULL, "agent-started", "droverd %s, pid %d", DROVER_VERSION,
		   (int)getpid());
	r = sd_event_loop(node->loop);
	if (r < 0)
		return error_set(err, r, "the event loop failed: %m");
	if (reexec_due(node))
		return 0;
	(void)sd_notify(0, "STOPPING=1");
	events_add(node, NULL, "agent-ended", "pid %d", (int)getpid());
	return 0;
}

json_t *node_version(const struct node *node)
{
	return json_pack("{s:s, s:s, s:s, s:o}", "version", DROVER_VERSION, "node",
			 node->config->node, "store", store_address(node->store), "qemu",
			 facts_qemu(node));
}
