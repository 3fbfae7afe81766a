/* SPDX-License-Identifier: Apache-2.0 */
/* drover handle-consul-event: what `consul watch` has on standard input goes to the agent, in parts
 * that fit into a message.  A single event that is wrong is told and changes no exit code: Consul
 * would only run us again. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/agent.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"

#define ALL_MAX (256u * 1024 * 1024)
#define PARTS_MAX (4u * 1024 * 1024) /* JSON values, as many as 1 GiB of memory holds */
#define MESSAGE_MAX (4u * 1024 * 1024)

static int read_events(json_t **ret_events, struct error *err)
{
	CLEANUP(text_done) struct text text = { 0 };
	char buffer[65536];
	ssize_t length;
	int r;

	while ((length = read(STDIN_FILENO, buffer, sizeof(buffer))) != 0) {
		if (length < 0 && errno == EINTR)
			continue;
		if (length < 0)
			return error_set(err, -errno, "cannot read standard input: %m");
		if (text.length + (size_t)length > ALL_MAX)
			return error_bad_data(err, "more than %u bytes on standard input", ALL_MAX);
		text_add(&text, buffer, (size_t)length);
	}
	if (text.length == 0 || json_parts(text.text, text.length) > PARTS_MAX)
		return error_bad_data(err, "<stdin>: there %s events on standard input",
				      text.length ? "are too many" : "are no");
	r = json_parse(text.text, text.length, ret_events, err);
	if (r < 0)
		return error_prefix(err, r, "<stdin>");
	/* An empty prefix is told as null. */
	if (!json_is_array(*ret_events) && !json_is_null(*ret_events))
		return error_bad_data(err, "<stdin>: there is no list of events");
	return 0;
}

/* Only what they need: keys, values and numbers. */
static json_t *take_some(const json_t *events, size_t *next)
{
	json_t *some = json_array();
	size_t bytes = 0;

	for (; *next < json_array_size(events) && bytes < MESSAGE_MAX; ++*next) {
		json_t *event = json_array_get(events, *next);

		json_array_append(some, event);
		bytes += strlen(json_string_or(event, "Key", "")) +
			 strlen(json_string_or(event, "Value", "")) + 256;
	}
	return some;
}

static void print_result(const json_t *result)
{
	CLEANUP_FREE char *key = print_clean(json_string_or(result, "key", "?"));
	CLEANUP_FREE char *message = print_clean(json_string_or(result, "message", ""));
	const char *what = json_string_or(result, "result", "?");
	FILE *out = strcmp(what, "failed") == 0 ? stderr : stdout;

	fprintf(out, "%s: %s%s%s\n", key, what, message[0] ? ": " : "", message);
}

int run_handle_consul_event(struct cli *cli, struct error *err)
{
	json_auto_t *events = NULL, *all = json_array();
	json_t *result;
	size_t next = 0, i;
	int r;

	r = read_events(&events, err);
	while (r >= 0 && next < json_array_size(events)) {
		json_auto_t *args = json_pack("{s:o}", "events", take_some(events, &next));
		json_auto_t *answer = NULL;
		struct question question = { .command = "consul-events", .args = args };

		question.timeout_usec = 120 * USEC_PER_SEC;
		r = agent_ask(cli, &question, &answer, err);
		if (r >= 0)
			(void)json_array_extend(all, json_object_get(answer, "results"));
	}
	if (r < 0)
		return r;
	if (cli->options.json)
		print_json(all);
	else
		json_array_foreach(all, i, result) print_result(result);
	return 0;
}
