/* SPDX-License-Identifier: Apache-2.0 */
/* The contract of store/store.h, as cases that every backend must pass.  A backend is a row in
 * `backends`; what only one of them promises is tested in a program of its own. */
#include "store-consul.h"
#include "store-harness.h"
#include "store-server.h"
#include "store-zookeeper.h"

/* One that needs a server: it is started once, and each test gets a part of its tree. */
static struct backend {
	const char *scheme;
	bool (*start)(struct store_server *server); /* NULL: none; false: it cannot be had here */
	const char *address;
	struct store_server server;
	char server_address[64];
} backends[] = {
	{ "local:", NULL, NULL, { 0 }, "" },
	{ "fault:local:", NULL, NULL, { 0 }, "" },
	{ "zookeeper:", zookeeper_start, "zookeeper:127.0.0.1", { 0 }, "" },
	{ "consul:", consul_start, "consul:http://127.0.0.1", { 0 }, "" },
};

static void a_key_that_was_put_is_read_back(void **state)
{
	struct scene *s = *state;
	ANSWER put = { 0 }, got = { 0 };

	assert_int_equal(ask_put(s->loop, s->store, "/drover/vms/web01", STORE_ABSENT, 7, &put), 0);
	assert_int_equal(ask_get(s->loop, s->store, "/drover/vms/web01", &got), 0);
	assert_int_equal(json_int_or(got.entry.value, "n", 0), 7);
	assert_true(put.versions[0] > 0);
	assert_true(got.entry.version == put.versions[0]);
}

static void a_missing_key_is_said_to_be_missing(void **state)
{
	struct scene *s = *state;
	ANSWER got = { 0 };

	assert_int_equal(ask_get(s->loop, s->store, "/drover/none", &got), -ENOENT);
	assert_non_null(strstr(got.err.text, "/drover/none"));
}

static void a_key_is_made_only_once(void **state)
{
	struct scene *s = *state;
	ANSWER put = { 0 };

	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ABSENT, 1, &put), 0);
	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ABSENT, 2, &put), -ESTALE);
	assert_int_equal(ask_number(s->loop, s->store, "/k"), 1);
}

static void only_the_exact_version_is_replaced(void **state)
{
	struct scene *s = *state;
	ANSWER put = { 0 };
	uint64_t first, second;

	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ABSENT, 1, &put), 0);
	first = put.versions[0];
	assert_int_equal(ask_put(s->loop, s->store, "/k", first, 2, &put), 0);
	second = put.versions[0];
	assert_true(second > first);
	assert_int_equal(ask_put(s->loop, s->store, "/k", first, 3, &put), -ESTALE);
	assert_int_equal(ask_delete(s->loop, s->store, "/k", first, &put), -ESTALE);
	assert_int_equal(ask_number(s->loop, s->store, "/k"), 2);
	assert_int_equal(ask_put(s->loop, s->store, "/absent", first, 3, &put), -ESTALE);
	assert_int_equal(ask_number(s->loop, s->store, "/absent"), -1);
	assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ANY, 4, &put), 0);
	assert_int_equal(ask_delete(s->loop, s->store, "/k", put.versions[0], &put), 0);
	assert_int_equal(ask_number(s->loop, s->store, "/k"), -1);
}

static void a_key_made_again_never_has_a_version_it_had_before(void **state)
{
	struct scene *s = *state;
	ANSWER put = { 0 }, gone = { 0 };
	uint64_t last = 0;

	for (int i = 0; i < 5; i++) {
		assert_int_equal(ask_put(s->loop, s->store, "/k", STORE_ABSENT, i, &put), 0);
		assert_true(put.versions[0] > last);
		last = put.versions[0];
		assert_int_equal(ask_delete(s->loop, s->store, "/k", last, &gone), 0);
		assert_true(gone.versions[0] == 0);
	}
}

static void deleting_what_is_not_there_is_done(void **state)
{
	struct scene *s = *state;
	ANSWER gone = { 0 };

	assert_int_equal(ask_delete(s->loop, s->store, "/none", STORE_ANY, &gone), 0);
	assert_int_equal(ask_delete(s->loop, s->store, "/none", 4, &gone), -ESTALE);
}

static void a_transaction_happens_whole_or_not_at_all(void **state)
{
	struct scene *s = *state;
	json_auto_t *value = json_pack("{s:i}", "n", 9);
	ANSWER put = { 0 }, both = { 0 };
	uint64_t guard;

	assert_int_equal(ask_put(s->loop, s->store, "/guard", STORE_ABSENT, 1, &put), 0);
	guard = put.versions[0];
	assert_int_equal(ask_put(s->loop, s->store, "/old", STORE_ABSENT, 1, &put), 0);

	const struct store_op ops[] = {
		{ STORE_PUT, "/a", STORE_ABSENT, value, false },
		{ STORE_DELETE, "/old", put.versions[0], NULL, false },
		{ STORE_PUT, "/b", STORE_ANY, value, false },
		{ STORE_CHECK, "/guard", guard, NULL, false },
		{ STORE_CHECK, "/none", STORE_ABSENT, NULL, false },
	};
	assert_int_equal(ask_put(s->loop, s->store, "/guard", guard, 2, &put), 0);
	assert_int_equal(ask_write(s->loop, s->store, ops, ARRAY_SIZE(ops), &both), -ESTALE);
	assert_non_null(strstr(both.err.text, "/guard"));
	assert_int_equal(ask_number(s->loop, s->store, "/a"), -1);
	assert_int_equal(ask_number(s->loop, s->store, "/old"), 1);

	struct store_op right[ARRAY_SIZE(ops)];
	memcpy(right, ops, sizeof(ops));
	right[3].expected = put.versions[0];
	assert_int_equal(ask_write(s->loop, s->store, right, ARRAY_SIZE(ops), &both), 0);
	assert_int_equal(ask_number(s->loop, s->store, "/a"), 9);
	assert_int_equal(ask_number(s->loop, s->store, "/b"), 9);
	assert_int_equal(ask_number(s->loop, s->store, "/old"), -1);
	assert_true(both.versions[0] > 0 && both.versions[2] > 0);
	assert_true(both.versions[1] == 0);
	assert_true(both.versions[3] == put.versions[0]);
	assert_true(both.versions[4] == 0);
}

static void a_list_has_all_below_the_prefix_and_nothing_else(void **state)
{
	static const char *const keys[] = { "/d/vms/web10/owner", "/d/vms/web1/owner", "/d/vms",
					    "/d/vms/a",		  "/d/vmsx/a",	       "/d/vm/a",
					    "/d/vms/web1-b/c",	  "/d/vms/web1/a/b" };
	struct scene *s = *state;
	json_auto_t *all = json_pack("[s,s,s,s,s]", "/d/vms/a", "/d/vms/web1-b/c",
				     "/d/vms/web1/a/b", "/d/vms/web1/owner", "/d/vms/web10/owner");
	json_auto_t *one = json_pack("[s,s]", "/d/vms/web1/a/b", "/d/vms/web1/owner");
	ANSWER answer = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		assert_int_equal(ask_put(s->loop, s->store, keys[i], STORE_ABSENT, 1, &answer), 0);
	assert_int_equal(ask_list(s->loop, s->store, "/d/vms/", &answer), 0);
	assert_true(json_equal(answer.list, all));
	assert_int_equal(ask_list(s->loop, s->store, "/d/vms/web1/", &answer), 0);
	assert_true(json_equal(answer.list, one));
	assert_int_equal(ask_list(s->loop, s->store, "/", &answer), 0);
	assert_int_equal(json_array_size(answer.list), ARRAY_SIZE(keys));
	assert_int_equal(ask_list(s->loop, s->store, "/none/", &answer), 0);
	assert_int_equal(json_array_size(answer.list), 0);
}

static void five_thousand_keys_are_listed_in_order(void **state)
{
	enum { KEYS = 5000, STEP = 1237 /* no divisor of KEYS: all numbers, out of order */ };
	struct scene *s = *state;
	json_auto_t *value = json_pack("{s:s}", "v", "x");
	char keys[STORE_OPS_MAX][32];
	struct store_op ops[STORE_OPS_MAX];
	ANSWER answer = { 0 };
	size_t index;
	json_t *key;

	for (int i = 0, n = 0; i < KEYS; i++) {
		(void)snprintf(keys[n], sizeof(keys[n]), "/drover/%04d", i * STEP % KEYS);
		ops[n] = (struct store_op){ STORE_PUT, keys[n], STORE_ABSENT, value, false };
		if (++n < (int)store_limits(s->store).ops && i < KEYS - 1)
			continue;
		assert_int_equal(ask_write(s->loop, s->store, ops, (size_t)n, &answer), 0);
		n = 0;
	}
	assert_int_equal(ask_list(s->loop, s->store, "/drover/", &answer), 0);
	assert_int_equal(json_array_size(answer.list), KEYS);
	json_array_foreach(answer.list, index, key)
	{
		char wanted[32];

		(void)snprintf(wanted, sizeof(wanted), "/drover/%04zu", index);
		assert_string_equal(json_string_value(key), wanted);
	}
}

static json_t *value_of_size(size_t bytes) /* as compact JSON: {"t":"..."} */
{
	CLEANUP_FREE char *text = xcalloc(1, bytes);

	memset(text, 'x', bytes - strlen("{\"t\":\"\"}"));
	return json_pack("{s:s}", "t", text);
}

static void a_value_of_the_greatest_size_is_kept_and_a_greater_one_refused(void **state)
{
	struct scene *s = *state;
	json_auto_t *most = value_of_size(STORE_VALUE_MAX);
	json_auto_t *more = value_of_size(STORE_VALUE_MAX + 1);
	struct store_op op = { STORE_PUT, "/k", STORE_ANY, most, false };
	ANSWER answer = { 0 };

	assert_int_equal(ask_write(s->loop, s->store, &op, 1, &answer), 0);
	op.value = more;
	assert_int_equal(ask_write(s->loop, s->store, &op, 1, &answer), -EINVAL);
	assert_int_equal(answer.err.class, ERROR_USAGE);
	assert_int_equal(ask_get(s->loop, s->store, "/k", &answer), 0);
	assert_true(json_equal(answer.entry.value, most));
}

static void values_come_back_as_they_were(void **state)
{
	static const char *const texts[] = {
		"{}",
		"{\"a\":[1,-1,9223372036854775807,1.5,true,false,null,\"\"]}",
		"{\"\":{\"quote\":\"\\\"'\\\\\",\"control\":\"\\u0001\\n\"}}",
		"{\"far\":\"\\ud83d\\ude00 \\u00e4\"}",
	};
	struct scene *s = *state;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		json_auto_t *value = json_loads(texts[i], 0, NULL);
		const struct store_op op = { STORE_PUT, "/k", STORE_ANY, value, false };
		ANSWER answer = { 0 };

		assert_non_null(value);
		assert_int_equal(ask_write(s->loop, s->store, &op, 1, &answer), 0);
		assert_int_equal(ask_get(s->loop, s->store, "/k", &answer), 0);
		assert_true(json_equal(answer.entry.value, value));
	}
}

static void a_value_that_no_reader_would_take_is_refused(void **state)
{
	struct scene *s = *state;
	json_auto_t *deep = json_object();
	struct store_op op = { STORE_PUT, "/k", STORE_ANY, deep, false };
	json_t *at = deep;
	ANSWER answer = { 0 };

	for (int i = 0; i < 100; i++) {
		json_t *below = json_object();

		json_object_set_new(at, "d", below);
		at = below;
	}
	assert_true(ask_write(s->loop, s->store, &op, 1, &answer) < 0);
	op.value = NULL;
	assert_int_equal(ask_write(s->loop, s->store, &op, 1, &answer), -EINVAL);
	assert_int_equal(ask_number(s->loop, s->store, "/k"), -1);
}

static void a_value_may_be_changed_after_the_call(void **state)
{
	struct scene *s = *state;
	json_auto_t *value = json_pack("{s:i}", "n", 1);
	const struct store_op op = { STORE_PUT, "/k", STORE_ANY, value, false };
	struct answer answer = { .ops = 1 };

	assert_int_equal(store_write(s->store, &op, 1, on_write, &answer, NULL), 0);
	json_object_set_new(value, "n", json_integer(2));
	assert_true(loop_until(s->loop, &answer.done));
	assert_int_equal(ask_number(s->loop, s->store, "/k"), 1);
}

static void keys_are_checked(void **state)
{
	static const struct {
		const char *key;
		bool good;
	} keys[] = {
		{ "/a", true },		  { "/drover/vms/web01/owner", true },
		{ "/a.b-c_d:e@f", true }, { "/...", true },
		{ "/.a/..b", true },	  { "", false },
		{ "/", false },		  { "a", false },
		{ "a/b", false },	  { "/a/", false },
		{ "//", false },	  { "//a", false },
		{ "/a//b", false },	  { "/.", false },
		{ "/a/../b", false },	  { "/a b", false },
		{ "/a\n", false },	  { "/a\x7f", false },
		{ "/\xc3\xa4", false },
	};
	struct scene *s = *state;
	ANSWER answer = { 0 };
	char longest[STORE_KEY_MAX + 2];

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		int r = ask_put(s->loop, s->store, keys[i].key, STORE_ANY, 1, &answer);

		if (r != (keys[i].good ? 0 : -EINVAL))
			fail_msg("key '%s': %d", keys[i].key, r);
		r = ask_get(s->loop, s->store, keys[i].key, &answer);
		if (r != (keys[i].good ? 0 : -EINVAL))
			fail_msg("key '%s': %d", keys[i].key, r);
	}
	memset(longest, 'k', sizeof(longest));
	longest[0] = '/';
	longest[STORE_KEY_MAX] = '\0';
	assert_int_equal(ask_put(s->loop, s->store, longest, STORE_ANY, 1, &answer), 0);
	longest[STORE_KEY_MAX] = 'k';
	longest[STORE_KEY_MAX + 1] = '\0';
	assert_int_equal(ask_put(s->loop, s->store, longest, STORE_ANY, 1, &answer), -EINVAL);
	assert_int_equal(ask_list(s->loop, s->store, "/a", &answer), -EINVAL);
	assert_int_equal(ask_list(s->loop, s->store, "a/", &answer), -EINVAL);
	assert_int_equal(ask_list(s->loop, s->store, "/a//", &answer), -EINVAL);
	assert_int_equal(ask_list(s->loop, s->store, "", &answer), -EINVAL);
}

static void transactions_without_sense_are_refused(void **state)
{
	struct scene *s = *state;
	json_auto_t *value = json_object();
	struct store_op ops[STORE_OPS_MAX + 1];
	char keys[STORE_OPS_MAX + 1][16];
	ANSWER answer = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		(void)snprintf(keys[i], sizeof(keys[i]), "/k%zu", i);
		ops[i] = (struct store_op){ STORE_PUT, keys[i], STORE_ANY, value, false };
	}
	assert_int_equal(store_write(s->store, ops, ARRAY_SIZE(ops), on_write, &answer, NULL),
			 -EINVAL);
	assert_int_equal(store_write(s->store, ops, 0, on_write, &answer, NULL), -EINVAL);
	assert_int_equal(ask_write(s->loop, s->store, ops, store_limits(s->store).ops, &answer), 0);
	assert_true(store_limits(s->store).ops <= STORE_OPS_MAX);
	assert_int_equal(
		store_write(s->store, ops, store_limits(s->store).ops + 1, on_write, &answer, NULL),
		-EINVAL);
	ops[1].key = ops[0].key;
	assert_int_equal(ask_write(s->loop, s->store, ops, 2, &answer), -EINVAL);
	assert_int_equal(ask_delete(s->loop, s->store, "/k0", STORE_ABSENT, &answer), -EINVAL);
}

struct order {
	struct store *store;
	int next, wrong;
	bool inside; /* a call is being made */
	bool all;
};
struct numbered {
	struct order *order;
	int number;
};

static void on_numbered(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct numbered *numbered = ctx;

	if (numbered->order->inside || numbered->order->next++ != numbered->number)
		numbered->order->wrong++;
	numbered->order->all = numbered->order->next == 20;
}

static void on_numbered_get(void *ctx, int r, const struct store_entry *entry,
			    const struct error *err)
{
	on_numbered(ctx, r, NULL, err);
}

static void answers_come_from_the_loop_in_the_order_of_the_calls(void **state)
{
	struct scene *s = *state;
	json_auto_t *value = json_object();
	const struct store_op op = { STORE_PUT, "/k", STORE_ANY, value, false };
	struct order order = { .inside = true };
	struct numbered numbered[20];

	for (int i = 0; i < 20; i++) {
		numbered[i] = (struct numbered){ &order, i };
		if (i % 3 == 0)
			assert_int_equal(
				store_get(s->store, "/k", on_numbered_get, &numbered[i], NULL), 0);
		else
			assert_int_equal(
				store_write(s->store, &op, 1, on_numbered, &numbered[i], NULL), 0);
	}
	order.inside = false;
	assert_true(loop_until(s->loop, &order.all));
	assert_int_equal(order.wrong, 0);
}

static void a_closed_store_answers_nobody(void **state)
{
	struct scene *s = *state;
	struct answer answer = { 0 };
	struct looks looks = { 0 };
	struct store_watch *watch;

	assert_int_equal(store_get(s->store, "/k", on_get, &answer, NULL), 0);
	assert_int_equal(store_watch(s->store, "/", on_look, &looks, &watch, NULL), 0);
	s->store = store_close(s->store);
	loop_drain(s->loop);
	assert_false(answer.done);
	assert_false(looks.any);
	assert_null(store_close(NULL));
}

static void on_close(void *ctx, int r, const struct store_entry *entry, const struct error *err)
{
	struct scene *s = ctx;

	s->store = store_close(s->store);
}

static void a_store_may_be_closed_by_an_answer(void **state)
{
	struct scene *s = *state;
	struct answer later = { 0 };

	assert_int_equal(store_get(s->store, "/k", on_close, s, NULL), 0);
	assert_int_equal(store_get(s->store, "/k", on_get, &later, NULL), 0);
	while (s->store)
		assert_true(sd_event_run(s->loop, DEADLINE_USEC) > 0);
	loop_drain(s->loop);
	assert_false(later.done);
}

static void a_watch_looks_at_first_and_after_each_change_below(void **state)
{
	struct scene *s = *state;
	struct looks looks = { 0 }, elsewhere = { 0 };
	struct store_watch *watch, *other;
	ANSWER answer = { 0 };

	assert_int_equal(store_watch(s->store, "/a/", on_look, &looks, &watch, NULL), 0);
	assert_int_equal(store_watch(s->store, "/b/", on_look, &elsewhere, &other, NULL), 0);
	assert_false(looks.any);
	assert_true(loop_until(s->loop, &looks.any));
	assert_true(loop_until(s->loop, &elsewhere.any));
	loop_drain(s->loop);
	looks.any = elsewhere.any = false;

	assert_int_equal(ask_put(s->loop, s->store, "/a/k", STORE_ANY, 1, &answer), 0);
	assert_true(loop_until(s->loop, &looks.any));
	loop_drain(s->loop);
	looks.any = false;
	assert_int_equal(ask_delete(s->loop, s->store, "/a/k", STORE_ANY, &answer), 0);
	assert_true(loop_until(s->loop, &looks.any));
	loop_drain(s->loop);
	assert_false(elsewhere.any);

	(void)store_unwatch(watch);
	looks.any = false;
	assert_int_equal(ask_put(s->loop, s->store, "/a/k", STORE_ANY, 1, &answer), 0);
	assert_int_equal(ask_put(s->loop, s->store, "/b/k", STORE_ANY, 1, &answer), 0);
	assert_true(loop_until(s->loop, &elsewhere.any));
	assert_false(looks.any);
	(void)store_unwatch(other);
}

static void a_watch_looks_after_changes_by_another_client(void **state)
{
	struct scene *s = *state;
	struct store *other = scene_open(s);
	struct looks looks = { 0 };
	struct store_watch *watch;
	ANSWER answer = { 0 };

	assert_int_equal(store_watch(s->store, "/a/", on_look, &looks, &watch, NULL), 0);
	assert_true(loop_until(s->loop, &looks.any));
	for (int i = 0; i < 5; i++) {
		looks.any = false;
		assert_int_equal(ask_put(s->loop, other, "/a/k", STORE_ABSENT, i, &answer), 0);
		assert_true(loop_until(s->loop, &looks.any));
		assert_int_equal(ask_number(s->loop, s->store, "/a/k"), i);
		loop_drain(s->loop);
		looks.any = false;
		assert_int_equal(ask_delete(s->loop, other, "/a/k", STORE_ANY, &answer), 0);
		assert_true(loop_until(s->loop, &looks.any));
		assert_int_equal(ask_number(s->loop, s->store, "/a/k"), -1);
		loop_drain(s->loop);
	}
	(void)store_close(other);
}

static void many_changes_may_come_as_one_look(void **state)
{
	struct scene *s = *state;
	json_auto_t *value = json_object();
	const struct store_op op = { STORE_PUT, "/a/k", STORE_ANY, value, false };
	struct looks looks = { 0 };
	struct answer answers[50] = { 0 };
	struct store_watch *watch;

	assert_int_equal(store_watch(s->store, "/a/", on_look, &looks, &watch, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++)
		assert_int_equal(store_write(s->store, &op, 1, on_write, &answers[i], NULL), 0);
	assert_true(loop_until(s->loop, &answers[ARRAY_SIZE(answers) - 1].done));
	loop_drain(s->loop);
	/* A look more than there were changes does no harm. */
	assert_in_range(looks.count, 1, 2 * ARRAY_SIZE(answers));
}

struct self_ending {
	struct store_watch *watch;
	bool ended;
};

static void on_look_end(void *ctx)
{
	struct self_ending *ending = ctx;

	ending->watch = store_unwatch(ending->watch);
	ending->ended = true;
}

static void a_watch_may_end_itself(void **state)
{
	struct scene *s = *state;
	struct self_ending ending = { 0 };

	assert_int_equal(store_watch(s->store, "/", on_look_end, &ending, &ending.watch, NULL), 0);
	assert_true(loop_until(s->loop, &ending.ended));
	loop_drain(s->loop);
	assert_null(store_unwatch(NULL));
}

static void an_ephemeral_key_needs_a_session_and_goes_with_it(void **state)
{
	struct scene *s = *state;
	struct store *other = scene_open(s);
	struct session session = { 0 };
	ANSWER answer = { 0 };

	assert_int_equal(put_ephemeral(s, s->store, "/s/me"), -ENOTCONN);
	assert_null(store_session_id(s->store));
	assert_int_equal(
		store_session_open(s->store, NULL, 3600 * USEC_PER_SEC, on_session, &session, NULL),
		0);
	assert_false(session.any);
	session_await(s->loop, &session, STORE_CONNECTED);
	assert_non_null(store_session_id(s->store));
	assert_int_equal(put_ephemeral(s, s->store, "/s/me"), 0);
	assert_int_equal(put_ephemeral(s, s->store, "/s/kept"), 0);
	assert_int_equal(ask_number(s->loop, other, "/s/me"), 1);
	assert_int_equal(ask_put(s->loop, other, "/s/kept", STORE_ANY, 5, &answer), 0);

	assert_int_equal(store_session_close(s->store, NULL), 0);
	session_await(s->loop, &session, STORE_LOST);
	assert_null(store_session_id(s->store));
	gone_await(s, other, "/s/", "/s/me");
	assert_int_equal(ask_number(s->loop, other, "/s/kept"), 5);
	assert_int_equal(put_ephemeral(s, s->store, "/s/me"), -ENOTCONN);

	assert_int_equal(
		store_session_open(s->store, NULL, 3600 * USEC_PER_SEC, on_session, &session, NULL),
		0);
	session_await(s->loop, &session, STORE_CONNECTED);
	assert_int_equal(put_ephemeral(s, s->store, "/s/me"), 0);
	(void)store_close(other);
}

static void a_session_can_be_resumed_in_time(void **state)
{
	struct scene *s = *state;
	struct store *other = scene_open(s);
	struct session session = { 0 };
	char id[128];

	assert_int_equal(
		store_session_open(s->store, NULL, 3600 * USEC_PER_SEC, on_session, &session, NULL),
		0);
	session_await(s->loop, &session, STORE_CONNECTED);
	(void)snprintf(id, sizeof(id), "%s", store_session_id(s->store));
	assert_int_equal(put_ephemeral(s, s->store, "/s/me"), 0);
	s->store = store_close(s->store);
	loop_drain(s->loop);
	assert_int_equal(ask_number(s->loop, other, "/s/me"), 1);

	s->store = scene_open(s);
	assert_int_equal(
		store_session_open(s->store, id, 3600 * USEC_PER_SEC, on_session, &session, NULL),
		0);
	session_await(s->loop, &session, STORE_CONNECTED);
	assert_string_equal(store_session_id(s->store), id);
	assert_int_equal(ask_number(s->loop, other, "/s/me"), 1);
	assert_int_equal(store_session_close(s->store, NULL), 0);
	gone_await(s, other, "/s/", "/s/me");
	(void)store_close(other);
}

static void the_session_of_one_who_went_away_ends_after_its_time(void **state)
{
	struct scene *s = *state;
	struct store *other = scene_open(s);
	struct session session = { 0 };
	char id[128];

	assert_int_equal(
		store_session_open(other, NULL, 50 * USEC_PER_MSEC, on_session, &session, NULL), 0);
	session_await(s->loop, &session, STORE_CONNECTED);
	(void)snprintf(id, sizeof(id), "%s", store_session_id(other));
	assert_int_equal(put_ephemeral(s, other, "/s/me"), 0);
	other = store_close(other);
	gone_await(s, s->store, "/s/", "/s/me");

	assert_int_equal(
		store_session_open(s->store, id, 3600 * USEC_PER_SEC, on_session, &session, NULL),
		0);
	session_await(s->loop, &session, STORE_LOST);
	assert_null(store_session_id(s->store));
}

static void on_renewed(void *ctx, int r, const struct error *err)
{
	struct answer *answer = ctx;

	assert_false(answer->done);
	answer->done = true;
	answer->r = r;
	answer->err = *err;
}

static int ask_renew(struct scene *s)
{
	ANSWER answer = { 0 };
	int r = store_session_renew(s->store, on_renewed, &answer, &answer.err);

	if (r < 0)
		return r;
	return loop_until(s->loop, &answer.done) ? answer.r : -ETIMEDOUT;
}

static void a_session_is_renewed_until_it_is_over(void **state)
{
	struct scene *s = *state;
	struct session session = { 0 };
	struct store_timing timing = { 0 };

	assert_int_equal(store_session_timing(s->store, &timing), -ENOTCONN);
	assert_int_equal(ask_renew(s), -ENOTCONN);
	assert_int_equal(
		store_session_open(s->store, NULL, DEADLINE_USEC, on_session, &session, NULL), 0);
	session_await(s->loop, &session, STORE_CONNECTED);
	assert_int_equal(store_session_timing(s->store, &timing), 0);
	assert_true(timing.earliest_usec > 0 && timing.earliest_usec <= timing.latest_usec);
	assert_int_equal(ask_renew(s), 0);
	assert_int_equal(store_session_close(s->store, NULL), 0);
	session_await(s->loop, &session, STORE_LOST);
	assert_int_equal(ask_renew(s), -ENOTCONN);
}

static void strange_sessions_are_not_resumed(void **state)
{
	static const char *const ids[] = { "", "no such session", "../../etc/passwd", "bell",
					   "0123456789abcdef0123456789abcdef" };
	struct scene *s = *state;

	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		struct session session = { 0 };

		assert_int_equal(store_session_open(s->store, ids[i], USEC_PER_SEC, on_session,
						    &session, NULL),
				 0);
		session_await(s->loop, &session, STORE_LOST);
	}
	assert_int_equal(store_session_open(s->store, NULL, 0, on_session, NULL, NULL), -EINVAL);
	assert_true(store_session_close(s->store, NULL) < 0);
}

static void addresses_are_checked(void **state)
{
	static const char *const addresses[] = { "",	      "local", "local:", "locals:x",
						 "redis://x", ":x",    "fault:", "fault:redis:x" };
	struct scene *s = *state;

	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
		struct store *store = NULL;
		struct error err = { 0 };

		assert_int_equal(store_open(addresses[i], s->dir, s->loop, &store, &err), -EINVAL);
		assert_null(store);
		assert_true(err.text[0] != '\0');
	}
	assert_non_null(strstr(store_address(s->store), s->server ? s->server : "store.db"));
}

#define CASE(function)                                                                             \
	{                                                                                          \
#function, function                                                                \
	}
static const struct {
	const char *name;
	CMUnitTestFunction run;
} cases[] = {
	CASE(a_key_that_was_put_is_read_back),
	CASE(a_missing_key_is_said_to_be_missing),
	CASE(a_key_is_made_only_once),
	CASE(only_the_exact_version_is_replaced),
	CASE(a_key_made_again_never_has_a_version_it_had_before),
	CASE(deleting_what_is_not_there_is_done),
	CASE(a_transaction_happens_whole_or_not_at_all),
	CASE(a_list_has_all_below_the_prefix_and_nothing_else),
	CASE(five_thousand_keys_are_listed_in_order),
	CASE(a_value_of_the_greatest_size_is_kept_and_a_greater_one_refused),
	CASE(values_come_back_as_they_were),
	CASE(a_value_that_no_reader_would_take_is_refused),
	CASE(a_value_may_be_changed_after_the_call),
	CASE(keys_are_checked),
	CASE(transactions_without_sense_are_refused),
	CASE(answers_come_from_the_loop_in_the_order_of_the_calls),
	CASE(a_closed_store_answers_nobody),
	CASE(a_store_may_be_closed_by_an_answer),
	CASE(a_watch_looks_at_first_and_after_each_change_below),
	CASE(a_watch_looks_after_changes_by_another_client),
	CASE(many_changes_may_come_as_one_look),
	CASE(a_watch_may_end_itself),
	CASE(an_ephemeral_key_needs_a_session_and_goes_with_it),
	CASE(a_session_can_be_resumed_in_time),
	CASE(the_session_of_one_who_went_away_ends_after_its_time),
	CASE(a_session_is_renewed_until_it_is_over),
	CASE(strange_sessions_are_not_resumed),
	CASE(addresses_are_checked),
};

static int setup(void **state)
{
	const struct backend *backend = *state; /* the initial state */
	struct scene *scene = xcalloc(1, sizeof(*scene));

	scene_init(scene, backend->scheme);
	if (backend->start)
		scene->server = backend->server_address;
	scene->store = scene_open(scene);
	*state = scene;
	return 0;
}

static int teardown(void **state)
{
	scene_done(*state);
	free(*state);
	return 0;
}

static void no_server_here(void **state)
{
	skip();
}

static bool backend_start(struct backend *backend)
{
	if (!backend->start)
		return true;
	if (!backend->start(&backend->server))
		return false;
	(void)snprintf(backend->server_address, sizeof(backend->server_address), "%s:%d",
		       backend->address, backend->server.port);
	return true;
}

int main(void)
{
	struct CMUnitTest tests[ARRAY_SIZE(backends) * ARRAY_SIZE(cases)];
	size_t count = 0;
	int failed;

	for (size_t b = 0; b < ARRAY_SIZE(backends); b++) {
		bool started = backend_start(&backends[b]);

		for (size_t c = 0; c < ARRAY_SIZE(cases); c++)
			tests[count++] = (struct CMUnitTest){
				.name = xasprintf("%s %s", backends[b].scheme, cases[c].name),
				.test_func = started ? cases[c].run : no_server_here,
				.setup_func = started ? setup : NULL,
				.teardown_func = started ? teardown : NULL,
				.initial_state = &backends[b],
			};
	}
	failed = cmocka_run_group_tests_name("store", tests, NULL, NULL);
	for (size_t i = 0; i < count; i++)
		free((char *)(uintptr_t)tests[i].name);
	for (size_t b = 0; b < ARRAY_SIZE(backends); b++)
		server_end(&backends[b].server);
	return failed;
}
