/* SPDX-License-Identifier: Apache-2.0 */
#include "core/lease.h"

#include <string.h>

#include "util/cleanup.h"

/* 1 %: the clocks of two hosts do not run equally fast. */
uint64_t lease_length(uint64_t earliest_usec, uint64_t stop_usec)
{
	uint64_t length = earliest_usec - earliest_usec / 100;

	if (length < stop_usec || length - stop_usec < LEASE_SCHED_USEC)
		return 0;
	return length - stop_usec - LEASE_SCHED_USEC;
}

uint64_t lease_interval(uint64_t length)
{
	return length / 6 > USEC_PER_MSEC ? length / 6 : USEC_PER_MSEC;
}

struct lease lease_extend(const struct lease *before, uint64_t sent, uint64_t length, uint64_t now,
			  bool new_session)
{
	uint64_t end = length > UINT64_MAX - sent ? UINT64_MAX : sent + length;
	bool broken = new_session || before->end <= now;
	struct lease after = *before;

	/* Too late, or sent "later" than it was answered: that is no renewal. */
	if (length == 0 || end <= now || sent > now)
		return after;
	if (broken)
		after.since = sent;
	/* What was promised once stands: a lease only grows. */
	if (end > after.end)
		after.end = end;
	return after;
}

static const char *const policies[] = {
	[LEASE_KEEP] = "keep",
	[LEASE_PAUSE] = "pause",
	[LEASE_STOP] = "stop",
};

enum lease_policy lease_policy_of(const char *name)
{
	for (size_t i = 0; name && i < ARRAY_SIZE(policies); i++)
		if (strcmp(policies[i], name) == 0)
			return (enum lease_policy)i;
	return LEASE_KEEP;
}

const char *lease_policy_name(enum lease_policy policy)
{
	return policies[policy];
}

enum lease_use lease_use(enum lease_policy policy, const struct lease *lease, uint64_t won,
			 uint64_t left, uint64_t now)
{
	if (lease->end == 0)
		return policy == LEASE_KEEP ? LEASE_USABLE : LEASE_OVER;
	if (lease->end <= now || lease->end - now < left)
		return LEASE_OVER;
	return won != 0 && won < lease->since ? LEASE_LAPSED : LEASE_USABLE;
}

static const struct {
	const char *run_state;
	enum lease_copy copy;
} copies[] = {
	{ "debug", LEASE_COPY_STOPPED },
	{ "guest-panicked", LEASE_COPY_STOPPED },
	{ "inmigrate", LEASE_COPY_STOPPED }, /* ours are started with -S */
	{ "internal-error", LEASE_COPY_STOPPED },
	{ "io-error", LEASE_COPY_STOPPED },
	{ "paused", LEASE_COPY_STOPPED },
	{ "postmigrate", LEASE_COPY_STOPPED },
	{ "prelaunch", LEASE_COPY_STOPPED },
	{ "shutdown", LEASE_COPY_STOPPED },
	{ "watchdog", LEASE_COPY_STOPPED },
	/* QEMU itself lets these run when its work is done or has failed. */
	{ "finish-migrate", LEASE_COPY_ITSELF },
	{ "restore-vm", LEASE_COPY_ITSELF },
	{ "save-vm", LEASE_COPY_ITSELF },
	/* An alarm clock of the guest's wakes it, also after QMP `stop`. */
	{ "suspended", LEASE_COPY_ITSELF },
};

enum lease_copy lease_copy_of(const char *run_state, bool ran, bool given)
{
	if (given && (!run_state || strcmp(run_state, "running") != 0))
		return LEASE_COPY_STOPPED;
	if (!run_state)
		return ran ? LEASE_COPY_RUNS : LEASE_COPY_STOPPED;
	for (size_t i = 0; i < ARRAY_SIZE(copies); i++)
		if (strcmp(copies[i].run_state, run_state) == 0)
			return copies[i].copy;
	return LEASE_COPY_RUNS; /* "running", and what a later QEMU may invent */
}

enum lease_act lease_act(enum lease_policy policy, enum lease_copy copy)
{
	if (policy == LEASE_KEEP || copy == LEASE_COPY_STOPPED)
		return LEASE_ACT_NONE;
	/* QMP `stop` does not hold what resumes by itself: QEMU remembers that it ran. */
	return policy == LEASE_PAUSE && copy == LEASE_COPY_RUNS ? LEASE_ACT_PAUSE : LEASE_ACT_KILL;
}
