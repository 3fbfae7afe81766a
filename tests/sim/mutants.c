/* SPDX-License-Identifier: Apache-2.0 */
/* Each wrong rule of the ownership protocol's section 13 must be caught: by the explorer, which is
 * complete and small, or by histories.  The core is compiled with its wrong rules in here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mutant.h"
#include "sim/explorer.h"
#include "sim/history.h"
#include "util/cleanup.h"
#include "util/mem.h"

#define STATES (1500 * 1000)
#define HISTORIES 20000

enum mutant mutant_now;

/* The world in which it is looked for: the smallest where it shows. */
struct setting {
	bool post, disks, stale, users;
	bool histories; /* not the explorer: it would not find it, or has no time */
	bool time, restored;
	int faults, offers;
	enum lease_policy policy;
};
#define PRE .in = { .faults = 1, .offers = 1, .policy = LEASE_STOP }
#define POST .in = { .post = true, .faults = 1, .offers = 1, .policy = LEASE_STOP }
#define PRE_2 .in = { .faults = 2, .offers = 1, .policy = LEASE_STOP }
#define USERS .in = { .users = true, .faults = 2, .offers = 1, .policy = LEASE_STOP }
#define RESTORED .in = { .restored = true, .faults = 1, .offers = 1, .policy = LEASE_STOP }
#define LATE .in = { .stale = true, .faults = 1, .offers = 1, .policy = LEASE_STOP }
#define TIME .in = { .histories = true, .time = true }
#define HISTORY .in = { .histories = true }
#define POST_LATE .in = { .post = true, .stale = true, .offers = 1, .policy = LEASE_STOP }

static const struct wrong_rule {
	const char *name;
	enum mutant mutant;
	enum wrong wrong;
	struct setting in;
	bool second_line; /* versions, R1, R2 and proofs cover it here: only looked at when named */
} rules_of[] = {
	{ "take-without-stopped", MUTANT_TAKE_WITHOUT_STOPPED, RIGHT, PRE },
	{ "stopped-before-complete", MUTANT_STOPPED_BEFORE_COMPLETE, RIGHT, PRE },
	{ "cont-without-takeback", MUTANT_CONT_WITHOUT_TAKEBACK, RIGHT, PRE },
	{ "cont-after-lease", MUTANT_CONT_AFTER_LEASE, RIGHT, PRE },
	{ "read-is-enough", MUTANT_READ_IS_ENOUGH, RIGHT, USERS },
	{ "no-takeback", MUTANT_NO_TAKEBACK, RIGHT, PRE },
	{ "receiver-reused", MUTANT_RECEIVER_REUSED, RIGHT, HISTORY },
	{ "second-receiver", MUTANT_SECOND_RECEIVER, RIGHT, HISTORY },
	{ "start-while-moving", MUTANT_START_WHILE_MOVING, RIGHT, HISTORY },
	{ "kill-feeder", MUTANT_KILL_FEEDER, RIGHT, POST },
	{ "cold-before-loss-proof", MUTANT_COLD_BEFORE_LOSS_PROOF, RIGHT, POST },
	{ "destroy-while-unanswered", MUTANT_DESTROY_WHILE_UNANSWERED, RIGHT, PRE },
	{ "give-with-a-copy", MUTANT_GIVE_WITH_A_COPY, RIGHT, POST },
	{ "home-stays", MUTANT_HOME_STAYS, RIGHT,
	  .in = { .disks = true, .faults = 1, .offers = 1, .policy = LEASE_STOP } },
	{ "stop-without-back", MUTANT_STOP_WITHOUT_BACK, RIGHT, USERS },
	{ "loaded-too-early", MUTANT_LOADED_TOO_EARLY, RIGHT, POST_LATE },
	{ "give-up-in-postcopy", MUTANT_GIVE_UP_IN_POSTCOPY, RIGHT, POST_LATE },
	{ "unknown-is-no", MUTANT_NONE, WRONG_UNKNOWN_IS_NO, PRE },
	{ "conflict-is-no", MUTANT_NONE, WRONG_CONFLICT_IS_NO, PRE },
	{ "run-on-unknown", MUTANT_NONE, WRONG_RUN_ON_UNKNOWN, PRE },
	{ "take-unversioned", MUTANT_NONE, WRONG_TAKE_UNVERSIONED, PRE },
	{ "expire-before-lease", MUTANT_NONE, WRONG_EXPIRE_BEFORE_LEASE, PRE },
	{ "no-proof", MUTANT_NONE, WRONG_NO_PROOF, PRE_2 },
	{ "lease-only-proof", MUTANT_NONE, WRONG_LEASE_ONLY_PROOF, PRE_2 },
	{ "rejoin-keeps-copies", MUTANT_NONE, WRONG_REJOIN_KEEPS_COPIES, PRE_2 },
	{ "recover-unversioned", MUTANT_NONE, WRONG_RECOVER_UNVERSIONED, PRE },
	{ "early-block-activate", MUTANT_NONE, WRONG_EARLY_BLOCK_ACTIVATE, PRE },
	{ "lease-spares-device-phase", MUTANT_NONE, WRONG_LEASE_SPARES_DEVICE_PHASE, PRE },
	{ "postcopy-no-stop", MUTANT_NONE, WRONG_POSTCOPY_NO_STOP, POST },
	{ "blocklist-with-keep", MUTANT_NONE, WRONG_BLOCKLIST_KEEP,
	  .in = { .faults = 1, .offers = 1, .policy = LEASE_KEEP } },
	{ "lease-kills-full-copies", MUTANT_NONE, WRONG_LEASE_KILLS_FULL_COPIES, PRE },
	{ "permission-kept-when-completed", MUTANT_NONE, WRONG_PERMISSION_KEPT, PRE,
	  .second_line = true },
	{ "news-keep-the-permission", MUTANT_NONE, WRONG_TOLD_KEEPS_PERMISSION, PRE,
	  .second_line = true },
	{ "permission-never-void", MUTANT_NONE, WRONG_PERMISSION_NEVER_VOID, PRE,
	  .second_line = true },
	{ "receiver-replaced", MUTANT_RECEIVER_REPLACED, RIGHT,
	  .in = { .post = true, .stale = true, .faults = 1, .offers = 2, .policy = LEASE_STOP } },
	{ "no-life-check", MUTANT_NONE, WRONG_NO_LIFE_CHECK, PRE },
	{ "no-new-life", MUTANT_NONE, WRONG_NO_NEW_LIFE, PRE },
	{ "rejoin-during-fence", MUTANT_NONE, WRONG_REJOIN_DURING_FENCE, PRE },
	{ "session-key-as-guard", MUTANT_NONE, WRONG_SESSION_KEY, PRE },
	{ "power-off-late", MUTANT_NONE, WRONG_POWER_OFF_LATE, PRE },
	{ "policy-of-the-definition", MUTANT_NONE, WRONG_POLICY_OF_DEFINITION,
	  .in = { .users = true, .faults = 2, .offers = 1, .policy = LEASE_KEEP } },
	{ "blocklist-ends", MUTANT_NONE, WRONG_BLOCKLIST_ENDS,
	  .in = { .faults = 2, .offers = 0, .policy = LEASE_STOP } },
	{ "recover-holds", MUTANT_NONE, WRONG_RECOVER_HELD, PRE },
	{ "not-there-yet-is-no", MUTANT_NONE, WRONG_NOT_THERE_YET, PRE },
	{ "stale-read", MUTANT_NONE, WRONG_STALE_READ, LATE },
	{ "lease-from-the-answer", MUTANT_NONE, WRONG_LEASE_FROM_ANSWER, TIME },
	{ "lease-of-two-ttl", MUTANT_NONE, WRONG_LEASE_OF_TWO_TTL, TIME },
	{ "wall-clock", MUTANT_NONE, WRONG_WALL_CLOCK, TIME },
	{ "clock-monotonic", MUTANT_NONE, WRONG_CLOCK_MONOTONIC, TIME },
	{ "store-forgets", MUTANT_NONE, WRONG_STORE_FORGETS, LATE },
	{ "claims-wear-off", MUTANT_CLAIMS_WEAR_OFF, RIGHT, RESTORED },
	{ "claim-seen-late", MUTANT_NONE, WRONG_CLAIM_SEEN_LATE, RESTORED },
	{ "written-under-a-claim", MUTANT_NONE, WRONG_WRITTEN_UNDER_CLAIM,
	  .in = { .histories = true,
		  .restored = true,
		  .users = true,
		  .faults = 2,
		  .offers = 1,
		  .policy = LEASE_KEEP } },
	{ "any-epoch", MUTANT_NONE, WRONG_ANY_EPOCH,
	  .in = { .faults = 1, .offers = 2, .policy = LEASE_STOP } },
};

static struct rules setting_of(const struct wrong_rule *rule)
{
	return (struct rules){ .nodes = 2,
			       .vms = 1,
			       .post = rule->in.post,
			       .disks = rule->in.disks,
			       .stale = rule->in.stale,
			       .users = rule->in.users,
			       .restored = rule->in.restored,
			       .policy = rule->in.policy,
			       .faults = rule->in.faults,
			       .offers = rule->in.offers,
			       .wrong = rule->wrong };
}

static bool explored(const struct wrong_rule *rule, bool tell)
{
	struct rules rules = setting_of(rule);
	struct explored found;
	bool caught;

	explorer_run(&rules, STATES, &found);
	caught = found.violation != NULL;
	if (caught)
		printf("%-32s %s (explorer, %zu states, %zu moves)\n", rule->name, found.violation,
		       found.states, found.n_path);
	else
		printf("%-32s not by the explorer: %zu states%s\n", rule->name, found.states,
		       found.cut_short ? ", cut short" : "");
	if (tell)
		explored_print(&rules, &found);
	explored_done(&found);
	return caught;
}

static bool simulated(const struct wrong_rule *rule, bool tell)
{
	struct history *history = xcalloc(1, sizeof(*history));
	bool caught = false;

	for (uint64_t seed = 1; seed <= HISTORIES && !caught; seed++) {
		struct rules rules;

		history_rules(seed, &rules);
		rules.wrong = rule->wrong;
		rules.time |= rule->in.time;
		rules.restored |= rule->in.restored;
		rules.disks &= !rules.restored;
		history_run(seed, &rules, history);
		caught = history->violation != NULL;
		if (caught) {
			if (tell)
				history_shrink(history);
			printf("%-32s %s (seed %llu, %zu moves)\n", rule->name, history->violation,
			       (unsigned long long)seed, history->n);
			if (tell)
				history_print(history);
		}
	}
	free(history);
	return caught;
}

/* mutants [NAME...]: all, or these with the shortest history that shows it. */
int main(int argc, char **argv)
{
	int missed = 0, looked = 0;

	for (size_t i = 0; i < ARRAY_SIZE(rules_of); i++) {
		const struct wrong_rule *rule = &rules_of[i];
		bool wanted = argc < 2 && !rule->second_line;

		for (int j = 1; j < argc; j++)
			wanted |= strcmp(argv[j], rule->name) == 0;
		if (!wanted)
			continue;
		looked++;
		mutant_now = rule->mutant;
		if ((rule->in.histories || !explored(rule, argc > 1)) &&
		    !simulated(rule, argc > 1)) {
			printf("%-32s NOT CAUGHT\n", rule->name);
			missed++;
		}
		(void)fflush(stdout);
	}
	printf("%d wrong rules, %d not caught\n", looked, missed);
	return missed > 0;
}
