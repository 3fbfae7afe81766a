/* SPDX-License-Identifier: Apache-2.0 */
/* The lease of a node: its numbers as the protocol's table 7.1 has them, its rules (R2, 7.2) case
 * by case, and the page in which it is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/lease.h"
#include "util/cleanup.h"
#include "util/file.h"

#define S USEC_PER_SEC
#define MS USEC_PER_MSEC
#define STOP (500 * MS) /* the default */
#define BOOT "0123456789abcdef0123456789abcdef"

/* ---- numbers ---- */

static void the_length_is_that_of_the_protocols_table(void **state)
{
	static const struct {
		uint64_t earliest, length;
	} cases[] = {
		{ 5 * S, 3950 * MS },  /* ZooKeeper, 6 s less a tick of 1 s */
		{ 10 * S, 8900 * MS }, /* Consul, TTL of 10 s */
		{ 6 * S, 4940 * MS },  /* embedded */
		{ 60 * S, 58400 * MS }, { 2 * S, 980 * MS },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(lease_length(cases[i].earliest, STOP), cases[i].length);
}

static void a_session_that_is_too_short_gives_no_lease(void **state)
{
	assert_int_equal(lease_length(0, STOP), 0);
	assert_int_equal(lease_length(1, STOP), 0);
	assert_int_equal(lease_length(1 * S, STOP), 0);
	assert_int_equal(lease_length(1010101, STOP), 0);
	assert_true(lease_length(1010103, STOP) > 0);
	/* Nor does one that is too short for the time that stopping takes. */
	assert_int_equal(lease_length(6 * S, 6 * S), 0);
	assert_int_equal(lease_length(6 * S, UINT64_MAX), 0);
	assert_int_equal(lease_length(6 * S, 5440 * MS), 0);
	assert_int_equal(lease_length(6 * S, 5439 * MS), 1 * MS);
	assert_int_equal(lease_length(UINT64_MAX, STOP), UINT64_MAX - UINT64_MAX / 100 - 1 * S);
}

/* Stopped by the end of the lease, the time that this takes and the time that we are late: before
 * anybody can see the session end, also by a clock that is 1 % faster. */
static void no_vcpu_runs_when_the_session_may_end(void **state)
{
	for (uint64_t earliest = 2 * S; earliest < 60 * S; earliest += 777 * MS) {
		uint64_t stopped = lease_length(earliest, STOP) + STOP + LEASE_SCHED_USEC;

		assert_true(stopped <= earliest);
		assert_true(stopped + stopped / 101 <= earliest + 1);
	}
}

static void it_is_renewed_six_times_in_its_length(void **state)
{
	assert_int_equal(lease_interval(4940 * MS), 823333);
	assert_int_equal(lease_interval(6 * S), 1 * S);
	assert_int_equal(lease_interval(1), 1 * MS); /* not in a loop without end */
	assert_int_equal(lease_interval(0), 1 * MS);
}

/* ---- renewals ---- */

struct renewal_case {
	const char *what;
	struct lease before;
	uint64_t sent, length, now;
	bool new_session;
	struct lease after;
};

static const struct renewal_case renewals[] = {
	{ "the first one", { 0, 0 }, 100, 50, 110, true, { 100, 150 } },
	{ "it counts from the request, not from the answer",
	  { 100, 150 },
	  120,
	  50,
	  149,
	  false,
	  { 100, 170 } },
	{ "an answer that comes when the lease was over begins a new stretch",
	  { 100, 150 },
	  140,
	  50,
	  150,
	  false,
	  { 140, 190 } },
	{ "an interruption", { 100, 150 }, 900, 50, 910, false, { 900, 950 } },
	{ "another session in time", { 100, 150 }, 120, 50, 130, true, { 120, 170 } },
	{ "an answer that comes too late for its own lease gives none",
	  { 100, 150 },
	  140,
	  50,
	  190,
	  false,
	  { 100, 150 } },
	{ "nor does it in a new session", { 100, 150 }, 140, 50, 500, true, { 100, 150 } },
	{ "a shorter lease takes back nothing", { 100, 150 }, 110, 10, 115, false, { 100, 150 } },
	{ "a renewal without a length", { 100, 150 }, 120, 0, 130, false, { 100, 150 } },
	{ "a clock that went back between request and answer",
	  { 100, 150 },
	  140,
	  50,
	  139,
	  false,
	  { 100, 150 } },
	{ "a length without end", { 100, 150 }, 120, UINT64_MAX, 130, false, { 100, UINT64_MAX } },
};

static void each_renewal_gives_what_is_written(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(renewals); i++) {
		const struct renewal_case *c = &renewals[i];
		struct lease after =
			lease_extend(&c->before, c->sent, c->length, c->now, c->new_session);

		if (after.since != c->after.since || after.end != c->after.end)
			fail_msg("%s: since %ju, end %ju", c->what, (uintmax_t)after.since,
				 (uintmax_t)after.end);
	}
}

/* ---- permissions ---- */

struct use_case {
	const char *what;
	struct lease lease;
	uint64_t won, left, now;
	enum lease_use use;
};

static const struct use_case uses[] = {
	{ "valid", { 100, 200 }, 150, 0, 160, LEASE_USABLE },
	{ "won in the moment of its begin", { 100, 200 }, 100, 0, 160, LEASE_USABLE },
	{ "its last moment", { 100, 200 }, 150, 0, 199, LEASE_USABLE },
	{ "its end", { 100, 200 }, 150, 0, 200, LEASE_OVER },
	{ "after its end", { 100, 200 }, 150, 0, 5000, LEASE_OVER },
	{ "won before an interruption", { 100, 200 }, 99, 0, 160, LEASE_LAPSED },
	{ "won long before, and over again", { 100, 200 }, 1, 0, 200, LEASE_OVER },
	{ "just enough is left", { 100, 200 }, 150, 40, 160, LEASE_USABLE },
	{ "too little is left", { 100, 200 }, 150, 41, 160, LEASE_OVER },
	{ "more than there ever was is asked for", { 100, 200 }, 150, UINT64_MAX, 160, LEASE_OVER },
	{ "nothing won yet: only whether one could be", { 100, 200 }, 0, 0, 160, LEASE_USABLE },
	{ "a clock that stands before the begin", { 100, 200 }, 150, 0, 50, LEASE_USABLE },
	{ "a lease without end", { 100, UINT64_MAX }, 150, 0, UINT64_MAX - 1, LEASE_USABLE },
};

static void a_permission_lasts_as_long_as_the_lease_that_it_was_won_under(void **state)
{
	for (int policy = LEASE_KEEP; policy <= LEASE_STOP; policy++)
		for (size_t i = 0; i < ARRAY_SIZE(uses); i++) {
			const struct use_case *c = &uses[i];

			if (lease_use((enum lease_policy)policy, &c->lease, c->won, c->left,
				      c->now) != c->use)
				fail_msg("%s, policy %d", c->what, policy);
		}
}

static void without_any_lease_only_the_policy_keep_lets_run(void **state)
{
	const struct lease none = { 0 };

	assert_int_equal(lease_use(LEASE_KEEP, &none, 5, 0, 10), LEASE_USABLE);
	assert_int_equal(lease_use(LEASE_PAUSE, &none, 5, 0, 10), LEASE_OVER);
	assert_int_equal(lease_use(LEASE_STOP, &none, 5, 0, 10), LEASE_OVER);
}

/* ---- the end ---- */

static void a_policy_has_one_name(void **state)
{
	assert_int_equal(lease_policy_of("keep"), LEASE_KEEP);
	assert_int_equal(lease_policy_of("pause"), LEASE_PAUSE);
	assert_int_equal(lease_policy_of("stop"), LEASE_STOP);
	assert_int_equal(lease_policy_of(NULL), LEASE_KEEP);
	assert_int_equal(lease_policy_of(""), LEASE_KEEP);
	for (int policy = LEASE_KEEP; policy <= LEASE_STOP; policy++)
		assert_int_equal(lease_policy_of(lease_policy_name((enum lease_policy)policy)),
				 policy);
}

/* QMP `stop` does not hold a copy in the device phase of a migration, so that one is killed. */
static void the_end_touches_what_runs_or_could_run_by_itself_and_nothing_else(void **state)
{
	static const enum lease_act acts[3][3] = {
		/* by copy:	   stopped	   runs		    could run by itself */
		[LEASE_KEEP] = { LEASE_ACT_NONE, LEASE_ACT_NONE, LEASE_ACT_NONE },
		[LEASE_PAUSE] = { LEASE_ACT_NONE, LEASE_ACT_PAUSE, LEASE_ACT_KILL },
		[LEASE_STOP] = { LEASE_ACT_NONE, LEASE_ACT_KILL, LEASE_ACT_KILL },
	};

	for (int policy = 0; policy < 3; policy++)
		for (int copy = 0; copy < 3; copy++)
			assert_int_equal(
				lease_act((enum lease_policy)policy, (enum lease_copy)copy),
				acts[policy][copy]);
}

static void what_a_copy_is_follows_from_the_run_state(void **state)
{
	static const char *const stopped[] = { "debug",		 "guest-panicked", "inmigrate",
					       "internal-error", "io-error",	   "paused",
					       "postmigrate",	 "prelaunch",	   "shutdown",
					       "watchdog" };
	static const char *const itself[] = { "finish-migrate", "restore-vm", "save-vm",
					      "suspended" };

	for (size_t i = 0; i < ARRAY_SIZE(stopped); i++)
		assert_int_equal(lease_copy_of(stopped[i], true, false), LEASE_COPY_STOPPED);
	for (size_t i = 0; i < ARRAY_SIZE(itself); i++)
		assert_int_equal(lease_copy_of(itself[i], true, false), LEASE_COPY_ITSELF);
	assert_int_equal(lease_copy_of("running", true, false), LEASE_COPY_RUNS);
	assert_int_equal(lease_copy_of("of-a-later-qemu", true, false), LEASE_COPY_RUNS);
	/* A feeder of a postcopy stays "finish-migrate" as long as it feeds. */
	assert_int_equal(lease_copy_of("finish-migrate", true, true), LEASE_COPY_STOPPED);
	assert_int_equal(lease_copy_of("postmigrate", true, true), LEASE_COPY_STOPPED);
	assert_int_equal(lease_copy_of(NULL, true, true), LEASE_COPY_STOPPED);
	assert_int_equal(lease_copy_of("running", true, true), LEASE_COPY_RUNS);
	/* Not heard from: what was let run runs. */
	assert_int_equal(lease_copy_of(NULL, true, false), LEASE_COPY_RUNS);
	assert_int_equal(lease_copy_of(NULL, false, false), LEASE_COPY_STOPPED);
}

/* ---- the page ---- */

struct place {
	char path[64];
	int fd;
};

static struct place place_make(void)
{
	struct place place = { .path = "/tmp/drover-lease-XXXXXX" };

	assert_non_null(mkdtemp(place.path));
	place.fd = open(place.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(place.fd >= 0);
	return place;
}

static void place_done(struct place *place)
{
	(void)close(place->fd);
	(void)file_remove_tree(AT_FDCWD, place->path, NULL);
}
#define PLACE CLEANUP(place_done) struct place

static struct lease_page *page_open(const struct place *place, const char *boot)
{
	struct lease_page *page = NULL;

	assert_return_code(lease_page_open(place->fd, boot, &page, NULL), 0);
	return page;
}

static void assert_read(const struct place *place, uint64_t since, uint64_t end)
{
	struct lease lease;

	assert_return_code(lease_page_read(place->path, BOOT, &lease, NULL), 0);
	assert_int_equal(lease.since, since);
	assert_int_equal(lease.end, end);
}

static void what_the_agent_says_every_keeper_reads(void **state)
{
	PLACE place = place_make();
	struct lease_page *page = page_open(&place, BOOT);
	struct stat st;

	assert_read(&place, 0, 0);
	lease_page_set(page, (struct lease){ 7, 42 });
	assert_read(&place, 7, 42);
	lease_page_close(page);
	assert_return_code(fstatat(place.fd, "lease", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void the_next_agent_goes_on_with_the_page(void **state)
{
	PLACE place = place_make();
	struct lease_page *page = page_open(&place, BOOT), *next;

	lease_page_set(page, (struct lease){ 7, 42 });
	lease_page_close(page); /* the agent is dead, what it said stands */
	assert_read(&place, 7, 42);
	next = page_open(&place, BOOT);
	assert_int_equal(lease_page_get(next).end, 42);
	lease_page_set(next, (struct lease){ 7, 50 });
	assert_read(&place, 7, 50);
	lease_page_close(next);
}

static void the_page_of_another_boot_says_nothing(void **state)
{
	PLACE place = place_make();
	struct lease_page *page = page_open(&place, "an earlier boot");
	struct lease lease = { 1, 1 };

	lease_page_set(page, (struct lease){ 7, 42 });
	lease_page_close(page);
	assert_int_equal(lease_page_read(place.path, BOOT, &lease, NULL), -ENOENT);
	assert_int_equal(lease.end, 0);
	page = page_open(&place, BOOT);
	assert_int_equal(lease_page_get(page).end, 0);
	assert_read(&place, 0, 0);
	lease_page_close(page);
}

static void a_file_that_is_no_page_is_replaced(void **state)
{
	static const char *const contents[] = { "", "drover-lease-1\n", "something else" };

	for (size_t i = 0; i < ARRAY_SIZE(contents); i++) {
		PLACE place = place_make();
		struct lease_page *page;
		struct lease lease;

		assert_return_code(
			file_write(place.fd, "lease", contents[i], strlen(contents[i]), 0600, NULL),
			0);
		assert_int_equal(lease_page_read(place.path, BOOT, &lease, NULL), -ENOENT);
		page = page_open(&place, BOOT);
		lease_page_set(page, (struct lease){ 7, 42 });
		assert_read(&place, 7, 42);
		lease_page_close(page);
	}
}

static void a_directory_without_a_page_has_none(void **state)
{
	PLACE place = place_make();
	struct lease lease;

	assert_int_equal(lease_page_read(place.path, BOOT, &lease, NULL), -ENOENT);
	assert_int_equal(lease_page_read("/nowhere", BOOT, &lease, NULL), -ENOENT);
}

#define TELLINGS 20000

/* Another process reads all the time: begin and end that it sees were told together, or the end is
 * the older one. */
static int read_all_the_time(const struct place *place)
{
	struct lease lease = { 0 };
	uint64_t last = 0;

	while (lease.end < 3 * TELLINGS) {
		if (lease_page_read(place->path, BOOT, &lease, NULL) < 0 || lease.end < last)
			return 1;
		if (lease.end % 3 != 0 || lease.since < lease.end / 3)
			return 1;
		last = lease.end;
	}
	return 0;
}

static void a_reader_never_sees_a_torn_lease(void **state)
{
	PLACE place = place_make();
	struct lease_page *page = page_open(&place, BOOT);
	int status = -1;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(read_all_the_time(&place));
	for (uint64_t i = 1; i <= TELLINGS; i++)
		lease_page_set(page, (struct lease){ i, 3 * i });
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	lease_page_close(page);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_length_is_that_of_the_protocols_table),
		cmocka_unit_test(a_session_that_is_too_short_gives_no_lease),
		cmocka_unit_test(no_vcpu_runs_when_the_session_may_end),
		cmocka_unit_test(it_is_renewed_six_times_in_its_length),
		cmocka_unit_test(each_renewal_gives_what_is_written),
		cmocka_unit_test(a_permission_lasts_as_long_as_the_lease_that_it_was_won_under),
		cmocka_unit_test(without_any_lease_only_the_policy_keep_lets_run),
		cmocka_unit_test(a_policy_has_one_name),
		cmocka_unit_test(the_end_touches_what_runs_or_could_run_by_itself_and_nothing_else),
		cmocka_unit_test(what_a_copy_is_follows_from_the_run_state),
		cmocka_unit_test(what_the_agent_says_every_keeper_reads),
		cmocka_unit_test(the_next_agent_goes_on_with_the_page),
		cmocka_unit_test(the_page_of_another_boot_says_nothing),
		cmocka_unit_test(a_file_that_is_no_page_is_replaced),
		cmocka_unit_test(a_directory_without_a_page_has_none),
		cmocka_unit_test(a_reader_never_sees_a_torn_lease),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
