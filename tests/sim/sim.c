/* SPDX-License-Identifier: Apache-2.0 */
/* sim [--histories N] [--seed FIRST] [--jobs N]   so many histories; the first that fails is shrunk
 * and told sim --replay SEED [--shrink]                    one, told in full */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sim/history.h"
#include "util/mem.h"

static int replay(uint64_t seed, bool shrink)
{
	struct history *history = xcalloc(1, sizeof(*history));
	struct rules rules;
	bool failed;

	history_rules(seed, &rules);
	history_run(seed, &rules, history);
	if (shrink && history->violation)
		history_shrink(history);
	history_print(history);
	failed = history->violation != NULL;
	free(history);
	return failed;
}

/* Of `jobs` workers this one does each `jobs`th seed. */
static int run(uint64_t seed, uint64_t histories, uint64_t job, uint64_t jobs)
{
	struct history *history = xcalloc(1, sizeof(*history));
	uint64_t moves = 0;
	int failed = 0;

	for (uint64_t i = job; i < histories && !failed; i += jobs) {
		struct rules rules;

		history_rules(seed + i, &rules);
		history_run(seed + i, &rules, history);
		moves += history->n;
		failed = history->violation != NULL;
	}
	if (failed) {
		printf("seed %llu fails: %s; in short:\n", (unsigned long long)history->seed,
		       history->violation);
		(void)fflush(stdout); /* to make it short takes its time */
		history_shrink(history);
		history_print(history);
	} else {
		printf("worker %llu: %llu moves, nothing wrong\n", (unsigned long long)job,
		       (unsigned long long)moves);
	}
	free(history);
	return failed;
}

static int run_all(uint64_t seed, uint64_t histories, uint64_t jobs)
{
	int failed = 0, status;

	(void)fflush(stdout);
	for (uint64_t job = 0; job < jobs; job++) {
		pid_t pid = fork();

		if (pid < 0) {
			perror("fork");
			return 1;
		}
		if (pid == 0)
			exit(run(seed, histories, job, jobs));
	}
	for (uint64_t job = 0; job < jobs; job++)
		failed |= wait(&status) < 0 || status != 0;
	printf("%llu histories from seed %llu: %s\n", (unsigned long long)histories,
	       (unsigned long long)seed, failed ? "FAILED" : "nothing wrong");
	return failed;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "histories", required_argument, NULL, 'n' },
		{ "seed", required_argument, NULL, 's' },
		{ "jobs", required_argument, NULL, 'j' },
		{ "replay", required_argument, NULL, 'r' },
		{ "shrink", no_argument, NULL, 'k' },
		{ 0 },
	};
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t histories = 10000, seed = 1, jobs = cpus > 0 ? (uint64_t)cpus : 1, one = 0;
	bool shrink = false, replaying = false;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'n':
			histories = strtoull(optarg, NULL, 10);
			break;
		case 's':
			seed = strtoull(optarg, NULL, 10);
			break;
		case 'j':
			jobs = strtoull(optarg, NULL, 10);
			break;
		case 'r':
			one = strtoull(optarg, NULL, 10);
			replaying = true;
			break;
		case 'k':
			shrink = true;
			break;
		default:
			return 64;
		}
	}
	return replaying ? replay(one, shrink) : run_all(seed, histories, jobs ? jobs : 1);
}
