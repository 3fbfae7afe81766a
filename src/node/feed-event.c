/* SPDX-License-Identifier: Apache-2.0 */
#include "node/feed-event.h"

#include <stdio.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "wire/base64.h"
#include "wire/json.h"

#define NODE "node/"
#define SNAPSHOT "snapshot/"

int feed_event_head(const json_t *json, struct feed_event *ret, struct error *err)
{
	const char *key;
	int64_t generation;
	int r;

	*ret = (struct feed_event){ .kind = FEED_IGNORED };
	r = json_need_string(json, "Key", &key, err);
	if (r == 0)
		r = json_need_int(json, "ModifyIndex", &generation, err);
	if (r < 0)
		return r;
	if (generation <= 0)
		return error_bad_data(err, "its ModifyIndex is no index");
	ret->generation = (uint64_t)generation;
	if (!json_string_or(json, "Value", "")[0]) {
		ret->why = "it has no value";
		return 0;
	}
	if (strncmp(key, SNAPSHOT, strlen(SNAPSHOT)) == 0) {
		ret->kind = FEED_SNAPSHOT;
		return 0;
	}
	if (strncmp(key, NODE, strlen(NODE)) != 0)
		return error_bad_data(err,
				      "its key begins neither with " NODE " nor with " SNAPSHOT);
	(void)snprintf(ret->name, sizeof(ret->name), "%s", key + strlen(NODE));
	ret->kind = FEED_DEFINITION;
	return 0;
}

static int value_read(const json_t *json, json_t **ret, struct error *err)
{
	CLEANUP_FREE unsigned char *bytes = NULL;
	json_auto_t *value = NULL;
	size_t length;
	int r;

	r = base64_decode(json_string_or(json, "Value", ""), &bytes, &length, err);
	if (r == 0)
		r = json_parse((const char *)bytes, length, &value, err);
	if (r < 0)
		return r;
	if (!json_is_object(value))
		return error_bad_data(err, "its value is no object");
	*ret = TAKE_PTR(value);
	return 0;
}

/* The same keys hold physical machines, which are none of our business. */
static int definition_read(json_t *value, const char *key, struct feed_event *event,
			   struct error *err)
{
	const char *name, *machine;
	json_t *parameters;
	int r;

	r = json_need_object(value, "parameters", &parameters, err);
	if (r == 0)
		r = json_need_string(parameters, "machine", &machine, err);
	if (r < 0)
		return r;
	if (strcmp(machine, "virtual") != 0) {
		event->kind = FEED_IGNORED;
		event->why = "it is no virtual machine";
		return 0;
	}
	r = json_need_string(value, "name", &name, err);
	if (r < 0)
		return r;
	if (strcmp(name, key + strlen(NODE)) != 0)
		return error_bad_data(err, "it defines '%.63s', which is not the name in its key",
				      name);
	json_object_set_new(value, "consul-generation",
			    json_integer((json_int_t)event->generation));
	return definition_from_json(value, &event->definition, err);
}

static int snapshot_read(const json_t *value, struct feed_event *event, struct error *err)
{
	const char *name, *snapshot;
	int r;

	r = json_need_string(value, "vm", &name, err);
	if (r == 0)
		r = json_need_string(value, "snapshot", &snapshot, err);
	if (r == 0)
		r = definition_check_name(name, err);
	if (r < 0)
		return r;
	(void)snprintf(event->name, sizeof(event->name), "%s", name);
	(void)snprintf(event->snapshot, sizeof(event->snapshot), "%s", snapshot);
	return 0;
}

int feed_event_body(const json_t *json, struct feed_event *event, struct error *err)
{
	json_auto_t *value = NULL;
	int r;

	if (event->kind == FEED_IGNORED)
		return 0;
	r = value_read(json, &value, err);
	if (r < 0)
		return r;
	if (event->kind == FEED_SNAPSHOT)
		return snapshot_read(value, event, err);
	return definition_read(value, json_string_or(json, "Key", NODE), event, err);
}

void feed_event_done(struct feed_event *event)
{
	event->definition = definition_free(event->definition);
}
