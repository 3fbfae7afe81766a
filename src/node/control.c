/* SPDX-License-Identifier: Apache-2.0 */
#include "node/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "model/config.h"
#include "node/apply.h"
#include "node/cluster.h"
#include "node/enrol.h"
#include "node/events.h"
#include "node/explain.h"
#include "node/facts.h"
#include "node/feed.h"
#include "node/job.h"
#include "node/logs.h"
#include "node/migrations.h"
#include "node/mode.h"
#include "node/moves.h"
#include "node/near.h"
#include "node/node.h"
#include "node/nodes.h"
#include "node/orders.h"
#include "node/records.h"
#include "node/reexec.h"
#include "node/relay.h"
#include "node/removal.h"
#include "node/replacement.h"
#include "node/reread.h"
#include "node/route.h"
#include "node/status.h"
#include "node/vm.h"
#include "node/volumes.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/sock.h"

#define CONTROL_SOCKET "control.sock"
#define CLIENTS_MAX 256
#define STORE_PATIENCE (5 * USEC_PER_SEC) /* then we serve with what is known: nothing */

struct client {
	struct client *next, **link;
	struct control *control;
	struct peer *peer;
	char by[96]; /* for people: "uid 0 at alpha" */
};

struct control {
	struct node *node;
	int listener;
	sd_event_source *accept, *patience;
	struct client *clients;
	size_t n_clients;
};

/* ---- the table ---- */

static void on_version(struct node *node, struct request *request, const char *by)
{
	json_auto_t *value = node_version(node);

	request_return(request, value);
}

static void on_config(struct node *node, struct request *request, const char *by)
{
	json_auto_t *value = config_json(node->config);

	request_return(request, value);
}

static void on_node(struct node *node, struct request *request, const char *by)
{
	json_auto_t *value = NULL;

	if (json_is_string(json_object_get(request_args(request), "node"))) {
		nodes_one(node, request);
		return;
	}
	value = node_json(node);
	request_return(request, value);
}

/* For those that do not care who asks. */
#define PLAIN(name, function)                                                                      \
	static void name(struct node *node, struct request *request, const char *by)               \
	{                                                                                          \
		function(node, request);                                                           \
	}
PLAIN(on_apply, apply_request)
PLAIN(on_consul_events, feed_request)
PLAIN(on_ls, status_ls)
PLAIN(on_status, status_one)
PLAIN(on_explain, explain_request)
PLAIN(on_events, events_request)
PLAIN(on_logs, logs_request)
PLAIN(on_migrations, migrations_request)
PLAIN(on_relay, relay_request)
PLAIN(on_hardware, relay_hardware)
PLAIN(on_volumes, volumes_request)
PLAIN(on_node_ls, nodes_list)
PLAIN(on_cluster_init, cluster_init)
PLAIN(on_cluster_token, cluster_token)
PLAIN(on_cluster_join, enrol_join)
PLAIN(on_cluster_leave, cluster_leave)
PLAIN(on_cluster_status, cluster_status)
PLAIN(on_node_reexec, reexec_begin)
PLAIN(on_keepers, replacement_request)
#undef PLAIN

static const struct {
	const char *name;
	void (*run)(struct node *node, struct request *request, const char *by);
	bool routed; /* about a VM: goes to the node that has it, and is answered to other nodes */
	/* What other nodes get instead: what is here, of all VMs too. */
	void (*serve)(struct node *node, struct request *request);
} requests[] = {
	{ "version", on_version },
	{ "apply", on_apply },
	{ "consul-events", on_consul_events },
	{ "ls", on_ls },
	{ "status", on_status, true },
	{ "explain", on_explain, true },
	{ "start", orders_request, true },
	{ "stop", orders_request, true },
	{ "restart", orders_request, true },
	{ "kill", orders_request, true },
	{ "pause", orders_request, true },
	{ "resume", orders_request, true },
	{ "ensure", orders_request, true },
	{ "migrate", moves_request, true },
	{ "move", moves_request, true },
	{ "unmigrate", moves_request, true },
	{ "migrations", on_migrations, .serve = migrations_serve },
	{ "rm", removal_request, true },
	{ "volume-ls", on_volumes },
	{ "qmp", on_relay, true },
	{ "hmp", on_relay, true },
	{ "guest", on_relay, true },
	{ "exec", on_relay, true },
	{ "console", on_relay, true },
	{ "hardware", on_hardware, true },
	{ "events", on_events, true },
	{ "logs", on_logs, true },
	{ "config", on_config },
	{ "node", on_node },
	{ "node-ls", on_node_ls },
	{ "node-ready", mode_node_ready },
	{ "node-reexec", on_node_reexec },
	{ "keepers", on_keepers },
	{ "shutdown-all", mode_shutdown_all },
	{ "cluster-init", on_cluster_init },
	{ "cluster-token", on_cluster_token },
	{ "cluster-join", on_cluster_join },
	{ "cluster-leave", on_cluster_leave },
	{ "cluster-status", on_cluster_status },
};

/* The row of the table, or -1. */
static int find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++)
		if (strcmp(requests[i].name, name) == 0)
			return (int)i;
	return -1;
}

static void run_later(struct node *node, struct request *request, int row, const char *by,
		      bool route);

/* Of a VM that is none of this node's business little is known before it is looked at. */
static bool is_far(const struct node *node, struct request *request, int row)
{
	const char *vm = json_string_or(request_args(request), "vm", NULL);

	if (!near_is_on(node))
		return false;
	return strcmp(requests[row].name, "ls") == 0 ||
	       (vm && (requests[row].routed || requests[row].serve) && !near_has(node, vm));
}

static void on_request(void *ctx, struct request *request)
{
	struct client *client = ctx;
	struct node *node = client->control->node;
	const char *name = request_command(request);
	struct error err = { 0 };
	int row = find(name);

	if (row < 0) {
		(void)error_usage(&err, "this droverd (%s) knows no request '%s'", DROVER_VERSION,
				  name);
		request_fail(request, &err);
	} else if (is_far(node, request, row)) {
		run_later(node, request, row, client->by, true);
	} else if (!requests[row].routed || !route_request(node, request)) {
		requests[row].run(node, request, client->by);
	}
}

/* A request about a VM of which more is to be known first. */
struct late {
	struct job job;
	struct request *request;
	int row;
	bool route; /* it may be another node's to answer */
	char by[96];
	sd_event_source *turn;
};

static void late_done(struct job *job)
{
	sd_event_source_disable_unref(container_of(job, struct late, job)->turn);
}

static bool is_settled(const struct node *node, struct request *request)
{
	const char *name = json_string_or(request_args(request), "vm", NULL);

	for (size_t i = 0; !name && i < node->n_vms; i++)
		if (node->vms[i]->due)
			return false;
	return !name || !vm_find(node, name) || !vm_find(node, name)->due;
}

/* What was read is there; what follows from it is worked out in a turn of the loop of its own. */
static int on_turn(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct late *late = ctx;
	struct node *node = late->job.node;

	if (!is_settled(node, late->request)) {
		node_timer(node, &late->turn, 0, on_turn, late);
		return 0;
	}
	if (!late->route || !requests[late->row].routed || !route_request(node, late->request))
		requests[late->row].run(node, late->request, late->by);
	job_end(&late->job);
	return 0;
}

static void on_refreshed(void *ctx)
{
	struct late *late = ctx;

	node_timer(late->job.node, &late->turn, 0, on_turn, late);
}

static void run_later(struct node *node, struct request *request, int row, const char *by,
		      bool route)
{
	const char *vm = json_string_or(request_args(request), "vm", NULL);
	struct late *late = xcalloc(1, sizeof(*late));

	late->request = request;
	late->row = row;
	late->route = route;
	(void)snprintf(late->by, sizeof(late->by), "%s", by);
	job_begin(&late->job, node, late_done);
	if (vm)
		reread(node, &vm, 1, on_refreshed, late);
	else
		records_after_refresh(node, on_refreshed, late);
}

static bool knows(const struct node *node, struct request *request)
{
	json_t *args = request_args(request);
	const struct node_vm *vm = vm_find(node, json_string_or(args, "vm", ""));

	return vm && !vm->due &&
	       (json_int_t)vm->record.generation >= json_int_or(args, "generation", 0);
}

bool control_serve_member(struct node *node, struct request *request, const char *member)
{
	int row = find(request_command(request));
	char by[96];

	if (row >= 0 && requests[row].serve) {
		requests[row].serve(node, request);
		return true;
	}
	/* Without a VM it would be about this whole node; the answer to `console` is a path here.
	 */
	if (row < 0 || !requests[row].routed || strcmp(requests[row].name, "console") == 0 ||
	    !json_is_string(json_object_get(request_args(request), "vm")))
		return false;
	(void)snprintf(by, sizeof(by), "uid 0 at %s", member);
	if (knows(node, request))
		requests[row].run(node, request, by);
	else
		run_later(node, request, row, by, false);
	return true;
}

/* ---- clients ---- */

static struct client *client_free(struct client *client)
{
	if (!client)
		return NULL;
	*client->link = client->next;
	if (client->next)
		client->next->link = client->link;
	client->control->n_clients--;
	peer_close(client->peer);
	free(client);
	return NULL;
}

static void on_gone(void *ctx, const struct error *why)
{
	struct client *client = ctx;
	struct node *node = client->control->node;

	client_free(client);
	events_forget(node);
	route_forget(node);
}

static const struct peer_ops client_ops = { .request = on_request, .gone = on_gone };

/* Takes `fd`. */
static int client_new(struct control *control, int fd, struct error *err)
{
	CLEANUP_FD int owned = fd;
	struct client *client;
	uid_t uid;
	pid_t pid;
	int r;

	r = sock_peer(fd, &uid, &pid, err);
	if (r < 0)
		return r;
	if (uid != 0 && uid != geteuid())
		return error_refuse(err, "uid %u may not connect", (unsigned)uid);
	if (control->n_clients >= CLIENTS_MAX)
		return error_try_again(err, "%d clients are connected already", CLIENTS_MAX);
	client = xcalloc(1, sizeof(*client));
	client->control = control;
	(void)snprintf(client->by, sizeof(client->by), "uid %u at %s", (unsigned)uid,
		       control->node->config->node);
	client->next = control->clients;
	client->link = &control->clients;
	if (client->next)
		client->next->link = &client->next;
	control->clients = client;
	control->n_clients++;
	r = peer_open(TAKE_FD(owned), control->node->loop, &client_ops, client, &client->peer, err);
	if (r < 0)
		client_free(client);
	return r;
}

static int on_patience(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct control *control = userdata;

	control_begin(control->node);
	return 0;
}

static int on_accept(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct control *control = userdata;
	struct error err = { 0 };
	int client;

	client = sock_accept(fd, &err);
	if (client == -EAGAIN || client == -EINTR || client == -ECONNABORTED)
		return 0;
	if (client == -EMFILE || client == -ENFILE) {
		/* The client stays in the queue; asking again at once would only burn time. */
		log_warning("out of file descriptors: clients have to wait");
		(void)sd_event_source_set_enabled(control->accept, SD_EVENT_OFF);
		node_timer(control->node, &control->patience, USEC_PER_SEC, on_patience, control);
		return 0;
	}
	if (client < 0 || client_new(control, client, &err) < 0)
		log_warning("a client was not let in: %s", err.text);
	return 0;
}

int control_open(struct node *node, struct error *err)
{
	struct control *control = xcalloc(1, sizeof(*control));
	int r;

	control->node = node;
	node->control = control;
	control->listener = reexec_listener(node);
	if (control->listener < 0)
		control->listener = sock_listen(node->run_fd, CONTROL_SOCKET, 0600, err);
	if (control->listener < 0)
		return control->listener;
	r = sd_event_add_io(node->loop, &control->accept, control->listener, EPOLLIN, on_accept,
			    control);
	if (r < 0)
		return error_set(err, r, "cannot serve '%s/%s': %m", node->config->paths.run,
				 CONTROL_SOCKET);
	(void)sd_event_source_set_enabled(control->accept, SD_EVENT_OFF);
	node_timer(node, &control->patience, STORE_PATIENCE, on_patience, control);
	return 0;
}

void control_begin(struct node *node)
{
	struct control *control = node->control;

	if (!control || !control->accept)
		return;
	control->patience = sd_event_source_disable_unref(control->patience);
	(void)sd_event_source_set_enabled(control->accept, SD_EVENT_ON);
}

void control_look(struct node *node)
{
	if (records_answered(node) && mode_answered(node))
		control_begin(node);
}

int control_handover(struct node *node)
{
	struct control *control = node->control;

	for (struct client *client = control->clients; client; client = client->next)
		(void)peer_event(client->peer, "agent-replaced", NULL);
	return fcntl(control->listener, F_DUPFD, 3);
}

struct control *control_close(struct control *control)
{
	if (!control)
		return NULL;
	while (control->clients)
		client_free(control->clients);
	sd_event_source_disable_unref(control->accept);
	sd_event_source_disable_unref(control->patience);
	if (control->listener >= 0)
		(void)close(control->listener);
	free(control);
	return NULL;
}
