/* SPDX-License-Identifier: Apache-2.0 */
#include "node/mode.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "model/config.h"
#include "node/ask.h"
#include "node/control.h"
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
#include "wire/json.h"
#include "wire/peer.h"

#define DAMAGED_AGAIN (5 * USEC_PER_SEC)

/* ---- reading ---- */

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
	mode_read(userdata);
	return 0;
}

static void set_mode(struct node *node, enum node_mode mode)
{
	bool news = !node->mode_known || node->mode != mode;

	if (node->mode_trouble[0])
		log_info("the mode of this node can be read again");
	node->mode_trouble[0] = '\0';
	node->mode_known = true;
	node->mode = mode;
	if (!news)
		return;
	log_info("mode of this node: %s", node_mode_name(mode));
	vm_touch_all(node);
}

/* What was known before stands; what never was stays unknown. */
static void reading_failed(struct node *node, const char *why, uint64_t again)
{
	if (strcmp(node->mode_trouble, why) != 0)
		log_error("the mode of this node cannot be read: %s; %s", why,
			  node->mode_known ? "it stays as it was" : "no VM is told anything");
	(void)snprintf(node->mode_trouble, sizeof(node->mode_trouble), "%s", why);
	node_timer(node, &node->mode_retry, again, on_retry, node);
}

static void on_mode(void *ctx, int r, const struct store_entry *entry, const struct error *err)
{
	struct node *node = ctx;
	uint64_t soon = node->config->timers.store_retry;
	int mode = NODE_READY;

	node->mode_answered = true;
	if (r == 0)
		mode = node_mode_of(json_string_or(entry->value, "mode", ""));
	if (r < 0 && r != -ENOENT)
		reading_failed(node, err->text, r == -EAGAIN ? soon : DAMAGED_AGAIN);
	else if (mode < 0)
		reading_failed(node,
			       "its record is not one of this version; 'drover node ready' or "
			       "'drover shutdown-all' writes it anew",
			       DAMAGED_AGAIN);
	else
		set_mode(node, (enum node_mode)mode);
	control_look(node);
}

void mode_read(struct node *node)
{
	char key[RECORD_KEY_SIZE];
	struct error err = { 0 };

	if (store_get(node->store, key_node(key, node->config->node, "mode"), on_mode, node, &err) <
	    0)
		reading_failed(node, err.text, node->config->timers.store_retry);
}

void mode_close(struct node *node)
{
	node->mode_retry = sd_event_source_disable_unref(node->mode_retry);
}

bool mode_answered(const struct node *node)
{
	return node->mode_answered;
}

const char *mode_trouble(const struct node *node)
{
	if (node->mode_known)
		return NULL;
	return node->mode_trouble[0] ? node->mode_trouble : "the store has not answered yet";
}

/* ---- writing ---- */

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
	set_mode(node, write->mode);
	events_add(node, NULL, "mode", "%s by %s", node_mode_name(node->mode), write->by);
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
