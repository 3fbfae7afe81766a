/* SPDX-License-Identifier: Apache-2.0 */
/* YAML as this house reads it: what scalars mean, where values stood, and what is refused with
 * which sentence. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/document.h"
#include "wire/json.h"

static struct document **documents;
static size_t n_documents;

static int forget(void **state)
{
	documents_free(documents, n_documents);
	documents = NULL;
	n_documents = 0;
	return 0;
}

static void parse(const char *text)
{
	struct error err = { 0 };

	(void)forget(NULL);
	if (documents_parse("f.yaml", text, strlen(text), &documents, &n_documents, &err) < 0)
		fail_msg("%s", err.text);
}

static void expect(const char *text, const char *json)
{
	CLEANUP_FREE char *printed = NULL;

	parse(text);
	assert_int_equal(n_documents, 1);
	printed = json_print(document_root(documents[0]));
	assert_string_equal(printed, json);
}

static void expect_refusal(const char *text, size_t length, const char *words)
{
	struct document **none = NULL;
	struct error err = { 0 };
	size_t count = 0;

	assert_int_equal(documents_parse("f.yaml", text, length, &none, &count, &err), -EBADMSG);
	assert_int_equal(err.class, ERROR_BAD_DATA);
	assert_string_equal(err.text, words);
}

static void plain_scalars_follow_the_core_schema(void **state)
{
	expect("[1, -2, +3, 007, 0x1F, 0o17, 1.5, -.5, 1e3, 5., true, FALSE, null, ~, Null]",
	       "[1,-2,3,7,31,15,1.5,-0.5,1000.0,5.0,true,false,null,null,null]");
	expect("a:\nb: ''\n", "{\"a\":null,\"b\":\"\"}");
	expect("[-9223372036854775808, 9223372036854775807]",
	       "[-9223372036854775808,9223372036854775807]");
}

static void what_only_yaml_1_1_would_change_stays_text(void **state)
{
	expect("[00-01-02-03-05-06, 12:34:56:78:9a:bc, 12:34:56, 10:20, yes, no, on, off, y, n]",
	       "[\"00-01-02-03-05-06\",\"12:34:56:78:9a:bc\",\"12:34:56\",\"10:20\",\"yes\",\"no\","
	       "\"on\",\"off\",\"y\",\"n\"]");
	expect("[2026-11-20, 1_000, 0b11, 0x, 0o8, tRUE, nULL, 1.2.3, -, 1e, '+']",
	       "[\"2026-11-20\",\"1_000\",\"0b11\",\"0x\",\"0o8\",\"tRUE\",\"nULL\",\"1.2.3\","
	       "\"-\",\"1e\",\"+\"]");
	expect("['1', \"true\", '~']", "[\"1\",\"true\",\"~\"]");
	expect("a: |\n  1\n", "{\"a\":\"1\\n\"}");
}

static void the_example_of_the_manual_loads(void **state)
{
	expect("name: test00\nparameters:\n  id: 12345\n  online: true\n  kvm_host: bob\n"
	       "  nics:\n  - srv: 00-01-02-03-05-06\n  - fe: 00-01-02-03-05-06\n",
	       "{\"name\":\"test00\",\"parameters\":{\"id\":12345,\"kvm_host\":\"bob\",\"nics\":[{"
	       "\"srv\":\"00-01-02-03-05-06\"},{\"fe\":\"00-01-02-03-05-06\"}],\"online\":true}}");
}

static void json_is_yaml_too(void **state)
{
	expect("{\"a\": [1, {\"b\": null}], \"c\\u00e4\": \"x\\ty\"}",
	       "{\"a\":[1,{\"b\":null}],\"c\xc3\xa4\":\"x\\ty\"}");
	expect("\xef\xbb\xbf"
	       "a: b",
	       "{\"a\":\"b\"}");
}

static void a_file_may_hold_several_documents(void **state)
{
	parse("# head\n---\n# nothing\n---\na: 1\n---\nb: 2\n---\n");
	assert_int_equal(n_documents, 2);
	assert_string_equal(document_label(documents[1]), "f.yaml");
	assert_int_equal(json_int_or(document_root(documents[1]), "b", 0), 2);
	parse("");
	assert_int_equal(n_documents, 0);
	parse("# only words\n");
	assert_int_equal(n_documents, 0);
}

static void expect_place(const char *pointer, unsigned line, unsigned column, unsigned key_line,
			 unsigned key_column)
{
	unsigned at_line, at_column;

	document_where(documents[0], pointer, &at_line, &at_column);
	assert_int_equal(at_line, line);
	assert_int_equal(at_column, column);
	document_where_key(documents[0], pointer, &at_line, &at_column);
	assert_int_equal(at_line, key_line);
	assert_int_equal(at_column, key_column);
}

static void each_value_and_key_has_its_place(void **state)
{
	parse("name: x\nparameters:\n  nics:\n  - srv: 00-01\n  - {fe: 1}\n  a/b~c: 2\n");
	expect_place("", 1, 1, 1, 1);
	expect_place("/name", 1, 7, 1, 1);
	expect_place("/parameters", 3, 3, 2, 1);
	expect_place("/parameters/nics/0/srv", 4, 10, 4, 5);
	expect_place("/parameters/nics/1", 5, 5, 5, 5);
	expect_place("/parameters/nics/1/fe", 5, 10, 5, 6);
	expect_place("/parameters/a~1b~0c", 6, 10, 6, 3);
	/* What is absent is at its nearest ancestor. */
	expect_place("/parameters/nics/0/none/deeper", 4, 5, 4, 5);
	expect_place("/parameters/nics/7", 4, 3, 3, 3);
	expect_place("/none", 1, 1, 1, 1);
}

static void what_is_refused_is_refused_with_its_place(void **state)
{
	static const struct {
		const char *text, *words;
	} cases[] = {
		{ "a: 1\nb: &x 2\n",
		  "f.yaml:2:4: anchors ('&x') are not used here: write the value "
		  "out wherever it is needed" },
		{ "a: *x\n", "f.yaml:1:4: aliases ('*x') are not used here: write the value out; "
			     "text that begins with '*' goes in quotes" },
		{ "a: !!str 1\n", "f.yaml:1:4: tags ('tag:yaml.org,2002:str') are not used here: "
				  "leave the tag out, "
				  "and put text that looks like a number in quotes" },
		{ "a: !x {}\n", "f.yaml:1:4: tags ('!x') are not used here: leave the tag out, and "
				"put text that looks like a number in quotes" },
		{ "a: 1\nb: 2\na: 3\n",
		  "f.yaml:3:1: key 'a' is here a second time, it was first on "
		  "line 1: remove one" },
		{ "<<: {a: 1}\n", "f.yaml:1:1: merge keys ('<<') are not used here: write the keys "
				  "out" },
		{ "? [a]\n: 1\n", "f.yaml:1:3: a key must be plain text" },
		{ "a: 9223372036854775808\n", "f.yaml:1:4: '9223372036854775808': this number does "
					      "not fit into 64 bits: put it in quotes if it is "
					      "text" },
		{ "a: 1e999\n",
		  "f.yaml:1:4: '1e999': this number is too large: put it in quotes if "
		  "it is text" },
		{ "a: -.INF\n",
		  "f.yaml:1:4: '-.INF': infinity and not-a-number cannot be used: put "
		  "it in quotes if it is text" },
		{ "a: \"x\\0y\"\n", "f.yaml:1:4: text must not hold a NUL character: remove it" },
		{ "a: \xc3\xa4\n\xc3\xa4: x\xff\n", "f.yaml:2:5: byte 0xff is not UTF-8: save the "
						    "file as UTF-8" },
		{ "a: b\x07\n", "f.yaml:1:5: an invisible control character (byte 0x07) is here: "
				"remove it" },
		{ "a:\n\t- b\n",
		  "f.yaml:2:1: not valid YAML: found character that cannot start any token: indent "
		  "with spaces, not with tabs" },
		{ "\xc3\xa4: @b\n",
		  "f.yaml:1:4: not valid YAML: found character that cannot start any token: put a "
		  "value that begins with this character in quotes" },
		{ "a: b: c\n",
		  "f.yaml:1:5: not valid YAML: mapping values are not allowed in this context: a "
		  "value that holds ': ' must be in quotes, and keys of one mapping must be "
		  "indented "
		  "alike" },
		{ "a: \"b\n",
		  "f.yaml:2:1: not valid YAML: found unexpected end of stream: close the "
		  "quote that was opened before" },
		{ "a: [1, 2\n", "f.yaml:2:1: not valid YAML: did not find expected ',' or ']': "
				"separate with ',' and close every bracket" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		expect_refusal(cases[i].text, strlen(cases[i].text), cases[i].words);
	expect_refusal("a: \0b\n", 6,
		       "f.yaml:1:4: an invisible control character (byte 0x00) is "
		       "here: remove it");
}

static void depth_size_and_number_have_limits(void **state)
{
	CLEANUP(text_done) struct text deep = { 0 };
	CLEANUP(text_done) struct text long_text = { 0 };
	CLEANUP(text_done) struct text many = { 0 };

	for (int i = 0; i < 64; i++)
		text_add(&deep, "[", 1);
	for (int i = 0; i < 64; i++)
		text_add(&deep, "]", 1);
	parse(deep.text);
	text_done(&deep);
	for (int i = 0; i < 100000; i++)
		text_add(&deep, "[", 1);
	expect_refusal(deep.text, deep.length,
		       "f.yaml:1:66: nested deeper than 64 levels: make it "
		       "flatter");
	text_add(&long_text, "a: ", 3);
	for (int i = 0; i < 1024 * 1024; i++)
		text_add(&long_text, "b", 1);
	expect_refusal(long_text.text, long_text.length,
		       "f.yaml:1:1: longer than 1024 KiB: split "
		       "the file");
	text_add(&many, "[", 1);
	for (int i = 0; i < 100001; i++)
		text_add(&many, "1,", 2);
	text_add(&many, "]", 1);
	expect_refusal(many.text, many.length,
		       "f.yaml:1:200000: more than 100000 values: split the "
		       "file");
}

static void a_typo_is_near_what_was_meant(void **state)
{
	static const char *const keys[] = { "memory", "cores", "disk", "online", NULL };

	assert_string_equal(document_nearest("memroy", keys), "memory");
	assert_string_equal(document_nearest("Memory", keys), "memory");
	assert_string_equal(document_nearest("core", keys), "cores");
	assert_string_equal(document_nearest("onlnie", keys), "online");
	assert_null(document_nearest("dsk", (const char *const[]){ "online", NULL }));
	assert_null(document_nearest("no", keys));
	assert_null(document_nearest("", keys));
	assert_null(document_nearest(
		"zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", keys));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(plain_scalars_follow_the_core_schema, forget),
		cmocka_unit_test_teardown(what_only_yaml_1_1_would_change_stays_text, forget),
		cmocka_unit_test_teardown(the_example_of_the_manual_loads, forget),
		cmocka_unit_test_teardown(json_is_yaml_too, forget),
		cmocka_unit_test_teardown(a_file_may_hold_several_documents, forget),
		cmocka_unit_test_teardown(each_value_and_key_has_its_place, forget),
		cmocka_unit_test(what_is_refused_is_refused_with_its_place),
		cmocka_unit_test_teardown(depth_size_and_number_have_limits, forget),
		cmocka_unit_test(a_typo_is_near_what_was_meant),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
