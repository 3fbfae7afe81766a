/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/timeline.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "keeper/keeper.h"
#include "model/config.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

#define FILE_NAME "migrations.jsonl"
#define FILE_MAX (1024 * 1024) /* then it is renamed, and one such is kept */
#define PHASES_MAX 64

struct timeline {
	struct keeper *keeper;
	json_t *record;
	uint64_t began; /* clock_now() */
};

struct timeline *timeline_new(struct keeper *keeper, const char *role, const char *from,
			      const char *to, uint64_t id)
{
	struct timeline *timeline = xcalloc(1, sizeof(*timeline));
	char now[CLOCK_TEXT_SIZE];

	timeline->keeper = keeper;
	timeline->began = clock_now();
	timeline->record = json_pack("{s:i, s:I, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:[]}", "v", 1,
				     "id", (json_int_t)id, "vm", keeper->name, "role", role, "node",
				     keeper->config->node, "keeper", keeper->life, "from", from,
				     "to", to, "started", clock_text(clock_wall(), now), "phases");
	return timeline;
}

void timeline_phase(struct timeline *timeline, const char *phase)
{
	json_t *phases, *last;

	if (!timeline)
		return;
	phases = json_object_get(timeline->record, "phases");
	last = json_array_get(phases, json_array_size(phases) - 1);
	if (json_array_size(phases) >= PHASES_MAX ||
	    strcmp(json_string_or(last, "phase", ""), phase) == 0)
		return;
	log_info("migration: %s", phase);
	json_array_append_new(phases, json_pack("{s:s, s:I, s:I}", "phase", phase, "after_usec",
						(json_int_t)(clock_now() - timeline->began),
						"wall_usec", (json_int_t)clock_wall()));
}

void timeline_number(struct timeline *timeline, const char *key, uint64_t value)
{
	if (timeline)
		(void)json_object_set_new(timeline->record, key, json_integer((json_int_t)value));
}

static void append(struct keeper *keeper, const json_t *record)
{
	CLEANUP_FREE char *line = json_print(record);
	CLEANUP_FREE char *whole = xasprintf("%s\n", line);
	CLEANUP_FD int fd =
		openat(keeper->log_fd, FILE_NAME, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	struct stat st;

	if (fd < 0 || write(fd, whole, strlen(whole)) < 0) {
		log_warning("cannot write '%s' of the VM: %m; ignoring", FILE_NAME);
		return;
	}
	if (fstat(fd, &st) == 0 && st.st_size > FILE_MAX)
		(void)renameat(keeper->log_fd, FILE_NAME, keeper->log_fd, FILE_NAME ".1");
}

struct timeline *timeline_end(struct timeline *timeline, const char *result, const char *why)
{
	char now[CLOCK_TEXT_SIZE];

	if (!timeline)
		return NULL;
	json_set_string(timeline->record, "result", result);
	json_set_string(timeline->record, "why", why && *why ? why : NULL);
	json_set_string(timeline->record, "ended", clock_text(clock_wall(), now));
	timeline_number(timeline, "total_usec", clock_now() - timeline->began);
	append(timeline->keeper, timeline->record);
	return timeline_free(timeline);
}

struct timeline *timeline_free(struct timeline *timeline)
{
	if (!timeline)
		return NULL;
	json_decref(timeline->record);
	free(timeline);
	return NULL;
}
