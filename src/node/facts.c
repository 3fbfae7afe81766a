/* SPDX-License-Identifier: Apache-2.0 */
#include "node/facts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/config.h"
#include "node/elsewhere.h"
#include "node/info.h"
#include "node/mode.h"
#include "node/node.h"
#include "node/records.h"
#include "node/replacement.h"
#include "node/session.h"
#include "node/vm.h"
#include "qemu/build.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/spawn.h"
#include "wire/json.h"

#define PROBE_TIMEOUT (30 * USEC_PER_SEC)

struct facts {
	struct node *node;
	struct tool *tool;
	json_t *qemu;	     /* list; or NULL: not known yet */
	json_t *accelerator; /* {name, why}; or NULL */
	json_t *cpu_model;   /* as the kernel calls it, or null */
	json_t *cpu_models;  /* names of those that QEMU runs here; or NULL: not known (yet) */
};

static void probe(struct facts *facts, const char *what, tool_done_fn done);

/* What the child said under that key; else `ret_why` gets its last words. */
static json_t *result_of(int r, const struct tool_result *result, const char *key,
			 const struct error *err, char **ret_why)
{
	json_auto_t *value = NULL;

	*ret_why = NULL;
	if (r < 0) {
		*ret_why = xstrdup(err->text);
		return NULL;
	}
	if (result->code == 0 && json_parse(result->out, result->out_length, &value, NULL) == 0)
		return json_incref(json_object_get(value, key));
	*ret_why = xstrdup(result->err_text && *result->err_text ? result->err_text
								 : "the probe said nothing");
	(*ret_why)[strcspn(*ret_why, "\n")] = '\0';
	return NULL;
}

static void on_cpus(void *ctx, int r, struct tool_result *result, const struct error *err)
{
	struct facts *facts = ctx;
	CLEANUP_FREE char *why = NULL;

	facts->tool = NULL;
	facts->cpu_models = result_of(r, result, "cpu_models", err, &why);
	if (facts->cpu_models)
		info_touch(facts->node);
	else
		log_warning("which CPU models run here is not known: %s", why);
}

static void on_accelerator(void *ctx, int r, struct tool_result *result, const struct error *err)
{
	struct facts *facts = ctx;
	CLEANUP_FREE char *why = NULL;

	facts->tool = NULL;
	facts->accelerator = result_of(r, result, "accelerator", err, &why);
	if (!facts->accelerator)
		facts->accelerator =
			json_pack("{s:n, s:o}", "name", "why", json_text(why, strlen(why)));
	info_touch(facts->node);
	log_info("accelerator: %s (%s)", json_string_or(facts->accelerator, "name", "none"),
		 json_string_or(facts->accelerator, "why", ""));
	if (json_string_or(facts->accelerator, "name", NULL))
		probe(facts, "cpus", on_cpus);
}

static void log_start(const struct facts *facts, const char *why)
{
	const struct node *node = facts->node;
	struct text builds = { 0 };
	json_t *build;
	size_t i;

	json_array_foreach(facts->qemu, i, build) text_addf(&builds, "%s%s (%s)", i ? ", " : "",
							    json_string_or(build, "version", "?"),
							    json_string_or(build, "binary", "?"));
	log_info("droverd %s serves node '%s', store %s, QEMU %s", DROVER_VERSION,
		 node->config->node, store_address(node->store),
		 builds.text ? builds.text
		 : why	     ? why
			     : "not known");
	text_done(&builds);
}

static void on_builds(void *ctx, int r, struct tool_result *result, const struct error *err)
{
	struct facts *facts = ctx;
	CLEANUP_FREE char *why = NULL;

	facts->tool = NULL;
	facts->qemu = result_of(r, result, "qemu", err, &why);
	log_start(facts, why);
	if (facts->qemu) {
		probe(facts, "accelerator", on_accelerator);
		return;
	}
	log_error("no VM can be started: %s", why);
	facts->accelerator = json_pack("{s:n, s:o}", "name", "why", json_text(why, strlen(why)));
}

static void probe(struct facts *facts, const char *what, tool_done_fn done)
{
	const char *root = facts->node->config->paths.root;
	const char *argv[] = { "/proc/self/exe",	"--probe", what,
			       *root ? "--root" : NULL, root,	   NULL };
	const struct spawn spawn = {
		.argv = argv,
		.stdin_fd = -1,
		.stdout_fd = -1,
		.stderr_fd = -1,
		.die_with_parent = true,
	};
	struct error err = { 0 };
	int r;

	r = tool_start(facts->node->loop, &spawn, PROBE_TIMEOUT, done, facts, &facts->tool, &err);
	if (r < 0)
		done(facts, r, NULL, &err);
}

static json_t *cpu_model(void)
{
	CLEANUP_FREE char *text = NULL;
	char *line, *value = NULL;

	/* Its size is told as 0, and only its beginning is needed. */
	if (file_read(AT_FDCWD, "/proc/cpuinfo", 16u * 1024 * 1024, &text, NULL, NULL) == 0 &&
	    (line = strstr(text, "model name")) && (value = strchr(line, ':'))) {
		value += 1 + strspn(value + 1, " ");
		value[strcspn(value, "\n")] = '\0';
	}
	return value ? json_text(value, strlen(value)) : json_null();
}

void facts_open(struct node *node)
{
	struct facts *facts = xcalloc(1, sizeof(*facts));

	facts->node = node;
	facts->cpu_model = cpu_model();
	node->facts = facts;
	probe(facts, "builds", on_builds);
}

struct facts *facts_close(struct facts *facts)
{
	if (!facts)
		return NULL;
	tool_cancel(facts->tool);
	json_decref(facts->qemu);
	json_decref(facts->accelerator);
	json_decref(facts->cpu_model);
	json_decref(facts->cpu_models);
	free(facts);
	return NULL;
}

/* ---- the child ---- */

static void config_freep(struct config **config)
{
	config_free(*config);
}

static int probe_builds(const struct config *config, const char *cache, json_t **ret,
			struct error *err)
{
	struct qemu_build *build = NULL;
	int r;

	r = qemu_build_probe(config->qemu_binary, config->qemu_data, cache, &build, err);
	if (r < 0)
		return r;
	*ret = json_pack("{s:[{s:s, s:s, s:s}]}", "qemu", "binary", build->binary, "version",
			 build->version, "package", build->package);
	qemu_build_free(build);
	return 0;
}

static int try_accel(const struct config *config, const struct qemu_build *build, const char *accel,
		     const char *cpu_model, const char *cache, bool *ret_works, char **ret_why,
		     struct error *err)
{
	return qemu_accel_probe(build, accel, cpu_model, config->probe_rom, config->timers.probe,
				cache, ret_works, ret_why, err);
}

/* What `accelerator: auto` comes to here for a guest that names no CPU model, and why.  TCG makes
 * its CPU itself: whether it runs is no matter of the model. */
static int probe_accelerator(const struct config *config, const char *cache, json_t **ret,
			     struct error *err)
{
	CLEANUP_FREE char *kvm = NULL, *tcg = NULL, *why = NULL;
	struct qemu_build *build = NULL;
	bool works = false;
	const char *name = "kvm";
	int r;

	r = qemu_build_probe(config->qemu_binary, config->qemu_data, cache, &build, err);
	if (r < 0)
		return r;
	r = try_accel(config, build, "kvm", config->cpu_model, cache, &works, &kvm, err);
	if (r == 0 && !works) {
		name = "tcg";
		r = try_accel(config, build, "tcg", "max", cache, &works, &tcg, err);
	}
	qemu_build_free(build);
	if (r < 0)
		return r;
	why = tcg ? xasprintf("%s; %s", kvm, tcg) : xstrdup(kvm);
	*ret = json_pack("{s:{s:s?, s:o}}", "accelerator", "name", works ? name : NULL, "why",
			 json_text(why, strlen(why)));
	return 0;
}

/* The accelerator was tried just before, so its answer is kept. */
static int probe_cpus(const struct config *config, const char *cache, json_t **ret,
		      struct error *err)
{
	json_auto_t *accelerator = NULL;
	struct qemu_build *build = NULL;
	json_t *names = NULL;
	const char *accel;
	int r;

	r = probe_accelerator(config, cache, &accelerator, err);
	if (r < 0)
		return r;
	accel = json_string_or(json_object_get(accelerator, "accelerator"), "name", NULL);
	if (!accel)
		return error_set(err, -ENODEV, "no accelerator works");
	r = qemu_build_probe(config->qemu_binary, config->qemu_data, cache, &build, err);
	if (r == 0)
		r = qemu_build_cpus(build, config->qemu_data, accel, cache, &names, err);
	qemu_build_free(build);
	if (r == 0)
		*ret = json_pack("{s:o}", "cpu_models", names);
	return r;
}

int facts_probe(const char *root, const char *what, struct error *err)
{
	CLEANUP(config_freep) struct config *config = NULL;
	CLEANUP_FREE char *cache = NULL, *text = NULL;
	json_auto_t *value = NULL;
	int r;

	r = config_load(root, &config, err);
	if (r < 0)
		return r;
	cache = xasprintf("%s/qemu", config->paths.lib);
	(void)file_make_dirs(AT_FDCWD, cache, 0755, NULL);
	if (strcmp(what, "builds") == 0)
		r = probe_builds(config, cache, &value, err);
	else if (strcmp(what, "cpus") == 0)
		r = probe_cpus(config, cache, &value, err);
	else
		r = probe_accelerator(config, cache, &value, err);
	if (r < 0)
		return r;
	text = json_print(value);
	return puts(text) == EOF ? error_set(err, -EIO, "cannot write to standard output") : 0;
}

/* ---- the node object ---- */

json_t *facts_qemu(const struct node *node)
{
	if (!node->facts || !node->facts->qemu)
		return json_array();
	return json_incref(node->facts->qemu);
}

static uint64_t meminfo_mib(const char *text, const char *key)
{
	const char *at = strstr(text, key);

	return at ? strtoull(at + strlen(key), NULL, 10) >> 10 : 0;
}

/* As the keepers book it: what a VM has, and what QEMU needs on top. */
static uint64_t booked_mib(const struct node *node)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < node->n_vms; i++) {
		const json_t *told = node->vms[i]->told_now ? node->vms[i]->told : NULL;

		if (json_is_integer(json_object_get(told, "pid")))
			sum += (uint64_t)json_int_or(told, "memory_mib", 0) +
			       node->config->memory_overhead_mib;
	}
	return sum;
}

/* Of the guests that run here, as PVC counts it, and of all that belong here, whether they run. */
static uint64_t guests_mib(const struct node *node, bool running)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < node->n_vms; i++) {
		const struct node_vm *vm = node->vms[i];
		bool runs = vm->told_now && json_is_integer(json_object_get(vm->told, "pid"));

		if (runs)
			sum += (uint64_t)json_int_or(vm->told, "memory_mib", 0);
		else if (!running && vm->definition && !elsewhere_holder(vm) &&
			 vm_wish_under(vm, ORDER_NONE) == WISH_RUN)
			sum += vm->definition->memory_mib;
	}
	return sum;
}

/* What a VM may have that is started now: what is not booked, as far as it is really there.  Huge
 * pages and what other programs use is booked by nobody. */
static uint64_t free_mib(const struct node *node, uint64_t total, uint64_t available)
{
	uint64_t limit = node->config->memory_limit_mib, booked = booked_mib(node), left;

	if (limit == 0 || limit > total)
		limit = total;
	left = limit > booked ? limit - booked : 0;
	return left < available ? left : available;
}

static json_t *memory_json(const struct node *node)
{
	CLEANUP_FREE char *text = NULL;
	uint64_t total = 0, available = 0;

	if (file_read(AT_FDCWD, "/proc/meminfo", 65536, &text, NULL, NULL) == 0) {
		total = meminfo_mib(text, "MemTotal:");
		available = meminfo_mib(text, "MemAvailable:");
	}
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "total", (json_int_t)total, "available",
			 (json_int_t)available, "booked", (json_int_t)booked_mib(node), "allocated",
			 (json_int_t)guests_mib(node, true), "provisioned",
			 (json_int_t)guests_mib(node, false), "free",
			 (json_int_t)free_mib(node, total, available));
}

static json_t *states_json(const struct node *node)
{
	json_t *states = json_object();

	for (size_t i = 0; i < node->n_vms; i++) {
		const char *name = vm_state_name(vm_state(node->vms[i], NULL));

		if (!node->vms[i]->removed)
			(void)json_object_set_new(states, name,
						  json_integer(json_int_or(states, name, 0) + 1));
	}
	return states;
}

json_t *node_json(const struct node *node)
{
	json_t *accelerator = node->facts ? node->facts->accelerator : NULL;
	json_t *cpu_models = node->facts ? node->facts->cpu_models : NULL;
	const char *store_state = records_trouble(node);
	double load = 0;

	(void)getloadavg(&load, 1);
	return json_pack(
		"{s:s, s:s?, s:s, s:o, s:I, s:o, s:O?, s:f, s:s, s:s, s:I, s:o, s:o, s:o, s:o}",
		"name", node->config->node, "mode",
		mode_trouble(node) ? NULL : node_mode_name(node->mode), "boot_id", node->boot_id,
		"memory_mib", memory_json(node), "cpus", (json_int_t)sysconf(_SC_NPROCESSORS_ONLN),
		"cpu_model", node->facts ? json_incref(node->facts->cpu_model) : json_null(),
		"cpu_models", cpu_models, "load", load, "store", store_address(node->store),
		"store_state", store_state ? store_state : session_words(node), "store_usec",
		(json_int_t)info_latency(node), "qemu", facts_qemu(node), "accelerator",
		accelerator ? json_incref(accelerator)
			    : json_pack("{s:n, s:s}", "name", "why", "still being tried"),
		"vms", states_json(node), "keepers", replacement_json(node));
}
