/* SPDX-License-Identifier: Apache-2.0 */
/* explore [--mode pre|post] [--faults N] [--offers N] [--nodes N] [--policy stop|pause|keep]
 *         [--disks] [--stale] [--users] [--life] [--restored]
 *         [--limit STATES]
 *
 * Every interleaving of one VM's life with at most so many faults, in the production core. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/explorer.h"

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "mode", required_argument, NULL, 'm' },
		{ "faults", required_argument, NULL, 'f' },
		{ "offers", required_argument, NULL, 'o' },
		{ "nodes", required_argument, NULL, 'n' },
		{ "policy", required_argument, NULL, 'p' },
		{ "limit", required_argument, NULL, 'l' },
		{ "disks", no_argument, NULL, 'd' },
		{ "stale", no_argument, NULL, 's' },
		{ "users", no_argument, NULL, 'u' },
		{ "life", no_argument, NULL, 'L' },
		{ "restored", no_argument, NULL, 'r' },
		{ 0 },
	};
	struct rules rules = {
		.nodes = 2, .vms = 1, .policy = LEASE_STOP, .faults = 1, .offers = 1
	};
	size_t limit = 40 * 1000 * 1000;
	struct explored explored;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'm':
			rules.post = strcmp(optarg, "post") == 0;
			break;
		case 'f':
			rules.faults = atoi(optarg);
			break;
		case 'o':
			rules.offers = atoi(optarg);
			break;
		case 'n':
			rules.nodes = atoi(optarg) > 2 ? 3 : 2;
			break;
		case 'p':
			rules.policy = lease_policy_of(optarg);
			break;
		case 'l':
			limit = strtoul(optarg, NULL, 10);
			break;
		case 'd':
			rules.disks = true;
			break;
		case 's':
			rules.stale = true;
			break;
		case 'u':
			rules.users = true;
			break;
		case 'L':
			rules.life = rules.users = true;
			break;
		case 'r':
			rules.restored = true;
			break;
		default:
			return 64;
		}
	}
	explorer_run(&rules, limit, &explored);
	printf("mode %s, faults %d, offers %d, nodes %d, policy %s%s%s%s%s%s: %s; %zu states, %zu "
	       "transitions\n",
	       rules.post ? "post" : "pre", rules.faults, rules.offers, rules.nodes,
	       lease_policy_name(rules.policy), rules.disks ? ", local disks" : "",
	       rules.stale ? ", late news" : "", rules.users ? ", users" : "",
	       rules.life ? ", guests that end" : "", rules.restored ? ", backups" : "",
	       explored.violation   ? explored.violation
	       : explored.cut_short ? "cut short"
				    : "ok",
	       explored.states, explored.transitions);
	explored_print(&rules, &explored);
	explored_done(&explored);
	return explored.violation || explored.cut_short;
}
