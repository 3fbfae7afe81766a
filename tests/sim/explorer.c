/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/explorer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/parts.h"
#include "util/mem.h"

/* A state as it is kept: only what the rules use of a world. */
#define PACKED sizeof(struct world)

struct edge {
	uint32_t from, to;
	uint32_t repair;
};

struct explorer {
	const struct rules *rules;
	size_t size, limit;

	uint8_t *states;
	size_t n_states, room;
	uint32_t *parents;
	struct move *moves;

	uint32_t *table; /* of states, by hash; 0: none, else number + 1 */
	size_t table_size;

	struct edge *edges;
	size_t n_edges, edges_room;

	struct move candidates[CANDIDATES];
	size_t n_candidates;
};

static size_t pack(const struct rules *rules, const struct world *world, uint8_t *ret)
{
	uint8_t *at = ret;

#define PUT(what, size) (memcpy(at, what, size), at += (size))
	PUT(world->node, sizeof(world->node[0]) * (size_t)rules->nodes);
	for (int v = 0; v < rules->vms; v++) {
		const struct vm *vm = &world->vm[v];

		PUT(&vm->record, offsetof(struct vm, site));
		PUT(vm->site, sizeof(vm->site[0]) * (size_t)rules->nodes);
		PUT(vm->ghost, sizeof(*vm) - offsetof(struct vm, ghost));
	}
	*at++ = world->faults;
	*at++ = world->store_down;
	*at++ = world->restored;
#undef PUT
	return (size_t)(at - ret);
}

static void unpack(const struct rules *rules, const uint8_t *from, struct world *ret)
{
#define GET(what, size) (memcpy(what, from, size), from += (size))
	memset(ret, 0, sizeof(*ret));
	GET(ret->node, sizeof(ret->node[0]) * (size_t)rules->nodes);
	for (int v = 0; v < rules->vms; v++) {
		struct vm *vm = &ret->vm[v];

		GET(&vm->record, offsetof(struct vm, site));
		GET(vm->site, sizeof(vm->site[0]) * (size_t)rules->nodes);
		GET(vm->ghost, sizeof(*vm) - offsetof(struct vm, ghost));
	}
	ret->faults = *from++;
	ret->store_down = *from++;
	ret->restored = *from;
#undef GET
}

static uint64_t hash(const uint8_t *bytes, size_t size)
{
	uint64_t h = 0x9e3779b97f4a7c15ULL;
	uint64_t word;

	for (; size >= 8; bytes += 8, size -= 8) {
		memcpy(&word, bytes, 8);
		h = (h ^ word) * 0xff51afd7ed558ccdULL;
		h ^= h >> 32;
	}
	for (; size; bytes++, size--)
		h = (h ^ *bytes) * 0x100000001b3ULL;
	return h ^ h >> 29;
}

static uint32_t *slot_of(struct explorer *e, const uint8_t *packed)
{
	size_t i = hash(packed, e->size) & (e->table_size - 1);

	while (e->table[i] &&
	       memcmp(e->states + (size_t)(e->table[i] - 1) * e->size, packed, e->size) != 0)
		i = (i + 1) & (e->table_size - 1);
	return &e->table[i];
}

static void grow_table(struct explorer *e)
{
	free(e->table);
	e->table_size *= 2;
	e->table = xcalloc(e->table_size, sizeof(*e->table));
	for (size_t i = 0; i < e->n_states; i++)
		*slot_of(e, e->states + i * e->size) = (uint32_t)i + 1;
}

/* The number of the state; a new one gets one. */
static uint32_t number_of(struct explorer *e, const uint8_t *packed, uint32_t parent,
			  struct move move)
{
	uint32_t *slot = slot_of(e, packed);

	if (*slot)
		return *slot - 1;
	if (e->n_states == e->room) {
		e->room *= 2;
		e->states = xrealloc(e->states, e->room, e->size);
		e->parents = xrealloc(e->parents, e->room, sizeof(*e->parents));
		e->moves = xrealloc(e->moves, e->room, sizeof(*e->moves));
	}
	memcpy(e->states + e->n_states * e->size, packed, e->size);
	e->parents[e->n_states] = parent;
	e->moves[e->n_states] = move;
	*slot = (uint32_t)++e->n_states;
	if (e->n_states * 2 > e->table_size)
		grow_table(e);
	return (uint32_t)e->n_states - 1;
}

static void add_edge(struct explorer *e, uint32_t from, uint32_t to, bool repair)
{
	if (e->n_edges == e->edges_room) {
		e->edges_room = e->edges_room ? 2 * e->edges_room : 1 << 16;
		e->edges = xrealloc(e->edges, e->edges_room, sizeof(*e->edges));
	}
	e->edges[e->n_edges++] = (struct edge){ from, to, repair };
}

/* The way from the beginning to `state`, and `last` if there is one. */
static void take_path(const struct explorer *e, uint32_t state, const struct move *last,
		      struct explored *ret)
{
	size_t n = last ? 1 : 0;

	for (uint32_t i = state; i; i = e->parents[i])
		n++;
	ret->path = xcalloc(n ? n : 1, sizeof(*ret->path));
	ret->n_path = n;
	if (last)
		ret->path[--n] = *last;
	for (uint32_t i = state; i; i = e->parents[i])
		ret->path[--n] = e->moves[i];
}

/* What is waited for: postcopy hangs while the link is cut, and says so (section 8), since nothing
 * else is safe; a host whose disks hang is alive and keeps what it holds. */
static bool is_awaited(const struct rules *rules, struct move move)
{
	return move.kind == MOVE_DISKS_MENDED || (rules->post && move.kind == MOVE_LINK_MENDED);
}

static bool expand(struct explorer *e, uint32_t number, struct explored *ret)
{
	struct outcome outcome = { 0 };
	uint8_t packed[PACKED] = { 0 };
	struct world world, next;

	unpack(e->rules, e->states + number * e->size, &world);
	for (size_t i = 0; i < e->n_candidates; i++) {
		struct move move = e->candidates[i];
		enum move_class class = world_class((enum move_kind)move.kind);
		uint32_t to;

		next = world;
		if (!world_step(e->rules, &next, move, &outcome))
			continue;
		ret->transitions++;
		if (outcome.violation) {
			ret->violation = outcome.violation;
			take_path(e, number, &move, ret);
			return false;
		}
		world_normalise(e->rules, &next);
		(void)pack(e->rules, &next, packed);
		to = number_of(e, packed, number, move);
		if (to != number && (class == CLASS_NORMAL || class == CLASS_REPAIR))
			add_edge(e, number, to,
				 class == CLASS_REPAIR && !is_awaited(e->rules, move));
	}
	return true;
}

/* Nobody is left who could run it: not a state that L2 speaks of. */
static bool nobody_healthy(const struct rules *rules, const struct world *world)
{
	for (int i = 0; i < rules->nodes; i++)
		if (node_reaches_store(world, i) && !world->node[i].slow)
			return false;
	return true;
}

static uint32_t *reverse(const struct explorer *e, uint32_t *first)
{
	uint32_t *in = xcalloc(e->n_edges ? e->n_edges : 1, sizeof(*in));

	for (size_t i = 0; i < e->n_edges; i++)
		first[e->edges[i].to + 1]++;
	for (size_t i = 0; i < e->n_states; i++)
		first[i + 1] += first[i];
	for (size_t i = e->n_edges; i-- > 0;)
		in[first[e->edges[i].to]++] = (uint32_t)i;
	for (size_t i = e->n_states; i > 0; i--)
		first[i] = first[i - 1];
	first[0] = 0;
	return in;
}

/* A state from which no way without faults leads to a running guest, if there is one: where all
 * can come to one, every fair way does. */
static bool look_for_stuck(struct explorer *e, bool repairs, uint32_t *ret)
{
	uint32_t *first = xcalloc(e->n_states + 2, sizeof(*first));
	uint32_t *in = reverse(e, first);
	uint8_t *good = xcalloc(e->n_states, 1);
	uint32_t *todo = xcalloc(e->n_states, sizeof(*todo));
	size_t n = 0, stuck = 0;

	for (uint32_t i = 0; i < e->n_states; i++) {
		struct world world;

		unpack(e->rules, e->states + i * e->size, &world);
		if (world_runs(e->rules, &world, 0) ||
		    (!repairs &&
		     (world_told_why(e->rules, &world, 0) || nobody_healthy(e->rules, &world))))
			good[i] = 1, todo[n++] = i;
	}
	while (n) {
		uint32_t state = todo[--n];

		for (uint32_t i = first[state]; i < first[state + 1]; i++) {
			const struct edge *edge = &e->edges[in[i]];

			if (!good[edge->from] && (repairs || !edge->repair))
				good[edge->from] = 1, todo[n++] = edge->from;
		}
	}
	while (stuck < e->n_states && good[stuck])
		stuck++;
	*ret = (uint32_t)stuck;
	free(first);
	free(in);
	free(good);
	free(todo);
	return *ret < e->n_states;
}

static void look_at_liveness(struct explorer *e, struct explored *ret)
{
	uint32_t stuck;

	if (look_for_stuck(e, true, &stuck))
		ret->violation = "L1 repaired, and the VM does not come to run";
	/* A local disk that is on a dead host stays there. */
	else if (!e->rules->disks && look_for_stuck(e, false, &stuck))
		ret->violation = "L2 a healthy host is there, and the VM does not come to run";
	if (ret->violation)
		take_path(e, stuck, NULL, ret);
}

void explorer_run(const struct rules *rules, size_t limit, struct explored *ret)
{
	struct explorer e = { .rules = rules, .limit = limit, .room = 1024, .table_size = 4096 };
	uint8_t packed[PACKED] = { 0 };
	struct world world;

	memset(ret, 0, sizeof(*ret));
	world_init(rules, &world);
	world_normalise(rules, &world);
	e.size = pack(rules, &world, packed);
	e.states = xcalloc(e.room, e.size);
	e.parents = xcalloc(e.room, sizeof(*e.parents));
	e.moves = xcalloc(e.room, sizeof(*e.moves));
	e.table = xcalloc(e.table_size, sizeof(*e.table));
	e.n_candidates = world_candidates(rules, e.candidates);
	(void)number_of(&e, packed, 0, (struct move){ 0 });
	for (uint32_t i = 0; i < e.n_states && !ret->violation; i++) {
		if (e.n_states > limit) {
			ret->cut_short = true;
			break;
		}
		if (!expand(&e, i, ret))
			break;
	}
	ret->states = e.n_states;
	if (!ret->violation && !ret->cut_short)
		look_at_liveness(&e, ret);
	free(e.states);
	free(e.parents);
	free(e.moves);
	free(e.table);
	free(e.edges);
}

void explored_print(const struct rules *rules, const struct explored *explored)
{
	struct outcome outcome = { .say = true };
	struct world world;
	char text[256];

	world_init(rules, &world);
	world_normalise(rules, &world);
	for (size_t i = 0; i < explored->n_path; i++) {
		(void)world_step(rules, &world, explored->path[i], &outcome);
		world_describe(rules, explored->path[i], &outcome, text, sizeof(text));
		printf("  %3zu  %s\n", i + 1, text);
		world_normalise(rules, &world);
	}
}

void explored_done(struct explored *explored)
{
	free(explored->path);
	explored->path = NULL;
}
