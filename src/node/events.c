/* SPDX-License-Identifier: Apache-2.0 */
#include "node/events.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/config.h"
#include "model/definition.h"
#include "node/node.h"
#include "node/tail.h"
#include "node/vm.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/writer.h"
#include "wire/json.h"
#include "wire/peer.h"

#define FILE_MAX (4 * 1024 * 1024) /* then it becomes events.jsonl.1 */
#define LINES_DEFAULT 50
#define LINES_MAX 10000
#define TAIL_MAX (2u * 1024 * 1024) /* of each file */

struct follower {
	struct follower *next;
	struct request *request;
	char *vm; /* NULL: all */
};

struct events {
	char *path, *older;
	struct follower *followers;
};

void events_open(struct node *node)
{
	const char *log = node->config->paths.log;
	struct events *events = xcalloc(1, sizeof(*events));
	struct error err = { 0 };

	events->path = xasprintf("%s/events.jsonl", log);
	events->older = xasprintf("%s/events.jsonl.1", log);
	if (file_make_dirs(AT_FDCWD, log, 0755, &err) < 0)
		log_warning("%s; going on without an event log", err.text);
	node->events = events;
}

static struct follower *follower_free(struct follower *follower)
{
	free(follower->vm);
	free(follower);
	return NULL;
}

static void end_following(struct follower *follower)
{
	json_auto_t *none = json_pack("{s:[]}", "events");

	request_return(follower->request, none);
	follower_free(follower);
}

struct events *events_close(struct events *events)
{
	if (!events)
		return NULL;
	while (events->followers) {
		struct follower *next = events->followers->next;

		end_following(events->followers);
		events->followers = next;
	}
	free(events->path);
	free(events->older);
	free(events);
	return NULL;
}

void events_forget(struct node *node)
{
	struct follower **at = &node->events->followers;

	while (*at) {
		struct follower *follower = *at;

		if (!request_abandoned(follower->request)) {
			at = &follower->next;
			continue;
		}
		*at = follower->next;
		end_following(follower);
	}
}

static void relay(struct node *node, const char *vm, json_t *data)
{
	for (struct follower *f = node->events->followers; f; f = f->next)
		if (!f->vm || (vm && strcmp(f->vm, vm) == 0))
			request_progress(f->request, data);
}

struct listener {
	struct node *node;
	const char *vm;
};

static void on_line(void *ctx, char *line)
{
	const struct listener *listener = ctx;
	json_auto_t *event = NULL;

	if (json_parse(line, strlen(line), &event, NULL) == 0 && json_is_object(event))
		relay(listener->node, listener->vm, event);
}

void events_look(struct node_vm *vm)
{
	struct listener listener = { vm->node, vm->name };
	CLEANUP_FREE char *dir = NULL;

	if (!vm->node->events || !vm->node->events->followers)
		return;
	dir = xasprintf("%s/vms/%s", vm->node->config->paths.log, vm->name);
	trail_read(&vm->trail, dir, on_line, &listener);
}

void events_begin(struct node_vm *vm)
{
	CLEANUP_FREE char *dir = NULL;

	if (!vm->node->events)
		return;
	dir = xasprintf("%s/vms/%s", vm->node->config->paths.log, vm->name);
	trail_begin(&vm->trail, dir);
}

void events_add(struct node *node, const char *vm, const char *event, const char *fmt, ...)
{
	CLEANUP_FREE char *reason = NULL, *line = NULL, *full = NULL;
	json_auto_t *data = NULL;
	char now[CLOCK_TEXT_SIZE];
	va_list ap;

	if (!node->events)
		return;
	va_start(ap, fmt);
	if (vasprintf(&reason, fmt, ap) < 0)
		reason = xstrdup("");
	va_end(ap);
	data = json_pack("{s:s, s:s?, s:s, s:s, s:o}", "time", clock_text(clock_wall(), now), "vm",
			 vm, "node", node->config->node, "event", event, "reason",
			 json_text(reason, strlen(reason)));
	if (!data)
		return;
	line = json_print(data);
	full = xasprintf("%s\n", line);
	writer_append(node->events->path, 0600, FILE_MAX, full, strlen(full));
	relay(node, vm, data);
}

/* ---- reading ---- */

struct found {
	json_t *event;
	size_t order; /* of reading: keeps lines of one second in their file's order */
};

struct collection {
	struct found *items;
	size_t count;
	const char *vm; /* NULL: all */
};

static void collect_lines(struct collection *all, char *text)
{
	char *rest = text, *line;

	while ((line = strsep(&rest, "\n"))) {
		json_t *event = NULL;

		/* A half line at the start of the tail or of a write that died is skipped. */
		if (!*line || json_parse(line, strlen(line), &event, NULL) < 0)
			continue;
		if (!json_is_object(event) ||
		    (all->vm && strcmp(json_string_or(event, "vm", ""), all->vm) != 0)) {
			json_decref(event);
			continue;
		}
		all->items = xrealloc(all->items, all->count + 1, sizeof(*all->items));
		all->items[all->count] = (struct found){ event, all->count };
		all->count++;
	}
}

static void collect(struct collection *all, const char *path, size_t lines)
{
	CLEANUP_FREE char *text = NULL;
	size_t length;

	if (tail_read(path, lines, TAIL_MAX, &text, &length, NULL) == 0)
		collect_lines(all, text);
}

static void collect_vm(struct collection *all, const struct node *node, const char *vm,
		       size_t lines)
{
	CLEANUP_FREE char *older =
		xasprintf("%s/vms/%s/events.jsonl.1", node->config->paths.log, vm);
	CLEANUP_FREE char *path = xasprintf("%s/vms/%s/events.jsonl", node->config->paths.log, vm);

	collect(all, older, lines);
	collect(all, path, lines);
}

static int found_compare(const void *a, const void *b)
{
	const struct found *one = a, *two = b;
	int r = strcmp(json_string_or(one->event, "time", ""),
		       json_string_or(two->event, "time", ""));

	if (r != 0)
		return r;
	return one->order < two->order ? -1 : 1;
}

static json_t *last_events(const struct node *node, const char *vm, size_t lines)
{
	struct collection all = { .vm = vm };
	json_t *list = json_array();

	collect(&all, node->events->older, vm ? LINES_MAX : lines);
	collect(&all, node->events->path, vm ? LINES_MAX : lines);
	if (vm)
		collect_vm(&all, node, vm, lines);
	for (size_t i = 0; !vm && i < node->n_vms; i++)
		collect_vm(&all, node, node->vms[i]->name, lines);
	if (all.count)
		qsort(all.items, all.count, sizeof(*all.items), found_compare);
	for (size_t i = 0; i < all.count; i++) {
		if (i + lines >= all.count)
			(void)json_array_append(list, all.items[i].event);
		json_decref(all.items[i].event);
	}
	free(all.items);
	return list;
}

static void follow(struct node *node, struct request *request, const char *vm, json_t *before)
{
	struct follower *follower = xcalloc(1, sizeof(*follower));
	json_t *event;
	size_t i;

	json_array_foreach(before, i, event) request_progress(request, event);
	*follower = (struct follower){
		.next = node->events->followers,
		.request = request,
		.vm = xstrdup_or_null(vm),
	};
	node->events->followers = follower;
}

void events_request(struct node *node, struct request *request)
{
	json_t *args = request_args(request);
	const char *vm = json_string_or(args, "vm", NULL);
	int64_t lines = json_int_or(args, "lines", LINES_DEFAULT);
	json_auto_t *answer = NULL;
	struct error err = { 0 };
	json_t *list;

	if (vm && definition_check_name(vm, &err) < 0) {
		request_fail(request, &err);
		return;
	}
	if (lines < 0 || lines > LINES_MAX)
		lines = LINES_MAX;
	/* Whoever follows already gets the rest; for the new one it is among the earlier events. */
	for (size_t i = 0; i < node->n_vms && json_bool_or(args, "follow", false); i++) {
		events_look(node->vms[i]);
		events_begin(node->vms[i]);
	}
	list = last_events(node, vm, (size_t)lines);
	if (json_bool_or(args, "follow", false)) {
		follow(node, request, vm, list);
		json_decref(list);
		return;
	}
	answer = json_pack("{s:o}", "events", list);
	request_return(request, answer);
}
