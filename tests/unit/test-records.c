/* SPDX-License-Identifier: Apache-2.0 */
/* Records and the names of states: what is written is read back, damage is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "model/records.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "wire/json.h"

static json_t *json_of(const char *text)
{
	struct error err = { 0 };
	json_t *value = NULL;

	if (json_parse(text, strlen(text), &value, &err) < 0)
		fail_msg("%s", err.text);
	return value;
}

static void assert_prints(json_t *value, const char *expected)
{
	json_auto_t *owned = value;
	json_auto_t *wanted = json_of(expected);
	CLEANUP_FREE char *text = json_print(owned);
	CLEANUP_FREE char *wanted_text = json_print(wanted);

	assert_string_equal(text, wanted_text);
}

#define OWNER_MOVING_TEXT                                                                          \
	"{\"v\":1,\"epoch\":9,\"phase\":\"moving\",\"node\":\"alpha\",\"boot\":\"b1\","            \
	"\"to\":\"beta\",\"mode\":\"pre\",\"feeder\":null,\"try\":9,\"home\":\"alpha\","           \
	"\"lease\":\"keep\",\"by\":\"alpha/1/2\",\"later\":{\"k\":[1]}}"
#define OWNER_OFF_TEXT                                                                             \
	"{\"v\":1,\"epoch\":3,\"phase\":\"off\",\"node\":null,\"boot\":null,\"to\":null,"          \
	"\"mode\":null,\"feeder\":null,\"try\":null,\"home\":\"alpha\",\"lease\":\"stop\","        \
	"\"by\":\"\"}"

static void an_owner_record_survives_reading_and_writing(void **state)
{
	static const char *const texts[] = { OWNER_MOVING_TEXT, OWNER_OFF_TEXT };

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		CLEANUP(owner_done) struct owner owner = { 0 };
		json_auto_t *value = json_of(texts[i]);

		assert_int_equal(owner_parse(value, &owner, NULL), 0);
		assert_prints(owner_json(&owner), texts[i]);
	}
}

static void an_owner_record_fills_the_struct(void **state)
{
	CLEANUP(owner_done) struct owner owner = { 0 };
	json_auto_t *value = json_of(OWNER_MOVING_TEXT);

	assert_int_equal(owner_parse(value, &owner, NULL), 0);
	assert_int_equal(owner.epoch, 9);
	assert_int_equal(owner.phase, OWNER_MOVING);
	assert_string_equal(owner.node, "alpha");
	assert_string_equal(owner.to, "beta");
	assert_string_equal(owner.mode, "pre");
	assert_string_equal(owner.feeder, "");
	assert_int_equal(owner.try_epoch, 9);
	assert_string_equal(owner.lease, "keep");
	assert_non_null(json_object_get(owner.rest, "later"));
	/* The value itself is left as it was. */
	assert_non_null(json_object_get(value, "epoch"));
}

static void a_damaged_owner_record_is_never_read_as_nobody(void **state)
{
	static const struct {
		const char *text, *message;
	} cases[] = {
		{ "[]", "the owner record is not a JSON object" },
		{ "{}", "the owner record has no 'phase'" },
		{ "{\"epoch\":1}", "the owner record has no 'phase'" },
		{ "{\"epoch\":1,\"phase\":null}", "the owner record has no 'phase'" },
		{ "{\"epoch\":1,\"phase\":\"gone\"}",
		  "'phase' of the owner record is 'gone', which is not known" },
		{ "{\"phase\":\"off\"}", "the owner record has no epoch" },
		{ "{\"epoch\":-1,\"phase\":\"off\"}",
		  "'epoch' of the owner record is not a whole number from 0 on" },
		{ "{\"epoch\":1.5,\"phase\":\"off\"}",
		  "'epoch' of the owner record is not a whole number from 0 on" },
		{ "{\"epoch\":1,\"phase\":\"off\",\"node\":\"a\"}",
		  "the owner record is 'off', yet names the node 'a'" },
		{ "{\"epoch\":1,\"phase\":\"held\"}",
		  "the owner record is 'held' without a node or its boot id" },
		{ "{\"epoch\":1,\"phase\":\"held\",\"node\":\"a\"}",
		  "the owner record is 'held' without a node or its boot id" },
		{ "{\"epoch\":1,\"phase\":\"moving\",\"node\":\"a\",\"boot\":\"b\"}",
		  "the owner record is 'moving' to nowhere" },
		{ "{\"epoch\":1,\"phase\":\"held\",\"node\":7}",
		  "'node' of the owner record is not text" },
		{ "{\"epoch\":1,\"phase\":\"off\",\"lease\":\"x\"}",
		  "'lease' of the owner record is 'x', which is not known" },
		{ "{\"v\":2,\"epoch\":1,\"phase\":\"off\"}",
		  "the owner record has layout 2, this Drover knows layouts up to 1: upgrade "
		  "Drover on this node" },
		{ "{\"v\":\"1\",\"epoch\":1,\"phase\":\"off\"}",
		  "the owner record has no usable version 'v'" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		json_auto_t *value = json_of(cases[i].text);
		struct owner owner = { 0 };
		struct error err = { 0 };

		assert_int_equal(owner_parse(value, &owner, &err), -EBADMSG);
		assert_string_equal(err.text, cases[i].message);
	}
}

static void a_text_that_does_not_fit_is_refused_not_cut(void **state)
{
	json_auto_t *value = json_of("{\"epoch\":1,\"phase\":\"held\",\"boot\":\"b\"}");
	char name[RECORD_NAME_SIZE + 1];
	struct owner owner = { 0 };

	memset(name, 'n', sizeof(name));
	name[RECORD_NAME_SIZE] = '\0';
	json_set_string(value, "node", name);
	assert_int_equal(owner_parse(value, &owner, NULL), -EBADMSG);
	name[RECORD_NAME_SIZE - 1] = '\0';
	json_set_string(value, "node", name);
	assert_int_equal(owner_parse(value, &owner, NULL), 0);
	owner_done(&owner);
}

static void no_order_is_an_order_of_nothing(void **state)
{
	struct order order = { .kind = ORDER_KILL };

	assert_int_equal(order_parse(NULL, &order, NULL), 0);
	assert_int_equal(order.kind, ORDER_NONE);
	assert_int_equal(order.restarts, 0);
}

static void an_order_survives_reading_and_writing(void **state)
{
	const char *text = "{\"v\":1,\"kind\":\"pause\",\"restarts\":2,\"retry\":3,"
			   "\"since\":\"2026-11-20T09:30:00Z\",\"by\":\"uid 0 at alpha\"}";
	json_auto_t *value = json_of(text);
	struct order order = { 0 };

	assert_int_equal(order_parse(value, &order, NULL), 0);
	assert_int_equal(order.kind, ORDER_PAUSE);
	assert_string_equal(order_kind_name(order.kind), "pause");
	assert_int_equal(order.restarts, 2);
	assert_int_equal(order.retry, 3);
	assert_prints(order_json(&order), text);
}

static void an_unknown_order_is_refused(void **state)
{
	json_auto_t *value = json_of("{\"v\":1,\"kind\":\"destroy\"}");
	struct order order = { 0 };

	assert_int_equal(order_parse(value, &order, NULL), -EBADMSG);
}

static void a_life_record_keeps_what_a_later_version_wrote(void **state)
{
	CLEANUP(life_done) struct life life = { 0 };
	const char *text = "{\"v\":1,\"n\":7,\"state\":\"fencing\",\"boot\":\"b\","
			   "\"machine\":\"m\",\"storage\":[\"10.0.0.1\"],\"term\":4}";
	json_auto_t *value = json_of(text);

	assert_int_equal(life_parse(value, &life, NULL), 0);
	assert_int_equal(life.n, 7);
	assert_string_equal(life.state, "fencing");
	assert_prints(life_json(&life), text);
}

static void a_life_without_a_state_is_refused(void **state)
{
	static const char *const texts[] = { "{\"n\":1}", "{\"n\":1,\"state\":\"\x7a\"}" };

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		json_auto_t *value = json_of(texts[i]);
		struct life life = { 0 };

		assert_int_equal(life_parse(value, &life, NULL), -EBADMSG);
	}
}

static void a_definition_record_survives_reading_and_writing(void **state)
{
	CLEANUP(definition_record_done) struct definition_record record = { 0 };
	const char *text = "{\"v\":1,\"generation\":4,\"source\":\"file\",\"node\":\"alpha\","
			   "\"path\":\"/etc/drover/vms/a.yaml\",\"gone\":true,"
			   "\"definition\":{\"name\":\"a\"},\"later\":1}";
	json_auto_t *value = json_of(text);
	char source[600];

	assert_int_equal(definition_record_parse(value, &record, NULL), 0);
	assert_int_equal(record.generation, 4);
	assert_true(record.gone);
	assert_string_equal(definition_record_source(&record, source, sizeof(source)),
			    "file alpha:/etc/drover/vms/a.yaml");
	assert_prints(definition_record_json(&record), text);
}

static void an_applied_definition_says_apply(void **state)
{
	const struct definition_record record = { .source = "apply" };
	char source[32];

	assert_string_equal(definition_record_source(&record, source, sizeof(source)), "apply");
}

static void a_definition_record_without_a_definition_is_refused(void **state)
{
	struct definition_record record = { 0 };
	json_auto_t *value = json_of("{\"v\":1,\"generation\":4,\"source\":\"apply\"}");

	assert_int_equal(definition_record_parse(value, &record, NULL), -EBADMSG);
}

static void every_name_of_a_state_and_a_wish_is_read_back(void **state)
{
	for (int i = 0; i < VM_STATES; i++)
		assert_int_equal(vm_state_of(vm_state_name((enum vm_state)i)), i);
	for (int i = 0; i < VM_WISHES; i++)
		assert_int_equal(vm_wish_of(vm_wish_name((enum vm_wish)i)), i);
	assert_int_equal(vm_state_of("asleep"), -1);
	assert_int_equal(vm_state_of(NULL), -1);
	assert_int_equal(vm_wish_of(""), -1);
	assert_int_equal(node_mode_of(node_mode_name(NODE_STOPPED)), NODE_STOPPED);
	assert_int_equal(node_mode_of("broken"), -1);
}

#define PLACEMENT_TEXT                                                                             \
	"{\"v\":1,\"kind\":\"migrate\",\"node\":\"beta\",\"return_to\":\"alpha\","                 \
	"\"kvm_host\":\"alpha\",\"generation\":3,\"method\":\"live\",\"max_downtime_ms\":500,"     \
	"\"bandwidth\":null,\"postcopy\":true,\"number\":7,\"cancel\":6,\"since\":\"2026-11-"      \
	"21T10:00:00Z\","                                                                          \
	"\"by\":\"uid 0 at alpha\",\"later\":true}"

static void a_placement_record_is_read_and_written_back_whole(void **state)
{
	CLEANUP(placement_done) struct placement placement = { 0 };
	json_auto_t *value = json_of(PLACEMENT_TEXT), *again = NULL;

	assert_int_equal(placement_parse(value, &placement, NULL), 0);
	assert_int_equal(placement.kind, PLACEMENT_MIGRATE);
	assert_string_equal(placement.node, "beta");
	assert_string_equal(placement.return_to, "alpha");
	assert_string_equal(placement.kvm_host, "alpha");
	assert_int_equal(placement.generation, 3);
	assert_int_equal(placement.method, PLACEMENT_LIVE);
	assert_int_equal(placement.max_downtime_ms, 500);
	assert_int_equal(placement.bandwidth, 0);
	assert_true(placement.postcopy);
	assert_int_equal(placement.number, 7);
	assert_int_equal(placement.cancel, 6);
	again = placement_json(&placement);
	assert_true(json_equal(value, again));
}

static void no_placement_record_is_none_and_a_damaged_one_is_refused(void **state)
{
	static const struct {
		const char *text, *message;
	} cases[] = {
		{ "7", "the placement record is not a JSON object" },
		{ "{\"kind\":\"move\"}", "the placement record is 'move' and names no node" },
		{ "{\"node\":\"a\"}", "the placement record is 'none' and names a node" },
		{ "{\"kind\":\"drift\",\"node\":\"a\"}",
		  "'kind' of the placement record is 'drift', which is not known" },
		{ "{\"kind\":\"move\",\"node\":\"a\",\"method\":\"warm\"}",
		  "'method' of the placement record is 'warm', which is not known" },
		{ "{\"kind\":\"move\",\"node\":\"a\",\"bandwidth\":-1}",
		  "'bandwidth' of the placement record is not a whole number from 0 on" },
	};
	struct placement placement = { .number = 7 };

	assert_int_equal(placement_parse(NULL, &placement, NULL), 0);
	assert_int_equal(placement.kind, PLACEMENT_NONE);
	assert_int_equal(placement.number, 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		json_auto_t *value = json_of(cases[i].text);
		struct error err = { 0 };

		assert_int_equal(placement_parse(value, &placement, &err), -EBADMSG);
		assert_string_equal(err.text, cases[i].message);
	}
}

static void keys_of_the_store_are_paths(void **state)
{
	char key[RECORD_KEY_SIZE];

	assert_string_equal(key_vm(key, "web01", "owner"), "/drover/vms/web01/owner");
	assert_string_equal(key_assign(key, "alpha", "web01"), "/drover/assign/alpha/web01");
	assert_string_equal(key_node(key, "alpha", "life"), "/drover/nodes/alpha/life");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_owner_record_survives_reading_and_writing),
		cmocka_unit_test(an_owner_record_fills_the_struct),
		cmocka_unit_test(a_damaged_owner_record_is_never_read_as_nobody),
		cmocka_unit_test(a_text_that_does_not_fit_is_refused_not_cut),
		cmocka_unit_test(no_order_is_an_order_of_nothing),
		cmocka_unit_test(an_order_survives_reading_and_writing),
		cmocka_unit_test(an_unknown_order_is_refused),
		cmocka_unit_test(a_life_record_keeps_what_a_later_version_wrote),
		cmocka_unit_test(a_life_without_a_state_is_refused),
		cmocka_unit_test(a_definition_record_survives_reading_and_writing),
		cmocka_unit_test(an_applied_definition_says_apply),
		cmocka_unit_test(a_definition_record_without_a_definition_is_refused),
		cmocka_unit_test(every_name_of_a_state_and_a_wish_is_read_back),
		cmocka_unit_test(a_placement_record_is_read_and_written_back_whole),
		cmocka_unit_test(no_placement_record_is_none_and_a_damaged_one_is_refused),
		cmocka_unit_test(keys_of_the_store_are_paths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
