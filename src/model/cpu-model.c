/* SPDX-License-Identifier: Apache-2.0 */
#include "model/cpu-model.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "model/key.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"

#define NAME_CHARS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"

size_t cpu_model_name_length(const char *text)
{
	return strcspn(text, ",");
}

/* QEMU says no to a host that lacks something only when it is told to insist, and that we do. */
static bool is_ours(const char *flag)
{
	return strcmp(flag, "enforce") == 0 || strcmp(flag, "check") == 0;
}

/* "pdpe1gb", "+pdpe1gb" and "pdpe1gb=on" are one flag, "-svm" and "svm=off" are. */
static int read_flag(const char *word, size_t length, char **ret, struct error *err)
{
	bool has_sign = *word == '+' || *word == '-';
	const char *name = word + has_sign;
	size_t rest = length - has_sign, named = strspn(name, NAME_CHARS), valued = 0;
	CLEANUP_FREE char *flag = NULL;

	if (named > rest)
		named = rest;
	if (named < rest && name[named] == '=' && !has_sign)
		valued = strspn(name + named + 1, NAME_CHARS);
	if (named == 0 || *name == '-' || *name == '.' ||
	    (named < rest && (valued == 0 || named + 1 + valued != rest)))
		return error_bad_data(err,
				      "'%.*s' is no flag; write FLAG, +FLAG, -FLAG or FLAG=VALUE",
				      (int)length, word);
	flag = xasprintf("%.*s", (int)named, name);
	for (char *c = flag; *c; c++)
		*c = *c == '_' ? '-' : *c;
	if (is_ours(flag))
		return error_bad_data(err,
				      "'%s' is always on where it can be; write the model without "
				      "it",
				      flag);
	if (valued)
		*ret = xasprintf("%s%.*s", flag, (int)valued + 1, name + named);
	else
		*ret = xasprintf("%s=%s", flag, *word == '-' ? "off" : "on");
	return 0;
}

/* By name alone. */
static int compare_flags(const void *a, const void *b)
{
	const char *left = *(const char *const *)a, *right = *(const char *const *)b;
	size_t n_left = strcspn(left, "="), n_right = strcspn(right, "=");
	int order = strncmp(left, right, n_left < n_right ? n_left : n_right);

	if (order != 0)
		return order;
	return n_left == n_right ? 0 : (n_left < n_right ? -1 : 1);
}

static int read_flags(const char *text, struct strv *flags, struct error *err)
{
	while (*text) {
		size_t length = strcspn(++text, ",");
		char *flag = NULL;
		int r = read_flag(text, length, &flag, err);

		if (r < 0)
			return r;
		strv_add(flags, flag);
		free(flag);
		text += length;
	}
	return 0;
}

static int join(const char *name, size_t length, const struct strv *flags, char **ret,
		struct error *err)
{
	CLEANUP(text_done) struct text whole = { 0 };

	text_addf(&whole, "%.*s", (int)length, name);
	for (size_t i = 0; i < flags->count; i++) {
		if (i > 0 && compare_flags(&flags->items[i - 1], &flags->items[i]) == 0)
			return error_bad_data(err, "flag '%.*s' is there twice; write it once",
					      (int)strcspn(flags->items[i], "="), flags->items[i]);
		text_addf(&whole, ",%s", flags->items[i]);
	}
	*ret = TAKE_PTR(whole.text);
	return 0;
}

int cpu_model_canonical(const char *text, char **ret, struct error *err)
{
	CLEANUP(strv_done) struct strv flags = { 0 };
	size_t length = cpu_model_name_length(text);
	int r;

	if (length == 0 || strspn(text, NAME_CHARS) < length)
		return error_bad_data(err, "'%.*s' is no CPU model; write a name of `-cpu help`",
				      (int)length, text);
	r = read_flags(text + length, &flags, err);
	if (r < 0)
		return r;
	if (flags.count)
		qsort(flags.items, flags.count, sizeof(flags.items[0]), compare_flags);
	return join(text, length, &flags, ret, err);
}

int cpu_model_check_key(const struct key_reader *reader, const struct key_place *place,
			json_t *value, void *target, struct error *err)
{
	CLEANUP_FREE char *canonical = NULL;
	struct error why = { 0 };

	if (cpu_model_canonical(json_string_value(value), &canonical, &why) == 0)
		return 0;
	return key_wrong(reader, place, err, "%s", why.text);
}
