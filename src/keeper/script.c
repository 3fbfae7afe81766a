/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/script.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "keeper/keeper.h"
#include "keeper/monitor.h"
#include "util/cleanup.h"
#include "util/mem.h"
#include "wire/json.h"

#define LINES_MAX 64

struct line {
	const char *command;
	json_t *args;
	int fd; /* -1: none */
	bool optional, oob;
};

struct script {
	struct keeper *keeper;
	struct line lines[LINES_MAX];
	size_t count, at;
	script_done_fn done;
	void *ctx;
	sd_event_source *begin; /* the first line goes out from the loop */
	bool asked;		/* a line is not answered yet */
	bool cancelled;
};

static void script_free(struct script *script)
{
	for (size_t i = 0; i < script->count; i++) {
		json_decref(script->lines[i].args);
		cleanup_closep(&script->lines[i].fd);
	}
	sd_event_source_disable_unref(script->begin);
	free(script);
}

struct script *script_new(struct keeper *keeper)
{
	struct script *script = xcalloc(1, sizeof(*script));

	script->keeper = keeper;
	return script;
}

static void add(struct script *script, struct line line)
{
	if (script->count == LINES_MAX)
		abort(); /* one line a volume and a dozen more */
	script->lines[script->count++] = line;
}

void script_add(struct script *script, const char *command, json_t *args)
{
	add(script, (struct line){ .command = command, .args = args, .fd = -1 });
}

void script_add_optional(struct script *script, const char *command, json_t *args)
{
	add(script, (struct line){ .command = command, .args = args, .fd = -1, .optional = true });
}

void script_add_oob(struct script *script, const char *command, json_t *args, bool optional)
{
	add(script, (struct line){ .command = command,
				   .args = args,
				   .fd = -1,
				   .optional = optional,
				   .oob = true });
}

void script_add_fd(struct script *script, const char *name, int fd)
{
	add(script, (struct line){ .command = "getfd",
				   .args = json_pack("{s:s}", "fdname", name),
				   .fd = fd });
}

static void next(struct script *script);

static void finish(struct script *script, int r, const struct error *err)
{
	script_done_fn done = script->done;
	void *ctx = script->ctx;

	script_free(script);
	done(ctx, r, err);
}

static void on_answer(void *ctx, int r, json_t *value, const struct error *err)
{
	struct script *script = ctx;
	bool optional = script->lines[script->at].optional;

	script->asked = false;
	if (script->cancelled) {
		script_free(script);
		return;
	}
	if (r < 0 && !(optional && r == -EREMOTEIO)) {
		finish(script, r, err);
		return;
	}
	script->at++;
	next(script);
}

static void next(struct script *script)
{
	struct line *line = &script->lines[script->at];
	struct error err = { 0 };
	int r;

	if (script->at == script->count) {
		finish(script, 0, NULL);
		return;
	}
	r = line->oob ? monitor_call_oob(script->keeper->monitor, line->command, line->args,
					 on_answer, script, &err)
		      : monitor_call_fd(script->keeper->monitor, line->command, line->args,
					line->fd, on_answer, script, &err);
	if (r < 0)
		finish(script, r, &err);
	else
		script->asked = true;
}

static int on_begin(sd_event_source *source, void *ctx)
{
	next(ctx);
	return 0;
}

void script_run(struct script *script, script_done_fn done, void *ctx)
{
	script->done = done;
	script->ctx = ctx;
	if (sd_event_add_defer(script->keeper->loop, &script->begin, on_begin, script) < 0)
		abort(); /* no memory */
}

struct script *script_cancel(struct script *script)
{
	if (!script)
		return NULL;
	/* A monitor that was closed answers nothing any more. */
	if (script->asked && script->keeper->monitor)
		script->cancelled = true;
	else
		script_free(script);
	return NULL;
}
