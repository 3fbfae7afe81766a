/* SPDX-License-Identifier: Apache-2.0 */
/* Disks that come and go with a migration. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "storage/storage.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/file.h"
#include "util/mem.h"
#include "wire/json.h"

#define LONG (60 * USEC_PER_SEC)
#define MIB (UINT64_C(1) << 20)

struct bench {
	char dir[64];
	sd_event *loop;
	struct storage *storage;
	bool replied;
	int code;
	struct error error;
};

static int bench_open(void **state)
{
	struct bench *bench = xcalloc(1, sizeof(*bench));

	(void)snprintf(bench->dir, sizeof(bench->dir), "/tmp/drover-test-arrival-XXXXXX");
	assert_non_null(mkdtemp(bench->dir));
	assert_true(sd_event_new(&bench->loop) >= 0);
	assert_int_equal(storage_open(bench->dir, bench->loop, &bench->storage, NULL), 0);
	*state = bench;
	return 0;
}

static int bench_close(void **state)
{
	struct bench *bench = *state;

	storage_close(bench->storage);
	sd_event_unref(bench->loop);
	(void)file_remove_tree(AT_FDCWD, bench->dir, NULL);
	free(bench);
	return 0;
}

static void on_prepared(void *ctx, int r, struct volume_open *open, const char *note,
			const struct error *err)
{
	struct bench *bench = ctx;

	bench->replied = true;
	bench->code = r;
	bench->error = err ? *err : (struct error){ 0 };
	if (r < 0)
		return;
	/* So that the files can be told apart. */
	assert_int_equal(pwrite(open->layers[0].fd, bench->dir, 1, 0), 1);
	volume_open_done(open);
}

static int prepare(struct bench *bench, enum volume_use use, uint64_t epoch)
{
	const struct volume_want want = { .use = use, .vm = "web", .name = "root", .size = MIB };
	uint64_t end = clock_now() + LONG;
	struct volume_job *job;
	int r;

	bench->replied = false;
	r = volume_prepare(bench->storage, &want, epoch, "alpha", LONG, on_prepared, bench, &job,
			   &bench->error);
	while (r == 0 && !bench->replied) {
		assert_true(clock_now() < end);
		assert_true(sd_event_run(bench->loop, LONG) >= 0);
	}
	return r < 0 ? r : bench->code;
}

static bool there(struct bench *bench, const char *file)
{
	CLEANUP_FREE char *path = xasprintf("%s/web/%s", bench->dir, file);

	return access(path, F_OK) == 0;
}

static size_t listed(struct bench *bench)
{
	struct volume_info *infos = NULL;
	size_t count = 0;

	assert_int_equal(volume_list(bench->storage, &infos, &count, NULL), 0);
	for (size_t i = 0; i < count; i++)
		volume_info_done(&infos[i]);
	free(infos);
	return count;
}

static void what_arrives_is_no_volume_before_it_is_owned(void **state)
{
	struct bench *bench = *state;

	assert_int_equal(prepare(bench, VOLUME_ARRIVING, 7), 0);
	assert_true(there(bench, ".root.7.arriving.raw"));
	assert_false(there(bench, "root.claim"));
	assert_int_equal(listed(bench), 0);
	assert_int_equal(volume_arrived(bench->storage, "web", "root", 7, NULL), 0);
	assert_true(there(bench, "root.raw"));
	assert_false(there(bench, ".root.7.arriving.raw"));
	assert_int_equal(listed(bench), 1);
	/* Whoever comes next repeats it. */
	assert_int_equal(volume_arrived(bench->storage, "web", "root", 7, NULL), 0);
	assert_true(there(bench, "root.raw"));
	assert_false(there(bench, ".root.7.gone.raw"));
}

static void what_had_the_name_before_is_put_aside_and_only_the_newest_kept(void **state)
{
	struct bench *bench = *state;

	assert_int_equal(prepare(bench, VOLUME_USE, 1), 0);
	assert_int_equal(volume_leave(bench->storage, "web", "root", 3, NULL), 0);
	assert_false(there(bench, "root.raw"));
	assert_true(there(bench, ".root.3.gone.raw"));
	assert_int_equal(prepare(bench, VOLUME_USE, 4), 0);
	assert_int_equal(prepare(bench, VOLUME_ARRIVING, 9), 0);
	assert_int_equal(volume_arrived(bench->storage, "web", "root", 9, NULL), 0);
	assert_true(there(bench, "root.raw"));
	assert_true(there(bench, ".root.9.gone.raw"));
	assert_false(there(bench, ".root.3.gone.raw"));
}

static void moves_that_came_to_nothing_leave_nothing(void **state)
{
	struct bench *bench = *state;

	assert_int_equal(prepare(bench, VOLUME_USE, 1), 0);
	assert_int_equal(prepare(bench, VOLUME_ARRIVING, 5), 0);
	assert_int_equal(prepare(bench, VOLUME_ARRIVING, 6), 0);
	assert_int_equal(volume_forget_arrivals(bench->storage, "web", 6, NULL), 0);
	assert_false(there(bench, ".root.5.arriving.raw"));
	assert_true(there(bench, ".root.6.arriving.raw"));
	assert_int_equal(volume_forget_arrivals(bench->storage, "web", 0, NULL), 0);
	assert_false(there(bench, ".root.6.arriving.raw"));
	assert_true(there(bench, "root.raw"));
	assert_int_equal(volume_forget_arrivals(bench->storage, "other", 0, NULL), 0);
}

static void what_is_arriving_is_found_by_its_epoch(void **state)
{
	struct bench *bench = *state;
	json_auto_t *names = json_array();

	assert_int_equal(prepare(bench, VOLUME_USE, 1), 0);
	assert_int_equal(volume_arriving(bench->storage, "web", UINT64_MAX, NULL), 0);
	assert_int_equal(volume_arriving_vms(bench->storage, names, NULL), 0);
	assert_int_equal(json_array_size(names), 0);
	assert_int_equal(prepare(bench, VOLUME_ARRIVING, 5), 0);
	assert_int_equal(volume_arriving(bench->storage, "web", 4, NULL), 0);
	assert_int_equal(volume_arriving(bench->storage, "web", 5, NULL), 1);
	assert_int_equal(volume_arriving(bench->storage, "other", 5, NULL), 0);
	assert_int_equal(volume_arriving_vms(bench->storage, names, NULL), 0);
	assert_int_equal(json_array_size(names), 1);
	assert_string_equal(json_string_value(json_array_get(names, 0)), "web");
}

static void a_shared_volume_is_opened_as_it_is_and_not_claimed(void **state)
{
	struct bench *bench = *state;

	assert_true(prepare(bench, VOLUME_SHARED, 2) < 0);
	assert_int_equal(prepare(bench, VOLUME_USE, 1), 0);
	assert_int_equal(volume_release(bench->storage, "web", "root", 1, "alpha", NULL), 0);
	assert_int_equal(prepare(bench, VOLUME_SHARED, 2), 0);
	assert_false(there(bench, "root.claim"));
	assert_int_equal(volume_claim(bench->storage, "web", "root", 3, "alpha", NULL), 0);
	assert_true(there(bench, "root.claim"));
	assert_true(volume_claim(bench->storage, "web", "root", 2, "beta", NULL) < 0);
}

static void who_claims_a_volume_and_when_it_left_can_be_asked(void **state)
{
	struct bench *bench = *state;
	CLEANUP(volume_claim_done) struct volume_claim claim = { 0 };
	uint64_t left = 7;

	assert_int_equal(volume_claimed(bench->storage, "web", "root", &claim, NULL), 0);
	assert_int_equal(volume_left(bench->storage, "web", "root", &left, NULL), 0);
	assert_int_equal(left, 0);
	assert_int_equal(prepare(bench, VOLUME_USE, 1), 0);
	assert_int_equal(volume_claim(bench->storage, "web", "root", 3, "alpha", NULL), 0);
	assert_int_equal(volume_claimed(bench->storage, "web", "root", &claim, NULL), 1);
	assert_string_equal(claim.node, "alpha");
	assert_int_equal(claim.epoch, 3);
	assert_int_equal(volume_leave(bench->storage, "web", "root", 12, NULL), 0);
	assert_int_equal(volume_left(bench->storage, "web", "root", &left, NULL), 0);
	assert_int_equal(left, 12);
	assert_true(there(bench, ".root.12.gone.raw"));
	assert_int_equal(volume_left(bench->storage, "web", "other", &left, NULL), 0);
	assert_int_equal(left, 0);
	assert_int_equal(volume_left_before(bench->storage, "web", "root", NULL), 0);
	assert_int_equal(volume_left(bench->storage, "web", "root", &left, NULL), 0);
	assert_int_equal(left, 0);
	assert_true(there(bench, ".root.0.gone.raw"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, bench_open, bench_close)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_arrives_is_no_volume_before_it_is_owned),
		TEST(what_had_the_name_before_is_put_aside_and_only_the_newest_kept),
		TEST(moves_that_came_to_nothing_leave_nothing),
		TEST(what_is_arriving_is_found_by_its_epoch),
		TEST(a_shared_volume_is_opened_as_it_is_and_not_claimed),
		TEST(who_claims_a_volume_and_when_it_left_can_be_asked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
