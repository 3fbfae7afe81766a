/* SPDX-License-Identifier: Apache-2.0 */
#include "node/directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "model/config.h"
#include "model/definition.h"
#include "node/definitions.h"
#include "node/disks.h"
#include "node/events.h"
#include "node/node.h"
#include "node/records.h"
#include "node/vm.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/file.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/document.h"

#define FILE_MAX (1024u * 1024)
#define WATCH_AGAIN (2 * USEC_PER_SEC)
#define SETTLE_AT_MOST                                                                             \
	20 /* quiet times; then a directory that never rests is read all the same                  \
	    */

struct file {
	char *path;
	char *vm; /* whom it speaks of, or, as long as it cannot be read, would by its name */
	struct definition *definition; /* NULL: broken, or refused */
	struct definition_notes notes;
	char *error;
};

struct directory {
	struct node *node;
	char *path;
	sd_event_source *watch, *settle, *rewatch;
	unsigned unsettled;
	bool writing, again;
	char *said; /* complaint about the directory itself that was logged last */
};

static void scan(struct directory *directory);

/* ---- reading ---- */

static struct file *files_free(struct file *files, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(files[i].path);
		free(files[i].vm);
		free(files[i].error);
		definition_notes_done(&files[i].notes);
		definition_free(files[i].definition);
	}
	free(files);
	return NULL;
}

static bool name_counts(const char *name)
{
	const char *dot = strrchr(name, '.');

	return name[0] != '.' && dot && dot != name &&
	       (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0);
}

static int parse_file(struct file *file, struct error *err)
{
	struct document **documents = NULL;
	CLEANUP_FREE char *text = NULL;
	size_t length = 0, count = 0;
	int r;

	r = file_read(AT_FDCWD, file->path, FILE_MAX, &text, &length, err);
	if (r < 0)
		return r;
	r = documents_parse(file->path, text, length, &documents, &count, err);
	if (r < 0)
		return r;
	if (count != 1)
		r = error_bad_data(err,
				   "%s: has %zu definitions; a file in this directory has exactly "
				   "one",
				   file->path, count);
	else
		r = definition_parse(documents[0], &file->definition, &file->notes, err);
	documents_free(documents, count);
	return r;
}

struct reading {
	char *path; /* of the directory */
	struct file *files;
	size_t count;
	int r;
	struct error err;
};

static void add_file(struct reading *reading, const char *name)
{
	struct error err = { 0 };
	struct file *file;

	reading->files = xrealloc(reading->files, reading->count + 1, sizeof(*reading->files));
	file = &reading->files[reading->count++];
	*file = (struct file){ .path = xasprintf("%s/%s", reading->path, name) };
	if (parse_file(file, &err) < 0)
		file->error = xstrdup(err.text);
	file->vm = xstrdup(file->definition ? file->definition->name : name);
	if (!file->definition)
		*strrchr(file->vm, '.') = '\0';
}

static int compare_names(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int read_directory(struct reading *reading)
{
	struct dirent **names = NULL;
	int n = scandir(reading->path, &names, NULL, compare_names);

	if (n < 0)
		return error_set(&reading->err, -errno, "cannot read '%s': %m", reading->path);
	for (int i = 0; i < n; i++) {
		if (name_counts(names[i]->d_name))
			add_file(reading, names[i]->d_name);
		free(names[i]);
	}
	free(names);
	return 0;
}

static void reading_run(void *ctx)
{
	struct reading *reading = ctx;

	reading->r = read_directory(reading);
}

static void reading_drop(void *ctx)
{
	struct reading *reading = ctx;

	files_free(reading->files, reading->count);
	free(reading->path);
	free(reading);
}

static int read_files(const struct directory *directory, struct file **ret_files, size_t *ret_count,
		      struct error *err)
{
	struct reading *reading = xcalloc(1, sizeof(*reading));
	int r;

	reading->path = xstrdup(directory->path);
	r = disk_run(&disk_definitions, reading_run, reading_drop, reading, err);
	if (r < 0)
		return r;
	r = reading->r;
	if (r < 0)
		*err = reading->err;
	*ret_files = TAKE_PTR(reading->files);
	*ret_count = reading->count;
	reading->count = 0;
	reading_drop(reading);
	return r;
}

/* ---- what follows ---- */

static void refuse_file(struct file *file, const char *why)
{
	free(file->error);
	file->error = xstrdup(why);
	file->definition = definition_free(file->definition);
}

static bool is_source_of(const struct file *file, const struct node_vm *vm)
{
	return vm && vm_defined(vm) && strcmp(vm->record.source, "file") == 0 &&
	       strcmp(vm->record.node, vm->node->config->node) == 0 &&
	       strcmp(vm->record.path, file->path) == 0;
}

/* Two files that define one name: the one that did so first stays. */
static void refuse_twins(const struct node *node, struct file *files, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		for (size_t j = i + 1; j < count; j++) {
			CLEANUP_FREE char *why = NULL;
			const struct node_vm *vm;

			if (!files[i].definition || !files[j].definition ||
			    strcmp(files[i].definition->name, files[j].definition->name) != 0)
				continue;
			vm = vm_find(node, files[i].definition->name);
			why = xasprintf("VM '%s' is defined by two files, '%s' and '%s'; remove "
					"one",
					files[i].definition->name, files[i].path, files[j].path);
			if (!is_source_of(&files[j], vm))
				refuse_file(&files[j], why);
			if (files[j].definition || !is_source_of(&files[i], vm))
				refuse_file(&files[i], why);
			if (!files[i].definition)
				break;
		}
	}
}

static void set_file_error(struct node_vm *vm, const char *text)
{
	if (vm->file_error == text || (vm->file_error && text && strcmp(vm->file_error, text) == 0))
		return;
	free(vm->file_error);
	vm->file_error = xstrdup_or_null(text);
	if (text) {
		log_vm(LOG_LEVEL_ERROR, vm->name, "%s; the VM keeps what it had", text);
		events_add(vm->node, vm->name, "definition-refused", "%s", text);
	}
	vm_touch(vm);
}

static const struct file *file_of(const struct file *files, size_t count, const struct node_vm *vm)
{
	for (size_t i = 0; i < count; i++)
		if (is_source_of(&files[i], vm))
			return &files[i];
	return NULL;
}

/* For each VM of ours that came from a file: is the file there, and does it still speak of it? */
static void plan_losses(struct plan *plan, struct node *node, const struct file *files,
			size_t count)
{
	for (size_t i = 0; i < node->n_vms; i++) {
		struct node_vm *vm = node->vms[i];
		const struct file *file = file_of(files, count, vm);
		bool planned = false;

		if (!vm_defined(vm) || strcmp(vm->record.source, "file") != 0 ||
		    strcmp(vm->record.node, node->config->node) != 0)
			continue;
		for (size_t j = 0; j < plan->count; j++)
			planned |= strcmp(plan->items[j].name, vm->name) == 0;
		/* Broken is not gone. */
		if (!planned && (!file || file->definition))
			plan_add_gone(plan, node, vm->name);
	}
}

static void plan_files(struct plan *plan, struct node *node, struct file *files, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct source source = { .path = files[i].path };
		struct error err = { 0 };

		if (files[i].definition &&
		    plan_add(plan, node, &source, files[i].definition, &files[i].notes, &err) < 0)
			refuse_file(&files[i], err.text);
	}
}

/* The error of its own file, else of another that speaks of it. */
static const char *error_for(const struct file *files, size_t count, const struct node_vm *vm)
{
	const struct file *own = file_of(files, count, vm);

	if (own && own->error)
		return own->error;
	for (size_t i = 0; i < count; i++)
		if (files[i].error && strcmp(files[i].vm, vm->name) == 0)
			return files[i].error;
	return NULL;
}

/* A file that cannot be read may have no VM yet; then one is listed that is nothing but the error.
 */
static void show_errors(struct node *node, const struct file *files, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (!files[i].error)
			continue;
		if (definition_check_name(files[i].vm, NULL) == 0)
			(void)vm_need(node, files[i].vm);
		else
			log_error("%s", files[i].error);
	}
	for (size_t i = 0; i < node->n_vms; i++)
		set_file_error(node->vms[i], error_for(files, count, node->vms[i]));
}

static void log_notes(const struct plan *plan)
{
	for (size_t i = 0; i < plan->count; i++) {
		json_t *note;
		size_t j;

		if (plan->items[i].change == CHANGE_NONE)
			continue;
		json_array_foreach(plan->items[i].notes, j, note) log_vm(
			LOG_LEVEL_WARNING, plan->items[i].name, "%s", json_string_value(note));
	}
}

static void arm_settle(struct directory *directory, uint64_t usec);

static void on_written(void *ctx, int r, const struct error *err)
{
	struct directory *directory = ctx;

	directory->writing = false;
	if (r == -ESTALE) {
		directory->again = true;
		records_refresh(directory->node);
		return;
	}
	if (r < 0) {
		log_error("definitions of '%s' could not be stored: %s; trying again",
			  directory->path, err->text);
		arm_settle(directory, WATCH_AGAIN);
		return;
	}
	if (directory->again)
		arm_settle(directory, 0);
}

static void say_once(struct directory *directory, const char *text)
{
	if (text && (!directory->said || strcmp(directory->said, text) != 0))
		log_error("%s; definitions stay as they are", text);
	free(directory->said);
	directory->said = xstrdup_or_null(text);
}

static void scan(struct directory *directory)
{
	struct node *node = directory->node;
	struct file *files = NULL;
	struct plan plan = { 0 };
	struct error err = { 0 };
	size_t count = 0;

	directory->unsettled = 0;
	if (directory->writing || records_trouble(node)) {
		directory->again = true;
		return;
	}
	directory->again = false;
	if (read_files(directory, &files, &count, &err) < 0) {
		say_once(directory, err.text);
		arm_settle(directory, WATCH_AGAIN);
		return;
	}
	say_once(directory, NULL);
	refuse_twins(node, files, count);
	plan_files(&plan, node, files, count);
	plan_losses(&plan, node, files, count);
	show_errors(node, files, count);
	log_notes(&plan);
	files_free(files, count);
	directory->writing = true;
	plan_write(node, &plan, on_written, directory);
}

/* ---- watching ---- */

static int on_settled(sd_event_source *source, uint64_t usec, void *userdata)
{
	scan(userdata);
	return 0;
}

static void arm_settle(struct directory *directory, uint64_t usec)
{
	node_timer(directory->node, &directory->settle, usec, on_settled, directory);
}

static void watch(struct directory *directory);

static int on_rewatch(sd_event_source *source, uint64_t usec, void *userdata)
{
	watch(userdata);
	return 0;
}

static int on_change(sd_event_source *source, const struct inotify_event *event, void *userdata)
{
	struct directory *directory = userdata;

	/* The directory itself went, or was replaced: watch what has its name now. */
	if (event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED | IN_UNMOUNT)) {
		node_timer(directory->node, &directory->rewatch, 0, on_rewatch, directory);
		return 0;
	}
	if (event->len && !name_counts(event->name) && !(event->mask & IN_Q_OVERFLOW))
		return 0;
	if (directory->unsettled++ < SETTLE_AT_MOST)
		arm_settle(directory, directory->node->config->timers.settle_files);
	return 0;
}

static void watch(struct directory *directory)
{
	struct node *node = directory->node;
	struct error err = { 0 };
	int r;

	directory->watch = sd_event_source_disable_unref(directory->watch);
	(void)file_make_dirs(AT_FDCWD, directory->path, 0755, &err);
	r = sd_event_add_inotify(node->loop, &directory->watch, directory->path,
				 IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE |
					 IN_CREATE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR,
				 on_change, directory);
	if (r < 0) {
		(void)error_set(&err, r, "cannot watch '%s': %m", directory->path);
		say_once(directory, err.text);
		node_timer(node, &directory->rewatch, WATCH_AGAIN, on_rewatch, directory);
		return;
	}
	arm_settle(directory, 0);
}

void directory_open(struct node *node)
{
	struct directory *directory = xcalloc(1, sizeof(*directory));

	directory->node = node;
	directory->path = xasprintf("%s/vms", node->config->paths.etc);
	directory->again = true;
	node->directory = directory;
	watch(directory);
}

struct directory *directory_close(struct directory *directory)
{
	if (!directory)
		return NULL;
	sd_event_source_disable_unref(directory->watch);
	sd_event_source_disable_unref(directory->settle);
	sd_event_source_disable_unref(directory->rewatch);
	free(directory->path);
	free(directory->said);
	free(directory);
	return NULL;
}

void directory_look(struct node *node)
{
	if (node->directory && node->directory->again)
		arm_settle(node->directory, 0);
}

void directory_rescan(struct node *node)
{
	if (node->directory)
		arm_settle(node->directory, 0);
}
