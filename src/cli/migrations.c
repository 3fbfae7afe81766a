/* SPDX-License-Identifier: Apache-2.0 */
/* drover migrations: each migration with its steps. */
#include <stdlib.h>
#include <string.h>

#include "cli/agent.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "util/cleanup.h"
#include "util/mem.h"
#include "wire/json.h"

/* What QEMU and the keepers counted; the names are those of the record. */
static const struct {
	const char *key, *words;
	bool bytes;
} numbers[] = {
	{ "pause_usec", "us between STOP and RESUME", false },
	{ "qemu_downtime_ms", "ms of downtime as QEMU counts it", false },
	{ "bytes", "sent", true },
	{ "rounds", "rounds", false },
};

static void print_numbers(const json_t *record)
{
	CLEANUP(text_done) struct text line = { 0 };

	for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
		const json_t *number = json_object_get(record, numbers[i].key);
		char buffer[QUANTITY_SIZE];

		if (json_is_integer(number))
			text_addf(&line, "%s%s %s", line.length ? ", " : "",
				  numbers[i].bytes ? print_bytes(number, buffer)
						   : print_number(number, buffer),
				  numbers[i].words);
	}
	if (line.length)
		printf("  %s\n", line.text);
}

static void print_steps(const json_t *record)
{
	json_t *phases = json_object_get(record, "phases"), *phase;
	size_t i;

	json_array_foreach(phases, i, phase)
	{
		CLEANUP_FREE char *name = print_clean(json_string_or(phase, "phase", "?"));

		printf("  %12.6f s  %s\n", (double)json_int_or(phase, "after_usec", 0) / 1e6, name);
	}
}

static void print_one(const json_t *record)
{
	CLEANUP_FREE char *line = NULL, *clean = NULL;
	const char *why = json_string_or(record, "why", NULL);

	line = xasprintf("%s: %s -> %s, %s%s%s; began %s, epoch %lld, told by its %s on %s",
			 json_string_or(record, "vm", "?"), json_string_or(record, "from", "?"),
			 json_string_or(record, "to", "?"), json_string_or(record, "result", "?"),
			 why ? ": " : "", why ? why : "", json_string_or(record, "started", "?"),
			 (long long)json_int_or(record, "id", 0),
			 json_string_or(record, "role", "?"), json_string_or(record, "node", "?"));
	clean = print_clean(line);
	printf("%s\n", clean);
	print_steps(record);
	print_numbers(record);
}

int run_migrations(struct cli *cli, struct error *err)
{
	json_auto_t *answer = NULL;
	json_t *record;
	size_t i;
	int r;

	r = agent_ask_vm(cli, "migrations", cli->n_args > 0 ? cli->args[0] : NULL, &answer, err);
	if (r < 0)
		return r;
	if (cli->options.json) {
		print_json(answer);
		return 0;
	}
	json_array_foreach(answer, i, record) print_one(record);
	return 0;
}
