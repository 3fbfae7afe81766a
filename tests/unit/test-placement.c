/* SPDX-License-Identifier: Apache-2.0 */
/* Where a VM should be, and what orders make of that.  The tables are written by hand. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/placement.h"
#include "util/cleanup.h"
#include "util/error.h"

#define ME "alpha"

/* A situation in a line; NULL is "not there". */
struct world {
	const char *kvm_host;
	uint64_t generation, host_generation;
	enum placement_kind kind;
	const char *placed, *return_to, *recorded_host;
	uint64_t recorded_generation;
	const char *holder, *home, *source;
};

struct bench {
	struct definition definition;
	struct placement placement;
	struct owner owner;
	struct placement_facts facts;
};

static void name(char field[RECORD_NAME_SIZE], const char *value)
{
	(void)snprintf(field, RECORD_NAME_SIZE, "%s", value ? value : "");
}

static const struct placement_facts *facts_of(struct bench *bench, const struct world *world)
{
	*bench = (struct bench){ .definition.kvm_host = world->kvm_host ? world->kvm_host : "" };
	bench->placement.kind = world->kind;
	bench->placement.generation = world->recorded_generation;
	bench->placement.number = 4;
	name(bench->placement.node, world->placed);
	name(bench->placement.return_to, world->return_to);
	name(bench->placement.kvm_host, world->recorded_host);
	bench->owner.epoch = 1;
	bench->owner.phase = world->holder ? OWNER_HELD : OWNER_OFF;
	name(bench->owner.node, world->holder);
	name(bench->owner.home, world->home);
	bench->facts = (struct placement_facts){
		.vm = "web01",
		.definition = &bench->definition,
		.generation = world->generation,
		.host_generation = world->host_generation,
		.placement = &bench->placement,
		.owner = world->holder || world->home ? &bench->owner : NULL,
		.source = world->source ? world->source : "",
		.node = ME,
	};
	return &bench->facts;
}

#define MIGRATED .kind = PLACEMENT_MIGRATE, .placed = "beta", .return_to = "alpha"
#define MOVED .kind = PLACEMENT_MOVE, .placed = "beta"

static void the_newest_word_says_where_a_vm_should_be(void **state)
{
	static const struct {
		struct world world;
		const char *node;
		enum placement_by by;
	} cases[] = {
		{ { .source = "gamma" }, "gamma", PLACED_BY_SOURCE },
		{ { .kvm_host = NULL }, ME, PLACED_BY_NOBODY },
		{ { .home = "beta", .source = "gamma" }, "beta", PLACED_BY_HOME },
		{ { .holder = "delta", .home = "beta", .source = "gamma" },
		  "delta",
		  PLACED_BY_OWNER },
		{ { .kvm_host = "gamma", .holder = "delta" }, "gamma", PLACED_BY_DEFINITION },
		{ { MIGRATED, .holder = "alpha" }, "beta", PLACED_BY_ORDER },
		{ { MIGRATED, .kvm_host = "alpha", .recorded_host = "alpha" },
		  "beta",
		  PLACED_BY_ORDER },
		/* The definition stood there when the order was given. */
		{ { MOVED, .kvm_host = "alpha", .recorded_host = "gamma" },
		  "beta",
		  PLACED_BY_ORDER },
		/* A newer one that names the same node, or nobody, says nothing new. */
		{ { MOVED, .kvm_host = "alpha", .recorded_host = "alpha", .generation = 9 },
		  "beta",
		  PLACED_BY_ORDER },
		{ { MOVED, .recorded_host = "alpha", .generation = 9 }, "beta", PLACED_BY_ORDER },
		/* It was changed, and changed back. */
		{ { MOVED, .kvm_host = "alpha", .recorded_host = "alpha", .generation = 9,
		    .host_generation = 9 },
		  "alpha",
		  PLACED_BY_DEFINITION },
		/* One that names another does. */
		{ { MOVED, .kvm_host = "gamma", .recorded_host = "alpha", .generation = 9 },
		  "gamma",
		  PLACED_BY_DEFINITION },
		{ { MIGRATED, .kvm_host = "gamma", .generation = 1 },
		  "gamma",
		  PLACED_BY_DEFINITION },
		{ { MIGRATED, .kvm_host = "gamma", .generation = 7, .recorded_generation = 7 },
		  "beta",
		  PLACED_BY_ORDER },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bench bench;
		const char *node;
		enum placement_by by = placement_node(facts_of(&bench, &cases[i].world), &node);

		if (strcmp(node, cases[i].node) != 0 || by != cases[i].by)
			fail_msg("case %zu: node '%s' by %d, not '%s' by %d", i, node, by,
				 cases[i].node, cases[i].by);
	}
}

struct order_case {
	struct world world;
	enum placement_verb verb;
	const char *to;
	/* Either the record that comes of it, or the refusal. */
	enum placement_kind kind;
	const char *node, *return_to;
	const char *refusal;
};

static void assert_order(const struct order_case *c, size_t i)
{
	const struct placement_order order = {
		.verb = c->verb, .to = c->to, .since = "now", .by = "uid 0 at alpha"
	};
	struct placement next = { 0 };
	struct error err = { 0 };
	struct bench bench;
	int r;

	r = placement_ordered(facts_of(&bench, &c->world), &order, &next, &err);
	if (c->refusal) {
		if (r != -EPERM || err.class != ERROR_REFUSED || strcmp(err.text, c->refusal) != 0)
			fail_msg("case %zu: %d '%s', not '%s'", i, r, err.text, c->refusal);
		return;
	}
	if (r < 0)
		fail_msg("case %zu: refused: %s", i, err.text);
	if (next.kind != c->kind || strcmp(next.node, c->node) != 0 ||
	    strcmp(next.return_to, c->return_to ? c->return_to : "") != 0)
		fail_msg("case %zu: %s to '%s', home '%s'; not %s to '%s', home '%s'", i,
			 placement_kind_name(next.kind), next.node, next.return_to,
			 placement_kind_name(c->kind), c->node, c->return_to ? c->return_to : "");
	assert_int_equal(next.number, 5);
	assert_int_equal(next.cancel, c->verb == PLACE_CANCEL ? 5 : 0);
	assert_string_equal(next.kvm_host, c->world.kvm_host ? c->world.kvm_host : "");
	assert_int_equal(next.generation, c->world.generation);
}

static void an_order_leaves_its_record_or_is_refused(void **state)
{
	static const struct order_case cases[] = {
		/* for a while */
		{ { .holder = "alpha" },
		  PLACE_MIGRATE,
		  "beta",
		  PLACEMENT_MIGRATE,
		  "beta",
		  "alpha" },
		{ { .kvm_host = "alpha", .holder = "alpha" },
		  PLACE_MIGRATE,
		  "beta",
		  PLACEMENT_MIGRATE,
		  "beta",
		  "alpha" },
		{ { MIGRATED, .holder = "beta" },
		  PLACE_MIGRATE,
		  "gamma",
		  PLACEMENT_MIGRATE,
		  "gamma",
		  "alpha" },
		{ { .source = "alpha" },
		  PLACE_MIGRATE,
		  "beta",
		  PLACEMENT_MIGRATE,
		  "beta",
		  "alpha" },
		{ { MIGRATED, .holder = "beta" }, PLACE_MIGRATE, "alpha", PLACEMENT_MOVE, "alpha" },
		{ { MIGRATED, .kvm_host = "alpha", .recorded_host = "alpha", .holder = "beta" },
		  PLACE_MIGRATE,
		  "alpha",
		  PLACEMENT_NONE,
		  "" },
		/* the newest target wins, also while it is on its way */
		{ { MIGRATED, .holder = "alpha" },
		  PLACE_MIGRATE,
		  "gamma",
		  PLACEMENT_MIGRATE,
		  "gamma",
		  "alpha" },
		{ { MIGRATED, .holder = "alpha" },
		  PLACE_MIGRATE,
		  "beta",
		  PLACEMENT_MIGRATE,
		  "beta",
		  "alpha" },
		{ { .kvm_host = "beta", .holder = "alpha" },
		  PLACE_MIGRATE,
		  "beta",
		  PLACEMENT_MIGRATE,
		  "beta",
		  "alpha" },
		/* never to itself */
		{ { .holder = "alpha" },
		  PLACE_MIGRATE,
		  "alpha",
		  .refusal = "VM 'web01' is on node 'alpha' already" },
		{ { MIGRATED, .holder = "beta" },
		  PLACE_MIGRATE,
		  "beta",
		  .refusal = "VM 'web01' is on node 'beta' already" },
		{ { .kvm_host = "beta" },
		  PLACE_MIGRATE,
		  "beta",
		  .refusal = "VM 'web01' belongs to node 'beta' already" },
		{ { .holder = "alpha" },
		  PLACE_MOVE,
		  "alpha",
		  .refusal = "VM 'web01' is on node 'alpha' already" },
		/* for good */
		{ { .holder = "alpha" }, PLACE_MOVE, "beta", PLACEMENT_MOVE, "beta" },
		{ { .kvm_host = "beta", .holder = "beta" },
		  PLACE_MOVE,
		  "alpha",
		  PLACEMENT_MOVE,
		  "alpha" },
		{ { MIGRATED, .holder = "beta" }, PLACE_MOVE, "beta", PLACEMENT_MOVE, "beta" },
		{ { MIGRATED, .holder = "beta" }, PLACE_MOVE, "gamma", PLACEMENT_MOVE, "gamma" },
		{ { MOVED, .kvm_host = "alpha", .recorded_host = "alpha", .holder = "beta" },
		  PLACE_MOVE,
		  "alpha",
		  PLACEMENT_NONE,
		  "" },
		/* disks of one node move with a running VM only */
		{ { .holder = "alpha", .home = "alpha" },
		  PLACE_MIGRATE,
		  "beta",
		  PLACEMENT_MIGRATE,
		  "beta",
		  "alpha" },
		{ { .home = "alpha" },
		  PLACE_MOVE,
		  "beta",
		  .refusal = "the disks of VM 'web01' are on node 'alpha', and move only while it "
			     "runs: 'drover start web01' first" },
		{ { MIGRATED, .home = "beta" },
		  PLACE_UNMIGRATE,
		  .refusal = "the disks of VM 'web01' are on node 'beta', and move only while it "
			     "runs: 'drover start web01' first" },
		/* home */
		{ { MIGRATED, .holder = "beta" }, PLACE_UNMIGRATE, NULL, PLACEMENT_MOVE, "alpha" },
		{ { MIGRATED, .holder = "alpha" }, PLACE_UNMIGRATE, NULL, PLACEMENT_MOVE, "alpha" },
		{ { MIGRATED, .kvm_host = "alpha", .recorded_host = "alpha", .holder = "beta" },
		  PLACE_UNMIGRATE,
		  NULL,
		  PLACEMENT_NONE,
		  "" },
		{ { MOVED, .holder = "beta" },
		  PLACE_UNMIGRATE,
		  .refusal = "VM 'web01' is not migrated: there is no way back" },
		{ { .holder = "beta" },
		  PLACE_UNMIGRATE,
		  .refusal = "VM 'web01' is not migrated: there is no way back" },
		/* not at all */
		{ { MIGRATED, .holder = "alpha" }, PLACE_CANCEL, NULL, PLACEMENT_MOVE, "alpha" },
		{ { MIGRATED, .kvm_host = "alpha", .recorded_host = "alpha", .holder = "alpha" },
		  PLACE_CANCEL,
		  NULL,
		  PLACEMENT_NONE,
		  "" },
		{ { MIGRATED, .holder = "delta" },
		  PLACE_CANCEL,
		  NULL,
		  PLACEMENT_MIGRATE,
		  "delta",
		  "alpha" },
		{ { .kvm_host = "beta", .holder = "alpha" },
		  PLACE_CANCEL,
		  NULL,
		  PLACEMENT_MIGRATE,
		  "alpha",
		  "beta" },
		{ { MIGRATED, .holder = "beta" },
		  PLACE_CANCEL,
		  .refusal = "VM 'web01' is not being moved" },
		{ { MIGRATED }, PLACE_CANCEL, .refusal = "VM 'web01' is not being moved" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_order(&cases[i], i);
}

static void what_runs_there_already_and_fetches_its_memory_cannot_be_called_back(void **state)
{
	const struct world world = { MIGRATED, .holder = "beta" };
	struct placement_order order = { .verb = PLACE_CANCEL, .since = "", .by = "" };
	struct placement next = { 0 };
	struct error err = { 0 };
	struct bench bench;

	(void)facts_of(&bench, &world);
	name(bench.owner.feeder, "alpha");
	assert_true(placement_ordered(&bench.facts, &order, &next, &err) < 0);
	assert_non_null(strstr(err.text, "fetches the rest of its memory from node 'alpha'"));
}

static void an_order_says_more_than_the_definition_about_the_way(void **state)
{
	const struct world world = { MIGRATED };
	struct placement_terms terms;
	struct bench bench;

	(void)facts_of(&bench, &world);
	bench.definition.migration_method = MIGRATE_SHUTDOWN;
	bench.definition.migration_max_downtime = 700000;
	bench.definition.migration_bandwidth = 1 << 20;
	placement_terms(&bench.facts, &terms);
	assert_true(terms.shutdown);
	assert_int_equal(terms.max_downtime_ms, 700);
	assert_int_equal(terms.bandwidth, 1 << 20);
	assert_int_equal(terms.number, 4);
	bench.placement.method = PLACEMENT_LIVE;
	bench.placement.max_downtime_ms = 100;
	bench.placement.bandwidth = 5;
	placement_terms(&bench.facts, &terms);
	assert_false(terms.postcopy);
	bench.placement.postcopy = true;
	placement_terms(&bench.facts, &terms);
	assert_true(terms.postcopy);
	assert_false(terms.shutdown);
	assert_int_equal(terms.max_downtime_ms, 100);
	assert_int_equal(terms.bandwidth, 5);
	/* The way home is by that order too, until the definition changes. */
	bench.placement.kind = PLACEMENT_NONE;
	placement_terms(&bench.facts, &terms);
	assert_false(terms.shutdown);
	bench.facts.generation++;
	placement_terms(&bench.facts, &terms);
	assert_true(terms.shutdown);
	assert_int_equal(terms.max_downtime_ms, 700);
}

static void a_vm_that_is_only_to_be_moved_live_is_not_shut_down(void **state)
{
	const struct world world = { .holder = "alpha" };
	struct placement_order order = {
		.to = "beta", .method = PLACEMENT_SHUTDOWN, .since = "", .by = ""
	};
	struct placement next;
	struct error err = { 0 };
	struct bench bench;

	(void)facts_of(&bench, &world);
	bench.definition.migration_method = MIGRATE_LIVE;
	assert_int_equal(placement_ordered(&bench.facts, &order, &next, &err), -EPERM);
	assert_string_equal(err.text, "the definition of VM 'web01' says 'migration_method: live': "
				      "it is not shut down to be moved");
	order.method = PLACEMENT_AUTO;
	assert_int_equal(placement_ordered(&bench.facts, &order, &next, &err), 0);
	bench.definition.migration_method = MIGRATE_DEFAULT;
	order.method = PLACEMENT_SHUTDOWN;
	assert_int_equal(placement_ordered(&bench.facts, &order, &next, &err), 0);
}

static void an_order_is_done_when_the_vm_runs_where_it_belongs(void **state)
{
	static const struct {
		struct world world;
		bool moving;
		uint64_t number;
		enum vm_wish wish;
		enum vm_state state;
		int wanted;
	} cases[] = {
		{ { MIGRATED, .holder = "alpha" }, false, 4, WISH_ELSEWHERE, VM_RUNNING, 0 },
		{ { MIGRATED, .holder = "alpha" }, true, 4, WISH_ELSEWHERE, VM_RUNNING, 0 },
		{ { MIGRATED, .holder = "beta" }, false, 4, WISH_ELSEWHERE, VM_RUNNING, 1 },
		{ { MIGRATED, .holder = "beta" }, true, 4, WISH_RUN, VM_RUNNING, 0 },
		{ { MIGRATED, .holder = "beta" }, false, 4, WISH_RUN, VM_STARTING, 0 },
		{ { MIGRATED, .holder = "beta" }, false, 4, WISH_RUN, VM_UNKNOWN, 0 },
		{ { MIGRATED, .holder = "beta" }, false, 4, WISH_RUN, VM_PANICKED, 1 },
		{ { MIGRATED, .holder = "beta" }, false, 4, WISH_RUN, VM_FAILED, -ECANCELED },
		{ { MIGRATED, .holder = "beta" }, false, 3, WISH_RUN, VM_RUNNING, -ECANCELED },
		{ { MIGRATED }, false, 4, WISH_RUN, VM_OFF, 0 },
		/* Off or at rest: the placement alone is what was ordered. */
		{ { MIGRATED }, false, 4, WISH_STOP, VM_OFF, 1 },
		{ { MIGRATED, .holder = "alpha" }, false, 4, WISH_PAUSE, VM_PAUSED, 1 },
		{ { MIGRATED }, false, 4, WISH_HANDS_OFF, VM_OFF, 1 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error err = { 0 };
		struct bench bench;
		int r;

		(void)facts_of(&bench, &cases[i].world);
		if (cases[i].moving)
			bench.owner.phase = OWNER_MOVING;
		r = placement_arrived(&bench.facts, cases[i].number, cases[i].wish, cases[i].state,
				      "because", &err);
		if (r != cases[i].wanted)
			fail_msg("case %zu: %d, not %d: %s", i, r, cases[i].wanted, err.text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_newest_word_says_where_a_vm_should_be),
		cmocka_unit_test(an_order_leaves_its_record_or_is_refused),
		cmocka_unit_test(
			what_runs_there_already_and_fetches_its_memory_cannot_be_called_back),
		cmocka_unit_test(an_order_says_more_than_the_definition_about_the_way),
		cmocka_unit_test(an_order_is_done_when_the_vm_runs_where_it_belongs),
		cmocka_unit_test(a_vm_that_is_only_to_be_moved_live_is_not_shut_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
