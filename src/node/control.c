/* SPDX-License-Identifier: Apache-2.0 */
#include "node/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "model/config.h"
#include "node/cluster.h"
#include "node/definitions.h"
#include "node/enrol.h"
#include "node/events.h"
#include "node/facts.h"
#include "node/logs.h"
#include "node/mode.h"
#include "node/node.h"
#include "node/nodes.h"
#include "node/orders.h"
#include "node/records.h"
#include "node/relay.h"
#include "node/removal.h"
#include "node/status.h"
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
PLAIN(on_apply, definitions_apply)
PLAIN(on_ls, status_ls)
PLAIN(on_status, status_one)
PLAIN(on_explain, status_explain)
PLAIN(on_events, events_request)
PLAIN(on_logs, logs_request)
PLAIN(on_relay, relay_request)
PLAIN(on_hardware, relay_hardware)
PLAIN(on_volumes, volumes_request)
PLAIN(on_node_ls, nodes_list)
PLAIN(on_cluster_init, cluster_init)
PLAIN(on_cluster_token, cluster_token)
PLAIN(on_cluster_join, enrol_join)
PLAIN(on_cluster_leave, cluster_leave)
PLAIN(on_cluster_status, cluster_status)
#undef PLAIN

static const struct {
	const char *name;
	void (*run)(struct node *node, struct request *request, const char *by);
} requests[] = {
	{ "version", on_version },
	{ "apply", on_apply },
	{ "ls", on_ls },
	{ "status", on_status },
	{ "explain", on_explain },
	{ "start", orders_request },
	{ "stop", orders_request },
	{ "restart", orders_request },
	{ "kill", orders_request },
	{ "pause", orders_request },
	{ "resume", orders_request },
	{ "ensure", orders_request },
	{ "rm", removal_request },
	{ "volume-ls", on_volumes },
	{ "qmp", on_relay },
	{ "hmp", on_relay },
	{ "guest", on_relay },
	{ "exec", on_relay },
	{ "console", on_relay },
	{ "hardware", on_hardware },
	{ "events", on_events },
	{ "logs", on_logs },
	{ "config", on_config },
	{ "node", on_node },
	{ "node-ls", on_node_ls },
	{ "node-ready", mode_node_ready },
	{ "shutdown-all", mode_shutdown_all },
	{ "cluster-init", on_cluster_init },
	{ "cluster-token", on_cluster_token },
	{ "cluster-join", on_cluster_join },
	{ "cluster-leave", on_cluster_leave },
	{ "cluster-status", on_cluster_status },
};

static void on_request(void *ctx, struct request *request)
{
	struct client *client = ctx;
	const char *name = request_command(request);
	struct error err = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		if (strcmp(requests[i].name, name) == 0) {
			requests[i].run(client->control->node, request, client->by);
			return;
		}
	}
	(void)error_usage(&err, "this droverd (%s) knows no request '%s'", DROVER_VERSION, name);
	request_fail(request, &err);
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
