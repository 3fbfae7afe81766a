/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/history.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/mem.h"

#define MOVES_MIN 40
#define MOVES_MAX 160
#define DRIFT 9900 /* a little less than the hundredth that a lease allows for */
#define CLOSING_TRIES 20000
#define TRIES 50

struct random {
	uint64_t state;
};

/* splitmix64 */
static uint64_t random_next(struct random *random)
{
	uint64_t z = random->state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

static unsigned random_below(struct random *random, size_t limit)
{
	return (unsigned)((random_next(random) >> 32) * limit >> 32);
}

static bool one_in(struct random *random, unsigned n)
{
	return random_below(random, n) == 0;
}

void history_rules(uint64_t seed, struct rules *ret)
{
	struct random random = { seed ^ 0x5851f42d4c957f2dULL };
	bool post = one_in(&random, 3);

	*ret = (struct rules){
		.nodes = one_in(&random, 3) ? 3 : 2,
		.vms = one_in(&random, 4) ? 2 : 1,
		.post = post,
		.disks = !post && one_in(&random, 3),
		.stale = true,
		.users = true,
		.policy = one_in(&random, 2)   ? LEASE_STOP
			  : one_in(&random, 2) ? LEASE_PAUSE
					       : LEASE_KEEP,
		.faults = (int)random_below(&random, 7),
		.offers = 1 + (int)random_below(&random, 6),
		.time = one_in(&random, 3),
		.life = one_in(&random, 2),
		.on_panic = (enum panic_policy)random_below(&random, 3),
		.store = (enum store_kind)random_below(&random, STORES),
	};
	ret->restored = !ret->disks && one_in(&random, 4);
	for (int i = 0; i < NODES; i++)
		ret->drift[i] = ((int)random_below(&random, 3) - 1) * DRIFT;
}

/* ---- choosing ---- */

struct pools {
	struct move all[CANDIDATES];
	struct move of[4][CANDIDATES];
	size_t n[4];
};

static void pools_init(const struct rules *rules, struct pools *ret)
{
	size_t n = world_candidates(rules, ret->all);

	memset(ret->n, 0, sizeof(ret->n));
	for (size_t i = 0; i < n; i++) {
		enum move_class class = world_class((enum move_kind)ret->all[i].kind);

		ret->of[class][ret->n[class]++] = ret->all[i];
	}
}

static enum move_class choose_class(struct random *random)
{
	unsigned dice = random_below(random, 100);

	return dice < 3	   ? CLASS_FAULT
	       : dice < 9  ? CLASS_LOSS
	       : dice < 12 ? CLASS_REPAIR
			   : CLASS_NORMAL;
}

static void note(struct history *history, struct move move, const struct outcome *outcome)
{
	history->moves[history->n++] = move;
	history->violation = outcome->violation;
}

/* Most candidates are not possible at most times; that must not make a fault, which mostly is, the
 * more likely one. */
static void try_one(struct history *history, struct world *world, const struct pools *pools,
		    enum move_class class, struct random *random)
{
	struct outcome outcome = { 0 };

	for (int i = 0; i < TRIES; i++) {
		struct move move = pools->of[class][random_below(random, pools->n[class])];

		if (world_seldom((enum move_kind)move.kind) && !one_in(random, 8))
			continue;
		if (!world_step(&history->rules, world, move, &outcome))
			continue;
		note(history, move, &outcome);
		return;
	}
}

/* ---- the end: no more faults, repairs, and the VM runs (L1), and nothing else is left (I9) ----
 */

static bool all_run(const struct rules *rules, const struct world *world)
{
	for (int v = 0; v < rules->vms; v++)
		if (!world_runs(rules, world, v))
			return false;
	return true;
}

static bool all_clean(const struct rules *rules, const struct world *world)
{
	for (int v = 0; v < rules->vms; v++)
		if (!world_runs(rules, world, v) || !world_clean(rules, world, v))
			return false;
	return true;
}

static void close_history(struct history *history, struct world *world, const struct pools *pools)
{
	struct random random = { history->seed };

	world->faults = (uint8_t)history->rules.faults;
	for (int v = 0; v < VMS; v++)
		world->vm[v].offers = (uint8_t)history->rules.offers;
	for (int i = 0; i < CLOSING_TRIES && !history->violation; i++) {
		if (all_clean(&history->rules, world) && i > 100)
			return;
		if (history->n == HISTORY_MOVES)
			break;
		try_one(history, world, pools, one_in(&random, 8) ? CLASS_REPAIR : CLASS_NORMAL,
			&random);
	}
	if (!history->violation && !all_run(&history->rules, world))
		history->violation = "L1 repaired, and the VM does not come to run";
	else if (!history->violation && !all_clean(&history->rules, world))
		history->violation = "I9 something else is left of a VM that runs";
}

void history_run(uint64_t seed, const struct rules *rules, struct history *ret)
{
	struct random random = { seed };
	struct pools pools;
	struct world world;
	size_t moves = (MOVES_MIN + random_below(&random, MOVES_MAX - MOVES_MIN)) *
		       (rules->time ? 3 : 1); /* a third of them is renewals and time */

	ret->seed = seed;
	ret->rules = *rules;
	ret->n = 0;
	ret->violation = NULL;
	pools_init(rules, &pools);
	world_init(rules, &world);
	for (size_t i = 0; i < 2 * moves && ret->n < moves && !ret->violation; i++)
		try_one(ret, &world, &pools, choose_class(&random), &random);
	if (!ret->violation)
		close_history(ret, &world, &pools);
}

/* ---- shrinking ---- */

/* Does the history without its moves [from, to) fail in the same way?  Moves that are not possible
 * any more are left out too. */
static bool fails_without(const struct history *history, size_t from, size_t to,
			  struct history *ret)
{
	struct outcome outcome = { 0 };
	struct pools pools;
	struct world world;

	ret->seed = history->seed;
	ret->rules = history->rules;
	ret->n = 0;
	ret->violation = NULL;
	world_init(&ret->rules, &world);
	for (size_t i = 0; i < history->n && !ret->violation; i++)
		if ((i < from || i >= to) &&
		    world_step(&ret->rules, &world, history->moves[i], &outcome))
			note(ret, history->moves[i], &outcome);
	if (!ret->violation &&
	    (history->violation[0] == 'L' || strncmp(history->violation, "I9", 2) == 0)) {
		pools_init(&ret->rules, &pools);
		close_history(ret, &world, &pools);
	}
	return ret->violation && strcmp(ret->violation, history->violation) == 0 &&
	       ret->n < history->n;
}

void history_shrink(struct history *history)
{
	struct history *shorter = xcalloc(1, sizeof(*shorter));

	for (size_t chunk = history->n / 2; chunk; chunk /= 2) {
		bool again = true;

		while (again) {
			again = false;
			for (size_t from = 0; from < history->n; from += chunk)
				if (fails_without(history, from, from + chunk, shorter)) {
					*history = *shorter;
					again = true;
				}
		}
	}
	free(shorter);
}

void history_print(const struct history *history)
{
	const struct rules *rules = &history->rules;
	struct outcome outcome = { .say = true };
	struct world world;
	char text[256];

	printf("seed %llu: %d nodes, %d VM, %s, policy %s%s%s%s%s, %d faults, %d receivers\n",
	       (unsigned long long)history->seed, rules->nodes, rules->vms,
	       rules->post ? "postcopy" : "precopy", lease_policy_name(rules->policy),
	       rules->disks ? ", local disks" : "", rules->life ? ", guests that end" : "",
	       rules->time ? ", time" : "", rules->restored ? ", backups" : "", rules->faults,
	       rules->offers);
	world_init(rules, &world);
	for (size_t i = 0; i < history->n; i++) {
		(void)world_step(rules, &world, history->moves[i], &outcome);
		world_describe(rules, history->moves[i], &outcome, text, sizeof(text));
		printf("  %4zu  %s\n", i + 1, text);
	}
	printf("  %s\n", history->violation ? history->violation : "all VMs run");
}
