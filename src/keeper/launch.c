/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "keeper/booking.h"
#include "keeper/copy.h"
#include "keeper/keeper.h"
#include "keeper/report.h"
#include "model/config.h"
#include "qemu/build.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/spawn.h"
#include "wire/json.h"
#include "wire/sock.h"

#define PROBE_TIMEOUT (60 * USEC_PER_SEC)
#define TEMPLATE_MAX (256 * 1024)
#define LAST_WORDS_MAX 700

int launch_init(struct launch *launch, struct keeper *keeper, struct error *err)
{
	launch->keeper = keeper;
	launch->generation = keeper->want.generation;
	launch->restarts = keeper->want.restarts;
	for (size_t i = 0; i < ARRAY_SIZE(launch->taps); i++)
		launch->taps[i] = -1;
	return definition_from_json(keeper->want.tree, &launch->definition, err);
}

void launch_done(struct launch *launch)
{
	for (size_t i = 0; i < launch->n_volumes; i++)
		volume_open_done(&launch->volumes[i]);
	for (size_t i = 0; i < ARRAY_SIZE(launch->taps); i++)
		cleanup_closep(&launch->taps[i]);
	sections_done(&launch->template_binding);
	hardware_free(launch->hardware);
	definition_free(launch->definition);
	free(launch->binary);
}

/* What `accelerator: auto` comes to: what the guest was born with, else what really works here. */
static const char *given_accelerator(const struct launch *launch)
{
	const struct keeper *keeper = launch->keeper;

	if (launch->definition->accelerator != ACCEL_AUTO)
		return launch->definition->accelerator == ACCEL_KVM ? "kvm" : "tcg";
	if (keeper->hardware)
		return strcmp(keeper->hardware->accelerator, "kvm") == 0 ? "kvm" : "tcg";
	if (strcmp(keeper->config->accelerator, "auto") != 0)
		return keeper->config->accelerator;
	return NULL;
}

static const char *given_cpu_model(const struct launch *launch)
{
	const char *model = launch->definition->cpu_model;

	return model ? model : launch->keeper->config->cpu_model;
}

static int choose_accelerator(const struct launch *launch, const struct qemu_build *build,
			      const char *cache, const char **ret, struct error *err)
{
	const struct config *config = launch->keeper->config;
	CLEANUP_FREE char *why = NULL;
	bool works = false;
	int r;

	*ret = given_accelerator(launch);
	if (*ret)
		return 0;
	r = qemu_accel_probe(build, "kvm", given_cpu_model(launch), config->probe_rom,
			     config->timers.probe, cache, &works, &why, err);
	if (r < 0)
		return error_prefix(err, r, "choosing an accelerator");
	log_info("accelerator: %s (%s)", works ? "kvm" : "tcg", why);
	*ret = works ? "kvm" : "tcg";
	return 0;
}

static int read_template(const struct keeper *keeper, const char *path, char **ret_text,
			 struct error *err)
{
	struct error why = { 0 };
	int r;

	*ret_text = NULL;
	r = file_read(AT_FDCWD, path, TEMPLATE_MAX, ret_text, NULL, &why);
	if (r < 0 && r != -ENOENT)
		return error_set(err, r, "%s", why.text);
	return 0;
}

static int plan(struct launch *launch, struct text *notes, struct error *err)
{
	struct keeper *keeper = launch->keeper;
	const struct config *config = keeper->config;
	CLEANUP_FREE char *cache = xasprintf("%s/qemu", config->paths.lib);
	CLEANUP_FREE char *template_path = xasprintf("%s/qemu.cfg.in", config->paths.etc);
	CLEANUP_FREE char *template_text = NULL;
	struct qemu_build *build = NULL;
	struct hardware_input input;
	int r;

	r = qemu_build_probe(config->qemu_binary, config->qemu_data, cache, &build, err);
	if (r < 0)
		return r;
	input = (struct hardware_input){ .definition = launch->definition,
					 .last = keeper->hardware,
					 .build = build,
					 .config = config,
					 .generation = launch->generation,
					 .template_label = template_path,
					 .ret_template_binding = &launch->template_binding };
	r = choose_accelerator(launch, build, cache, &input.accelerator, err);
	if (r == 0)
		r = read_template(keeper, template_path, &template_text, err);
	input.template_text = template_text;
	if (r == 0)
		r = hardware_plan(&input, &launch->hardware, notes, err);
	launch->binary = xstrdup(build->binary);
	qemu_build_free(build);
	return r;
}

bool launch_probed(const struct launch *launch)
{
	const struct config *config = launch->keeper->config;
	CLEANUP_FREE char *cache = xasprintf("%s/qemu", config->paths.lib);

	return given_accelerator(launch) && qemu_build_known(config->qemu_binary, cache);
}

int launch_probe_start(struct launch *launch, tool_done_fn done, void *ctx, struct tool **ret_tool,
		       struct error *err)
{
	const char *root = launch->keeper->config->paths.root;
	const char *const argv[] = { "/proc/self/exe",
				     "--root",
				     *root ? root : "/",
				     "--probe",
				     given_cpu_model(launch),
				     launch->keeper->name,
				     NULL };
	const struct spawn what = { .argv = argv };

	return tool_start(launch->keeper->loop, &what, PROBE_TIMEOUT, done, ctx, ret_tool, err);
}

int launch_probe(const struct config *config, const char *cpu_model, struct error *err)
{
	CLEANUP_FREE char *cache = xasprintf("%s/qemu", config->paths.lib);
	CLEANUP_FREE char *why = NULL;
	struct qemu_build *build = NULL;
	bool works;
	int r;

	r = qemu_build_probe(config->qemu_binary, config->qemu_data, cache, &build, err);
	/* Whether its answer is needed, and what a missing one means, is the caller's matter. */
	if (r == 0)
		(void)qemu_accel_probe(build, "kvm", cpu_model, config->probe_rom,
				       config->timers.probe, cache, &works, &why, NULL);
	qemu_build_free(build);
	return r;
}

/* Lines to one line: "memory 64 -> 96 MiB; cores 1 -> 2". */
static void join_lines(struct text *text)
{
	CLEANUP(text_done) struct text joined = { 0 };
	char *rest = text->text;

	for (char *line; rest && (line = strsep(&rest, "\n"));)
		if (*line)
			text_addf(&joined, "%s%s", joined.length ? "; " : "", line);
	text_done(text);
	*text = joined;
	joined = (struct text){ 0 };
}

int launch_plan(struct launch *launch, struct error *err)
{
	CLEANUP(text_done) struct text notes = { 0 };
	int r;

	r = plan(launch, &notes, err);
	join_lines(&notes);
	if (r == 0 && notes.length)
		report_event(launch->keeper, "hardware-changed", NULL, "%s", notes.text);
	return r;
}

/* What would be planned says which binary and which of the site's bindings; the guest's own
 * hardware stays as it was recorded. */
int launch_adopt(struct launch *launch, struct error *err)
{
	int r;

	if (!launch->keeper->hardware)
		return error_try_again(err, "its hardware record is not known yet");
	r = plan(launch, NULL, err);
	launch->hardware = hardware_free(launch->hardware);
	return r;
}

int launch_changes(struct keeper *keeper, struct text *ret, struct error *err)
{
	CLEANUP(launch_done) struct launch launch = { 0 };
	int r;

	r = launch_init(&launch, keeper, err);
	/* What cannot be said without asking QEMU is said at the next start. */
	if (r < 0 || !launch_probed(&launch))
		return r;
	r = plan(&launch, ret, err);
	join_lines(ret);
	return r;
}

int launch_taps(struct launch *launch, struct error *err)
{
	struct keeper *keeper = launch->keeper;
	const struct definition *def = launch->definition;
	char name[NET_NAME_SIZE], bridge[16];
	enum nic_mode mode;
	int r;

	for (size_t i = 0; i < def->n_nics; i++) {
		r = config_nic(keeper->config, &def->nics[i], &mode, bridge, err);
		if (r < 0)
			return r;
		launch->nic_modes[i] = mode;
		if (mode != NIC_BRIDGE)
			continue;
		r = net_tap_open(keeper->root_id, keeper->name, def->nics[i].name, bridge,
				 &launch->taps[i], name, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Descriptors as they will be numbered in QEMU: spawn() puts them at 3, 4, ... */
struct handed {
	int fds[16 + DEFINITION_VOLUMES_MAX * VOLUME_LAYERS_MAX + DEFINITION_NICS_MAX];
	size_t count;
};

static int hand(struct handed *handed, int fd)
{
	if (fd < 0)
		return -1;
	handed->fds[handed->count++] = fd;
	return (int)(2 + handed->count);
}

/* The sockets that QEMU listens at, and the log that it appends to: ours, so that a later keeper
 * finds them by name. */
struct ends {
	int monitor, agent, serial, serial_log, qemu_log;
};

static void ends_done(struct ends *ends)
{
	cleanup_closep(&ends->monitor);
	cleanup_closep(&ends->agent);
	cleanup_closep(&ends->serial);
	cleanup_closep(&ends->serial_log);
	cleanup_closep(&ends->qemu_log);
}

static int open_log(const struct keeper *keeper, const char *name, int *ret_fd, struct error *err)
{
	*ret_fd = openat(keeper->log_fd, name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (*ret_fd < 0)
		return error_set(err, -errno, "cannot open '%s/vms/%s/%s': %m",
				 keeper->config->paths.log, keeper->name, name);
	return 0;
}

static int ends_open(struct keeper *keeper, struct ends *ends, struct error *err)
{
	static const char *const names[] = { "qmp.sock", "agent.sock", "serial.sock" };
	int *const fds[] = { &ends->monitor, &ends->agent, &ends->serial };
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		r = sock_listen(keeper->run_fd, names[i], 0600, err);
		if (r < 0)
			return r;
		*fds[i] = r;
	}
	r = open_log(keeper, "serial.log", &ends->serial_log, err);
	if (r == 0)
		r = open_log(keeper, "qemu.log", &ends->qemu_log, err);
	return r;
}

static void hand_volumes(const struct launch *launch, struct handed *handed,
			 struct binding_volume *bindings)
{
	const struct definition *def = launch->definition;

	for (size_t i = 0; i < launch->n_volumes; i++) {
		const struct volume_open *open = &launch->volumes[i];

		bindings[i] = (struct binding_volume){ .name = def->volumes[i].name,
						       .n_layers = open->n_layers,
						       .read_only = def->volumes[i].read_only,
						       .cache = def->volumes[i].cache,
						       .aio = def->volumes[i].aio };
		/* QEMU since 9.1 takes only what was opened as it would open it, and says itself
		 * when the file system cannot do that. */
		if (binding_is_direct(&bindings[i]))
			volume_open_direct(open);
		for (size_t j = 0; j < open->n_layers; j++) {
			bindings[i].fds[j] = hand(handed, open->layers[j].fd);
			bindings[i].formats[j] = volume_format_name(open->layers[j].format);
		}
	}
}

static void hand_nics(const struct launch *launch, struct handed *handed,
		      struct binding_nic *bindings)
{
	const struct definition *def = launch->definition;

	for (size_t i = 0; i < def->n_nics; i++)
		bindings[i] = (struct binding_nic){
			.name = def->nics[i].name,
			.tap_fd = hand(handed, launch->taps[i]),
			.user = launch->nic_modes[i] == NIC_USER,
		};
}

static int make_command_line(const struct launch *launch, const struct ends *ends,
			     const struct jail *jail, struct handed *handed, struct strv *ret_argv,
			     struct error *err)
{
	const struct keeper *keeper = launch->keeper;
	struct binding_volume volumes[DEFINITION_VOLUMES_MAX];
	struct binding_nic nics[DEFINITION_NICS_MAX];
	struct binding_input input = {
		.hardware = keeper->hardware,
		.definition = launch->definition,
		.binary = launch->binary,
		.data_dir = keeper->config->qemu_data,
		.vm = keeper->name,
		.token = launch->token,
		.monitor_fd = hand(handed, ends->monitor),
		.agent_fd = hand(handed, ends->agent),
		.serial_fd = hand(handed, ends->serial),
		.serial_log_fd = hand(handed, ends->serial_log),
		.kernel_path = jail->kernel_fd >= 0 ? JAIL_KERNEL : NULL,
		.initrd_path = jail->initrd_fd >= 0 ? JAIL_INITRD : NULL,
		.firmware_path = jail->firmware_fd >= 0 ? JAIL_FIRMWARE : NULL,
		.volumes = volumes,
		.n_volumes = launch->n_volumes,
		.nics = nics,
		.n_nics = launch->definition->n_nics,
		.template_binding = &launch->template_binding,
		.incoming = launch->attempt != 0,
	};

	hand_volumes(launch, handed, volumes);
	hand_nics(launch, handed, nics);
	return qemu_command_line(&input, ret_argv, err);
}

/* Every launch leaves its exact command line, before anything can go wrong with it (fc-P26). */
static void log_command_line(struct launch *launch, const struct strv *argv, int log_fd)
{
	CLEANUP(text_done) struct text line = { 0 };
	char now[CLOCK_TEXT_SIZE];

	text_addf(&line, "\n%s starting as uid %u:", clock_text(clock_wall(), now),
		  (unsigned)launch->uid);
	for (size_t i = 0; i < argv->count; i++)
		text_addf(&line, " '%s'", argv->items[i]);
	text_addf(&line, "\n");
	if (write(log_fd, line.text, line.length) < 0)
		log_warning("cannot write qemu.log: %m");
	log_info("%s", line.text + 1);
	launch->log_offset = lseek(log_fd, 0, SEEK_END);
}

static struct copy *make_copy(const struct launch *launch)
{
	const struct keeper *keeper = launch->keeper;
	struct copy *copy = xcalloc(1, sizeof(*copy));

	copy->pidfd = -1;
	copy->child = true;
	copy->epoch = launch->epoch;
	copy->attempt = launch->attempt;
	copy->incoming = launch->attempt != 0;
	copy->generation = launch->generation;
	copy->restarts = launch->restarts;
	copy->memory_mib = keeper->hardware->memory_mib;
	copy->uid = launch->uid;
	copy->started = clock_wall();
	(void)snprintf(copy->id.token, sizeof(copy->id.token), "%s", launch->token);
	(void)snprintf(copy->id.boot_id, sizeof(copy->id.boot_id), "%s", keeper->boot_id);
	return copy;
}

/* First the name, then the process, then its number: whatever dies in between, the next keeper
 * finds the process by its name. */
static int spawn_copy(struct launch *launch, const struct spawn *what, struct error *err)
{
	struct keeper *keeper = launch->keeper;
	CLEANUP_FREE struct copy *copy = make_copy(launch);
	char token[PROCESS_TOKEN_SIZE];
	pid_t pid;
	int r;

	r = copy_save(keeper, copy, err);
	if (r < 0)
		return r;
	checkpoint("keeper.start.named");
	r = spawn(what, &pid, &copy->pidfd, err);
	if (r < 0)
		return error_prefix(err, r, "cannot start QEMU");
	checkpoint("keeper.start.spawned");
	keeper->copy = TAKE_PTR(copy);
	memcpy(token, keeper->copy->id.token, sizeof(token));
	r = process_identify(pid, token, &keeper->copy->id, err);
	if (r == 0)
		r = copy_save(keeper, keeper->copy, err);
	if (r == 0)
		r = copy_watch(keeper, keeper->copy, err);
	if (r == 0)
		r = booking_move(keeper, err);
	return r;
}

/* QEMU's own NAT opens connections of the host; taps are handed in. */
static bool uses_host_network(const struct launch *launch)
{
	for (size_t i = 0; i < launch->definition->n_nics; i++)
		if (launch->nic_modes[i] == NIC_USER)
			return true;
	return false;
}

int launch_run(struct launch *launch, struct error *err)
{
	struct keeper *keeper = launch->keeper;
	const struct definition *def = launch->definition;
	CLEANUP(ends_done) struct ends ends = { -1, -1, -1, -1, -1 };
	CLEANUP(jail_done)
	struct jail jail = {
		.uid = launch->uid,
		.network = uses_host_network(launch),
		.kvm = strcmp(keeper->hardware->accelerator, "kvm") == 0,
		.userfault = launch->attempt != 0 && keeper->want.move.postcopy,
		.kernel_fd = -1,
		.initrd_fd = -1,
		.firmware_fd = -1,
		.resolv_fd = -1,
	};
	CLEANUP(strv_done) struct strv argv = { 0 };
	struct handed handed = { .count = 0 };
	struct spawn what;
	int r;

	r = jail_open(&jail, def->kernel, def->initrd,
		      def->firmware == FIRMWARE_PATH ? def->firmware_path : NULL, err);
	if (r == 0)
		r = ends_open(keeper, &ends, err);
	if (r == 0)
		r = make_command_line(launch, &ends, &jail, &handed, &argv, err);
	if (r < 0)
		return r;
	log_command_line(launch, &argv, ends.qemu_log);
	what = (struct spawn){ .argv = (const char *const *)argv.items,
			       .fds = handed.fds,
			       .n_fds = handed.count,
			       .stdin_fd = -1,
			       .stdout_fd = ends.qemu_log,
			       .stderr_fd = ends.qemu_log,
			       .uid = launch->uid,
			       .gid = (gid_t)launch->uid,
			       .new_session = true,
			       .prepare = jail_enter,
			       .prepare_ctx = &jail };
	return spawn_copy(launch, &what, err);
}

void launch_last_words(const struct launch *launch, struct error *err)
{
	char words[LAST_WORDS_MAX + 1];
	CLEANUP_FD int fd = openat(launch->keeper->log_fd, "qemu.log", O_RDONLY | O_CLOEXEC);
	ssize_t length = -1;
	struct stat st;

	/* Shortened meanwhile: then what is there is newer than the offset. */
	if (fd >= 0 && fstat(fd, &st) == 0)
		length = pread(fd, words, LAST_WORDS_MAX,
			       launch->log_offset < st.st_size ? launch->log_offset : 0);
	while (length > 0 && (words[length - 1] == '\n' || words[length - 1] == ' '))
		length--;
	if (length <= 0) {
		error_set(err, -ECHILD, "QEMU ended without a word");
		return;
	}
	words[length] = '\0';
	for (char *newline = words; (newline = strchr(newline, '\n'));)
		*newline = ' ';
	error_set(err, -ECHILD, "QEMU ended: %s", words);
}
