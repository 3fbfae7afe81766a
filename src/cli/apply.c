/* SPDX-License-Identifier: Apache-2.0 */
/* drover apply: texts go to the agent as they are, with the names of their files, since the agent
 * reads them and its messages say FILE:LINE:COLUMN.  They are stored all or none; then it waits
 * until each VM has settled. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/agent.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/file.h"
#include "util/mem.h"
#include "wire/json.h"

#define DEFINITION_MAX (1024 * 1024)
#define ALL_MAX (8 * 1024 * 1024) /* a message is at most 16 MiB, and JSON quotes */

static int add_document(json_t *documents, const char *label, const char *text, size_t length,
			struct error *err)
{
	json_t *document;

	if (strlen(text) != length)
		return error_bad_data(err, "%s: this is no text, it has a NUL byte in it", label);
	document = json_build(NULL, "{s:s, s:s}", "label", label, "text", text);
	if (!document)
		return error_bad_data(err, "%s: this is no UTF-8 text", label);
	(void)json_array_append_new(documents, document);
	return 0;
}

static int add_file(json_t *documents, const char *path, size_t *total, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	size_t length;
	int r;

	r = file_read(AT_FDCWD, path, DEFINITION_MAX, &text, &length, err);
	if (r == -EFBIG)
		return error_bad_data(err, "%s: longer than a definition may be (%d bytes)", path,
				      DEFINITION_MAX);
	if (r < 0)
		return r;
	*total += length;
	if (*total > ALL_MAX)
		return error_bad_data(err, "more than %d bytes of definitions: apply them in parts",
				      ALL_MAX);
	return add_document(documents, path, text, length, err);
}

static int add_stdin(json_t *documents, struct error *err)
{
	CLEANUP(text_done) struct text text = { 0 };
	char buffer[65536];
	ssize_t length;

	for (;;) {
		length = read(STDIN_FILENO, buffer, sizeof(buffer));
		if (length < 0 && errno == EINTR)
			continue;
		if (length < 0)
			return error_set(err, -errno, "cannot read standard input: %m");
		if (length == 0)
			break;
		text_add(&text, buffer, (size_t)length);
		if (text.length > ALL_MAX)
			return error_bad_data(err, "more than %d bytes on standard input", ALL_MAX);
	}
	if (text.length == 0)
		return error_bad_data(err, "<stdin>: there is no definition on standard input");
	return add_document(documents, "<stdin>", text.text, text.length, err);
}

static int is_definition(const struct dirent *entry)
{
	const char *dot = strrchr(entry->d_name, '.');

	return entry->d_name[0] != '.' && dot &&
	       (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int add_directory(json_t *documents, const char *path, size_t *total, struct error *err)
{
	struct dirent **entries;
	int count, r = 0;

	count = scandir(path, &entries, is_definition, by_name);
	if (count < 0)
		return error_set(err, -errno, "cannot list '%s': %m", path);
	for (int i = 0; i < count; i++) {
		size_t length = strlen(path);
		CLEANUP_FREE char *file =
			xasprintf("%s%s%s", path, length && path[length - 1] == '/' ? "" : "/",
				  entries[i]->d_name);

		if (r >= 0)
			r = add_file(documents, file, total, err);
		free(entries[i]);
	}
	free(entries);
	if (r >= 0 && count == 0)
		return error_bad_data(err, "'%s' has no *.yaml and no *.yml in it", path);
	return r;
}

static int read_documents(json_t *documents, const char *path, struct error *err)
{
	struct stat stat_buffer;
	size_t total = 0;

	if (strcmp(path, "-") == 0)
		return add_stdin(documents, err);
	if (stat(path, &stat_buffer) == 0 && S_ISDIR(stat_buffer.st_mode))
		return add_directory(documents, path, &total, err);
	return add_file(documents, path, &total, err);
}

/* Notes before their VM's line, so that a terminal shows them together. */
static void print_result(const json_t *result)
{
	CLEANUP_FREE char *diff = xstrdup(json_string_or(result, "diff", ""));
	json_t *note;
	size_t i;

	json_array_foreach(json_object_get(result, "notes"), i, note)
	{
		CLEANUP_FREE char *clean = print_clean(json_string_value(note));

		fprintf(stderr, "%s\n", clean);
	}
	printf("%s: %s\n", json_string_or(result, "name", "?"),
	       json_string_or(result, "result", "?"));
	for (char *rest = diff, *line; (line = strsep(&rest, "\n"));) {
		CLEANUP_FREE char *clean = print_clean(line);

		if (*line)
			printf("  %s\n", clean);
	}
}

/* One after the other: the agent began with all of them when they were stored. */
static int wait_for(struct cli *cli, const json_t *results, struct error *err)
{
	uint64_t deadline = clock_now() + cli->options.timeout_usec;
	const json_t *result;
	int code = 0, r;
	size_t i;

	json_array_foreach(results, i, result)
	{
		const char *name = json_string_or(result, "name", "?");
		json_auto_t *args = NULL, *vm = NULL;
		struct question question = { .command = "ensure", .vm = name, .order = true };

		if (cli->options.timeout_usec) {
			uint64_t now = clock_now();

			cli->options.timeout_usec =
				now + USEC_PER_SEC < deadline ? deadline - now : USEC_PER_SEC;
		}
		args = agent_order_args(cli, name);
		question.args = args;
		question.timeout_usec = agent_patience(cli);
		r = agent_ask(cli, &question, &vm, err);
		if (r == -EINTR || r == -ENOENT || r == -ECONNREFUSED)
			return r;
		if (r < 0)
			fprintf(stderr, "drover: %s: stored, but: %s\n", name, err->text);
		if (r < 0 && code == 0)
			code = error_exit_code(err->class);
		if (r >= 0 && print_failure(vm))
			code = error_exit_code(ERROR_FAILED);
	}
	return code;
}

int run_apply(struct cli *cli, struct error *err)
{
	bool dry_run = cli->options.given & OPTION_DRY_RUN;
	json_auto_t *documents = json_array();
	json_auto_t *args = NULL, *answer = NULL;
	struct question question = { .command = "apply", .order = !dry_run };
	json_t *results, *result;
	size_t i;
	int r;

	r = read_documents(documents, cli->args[0], err);
	if (r < 0)
		return r;
	args = json_build(err, "{s:O, s:b}", "documents", documents, "dry_run", dry_run);
	if (!args)
		return -EINVAL;
	question.args = args;
	/* Each definition is a write to the store, which may have to be repeated. */
	question.timeout_usec = 120 * USEC_PER_SEC;
	r = agent_ask(cli, &question, &answer, err);
	if (r < 0)
		return r;
	results = json_object_get(answer, "results");
	if (cli->options.json)
		print_json(results);
	else
		json_array_foreach(results, i, result) print_result(result);
	(void)fflush(stdout);
	if (dry_run || cli->options.no_wait)
		return 0;
	return wait_for(cli, results, err);
}
