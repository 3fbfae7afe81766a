/* SPDX-License-Identifier: Apache-2.0 */
#include "model/records.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "model/record-fields.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"

static const char *const owner_phases[] = {
	[OWNER_OFF] = "off",
	[OWNER_HELD] = "held",
	[OWNER_MOVING] = "moving",
	NULL,
};
static const char *const owner_modes[] = { "", "pre", "post", NULL };
static const char *const owner_leases[] = { "keep", "stop", "pause", NULL };
static const char *const life_states[] = { "alive", "fencing", "fenced", NULL };
static const char *const order_kinds[] = {
	[ORDER_NONE] = "none",
	[ORDER_STOP] = "stop",
	[ORDER_KILL] = "kill",
	[ORDER_PAUSE] = "pause",
	NULL,
};
static const char *const node_modes[] = {
	[NODE_READY] = "ready",
	[NODE_STOPPED] = "stopped",
	NULL,
};

static int owner_take(json_t *left, struct owner *owner, struct error *err)
{
	static const char what[] = "owner";
	const struct {
		const char *key;
		char *buffer;
		size_t size;
	} texts[] = {
		{ "node", owner->node, sizeof(owner->node) },
		{ "boot", owner->boot, sizeof(owner->boot) },
		{ "to", owner->to, sizeof(owner->to) },
		{ "feeder", owner->feeder, sizeof(owner->feeder) },
		{ "home", owner->home, sizeof(owner->home) },
		{ "by", owner->by, sizeof(owner->by) },
	};
	int phase, mode, lease, r;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		r = record_take_text(left, what, texts[i].key, texts[i].buffer, texts[i].size, err);
		if (r < 0)
			return r;
	}
	r = record_take_number(left, what, "epoch", &owner->epoch, err);
	if (r < 0)
		return r;
	r = record_take_number(left, what, "try", &owner->try_epoch, err);
	if (r < 0)
		return r;
	/* Without a phase the record says nothing: never read as "nobody runs it". */
	if (!json_is_string(json_object_get(left, "phase")))
		return error_bad_data(err, "the owner record has no 'phase'");
	r = record_take_choice(left, what, "phase", owner_phases, &phase, err);
	if (r < 0)
		return r;
	r = record_take_choice(left, what, "mode", owner_modes, &mode, err);
	if (r < 0)
		return r;
	r = record_take_choice(left, what, "lease", owner_leases, &lease, err);
	if (r < 0)
		return r;
	owner->phase = (enum owner_phase)phase;
	(void)snprintf(owner->mode, sizeof(owner->mode), "%s", owner_modes[mode]);
	(void)snprintf(owner->lease, sizeof(owner->lease), "%s", owner_leases[lease]);
	return 0;
}

/* What the protocol never writes is damage, and damage must not look like "nobody runs it". */
static int owner_check(const struct owner *owner, struct error *err)
{
	if (owner->epoch == 0)
		return error_bad_data(err, "the owner record has no epoch");
	if (owner->phase == OWNER_OFF && owner->node[0] != '\0')
		return error_bad_data(err, "the owner record is 'off', yet names the node '%s'",
				      owner->node);
	if (owner->phase != OWNER_OFF && (owner->node[0] == '\0' || owner->boot[0] == '\0'))
		return error_bad_data(err, "the owner record is '%s' without a node or its boot id",
				      owner_phases[owner->phase]);
	if (owner->phase == OWNER_MOVING && owner->to[0] == '\0')
		return error_bad_data(err, "the owner record is 'moving' to nowhere");
	return 0;
}

int owner_parse(json_t *value, struct owner *ret, struct error *err)
{
	json_auto_t *left = NULL;
	struct owner owner = { 0 };
	int r;

	r = record_open(value, "owner", &left, err);
	if (r < 0)
		return r;
	r = owner_take(left, &owner, err);
	if (r < 0)
		return r;
	r = owner_check(&owner, err);
	if (r < 0)
		return r;
	owner.rest = record_rest(&left);
	*ret = owner;
	return 0;
}

json_t *owner_json(const struct owner *owner)
{
	json_t *record = json_pack(
		"{s:i, s:I, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:s}", "v", RECORD_VERSION,
		"epoch", (json_int_t)owner->epoch, "phase", owner_phases[owner->phase], "node",
		record_text(owner->node), "boot", record_text(owner->boot), "to",
		record_text(owner->to), "mode", record_text(owner->mode), "feeder",
		record_text(owner->feeder), "try", record_number(owner->try_epoch), "home",
		record_text(owner->home), "lease", owner->lease[0] != '\0' ? owner->lease : "keep",
		"by", owner->by);

	return record_finish(record, owner->rest);
}

void owner_done(struct owner *owner)
{
	json_decref(owner->rest);
	owner->rest = NULL;
}

int order_parse(json_t *value, struct order *ret, struct error *err)
{
	json_auto_t *left = NULL;
	struct order order = { 0 };
	int kind, r;

	if (!value || json_is_null(value)) {
		*ret = order;
		return 0;
	}
	r = record_open(value, "order", &left, err);
	if (r < 0)
		return r;
	r = record_take_choice(left, "order", "kind", order_kinds, &kind, err);
	if (r < 0)
		return r;
	r = record_take_number(left, "order", "restarts", &order.restarts, err);
	if (r < 0)
		return r;
	r = record_take_number(left, "order", "retry", &order.retry, err);
	if (r < 0)
		return r;
	r = record_take_text(left, "order", "since", order.since, sizeof(order.since), err);
	if (r < 0)
		return r;
	r = record_take_text(left, "order", "by", order.by, sizeof(order.by), err);
	if (r < 0)
		return r;
	order.kind = (enum order_kind)kind;
	*ret = order;
	return 0;
}

json_t *order_json(const struct order *order)
{
	json_t *record = json_pack("{s:i, s:s, s:I, s:I, s:s, s:s}", "v", RECORD_VERSION, "kind",
				   order_kinds[order->kind], "restarts",
				   (json_int_t)order->restarts, "retry", (json_int_t)order->retry,
				   "since", order->since, "by", order->by);

	return record_finish(record, NULL);
}

const char *order_kind_name(enum order_kind kind)
{
	return order_kinds[kind];
}

int life_parse(json_t *value, struct life *ret, struct error *err)
{
	json_auto_t *left = NULL;
	struct life life = { 0 };
	int state, r;

	r = record_open(value, "life", &left, err);
	if (r < 0)
		return r;
	r = record_take_number(left, "life", "n", &life.n, err);
	if (r < 0)
		return r;
	/* No state is not "alive": it is damage. */
	if (!json_is_string(json_object_get(left, "state")))
		return error_bad_data(err, "the life record has no 'state'");
	r = record_take_choice(left, "life", "state", life_states, &state, err);
	if (r < 0)
		return r;
	r = record_take_text(left, "life", "boot", life.boot, sizeof(life.boot), err);
	if (r < 0)
		return r;
	r = record_take_text(left, "life", "machine", life.machine, sizeof(life.machine), err);
	if (r < 0)
		return r;
	(void)snprintf(life.state, sizeof(life.state), "%s", life_states[state]);
	life.rest = record_rest(&left);
	*ret = life;
	return 0;
}

json_t *life_json(const struct life *life)
{
	json_t *record = json_pack("{s:i, s:I, s:s, s:s, s:s}", "v", RECORD_VERSION, "n",
				   (json_int_t)life->n, "state", life->state, "boot", life->boot,
				   "machine", life->machine);

	return record_finish(record, life->rest);
}

void life_done(struct life *life)
{
	json_decref(life->rest);
	life->rest = NULL;
}

static int definition_record_take(json_t *left, struct definition_record *record, struct error *err)
{
	static const char what[] = "definition";
	int r;

	r = record_take_number(left, what, "generation", &record->generation, err);
	if (r < 0)
		return r;
	r = record_take_number(left, what, "host_generation", &record->host_generation, err);
	if (r < 0)
		return r;
	r = record_take_text(left, what, "source", record->source, sizeof(record->source), err);
	if (r < 0)
		return r;
	r = record_take_text(left, what, "node", record->node, sizeof(record->node), err);
	if (r < 0)
		return r;
	r = record_take_text(left, what, "path", record->path, sizeof(record->path), err);
	if (r < 0)
		return r;
	return record_take_flag(left, what, "gone", &record->gone, err);
}

int definition_record_parse(json_t *value, struct definition_record *ret, struct error *err)
{
	json_auto_t *left = NULL;
	struct definition_record record = { 0 };
	json_t *definition;
	int r;

	r = record_open(value, "definition", &left, err);
	if (r < 0)
		return r;
	r = definition_record_take(left, &record, err);
	if (r < 0)
		return r;
	if (record.source[0] == '\0')
		return error_bad_data(err, "the definition record does not say its source");
	definition = json_object_get(left, "definition");
	if (!json_is_object(definition))
		return error_bad_data(err, "the definition record holds no definition");
	record.definition = json_incref(definition);
	(void)json_object_del(left, "definition");
	record.rest = record_rest(&left);
	*ret = record;
	return 0;
}

json_t *definition_record_json(const struct definition_record *record)
{
	json_t *value =
		json_pack("{s:i, s:I, s:s, s:o, s:o, s:b, s:O}", "v", RECORD_VERSION, "generation",
			  (json_int_t)record->generation, "source", record->source, "node",
			  record_text(record->node), "path", record_text(record->path), "gone",
			  record->gone, "definition", record->definition);

	if (record->host_generation)
		(void)json_object_set_new(value, "host_generation",
					  json_integer((json_int_t)record->host_generation));
	return record_finish(value, record->rest);
}

void definition_record_done(struct definition_record *record)
{
	json_decref(record->definition);
	json_decref(record->rest);
	record->definition = record->rest = NULL;
}

const char *definition_record_source(const struct definition_record *record, char *buffer,
				     size_t size)
{
	if (strcmp(record->source, "file") == 0)
		(void)snprintf(buffer, size, "file %s:%s", record->node, record->path);
	else
		(void)snprintf(buffer, size, "%s", record->source);
	return buffer;
}

const char *node_mode_name(enum node_mode mode)
{
	return node_modes[mode];
}

int node_mode_of(const char *name)
{
	return record_name_index(node_modes, name);
}

const char *key_vm(char buffer[RECORD_KEY_SIZE], const char *vm, const char *leaf)
{
	(void)snprintf(buffer, RECORD_KEY_SIZE, "/drover/vms/%s/%s", vm, leaf);
	return buffer;
}

const char *key_assign(char buffer[RECORD_KEY_SIZE], const char *node, const char *vm)
{
	(void)snprintf(buffer, RECORD_KEY_SIZE, "/drover/assign/%s/%s", node, vm);
	return buffer;
}

const char *key_node(char buffer[RECORD_KEY_SIZE], const char *node, const char *leaf)
{
	(void)snprintf(buffer, RECORD_KEY_SIZE, "/drover/nodes/%s/%s", node, leaf);
	return buffer;
}
