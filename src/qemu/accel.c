/* SPDX-License-Identifier: Apache-2.0 */
/* Whether an accelerator works is found out by running something on it: there are machines whose
 * /dev/kvm opens, reports every capability and still cannot run a kernel.  The guest is the probe
 * ROM; probe/result.h says how it speaks. */
#include "qemu/build.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "probe/result.h"
#include "qemu/cache.h"
#include "qemu/child.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"

#define PROGRESS_MAX 4096

struct verdict {
	bool works;
	bool lasting; /* else it may be other the next time: not kept */
	char *why;
};

static const struct {
	int code;
	const char *word;
} tests[] = {
#define PROBE_ROW(name, code, word) { code, word },
	PROBE_TESTS(PROBE_ROW)
#undef PROBE_ROW
};

static const char *word_of(int status)
{
	for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
		if (PROBE_EXIT_STATUS(tests[i].code) == status)
			return tests[i].word;
	}
	return NULL;
}

/* First word of the last line: the test that was begun last. */
static char *last_test(int progress_fd)
{
	char text[PROGRESS_MAX + 1];
	ssize_t length = pread(progress_fd, text, PROGRESS_MAX, 0);
	char *line;

	text[length > 0 ? length : 0] = '\0';
	for (char *end = text + strlen(text); end > text && end[-1] == '\n'; end--)
		end[-1] = '\0';
	line = strrchr(text, '\n');
	line = line ? line + 1 : text;
	line[strcspn(line, " ")] = '\0';
	return xstrdup(line);
}

static int run_probe(const struct qemu_build *build, const char *accel, const char *cpu_model,
		     const char *rom, int progress_fd, struct child *ret_child, struct error *err)
{
	CLEANUP(strv_done) struct strv argv = { 0 };
	CLEANUP_FD int rom_fd = open(rom, O_RDONLY | O_CLOEXEC);

	if (rom_fd < 0)
		return error_set(err, -errno, "cannot open '%s': %m", rom);
	strv_add(&argv, build->binary);
	for (const char *const *word =
		     (const char *const[]){ "-nodefaults", "-no-user-config", "-display", "none",
					    "-no-reboot", "-m", "16", "-sandbox", CHILD_SANDBOX,
					    "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
					    "-chardev", "file,id=probe,path=/proc/self/fd/1",
					    "-device", "isa-debugcon,iobase=0x402,chardev=probe",
					    NULL };
	     *word; word++)
		strv_add(&argv, *word);
	strv_add(&argv, "-cpu");
	strv_addf(&argv, "%s%s", cpu_model, qemu_cpu_is_named(cpu_model) ? ",enforce=on" : "");
	strv_add(&argv, "-machine");
	strv_addf(&argv, "q35,accel=%s", accel);
	/* By descriptor: its directory may be closed to others. */
	strv_add(&argv, "-bios");
	strv_add(&argv, "/proc/self/fd/3");
	return child_start((const char *const *)argv.items, &rom_fd, 1, progress_fd,
			   child_private_dev, ret_child, err);
}

static bool kvm_gave_up(const struct child *child)
{
	return child->errors.text && strstr(child->errors.text, "KVM internal error");
}

/* 1 when QEMU ended by itself; 0 when KVM gave up (QEMU stays then); -ETIMEDOUT. */
static int watch(struct child *child, uint64_t timeout_usec)
{
	uint64_t deadline = clock_now() + timeout_usec;
	int r;

	do
		r = child_wait(child, deadline);
	while (r == 0 && !kvm_gave_up(child));
	return r;
}

static void judge_end(const char *accel, const char *cpu_model, int status, const char *test,
		      const char *words, uint64_t took_usec, struct verdict *verdict)
{
	verdict->lasting = true;
	if (status == PROBE_EXIT_STATUS(PROBE_PASSED)) {
		verdict->works = true;
		verdict->why = xasprintf("%s: ran the probe guest in %" PRIu64 " ms", accel,
					 took_usec / USEC_PER_MSEC);
	} else if (word_of(status)) {
		verdict->why =
			xasprintf("%s: the probe guest failed at %s", accel, word_of(status));
	} else if (status == 0) {
		verdict->why = xasprintf("%s: the probe guest died at %s (triple fault)", accel,
					 *test ? test : "its first instruction");
	} else {
		verdict->lasting = false;
		verdict->why =
			xasprintf("%s: QEMU ended with status %d for CPU model '%s': %s", accel,
				  status, cpu_model, *words ? words : "it gave no reason");
	}
}

static void judge_stuck(const char *accel, int watched, const char *test, uint64_t timeout_usec,
			struct verdict *verdict)
{
	const char *at = *test ? test : "its first instruction";

	verdict->lasting = watched == 0;
	if (watched == 0)
		verdict->why =
			xasprintf("%s: the probe guest died at %s (internal-error)", accel, at);
	else
		verdict->why = xasprintf("%s: the probe guest was still at %s after %" PRIu64 " ms",
					 accel, at, timeout_usec / USEC_PER_MSEC);
}

static int probe(const struct qemu_build *build, const char *accel, const char *cpu_model,
		 const char *rom, uint64_t timeout_usec, struct verdict *ret, struct error *err)
{
	CLEANUP(child_done) struct child child = CHILD_NONE;
	CLEANUP_FD int progress = memfd_create("drover-probe", MFD_CLOEXEC);
	CLEANUP_FREE char *test = NULL, *words = NULL;
	uint64_t started = clock_now(), took;
	int watched, status, r;

	if (progress < 0)
		return error_set(err, -errno, "cannot make a memory file: %m");
	r = run_probe(build, accel, cpu_model, rom, progress, &child, err);
	if (r < 0)
		return error_prefix(err, r, "probing %s", accel);
	watched = watch(&child, timeout_usec);
	took = clock_now() - started;
	status = child_end(&child, 0);
	test = last_test(progress);
	words = child_last_words(&child);
	if (watched == 1)
		judge_end(accel, cpu_model, status, test, words, took, ret);
	else
		judge_stuck(accel, watched, test, timeout_usec, ret);
	return 0;
}

/* What the answer depends on: the binary, the ROM, the kernel's boot and the device. */
static int identity_of(const struct qemu_build *build, const char *accel, const char *rom,
		       char **ret, struct error *err)
{
	CLEANUP_FREE char *rom_identity = NULL, *device = NULL;
	char boot[BOOT_ID_SIZE];
	int r;

	r = cache_identity(rom, &rom_identity, err);
	if (r < 0)
		return error_prefix(err, r,
				    "the probe guest is missing: set qemu.probe_rom in "
				    "drover.yaml, or install Drover anew");
	if (strcmp(accel, "kvm") == 0) {
		r = cache_identity(CHILD_KVM, &device, err);
		if (r < 0)
			return r;
	}
	*ret = xasprintf("%s %s %s %s", build->identity, rom_identity, clock_boot_id(boot),
			 device ? device : "-");
	return 0;
}

/* False, with the reason: no need to start anything. */
static bool device_opens(const char *accel, char **ret_why)
{
	CLEANUP_FD int fd = -1;

	if (strcmp(accel, "kvm") != 0)
		return true;
	fd = open(CHILD_KVM, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		*ret_why = xasprintf("kvm: cannot open " CHILD_KVM ": %m");
	return fd >= 0;
}

int qemu_accel_probe(const struct qemu_build *build, const char *accel, const char *cpu_model,
		     const char *probe_rom, uint64_t timeout_usec, const char *cache_dir,
		     bool *ret_works, char **ret_why, struct error *err)
{
	CLEANUP_FREE char *identity = NULL, *kind = xasprintf("accel-%s", accel);
	CLEANUP_FREE char *subject = xasprintf("%s -cpu %s", build->binary, cpu_model);
	json_auto_t *known = NULL, *value = NULL;
	struct verdict verdict = { 0 };
	int r;

	if (!device_opens(accel, ret_why)) {
		*ret_works = false;
		return 0;
	}
	r = identity_of(build, accel, probe_rom, &identity, err);
	if (r < 0)
		return r;
	known = cache_dir ? cache_load(cache_dir, kind, subject, identity) : NULL;
	if (known && json_string_or(known, "why", NULL)) {
		*ret_works = json_bool_or(known, "works", false);
		*ret_why = xstrdup(json_string_or(known, "why", ""));
		return 0;
	}
	r = probe(build, accel, cpu_model, probe_rom, timeout_usec, &verdict, err);
	if (r < 0)
		return r;
	value = json_pack("{s:b, s:s}", "works", verdict.works, "why", verdict.why);
	if (cache_dir && verdict.lasting && value)
		cache_store(cache_dir, kind, subject, identity, value);
	*ret_works = verdict.works;
	*ret_why = verdict.why;
	return 0;
}
