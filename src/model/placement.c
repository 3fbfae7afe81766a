/* SPDX-License-Identifier: Apache-2.0 */
/* The record of where a VM should be, to and from JSON. */
#include <stdio.h>

#include "model/record-fields.h"
#include "model/records.h"
#include "util/cleanup.h"
#include "util/error.h"

static const char *const kinds[] = {
	[PLACEMENT_NONE] = "none",
	[PLACEMENT_MIGRATE] = "migrate",
	[PLACEMENT_MOVE] = "move",
	[PLACEMENT_RECOVER] = "recover",
	NULL,
};
static const char *const methods[] = {
	[PLACEMENT_AUTO] = "auto",
	[PLACEMENT_LIVE] = "live",
	[PLACEMENT_SHUTDOWN] = "shutdown",
	NULL,
};

const char *placement_kind_name(enum placement_kind kind)
{
	return kinds[kind];
}

const char *placement_method_name(enum placement_method method)
{
	return methods[method];
}

int placement_method_of(const char *name)
{
	return record_name_index(methods, name);
}

static int take_texts(json_t *left, struct placement *placement, struct error *err)
{
	const struct {
		const char *key;
		char *buffer;
		size_t size;
	} texts[] = {
		{ "node", placement->node, sizeof(placement->node) },
		{ "return_to", placement->return_to, sizeof(placement->return_to) },
		{ "kvm_host", placement->kvm_host, sizeof(placement->kvm_host) },
		{ "since", placement->since, sizeof(placement->since) },
		{ "by", placement->by, sizeof(placement->by) },
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(texts); i++)
		r = record_take_text(left, "placement", texts[i].key, texts[i].buffer,
				     texts[i].size, err);
	return r;
}

static int take_numbers(json_t *left, struct placement *placement, struct error *err)
{
	const struct {
		const char *key;
		uint64_t *number;
	} numbers[] = {
		{ "generation", &placement->generation },
		{ "max_downtime_ms", &placement->max_downtime_ms },
		{ "bandwidth", &placement->bandwidth },
		{ "number", &placement->number },
		{ "cancel", &placement->cancel },
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(numbers); i++)
		r = record_take_number(left, "placement", numbers[i].key, numbers[i].number, err);
	return r;
}

static int placement_take(json_t *left, struct placement *placement, struct error *err)
{
	int kind, method, r;

	r = take_texts(left, placement, err);
	if (r < 0)
		return r;
	r = take_numbers(left, placement, err);
	if (r < 0)
		return r;
	r = record_take_flag(left, "placement", "postcopy", &placement->postcopy, err);
	if (r < 0)
		return r;
	r = record_take_choice(left, "placement", "kind", kinds, &kind, err);
	if (r < 0)
		return r;
	r = record_take_choice(left, "placement", "method", methods, &method, err);
	if (r < 0)
		return r;
	placement->kind = (enum placement_kind)kind;
	placement->method = (enum placement_method)method;
	if ((kind == PLACEMENT_NONE) != (placement->node[0] == '\0'))
		return error_bad_data(err, "the placement record is '%s' and names %s", kinds[kind],
				      placement->node[0] ? "a node" : "no node");
	return 0;
}

int placement_parse(json_t *value, struct placement *ret, struct error *err)
{
	json_auto_t *left = NULL;
	struct placement placement = { 0 };
	int r;

	if (!value || json_is_null(value)) {
		*ret = placement;
		return 0;
	}
	r = record_open(value, "placement", &left, err);
	if (r < 0)
		return r;
	r = placement_take(left, &placement, err);
	if (r < 0)
		return r;
	placement.rest = record_rest(&left);
	*ret = placement;
	return 0;
}

json_t *placement_json(const struct placement *placement)
{
	json_t *record = json_pack(
		"{s:i, s:s, s:o, s:o, s:o, s:I, s:s, s:o, s:o, s:b, s:I, s:o, s:s, s:s}", "v",
		RECORD_VERSION, "kind", kinds[placement->kind], "node",
		record_text(placement->node), "return_to", record_text(placement->return_to),
		"kvm_host", record_text(placement->kvm_host), "generation",
		(json_int_t)placement->generation, "method", methods[placement->method],
		"max_downtime_ms", record_number(placement->max_downtime_ms), "bandwidth",
		record_number(placement->bandwidth), "postcopy", (int)placement->postcopy, "number",
		(json_int_t)placement->number, "cancel", record_number(placement->cancel), "since",
		placement->since, "by", placement->by);

	return record_finish(record, placement->rest);
}

void placement_done(struct placement *placement)
{
	json_decref(placement->rest);
	placement->rest = NULL;
}
