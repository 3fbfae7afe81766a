/* SPDX-License-Identifier: Apache-2.0 */
/* What a step from one form of the records to the next does with a record. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "model/schema.h"
#include "util/cleanup.h"
#include "wire/json.h"

static int mark(json_t *value)
{
	if (json_object_get(value, "form"))
		return 0;
	(void)json_object_set_new(value, "form", json_integer(2));
	return 1;
}

static void names_follow_their_pattern(void **state)
{
	static const struct {
		const char *from, *to, *key, *expected; /* NULL: it stays */
	} rows[] = {
		{ "/d/a", "/d/b", "/d/a", "/d/b" },
		{ "/d/a", "/d/b", "/d/ab", NULL },
		{ "/d/a", "/d/b", "/d/a/b", NULL },
		{ "/d/old/", "/d/new/", "/d/old/x", "/d/new/x" },
		{ "/d/old/", "/d/new/", "/d/old/x/y", "/d/new/x/y" },
		{ "/d/old/", "/d/new/", "/d/older/x", NULL },
		{ "/d/*/note", "/d/*/remark", "/d/web01/note", "/d/web01/remark" },
		{ "/d/*/note", "/d/*/remark", "/d/web01/notes", NULL },
		{ "/d/*/note", "/d/*/remark", "/d/web01/a/note", NULL },
		{ "/d/*/note", "/d/*/remark", "/d//note", NULL },
		{ "/d/*/note", "/notes/*", "/d/web01/note", "/notes/web01" },
		{ "/a/*/b/*", "/c/*-*", "/a/x/b/y", "/c/x-y" },
		{ "/a/*/b/", "/c/*/", "/a/x/b/y/z", "/c/x/y/z" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct schema_step step = { .from = rows[i].from, .to = rows[i].to };
		json_auto_t *value = json_pack("{s:i}", "v", 1), *changed = NULL;
		char key[SCHEMA_KEY_SIZE];
		int r = schema_step_apply(&step, rows[i].key, value, key, &changed);

		assert_int_equal(r, rows[i].expected != NULL);
		if (!rows[i].expected)
			continue;
		assert_string_equal(key, rows[i].expected);
		assert_true(json_equal(value, changed));
	}
}

static void a_name_that_would_be_too_long_stays(void **state)
{
	const struct schema_step step = { .from = "/d/*", .to = "/directory/*" };
	char key[SCHEMA_KEY_SIZE], longest[SCHEMA_KEY_SIZE] = "/d/";
	json_auto_t *value = json_object(), *changed = NULL;

	memset(longest + 3, 'a', SCHEMA_KEY_SIZE - 4);
	longest[SCHEMA_KEY_SIZE - 1] = '\0';
	assert_int_equal(schema_step_apply(&step, longest, value, key, &changed), 0);
}

static void what_has_the_new_form_is_left_alone(void **state)
{
	const struct schema_step step = { .from = "/d/*/definition", .change = mark };
	json_auto_t *value = json_pack("{s:s}", "kept", "yes"), *once = NULL, *twice = NULL;
	char key[SCHEMA_KEY_SIZE];

	assert_int_equal(schema_step_apply(&step, "/d/x/definition", value, key, &once), 1);
	assert_string_equal(key, "/d/x/definition");
	assert_string_equal(json_string_or(once, "kept", ""), "yes");
	assert_null(json_object_get(value, "form"));
	assert_int_equal(schema_step_apply(&step, "/d/x/definition", once, key, &twice), 0);
}

static void what_is_listed_holds_all_that_may_fit(void **state)
{
	static const char *const rows[][2] = {
		{ "/d/a", "/d/" },
		{ "/d/old/", "/d/old/" },
		{ "/d/*/note", "/d/" },
		{ "/d/vms/a*/note", "/d/vms/a" },
	};
	char prefix[SCHEMA_KEY_SIZE];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct schema_step step = { .from = rows[i][0] };

		assert_string_equal(schema_step_prefix(&step, prefix), rows[i][1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_follow_their_pattern),
		cmocka_unit_test(a_name_that_would_be_too_long_stays),
		cmocka_unit_test(what_has_the_new_form_is_left_alone),
		cmocka_unit_test(what_is_listed_holds_all_that_may_fit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
