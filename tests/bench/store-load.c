/* SPDX-License-Identifier: Apache-2.0 */
/* A thousand nodes on one store, as tests/bench/store runs them: each a client of its own with a
 * session, its records, and a watch on what it holds, 50 of them in one process.  The parent fills
 * the store, and moves what nodes have left.  It goes from phase to phase as lines come on stdin,
 * and tells on stdout how long each took. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "bench/store-records.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"

#define SESSION_USEC (30 * USEC_PER_SEC)
#define BATCH 50 /* VMs of one transaction while the store is filled */
#define KEY_SIZE 96
#define NODES_OF_PROCESS 50
#define PROCESSES_MAX 100

struct load;

struct sim_node {
	struct load *load;
	struct store *store;
	unsigned number;
	bool joined, read, leaving;
	unsigned asked, known; /* VMs whose record was asked for, was read */
	bool listing, again;
	struct store_watch *watch;
};

struct load {
	const char *address;
	sd_event *loop;
	unsigned count, vms, gone;
	struct sim_node *nodes; /* of this process: [first, end) */
	unsigned first, end;
	int report_fd; /* to the parent: one byte for each thing that happened */
	int order_fds[PROCESSES_MAX];
	unsigned processes;
	unsigned settled, left, records, asked_again, moved; /* in the parent */
};

__attribute__((noreturn)) static void die(const char *what, const struct error *err)
{
	fprintf(stderr, "store-load: %s: %s\n", what, err ? err->text : "");
	exit(1);
}

static void phase_done(const char *phase, uint64_t since, const struct load *load)
{
	printf("{\"phase\":\"%s\",\"seconds\":%.3f,\"records_read\":%u"
	       ",\"asked_again\":%u}\n",
	       phase, (double)(clock_now() - since) / 1e6, load->records, load->asked_again);
	(void)fflush(stdout);
}

static void report(const struct load *load, char what)
{
	if (write(load->report_fd, &what, 1) != 1)
		_exit(1);
}

static void run_until(struct load *load, const unsigned *counter, unsigned goal)
{
	while (*counter < goal)
		if (sd_event_run(load->loop, UINT64_MAX) < 0)
			die("the loop failed", NULL);
}

/* ---- filling --------------------------------------------------------------------------------- */

static void on_filled(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	unsigned *filled = ctx;

	if (r < 0)
		die("a write failed", err);
	(*filled)++;
}

static void put(struct store_op *op, const char *key, json_t *value)
{
	*op = (struct store_op){ STORE_PUT, key, STORE_ABSENT, value, false };
}

static void fill_batch(struct load *load, struct store *store, unsigned first, unsigned *filled)
{
	enum { KINDS = 5 };
	struct store_op ops[BATCH * KINDS] = { 0 };
	char keys[BATCH * KINDS][KEY_SIZE];
	struct error err = { 0 };
	size_t n = 0;

	for (unsigned vm = first; vm < first + BATCH && vm < load->vms; vm++) {
		unsigned node = vm % load->count;

		const struct {
			const char *leaf;
			json_t *value;
		} records[KINDS - 1] = {
			{ "definition", definition_of(vm, node) },
			{ "owner", owner_of(node) },
			{ "hardware", hardware_of(vm) },
			{ "state", state_of(node) },
		};

		for (size_t i = 0; i < KINDS - 1; i++) {
			(void)snprintf(keys[n], KEY_SIZE, "/drover/vms/vm%05u/%s", vm,
				       records[i].leaf);
			put(&ops[n], keys[n], records[i].value);
			n++;
		}
		(void)snprintf(keys[n], KEY_SIZE, "/drover/assign/n%04u/vm%05u", node, vm);
		put(&ops[n], keys[n], json_pack("{s:i}", "v", 1));
		n++;
	}
	if (store_write(store, ops, n, on_filled, filled, &err) < 0)
		die("filling", &err);
	for (size_t i = 0; i < n; i++)
		json_decref(ops[i].value);
}

/* The list of members: by it an agent knows how large its cluster is. */
static void fill_members(struct load *load, struct store *store)
{
	for (unsigned first = 0; first < load->count; first += BATCH) {
		struct store_op ops[BATCH];
		char keys[BATCH][KEY_SIZE];
		struct error err = { 0 };
		unsigned filled = 0;
		size_t n = 0;

		for (unsigned node = first; node < first + BATCH && node < load->count; node++) {
			(void)snprintf(keys[n], KEY_SIZE, "/drover/cluster/members/n%04u", node);
			put(&ops[n], keys[n], json_pack("{s:i}", "v", 1));
			n++;
		}
		if (store_write(store, ops, n, on_filled, &filled, &err) < 0)
			die("filling", &err);
		for (size_t i = 0; i < n; i++)
			json_decref(ops[i].value);
		run_until(load, &filled, 1);
	}
}

static void fill(struct load *load, struct store *store)
{
	uint64_t since = clock_now();

	fill_members(load, store);

	for (unsigned vm = 0; vm < load->vms; vm += BATCH) {
		unsigned filled = 0;

		fill_batch(load, store, vm, &filled);
		run_until(load, &filled, 1);
	}
	phase_done("fill", since, load);
}

/* ---- nodes ----------------------------------------------------------------------------------- */

static void node_look(struct sim_node *node);

static void node_settle(struct sim_node *node)
{
	if (node->listing || node->known < node->asked)
		return;
	if (!node->read) {
		node->read = true;
		report(node->load, 's');
	}
	if (node->again)
		node_look(node);
}

static void on_owner(void *ctx, int r, const struct store_entry *entry, const struct error *err)
{
	struct sim_node *node = ctx;

	if (r < 0)
		die("reading an owner record", err);
	node->known++;
	report(node->load, 'r');
	node_settle(node);
}

static void on_assigned(void *ctx, int r, const struct store_entry *entries, size_t count,
			const struct error *err)
{
	struct sim_node *node = ctx;

	if (r < 0)
		die("listing what a node holds", err);
	node->listing = false;
	for (size_t i = 0; i < count; i++) {
		char key[KEY_SIZE];
		struct error why = { 0 };

		(void)snprintf(key, sizeof(key), "/drover/vms/%s/owner",
			       strrchr(entries[i].key, '/') + 1);
		node->asked++;
		if (store_get(node->store, key, on_owner, node, &why) < 0)
			die("reading an owner record", &why);
	}
	node_settle(node);
}

static void node_look(struct sim_node *node)
{
	char prefix[KEY_SIZE];
	struct error err = { 0 };

	node->again = node->listing || node->known < node->asked;
	if (node->again || node->leaving)
		return;
	node->listing = true;
	(void)snprintf(prefix, sizeof(prefix), "/drover/assign/n%04u/", node->number);
	if (store_list(node->store, prefix, on_assigned, node, &err) < 0)
		die("listing what a node holds", &err);
}

static void on_look(void *ctx)
{
	node_look(ctx);
}

static void node_join(struct sim_node *node);

static void on_joined(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct sim_node *node = ctx;
	char prefix[KEY_SIZE];
	struct error why = { 0 };

	if (r == -EAGAIN) {
		report(node->load, 'a');
		node_join(node);
		return;
	}
	if (r < 0)
		die("joining", err);
	node->joined = true;
	(void)snprintf(prefix, sizeof(prefix), "/drover/assign/n%04u/", node->number);
	if (store_watch(node->store, prefix, on_look, node, &node->watch, &why) < 0)
		die("watching", &why);
}

static void node_join(struct sim_node *node)
{
	json_auto_t *value = owner_of(node->number);
	char life[KEY_SIZE], session[KEY_SIZE], info[KEY_SIZE];
	const struct store_op ops[] = {
		{ STORE_PUT, life, STORE_ANY, value, false },
		{ STORE_PUT, session, STORE_ANY, value, true },
		{ STORE_PUT, info, STORE_ANY, value, false },
	};
	struct error err = { 0 };

	(void)snprintf(life, KEY_SIZE, "/drover/nodes/n%04u/life", node->number);
	(void)snprintf(session, KEY_SIZE, "/drover/nodes/n%04u/session", node->number);
	(void)snprintf(info, KEY_SIZE, "/drover/nodes/n%04u/info", node->number);
	if (store_write(node->store, ops, ARRAY_SIZE(ops), on_joined, node, &err) < 0)
		die("joining", &err);
}

static void on_session(void *ctx, enum store_session_state state)
{
	struct sim_node *node = ctx;

	if (state == STORE_CONNECTED && !node->joined)
		node_join(node);
	else if (state == STORE_LOST && node->leaving)
		report(node->load, 'l');
	else if (state == STORE_LOST)
		die("a session was lost", NULL);
}

static void nodes_open(struct load *load)
{
	struct error err = { 0 };

	load->nodes = xcalloc(load->end - load->first, sizeof(*load->nodes));
	for (unsigned i = load->first; i < load->end; i++) {
		struct sim_node *node = &load->nodes[i - load->first];

		*node = (struct sim_node){ .load = load, .number = i };
		if (store_open(load->address, NULL, load->loop, &node->store, &err) < 0 ||
		    store_session_open(node->store, NULL, SESSION_USEC, on_session, node, &err) < 0)
			die("opening a session", &err);
	}
}

static void nodes_leave(struct load *load)
{
	struct error err = { 0 };

	for (unsigned i = load->first; i < load->end; i++) {
		struct sim_node *node = &load->nodes[i - load->first];

		if (i < load->count - load->gone)
			continue;
		node->leaving = true;
		if (store_session_close(node->store, &err) < 0)
			die("leaving", &err);
	}
}

static int on_process_order(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	char byte;

	if (read(fd, &byte, 1) <= 0)
		_exit(0);
	if (byte == 's')
		nodes_open(userdata);
	else
		nodes_leave(userdata);
	return 0;
}

static void processes_order(const struct load *load, char what)
{
	for (unsigned i = 0; i < load->processes; i++)
		if (write(load->order_fds[i], &what, 1) != 1)
			die("a process is gone", NULL);
}

static void process_run(struct load *load, int order_fd)
{
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (sd_event_new(&load->loop) < 0 ||
	    sd_event_add_io(load->loop, NULL, order_fd, EPOLLIN, on_process_order, load) < 0)
		die("no loop", NULL);
	while (sd_event_run(load->loop, UINT64_MAX) >= 0)
		;
	die("the loop failed", NULL);
}

static int on_report(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct load *load = userdata;
	char bytes[4096];
	ssize_t n = read(fd, bytes, sizeof(bytes));

	for (ssize_t i = 0; i < n; i++) {
		load->settled += bytes[i] == 's';
		load->records += bytes[i] == 'r';
		load->left += bytes[i] == 'l';
		load->asked_again += bytes[i] == 'a';
	}
	return 0;
}

static void process_start(struct load *load, unsigned first)
{
	int ends[2];
	pid_t pid;

	if (load->processes == PROCESSES_MAX || pipe2(ends, O_CLOEXEC) < 0)
		die("too many processes", NULL);
	pid = fork();
	if (pid == 0) {
		(void)close(ends[1]);
		load->first = first;
		load->end = first + NODES_OF_PROCESS;
		if (load->end > load->count)
			load->end = load->count;
		process_run(load, ends[0]);
	}
	if (pid < 0)
		die("no process", NULL);
	(void)close(ends[0]);
	load->order_fds[load->processes++] = ends[1];
}

/* Before the parent has a heap that they would have to copy. */
static void processes_start(struct load *load)
{
	int reports[2];

	if (pipe2(reports, O_CLOEXEC) < 0)
		die("no pipe", NULL);
	load->report_fd = reports[1];
	for (unsigned first = 0; first < load->count; first += NODES_OF_PROCESS)
		process_start(load, first);
	if (sd_event_new(&load->loop) < 0 ||
	    sd_event_add_io(load->loop, NULL, reports[0], EPOLLIN, on_report, load) < 0)
		die("no loop", NULL);
}

static void start(struct load *load)
{
	uint64_t since = clock_now();

	processes_order(load, 's');
	run_until(load, &load->settled, load->count);
	phase_done("start", since, load);
}

/* ---- leaving --------------------------------------------------------------------------------- */

static void on_moved(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct load *load = ctx;

	if (r < 0)
		die("moving a VM", err);
	load->moved++;
}

struct move {
	struct load *load;
	struct store *store;
	unsigned vm, from, to;
};

static void on_owner_to_move(void *ctx, int r, const struct store_entry *entry,
			     const struct error *err)
{
	CLEANUP_FREE struct move *move = ctx;
	json_auto_t *value = owner_of(move->to);
	char owner[KEY_SIZE], from[KEY_SIZE], to[KEY_SIZE];
	struct error why = { 0 };

	if (r < 0)
		die("reading the owner of what was left", err);
	(void)snprintf(owner, KEY_SIZE, "/drover/vms/vm%05u/owner", move->vm);
	(void)snprintf(from, KEY_SIZE, "/drover/assign/n%04u/vm%05u", move->from, move->vm);
	(void)snprintf(to, KEY_SIZE, "/drover/assign/n%04u/vm%05u", move->to, move->vm);

	const struct store_op ops[] = {
		{ STORE_PUT, owner, entry->version, value, false },
		{ STORE_DELETE, from, STORE_ANY, NULL, false },
		{ STORE_PUT, to, STORE_ABSENT, value, false },
	};
	if (store_write(move->store, ops, ARRAY_SIZE(ops), on_moved, move->load, &why) < 0)
		die("moving a VM", &why);
}

/* The parent moves the VMs of those that leave to the others. */
static void leave(struct load *load, struct store *store)
{
	unsigned stay = load->count - load->gone, moves = 0, records = load->records;
	uint64_t since = clock_now();
	struct error err = { 0 };

	assert(stay > 0); /* main() has looked */

	processes_order(load, 'l');
	run_until(load, &load->left, load->gone);
	phase_done("sessions closed", since, load);
	for (unsigned vm = 0; vm < load->vms; vm++) {
		struct move *move;
		char key[KEY_SIZE];

		if (vm % load->count < stay)
			continue;
		move = xcalloc(1, sizeof(*move));
		*move = (struct move){ load, store, vm, vm % load->count, moves++ % stay };
		(void)snprintf(key, sizeof(key), "/drover/vms/vm%05u/owner", vm);
		if (store_get(store, key, on_owner_to_move, move, &err) < 0)
			die("reading the owner of what was left", &err);
	}
	run_until(load, &load->moved, moves);
	phase_done("moved", since, load);
	run_until(load, &load->records, records + moves);
	phase_done("settled", since, load);
}

/* What an agent that lists all VMs of the cluster pays for it. */
static void on_all(void *ctx, int r, const struct store_entry *entries, size_t count,
		   const struct error *err)
{
	unsigned *listed = ctx;

	if (r < 0)
		die("listing all", err);
	*listed = (unsigned)count;
}

static void on_change(void *ctx)
{
}

static void list_all(struct load *load, struct store *store, const char *phase)
{
	uint64_t since = clock_now();
	unsigned listed = 0;

	if (store_list(store, "/drover/vms/", on_all, &listed, NULL) < 0)
		die("listing all", NULL);
	run_until(load, &listed, 1);
	phase_done(phase, since, load);
}

/* As agents do: they watch, and list again after a change. */
static void lists(struct load *load, struct store *store)
{
	struct store_watch *watch = NULL;

	if (store_watch(store, "/drover/vms/", on_change, NULL, &watch, NULL) < 0)
		die("watching all", NULL);
	list_all(load, store, "one lists all");
	list_all(load, store, "and again");
	(void)store_unwatch(watch);
}

static int on_order(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	unsigned *orders = userdata;
	char byte;

	if (read(fd, &byte, 1) <= 0)
		exit(0);
	(*orders)++;
	return 0;
}

int main(int argc, char **argv)
{
	struct load load = { 0 };
	struct store *store = NULL;
	struct error err = { 0 };
	unsigned orders = 0;

	if (argc != 5) {
		fprintf(stderr, "usage: store-load ADDRESS NODES VMS LEAVING\n");
		return 64;
	}
	load.address = argv[1];
	load.count = (unsigned)strtoul(argv[2], NULL, 10);
	load.vms = (unsigned)strtoul(argv[3], NULL, 10);
	load.gone = (unsigned)strtoul(argv[4], NULL, 10);
	if (load.count == 0 || load.gone >= load.count)
		die("LEAVING must be less than NODES", NULL);
	processes_start(&load);
	if (sd_event_add_io(load.loop, NULL, STDIN_FILENO, EPOLLIN, on_order, &orders) < 0)
		die("no loop", NULL);
	if (store_open(load.address, NULL, load.loop, &store, &err) < 0)
		die("opening the store", &err);
	fill(&load, store);
	run_until(&load, &orders, 1);
	lists(&load, store);
	run_until(&load, &orders, 2);
	start(&load);
	run_until(&load, &orders, 3);
	leave(&load, store);
	run_until(&load, &orders, 4);
	return 0;
}
