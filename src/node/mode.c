/* SPDX-License-Identifier: Apache-2.0 */
#include "node/mode.h"

#include <stdio.h>

#include "model/config.h"
#include "node/ask.h"
#include "node/events.h"
#include "node/facts.h"
#include "node/job.h"
#include "node/node.h"
#include "node/orders.h"
#include "node/vm.h"
#include "store/store.h"
#include "util/checkpoint.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/peer.h"

struct mode_write {
	struct job job;
	struct request *request;
	enum node_mode mode;
	char by[96];
};

static void mode_fail(struct mode_write *write, const struct error *err)
{
	request_fail(write->request, err);
	job_end(&write->job);
}

static void on_mode_written(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct mode_write *write = ctx;
	struct node *node = write->job.node;
	json_auto_t *value = NULL;

	if (r < 0) {
		mode_fail(write, err);
		return;
	}
	checkpoint("agent.mode-written");
	node->mode = write->mode;
	node->mode_version = versions[0];
	log_info("mode of this node: %s, by %s", node_mode_name(node->mode), write->by);
	events_add(node, NULL, "mode", "%s by %s", node_mode_name(node->mode), write->by);
	vm_touch_all(node);
	if (write->mode == NODE_STOPPED) {
		orders_wait_all_off(node, write->request, write->by);
	} else {
		value = node_json(node);
		request_return(write->request, value);
	}
	job_end(&write->job);
}

static void write_mode(struct mode_write *write)
{
	struct node *node = write->job.node;
	char key[RECORD_KEY_SIZE], now[CLOCK_TEXT_SIZE];
	json_auto_t *value =
		json_pack("{s:i, s:s, s:s, s:s}", "v", 1, "mode", node_mode_name(write->mode),
			  "since", clock_text(clock_wall(), now), "by", write->by);
	/* A user's word about this very node stands above whatever the record said. */
	const struct store_op op = {
		.kind = STORE_PUT,
		.key = key_node(key, node->config->node, "mode"),
		.expected = STORE_ANY,
		.value = value,
	};
	struct error err = { 0 };

	if (ask_write(node, &op, 1, node->config->timers.session, on_mode_written, write, &err) < 0)
		mode_fail(write, &err);
}

static void begin_mode(struct node *node, struct request *request, const char *by,
		       enum node_mode mode)
{
	struct mode_write *write = xcalloc(1, sizeof(*write));

	write->request = request;
	write->mode = mode;
	(void)snprintf(write->by, sizeof(write->by), "%s", by);
	job_begin(&write->job, node, NULL);
	write_mode(write);
}

void mode_shutdown_all(struct node *node, struct request *request, const char *by)
{
	begin_mode(node, request, by, NODE_STOPPED);
}

void mode_node_ready(struct node *node, struct request *request, const char *by)
{
	begin_mode(node, request, by, NODE_READY);
}
