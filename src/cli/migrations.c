/* SPDX-License-Identifier: Apache-2.0 */
/* drover migrations: each migration with its steps.  Both sides tell of the same one; what belongs
 * together is shown as one. */
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
	{ "observed_usec", "us as the keeper that sent it saw it, by one clock", false },
	{ "qemu_downtime_ms", "ms of downtime as QEMU counts it", false },
	{ "bytes", "sent", true },
	{ "disk_bytes", "of disks", true },
	{ "rounds", "rounds", false },
};

/* The sides of one migration; `other` may be NULL. */
struct sides {
	const json_t *first, *other;
};

static void print_numbers(const struct sides *sides)
{
	CLEANUP(text_done) struct text line = { 0 };

	for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
		const json_t *number = json_object_get(sides->first, numbers[i].key);
		char buffer[QUANTITY_SIZE];

		if (!json_is_integer(number))
			number = json_object_get(sides->other, numbers[i].key);
		if (json_is_integer(number))
			text_addf(&line, "%s%s %s", line.length ? ", " : "",
				  numbers[i].bytes ? print_bytes(number, buffer)
						   : print_number(number, buffer),
				  numbers[i].words);
	}
	if (line.length)
		printf("  %s\n", line.text);
}

struct step {
	const json_t *phase;
	const char *node;
	int64_t at; /* microseconds after the migration began */
};

static int64_t wall_of(const json_t *phase)
{
	return json_int_or(phase, "wall_usec", 0);
}

/* When that side began, by the clock of its host; 0: it does not say. */
static int64_t begin_of(const json_t *record)
{
	const json_t *phase = json_array_get(json_object_get(record, "phases"), 0);
	int64_t wall = wall_of(phase);

	return wall ? wall - json_int_or(phase, "after_usec", 0) : 0;
}

static size_t add_steps(struct step *steps, size_t count, const json_t *record, int64_t begin)
{
	json_t *phases = json_object_get(record, "phases"), *phase;
	size_t i;

	json_array_foreach(phases, i, phase)
	{
		steps[count++] = (struct step){
			.phase = phase,
			.node = json_string_or(record, "node", "?"),
			.at = begin ? wall_of(phase) - begin : json_int_or(phase, "after_usec", 0),
		};
	}
	return count;
}

static int by_time(const void *left, const void *right)
{
	const struct step *a = left, *b = right;

	return a->at < b->at ? -1 : a->at > b->at;
}

static void print_steps(const struct sides *sides)
{
	size_t room = json_array_size(json_object_get(sides->first, "phases")) +
		      json_array_size(json_object_get(sides->other, "phases"));
	CLEANUP_FREE struct step *steps = xcalloc(room + 1, sizeof(*steps));
	int64_t begin = begin_of(sides->first), other = begin_of(sides->other);
	size_t count;

	if (other && other < begin)
		begin = other;
	count = add_steps(steps, 0, sides->first, begin);
	count = add_steps(steps, count, sides->other, begin);
	qsort(steps, count, sizeof(*steps), by_time);
	for (size_t i = 0; i < count; i++) {
		CLEANUP_FREE char *line = xasprintf("%s: %s", steps[i].node,
						    json_string_or(steps[i].phase, "phase", "?"));
		CLEANUP_FREE char *clean = print_clean(line);

		printf("  %12.6f s  %s\n", (double)steps[i].at / 1e6, clean);
	}
}

static void print_told(const json_t *record)
{
	const char *why = json_string_or(record, "why", NULL);
	CLEANUP_FREE char *line = NULL, *clean = NULL;

	line = xasprintf("  told by its %s on %s, ended %s: %s%s%s",
			 json_string_or(record, "role", "?"), json_string_or(record, "node", "?"),
			 json_string_or(record, "ended", "?"),
			 json_string_or(record, "result", "?"), why ? ": " : "", why ? why : "");
	clean = print_clean(line);
	printf("%s\n", clean);
}

static void print_one(const struct sides *sides)
{
	const json_t *first = sides->first;
	CLEANUP_FREE char *line = NULL, *clean = NULL;

	line = xasprintf("%s: %s -> %s, %s; began %s, epoch %lld", json_string_or(first, "vm", "?"),
			 json_string_or(first, "from", "?"), json_string_or(first, "to", "?"),
			 json_string_or(first, "result", "?"),
			 json_string_or(first, "started", "?"),
			 (long long)json_int_or(first, "id", 0));
	clean = print_clean(line);
	printf("%s\n", clean);
	print_told(first);
	if (sides->other)
		print_told(sides->other);
	print_steps(sides);
	print_numbers(sides);
}

static bool same(const json_t *a, const json_t *b, const char *key)
{
	return strcmp(json_string_or(a, key, ""), json_string_or(b, key, "")) == 0;
}

/* Of one try?  Several of the same epoch follow each other. */
static bool belong_together(const json_t *a, const json_t *b)
{
	return same(a, b, "vm") && same(a, b, "from") && same(a, b, "to") && !same(a, b, "role") &&
	       json_int_or(a, "id", 0) == json_int_or(b, "id", 0) &&
	       strcmp(json_string_or(a, "started", ""), json_string_or(b, "ended", "")) <= 0 &&
	       strcmp(json_string_or(b, "started", ""), json_string_or(a, "ended", "")) <= 0;
}

/* The place of the other side; that of `i` itself: nobody told it. */
static size_t other_side(const json_t *list, size_t i, const bool *shown)
{
	for (size_t j = i + 1; j < json_array_size(list); j++)
		if (!shown[j] && belong_together(json_array_get(list, i), json_array_get(list, j)))
			return j;
	return i;
}

static void print_trouble(const json_t *record)
{
	CLEANUP_FREE char *line = xasprintf("drover: node '%s' does not tell its side: %s",
					    json_string_or(record, "node", "?"),
					    json_string_or(record, "trouble", "?"));
	CLEANUP_FREE char *clean = print_clean(line);

	fprintf(stderr, "%s\n", clean);
}

static void print_all(const json_t *list)
{
	CLEANUP_FREE bool *shown = xcalloc(json_array_size(list) + 1, sizeof(*shown));

	for (size_t i = 0; i < json_array_size(list); i++) {
		struct sides sides = { .first = json_array_get(list, i) };
		size_t other;

		if (shown[i])
			continue;
		if (json_is_string(json_object_get(sides.first, "trouble"))) {
			print_trouble(sides.first);
			continue;
		}
		other = other_side(list, i, shown);
		shown[other] = true;
		if (other != i)
			sides.other = json_array_get(list, other);
		print_one(&sides);
	}
}

int run_migrations(struct cli *cli, struct error *err)
{
	json_auto_t *answer = NULL;
	int r;

	r = agent_ask_vm(cli, "migrations", cli->n_args > 0 ? cli->args[0] : NULL, &answer, err);
	if (r < 0)
		return r;
	if (cli->options.json)
		print_json(answer);
	else
		print_all(answer);
	return 0;
}
