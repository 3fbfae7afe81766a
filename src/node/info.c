/* SPDX-License-Identifier: Apache-2.0 */
#include "node/info.h"

#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "node/ask.h"
#include "node/facts.h"
#include "node/membership.h"
#include "node/node.h"
#include "node/schema.h"
#include "node/session.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

#define SOON (1 * USEC_PER_SEC)
#define SELDOM (60 * USEC_PER_SEC)

struct info {
	struct node *node;
	sd_event_source *soon, *seldom;
	json_t *written; /* as the store has it; NULL: not known */
	json_t *asked;	 /* on its way */
	uint64_t latency;
	bool again;
	bool forgotten;
};

json_t *info_json(const struct node *node)
{
	json_t *value = node_json(node);
	char now[CLOCK_TEXT_SIZE];

	(void)json_object_del(value, "store_state"); /* it could be written, so it was well */
	(void)json_object_set_new(value, "v", json_integer(1));
	json_set_string(value, "version", DROVER_VERSION);
	(void)json_object_set_new(value, "schema", schema_range_json());
	json_set_string(value, "address", membership_address(node));
	json_set_string(value, "machine", node->machine_id);
	json_set_string(value, "told", clock_text(clock_wall(), now));
	return value;
}

/* Without what changes all the time. */
static json_t *lasting(const json_t *value)
{
	json_t *copy = json_deep_copy(value);

	(void)json_object_del(copy, "told");
	(void)json_object_del(copy, "load");
	/* Whether it is known counts. */
	(void)json_object_set_new(copy, "store_usec",
				  json_boolean(json_int_or(copy, "store_usec", 0) > 0));
	(void)json_object_del(json_object_get(copy, "memory_mib"), "available");
	(void)json_object_del(json_object_get(copy, "memory_mib"), "free");
	return copy;
}

static bool same_in_kind(const json_t *a, const json_t *b)
{
	json_auto_t *left = lasting(a), *right = lasting(b);

	return json_equal(left, right);
}

static double number(const json_t *value, const char *outer, const char *key)
{
	const json_t *object = outer ? json_object_get(value, outer) : value;

	return json_number_value(json_object_get(object, key));
}

/* Nobody would decide otherwise for less. */
static bool about_equal(const json_t *a, const json_t *b)
{
	double load = number(a, NULL, "load") - number(b, NULL, "load");
	double memory = number(a, "memory_mib", "available") - number(b, "memory_mib", "available");
	double total = number(a, "memory_mib", "total");
	double was = number(a, NULL, "store_usec"), is = number(b, NULL, "store_usec");
	bool store = is - was < USEC_PER_SEC / 100 + was && was - is < USEC_PER_SEC / 100 + is;

	return store && load < 0.5 && load > -0.5 && memory * 20 < total && memory * -20 < total;
}

static void write_info(struct info *info, bool also_small);

static void on_info(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct info *info = ctx;

	json_decref(info->written);
	info->written = r < 0 ? NULL : json_incref(info->asked);
	json_decref(info->asked);
	info->asked = NULL;
	if (r < 0)
		log_debug("what this node tells of itself was not written: %s", err->text);
	if (info->again)
		info_touch(info->node);
	info->again = false;
}

static void write_info(struct info *info, bool also_small)
{
	struct node *node = info->node;
	json_auto_t *value = NULL;
	char key[RECORD_KEY_SIZE];
	struct store_op op = { .kind = STORE_PUT, .expected = STORE_ANY };

	if (info->forgotten || session_check(node, NULL) < 0)
		return;
	if (info->asked) {
		info->again = true;
		return;
	}
	value = info_json(node);
	if (info->written && same_in_kind(info->written, value) &&
	    (!also_small || about_equal(info->written, value)))
		return;
	op.key = key_node(key, node->config->node, "info");
	op.value = value;
	if (ask_write(node, &op, 1, node->config->timers.session, on_info, info, NULL) >= 0)
		info->asked = json_incref(value);
}

static int on_soon(sd_event_source *source, uint64_t usec, void *userdata)
{
	write_info(userdata, false);
	return 0;
}

static int on_seldom(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct info *info = userdata;

	node_timer(info->node, &info->seldom, SELDOM, on_seldom, info);
	write_info(info, true);
	return 0;
}

void info_open(struct node *node)
{
	node->info = xcalloc(1, sizeof(*node->info));
	node->info->node = node;
	node_timer(node, &node->info->seldom, SELDOM, on_seldom, node->info);
}

struct info *info_close(struct info *info)
{
	if (!info)
		return NULL;
	sd_event_source_disable_unref(info->soon);
	sd_event_source_disable_unref(info->seldom);
	json_decref(info->written);
	json_decref(info->asked);
	free(info);
	return NULL;
}

/* The first change counts, what follows it within the second goes along. */
void info_touch(struct node *node)
{
	struct info *info = node->info;
	int enabled = SD_EVENT_OFF;

	if (!info)
		return;
	if (info->soon)
		(void)sd_event_source_get_enabled(info->soon, &enabled);
	if (enabled == SD_EVENT_OFF)
		node_timer(node, &info->soon, SOON, on_soon, info);
}

void info_written(struct node *node)
{
	if (node->info)
		node->info->forgotten = false;
	info_touch(node);
}

void info_forget(struct node *node)
{
	if (node->info)
		node->info->forgotten = true;
}

void info_note_latency(struct node *node, uint64_t usec)
{
	struct info *info = node->info;
	bool first = info && info->latency == 0;

	if (info)
		info->latency = usec;
	if (first)
		info_touch(node);
}

uint64_t info_latency(const struct node *node)
{
	return node->info ? node->info->latency : 0;
}
