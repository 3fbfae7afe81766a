/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes in a directory of their own, with the real qemu-img. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "storage/internal.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/file.h"
#include "util/mem.h"
#include "util/spawn.h"

#define LONG (60 * USEC_PER_SEC)
#define MIB (UINT64_C(1) << 20)

struct bench {
	char *dir; /* a directory of this test alone; its "volumes" is the storage */
	sd_event *loop;
	struct storage *storage;
	int replies, code;
	struct volume_open open;
	struct error error;
	char note[512];
};

static char *bench_path(struct bench *bench, const char *below)
{
	return xasprintf("%s/%s", bench->dir, below);
}

static int bench_open(void **state)
{
	struct bench *bench = xcalloc(1, sizeof(*bench));
	CLEANUP_FREE char *volumes = NULL;
	struct error err = { 0 };

	bench->dir = xstrdup("/tmp/drover-test-storage-XXXXXX");
	assert_non_null(mkdtemp(bench->dir));
	assert_true(sd_event_new(&bench->loop) >= 0);
	volumes = bench_path(bench, "volumes");
	if (storage_open(volumes, bench->loop, &bench->storage, &err) < 0)
		fail_msg("%s", err.text);
	*state = bench;
	return 0;
}

static int bench_close(void **state)
{
	struct bench *bench = *state;

	volume_open_done(&bench->open);
	storage_close(bench->storage);
	sd_event_unref(bench->loop);
	(void)file_remove_tree(AT_FDCWD, bench->dir, NULL);
	free(bench->dir);
	free(bench);
	return 0;
}

static void on_prepared(void *ctx, int r, struct volume_open *open, const char *note,
			const struct error *err)
{
	struct bench *bench = ctx;

	bench->replies++;
	bench->code = r;
	volume_open_done(&bench->open);
	bench->error = err ? *err : (struct error){ 0 };
	(void)snprintf(bench->note, sizeof(bench->note), "%s", note ? note : "");
	if (r == 0) {
		bench->open = *open;
		*open = (struct volume_open){ 0 };
	}
}

static int prepare_as(struct bench *bench, const struct volume_want *want, uint64_t epoch,
		      const char *node)
{
	uint64_t deadline = clock_now() + LONG;
	struct volume_job *job;
	int r;

	bench->replies = 0;
	r = volume_prepare(bench->storage, want, epoch, node, LONG, on_prepared, bench, &job,
			   &bench->error);
	if (r < 0)
		return r;
	assert_int_equal(bench->replies, 0); /* never from inside the call */
	while (!bench->replies) {
		assert_true(clock_now() < deadline);
		assert_true(sd_event_run(bench->loop, 100 * USEC_PER_MSEC) >= 0);
	}
	return bench->code;
}

static void prepare(struct bench *bench, const struct volume_want *want)
{
	if (prepare_as(bench, want, 1, "alice") < 0)
		fail_msg("%s", bench->error.text);
}

static void refuse(struct bench *bench, const struct volume_want *want, int code, const char *words)
{
	assert_int_equal(prepare_as(bench, want, 1, "alice"), code);
	if (!strstr(bench->error.text, words))
		fail_msg("'%s' does not say '%s'", bench->error.text, words);
}

static void qemu_img(const char *const *argv)
{
	const struct spawn what = { .argv = argv,
				    .stdin_fd = -1,
				    .stdout_fd = -1,
				    .stderr_fd = -1,
				    .die_with_parent = true };
	struct tool_result result = { 0 };
	struct error err = { 0 };

	if (access("/usr/bin/qemu-img", X_OK) < 0) {
		print_message("skipped: no qemu-img (package qemu-utils)\n");
		skip();
	}
	if (tool_run(&what, LONG, &result, &err) < 0)
		fail_msg("%s", err.text);
	if (result.code)
		fail_msg("%s", result.err_text);
	tool_result_done(&result);
}

#define QEMU_IMG(...) qemu_img((const char *[]){ "qemu-img", __VA_ARGS__, NULL })

static void write_text(const char *path, const char *text, off_t size)
{
	CLEANUP_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	assert_int_equal(ftruncate(fd, size), 0);
}

static void assert_begins(int fd, const char *text)
{
	char bytes[64] = { 0 };

	assert_int_equal(pread(fd, bytes, strlen(text), 0), strlen(text));
	assert_string_equal(bytes, text);
}

static mode_t mode_of(const char *path)
{
	struct stat st;

	assert_int_equal(lstat(path, &st), 0);
	return st.st_mode & 07777;
}

static unsigned files_in(const char *path)
{
	struct tool_result result = { 0 };
	unsigned lines = 0;
	const struct spawn what = { .argv = (const char *[]){ "ls", "-A", path, NULL },
				    .stdin_fd = -1,
				    .stdout_fd = -1,
				    .stderr_fd = -1 };

	assert_int_equal(tool_run(&what, LONG, &result, NULL), 0);
	for (const char *c = result.out; c && *c; c++)
		lines += *c == '\n';
	tool_result_done(&result);
	return lines;
}

/* ---- raw ---- */

static void an_empty_raw_volume_is_sparse_private_and_open(void **state)
{
	struct bench *bench = *state;
	const struct volume_want want = { .vm = "web", .name = "root", .size = 5 * MIB + 1 };
	CLEANUP_FREE char *path = bench_path(bench, "volumes/web/root.raw");
	CLEANUP_FREE char *dir = bench_path(bench, "volumes/web");
	struct stat st;

	prepare(bench, &want);
	assert_int_equal(bench->open.n_layers, 1);
	assert_int_equal(bench->open.size, 5 * MIB + 512);
	assert_string_equal(bench->open.layers[0].path, path);
	assert_int_equal(fcntl(bench->open.layers[0].fd, F_GETFL) & O_ACCMODE, O_RDWR);
	assert_int_equal(fcntl(bench->open.layers[0].fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(fstat(bench->open.layers[0].fd, &st), 0);
	assert_int_equal(st.st_size, 5 * MIB + 512);
	assert_int_equal(st.st_blocks, 0);
	assert_int_equal(mode_of(path), 0600);
	assert_int_equal(mode_of(dir), 0700);
	assert_string_equal(bench->note, "");
	assert_int_equal(files_in(dir), 2); /* the volume and its claim, nothing half-made */
}

static void what_is_there_is_kept_and_only_grows(void **state)
{
	struct bench *bench = *state;
	struct volume_want want = { .vm = "web", .name = "root", .size = MIB };

	prepare(bench, &want);
	assert_int_equal(pwrite(bench->open.layers[0].fd, "data", 4, 0), 4);
	want.size = 2 * MIB;
	prepare(bench, &want);
	assert_int_equal(bench->open.size, 2 * MIB);
	assert_begins(bench->open.layers[0].fd, "data");
	want.size = MIB;
	prepare(bench, &want);
	assert_int_equal(bench->open.size, 2 * MIB);
	assert_non_null(strstr(bench->note, "never shrink"));
	assert_begins(bench->open.layers[0].fd, "data");
	want.size = 0;
	prepare(bench, &want);
	assert_string_equal(bench->note, "");
}

static void a_read_only_volume_is_neither_written_nor_grown(void **state)
{
	struct bench *bench = *state;
	struct volume_want want = { .vm = "web", .name = "root", .size = MIB };

	prepare(bench, &want);
	want.read_only = true;
	want.size = 2 * MIB;
	prepare(bench, &want);
	assert_int_equal(bench->open.size, MIB);
	assert_int_equal(fcntl(bench->open.layers[0].fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_non_null(strstr(bench->note, "read-only"));
}

static void a_raw_volume_stays_raw_whatever_a_guest_writes_into_it(void **state)
{
	struct bench *bench = *state;
	const struct volume_want want = { .vm = "web", .name = "root", .size = 4 * MIB };
	CLEANUP_FREE char *evil = bench_path(bench, "evil.qcow2");
	CLEANUP_FREE char *header = NULL;
	size_t length;

	prepare(bench, &want);
	QEMU_IMG("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/shadow", evil, "4M");
	assert_int_equal(file_read(AT_FDCWD, evil, 4 * MIB, &header, &length, NULL), 0);
	assert_int_equal(pwrite(bench->open.layers[0].fd, header, length, 0), length);
	prepare(bench, &want);
	assert_int_equal(bench->open.n_layers, 1);
	assert_int_equal(bench->open.layers[0].format, VOLUME_RAW);
	assert_int_equal(bench->open.size, 4 * MIB);
}

static void no_link_leads_out_of_the_directory(void **state)
{
	struct bench *bench = *state;
	const struct volume_want want = { .vm = "web", .name = "root", .size = MIB };
	CLEANUP_FREE char *dir = bench_path(bench, "volumes/web");
	CLEANUP_FREE char *path = bench_path(bench, "volumes/web/root.raw");
	CLEANUP_FREE char *other = bench_path(bench, "other");

	write_text(other, "mine", 512);
	assert_int_equal(mkdir(dir, 0700), 0);
	assert_int_equal(symlink(other, path), 0);
	refuse(bench, &want, -EPERM, "no plain file");
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(dir), 0);
	assert_int_equal(symlink(bench->dir, dir), 0);
	assert_true(prepare_as(bench, &want, 1, "alice") < 0);
}

static void names_and_wishes_without_sense_are_refused_at_once(void **state)
{
	struct bench *bench = *state;
	static const struct {
		struct volume_want want;
		const char *words;
	} bad[] = {
		{ { .vm = "../up", .name = "root", .size = 1 }, "no name of a VM" },
		{ { .vm = "web", .name = "../up", .size = 1 }, "no name of a volume" },
		{ { .vm = "web", .name = "a.b", .size = 1 }, "no name of a volume" },
		{ { .vm = "web", .name = "", .size = 1 }, "no name of a volume" },
		{ { .vm = "web", .name = "root", .source = "image" }, "absolute" },
		{ { .vm = "web", .name = "root", .path = "disk" }, "absolute" },
		{ { .vm = "web", .name = "root", .overlay = true, .format = VOLUME_QCOW2 },
		  "overlay" },
		{ { .vm = "web", .name = "root", .overlay = true, .source = "/x" }, "overlay" },
		{ { .vm = "web", .name = "root", .size = UINT64_MAX }, "too many" },
		{ { .vm = "web", .name = "root" }, "no `size`" },
		{ { .vm = "web", .name = "root", .source = "/no/such/image" }, "/no/such/image" },
		{ { .vm = "web", .name = "root", .path = "/dev/null" }, "neither a file nor" },
	};
	CLEANUP_FREE char *volumes = bench_path(bench, "volumes/web");

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_true(prepare_as(bench, &bad[i].want, 1, "alice") < 0);
		if (!strstr(bench->error.text, bad[i].words))
			fail_msg("'%s' does not say '%s'", bench->error.text, bad[i].words);
	}
	assert_int_equal(files_in(volumes), 0);
}

/* ---- copies and overlays ---- */

static void a_source_is_copied_and_grown(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *image = bench_path(bench, "image.raw");
	CLEANUP_FREE char *qcow2 = bench_path(bench, "image.img");
	CLEANUP_FREE char *path = bench_path(bench, "volumes/web/second.qcow2");
	CLEANUP_FREE char *dir = bench_path(bench, "volumes/web");
	struct volume_want want = { .vm = "web", .name = "first", .size = 3 * MIB };

	write_text(image, "boot sector", MIB);
	QEMU_IMG("convert", "-f", "raw", "-O", "qcow2", image, qcow2);
	want.source = image;
	prepare(bench, &want);
	assert_int_equal(bench->open.size, 3 * MIB);
	assert_begins(bench->open.layers[0].fd, "boot sector");

	/* From qcow2, known by its first bytes, to raw. */
	want.name = "third";
	want.source = qcow2;
	prepare(bench, &want);
	assert_int_equal(bench->open.size, 3 * MIB);
	assert_begins(bench->open.layers[0].fd, "boot sector");

	want.name = "second";
	want.format = VOLUME_QCOW2;
	prepare(bench, &want);
	assert_int_equal(bench->open.n_layers, 1);
	assert_int_equal(bench->open.layers[0].format, VOLUME_QCOW2);
	assert_int_equal(bench->open.size, 3 * MIB);
	assert_int_equal(mode_of(path), 0600);
	QEMU_IMG("check", "-q", "-f", "qcow2", path);
	assert_int_equal(files_in(dir), 6);

	/* Later it is what is there that counts: the source may be gone. */
	assert_int_equal(unlink(qcow2), 0);
	prepare(bench, &want);
	want.size = 4 * MIB;
	prepare(bench, &want);
	assert_int_equal(bench->open.size, 4 * MIB);
	want.size = MIB;
	prepare(bench, &want);
	assert_int_equal(bench->open.size, 4 * MIB);
	assert_non_null(strstr(bench->note, "never shrink"));
}

static void an_overlay_is_opened_with_all_below_it(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *base = bench_path(bench, "base.raw");
	CLEANUP_FREE char *middle = bench_path(bench, "middle.qcow2");
	CLEANUP_FREE char *other = bench_path(bench, "other.raw");
	CLEANUP_FREE char *moved = bench_path(bench, "moved.raw");
	struct volume_want want = { .vm = "web",
				    .name = "root",
				    .size = 2 * MIB,
				    .format = VOLUME_QCOW2,
				    .overlay = true };

	write_text(base, "base", MIB);
	write_text(other, "other", MIB);
	/* A relative name in a header counts from the image. */
	QEMU_IMG("create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.raw", middle);
	want.source = middle;
	prepare(bench, &want);
	assert_int_equal(bench->open.n_layers, 3);
	assert_int_equal(bench->open.size, 2 * MIB);
	assert_int_equal(bench->open.layers[0].format, VOLUME_QCOW2);
	assert_int_equal(bench->open.layers[1].format, VOLUME_QCOW2);
	assert_int_equal(bench->open.layers[2].format, VOLUME_RAW);
	assert_string_equal(bench->open.layers[1].path, middle);
	assert_string_equal(bench->open.layers[2].path, base);
	assert_int_equal(fcntl(bench->open.layers[0].fd, F_GETFL) & O_ACCMODE, O_RDWR);
	assert_int_equal(fcntl(bench->open.layers[1].fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_begins(bench->open.layers[2].fd, "base");

	want.source = other;
	refuse(bench, &want, -EPERM, "put the former back");
	want.overlay = false;
	refuse(bench, &want, -EPERM, "asks for none");
	want.overlay = true;
	want.source = middle;
	assert_int_equal(rename(base, moved), 0);
	refuse(bench, &want, -ENOENT, "base.raw");
	assert_int_equal(rename(moved, base), 0);
	/* The source was replaced by something else. */
	assert_int_equal(unlink(middle), 0);
	write_text(middle, "raw now", MIB);
	assert_true(prepare_as(bench, &want, 1, "alice") < 0);
}

static void a_volume_is_opened_past_the_cache_where_that_can_be(void **state)
{
	struct bench *bench = *state;
	struct volume_want want = { .vm = "web", .name = "root", .size = 4 * MIB };
	CLEANUP_FREE char *path = bench_path(bench, "volumes/web/root.raw");
	CLEANUP_FD int direct = -1;

	prepare(bench, &want);
	assert_int_equal(fcntl(bench->open.layers[0].fd, F_GETFL) & O_DIRECT, 0);
	volume_open_direct(&bench->open);
	direct = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	assert_int_equal(fcntl(bench->open.layers[0].fd, F_GETFL) & O_DIRECT,
			 direct < 0 ? 0 : O_DIRECT);
}

static void a_header_may_not_name_what_was_not_asked_for(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *dir = bench_path(bench, "volumes/web");
	CLEANUP_FREE char *path = bench_path(bench, "volumes/web/root.qcow2");
	CLEANUP_FREE char *base = bench_path(bench, "base.qcow2");
	CLEANUP_FREE char *round = bench_path(bench, "round.qcow2");
	struct volume_want want = { .vm = "web", .name = "root", .format = VOLUME_QCOW2 };

	assert_int_equal(mkdir(dir, 0700), 0);
	QEMU_IMG("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/shadow", path, "1M");
	refuse(bench, &want, -EPERM, "/etc/shadow");
	QEMU_IMG("create", "-q", "-f", "qcow2", "-o",
		 "data_file=/tmp/drover-test-no-such-file,"
		 "data_file_raw=on",
		 path, "1M");
	(void)unlink("/tmp/drover-test-no-such-file");
	refuse(bench, &want, -EPERM, "another file");

	/* The operator's own source has to be plain as well. */
	want.overlay = true;
	want.source = base;
	QEMU_IMG("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "nbd://127.0.0.1/x", base,
		 "1M");
	QEMU_IMG("create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", base, path, "1M");
	refuse(bench, &want, -EPERM, "not a file");
	/* In a circle. */
	QEMU_IMG("create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", round, base, "1M");
	QEMU_IMG("create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", base, round, "1M");
	refuse(bench, &want, -EPERM, "lies on more than");
}

/* The last byte of crypt_method in the header of a qcow2 image: 1 aes, 2 luks. */
static void set_crypt_method(const char *path, char method)
{
	CLEANUP_FD int fd = open(path, O_WRONLY | O_CLOEXEC);

	assert_return_code(fd, errno);
	assert_int_equal(pwrite(fd, &method, 1, 35), 1);
}

/* A stranger's image must not bring other files of the host onto the guest's disk. */
static void a_source_brings_no_other_file_along(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *dir = bench_path(bench, "volumes/web");
	CLEANUP_FREE char *images = bench_path(bench, "images");
	CLEANUP_FREE char *image = bench_path(bench, "images/downloaded.qcow2");
	CLEANUP_FREE char *beside = bench_path(bench, "images/base.raw");
	CLEANUP_FREE char *link = bench_path(bench, "images/link.raw");
	CLEANUP_FREE char *secret = bench_path(bench, "secret");
	struct volume_want want = { .vm = "web", .name = "root", .source = image };

	assert_int_equal(mkdir(images, 0700), 0);
	write_text(secret, "the host's", MIB);
	write_text(beside, "base", MIB);
	assert_int_equal(symlink("../secret", link), 0);
	for (int i = 0; i < 3; i++) {
		const char *const below[] = { secret, "../secret", "link.raw" };

		QEMU_IMG("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", below[i], image,
			 "1M");
		want.overlay = false;
		want.format = VOLUME_RAW;
		refuse(bench, &want, -EPERM, "qemu-img convert");
		want.overlay = true;
		want.format = VOLUME_QCOW2;
		refuse(bench, &want, -EPERM, "outside of its directory");
		assert_int_equal(volume_remove(bench->storage, "web", "root", NULL), 0);
	}
	/* What lies beside it is no other file of the host, but is to be asked for. */
	QEMU_IMG("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", beside, image, "1M");
	prepare(bench, &want);
	assert_int_equal(bench->open.n_layers, 3);
	want.name = "copy";
	want.overlay = false;
	refuse(bench, &want, -EPERM, "convert");
	/* Not luks: for its key qemu-img measures the processor, and gives up on a busy machine.
	 * The header says which of the two it is, and is all that we read. */
	QEMU_IMG("create", "-q", "-f", "qcow2", "--object", "secret,id=key,data=x", "-o",
		 "encrypt.format=aes,encrypt.key-secret=key", image, "1M");
	refuse(bench, &want, -EPERM, "encrypted");
	set_crypt_method(image, 2);
	refuse(bench, &want, -EPERM, "encrypted");
	assert_int_equal(files_in(dir), 2);
}

/* A QEMU that a guest took over can write the header of its own disk. */
static void a_volume_is_looked_at_before_it_is_grown(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *path = bench_path(bench, "volumes/web/root.qcow2");
	struct volume_want want = {
		.vm = "web", .name = "root", .size = MIB, .format = VOLUME_QCOW2
	};

	prepare(bench, &want);
	volume_open_done(&bench->open);
	QEMU_IMG("rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", "nbd://127.0.0.1:9/", path);
	want.size = 2 * MIB;
	refuse(bench, &want, -EPERM, "asks for none");
}

static void qemu_img_sees_its_images_and_nothing_else(void **state)
{
	static const char script[] =
		"echo user $(id -u) $(id -g) groups $(id -G)\n"
		"echo root $(ls -A /)\n"
		"echo etc $(ls -A /etc)\n"
		"cat /images/source && echo new >/images/target && echo written\n"
		"(echo new >/images/source) 2>/dev/null || echo source kept\n"
		"(echo new >/usr/new) 2>/dev/null || echo programs kept\n"
		"chroot / true 2>/dev/null || echo no chroot\n"
		"kill -0 $PPID 2>/dev/null || echo no signals\n";
	struct bench *bench = *state;
	CLEANUP_FREE char *source = bench_path(bench, "source");
	CLEANUP_FREE char *target = bench_path(bench, "target");
	struct imagetool room = { .uid = 1914000000 };
	const struct spawn what = { .argv = (const char *[]){ "sh", "-c", script, NULL },
				    .stdin_fd = -1,
				    .stdout_fd = -1,
				    .stderr_fd = -1,
				    .prepare = imagetool_enter,
				    .prepare_ctx = &room };
	struct tool_result result = { 0 };
	struct error err = { 0 };

	write_text(source, "source\n", 7);
	write_text(target, "target\n", 7);
	room.source_fd = open(source, O_RDONLY | O_CLOEXEC);
	room.target_fd = open(target, O_RDWR | O_CLOEXEC);
	if (tool_run(&what, LONG, &result, &err) < 0)
		fail_msg("%s", err.text);
	assert_string_equal(result.out, "user 1914000000 1914000000 groups 1914000000\n"
					"root bin etc images lib lib64 sbin usr\n"
					"etc ld.so.cache\n"
					"source\nwritten\nsource kept\nprograms kept\n"
					"no chroot\nno signals\n");
	assert_begins(room.target_fd, "new\n");
	tool_result_done(&result);
	(void)close(room.source_fd);
	(void)close(room.target_fd);
}

static void a_damaged_header_is_a_sentence_and_not_a_crash(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *dir = bench_path(bench, "volumes/web");
	CLEANUP_FREE char *path = bench_path(bench, "volumes/web/root.qcow2");
	const struct volume_want want = { .vm = "web", .name = "root", .format = VOLUME_QCOW2 };
	CLEANUP_FREE char *good = NULL;
	size_t length;
	CLEANUP_FD int fd = -1;

	assert_int_equal(mkdir(dir, 0700), 0);
	QEMU_IMG("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "/base", path, "1M");
	assert_int_equal(file_read(AT_FDCWD, path, MIB, &good, &length, NULL), 0);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	/* Each byte of the header in turn set to all ones; then cut at each length. */
	for (off_t i = 0; i < 320; i++) {
		assert_int_equal(pwrite(fd, "\xff", 1, i), 1);
		assert_true(prepare_as(bench, &want, 1, "alice") < 0);
		assert_int_equal(pwrite(fd, good + i, 1, i), 1);
	}
	for (off_t i = 320; i >= 0; i--) {
		assert_int_equal(ftruncate(fd, i), 0);
		assert_true(prepare_as(bench, &want, 1, "alice") < 0);
	}
}

static void another_format_than_the_one_there_is_refused(void **state)
{
	struct bench *bench = *state;
	struct volume_want want = { .vm = "web", .name = "root", .size = MIB };

	prepare(bench, &want);
	want.format = VOLUME_QCOW2;
	refuse(bench, &want, -EPERM, "is there as raw");
}

static void images_of_other_makes_are_refused_by_name(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *image = bench_path(bench, "image.vmdk");
	CLEANUP_FREE char *dir = bench_path(bench, "volumes/web");
	struct volume_want want = { .vm = "web", .name = "root", .source = image };

	write_text(image, "KDMV", MIB);
	refuse(bench, &want, -EBADMSG, "qemu-img convert");
	assert_int_equal(files_in(dir), 0);
}

static void a_path_is_used_as_it_is(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *file = bench_path(bench, "disk");
	CLEANUP_FREE char *link = bench_path(bench, "link");
	CLEANUP_FREE char *dir = bench_path(bench, "volumes/web");
	struct volume_want want = { .vm = "web", .name = "root", .size = 2 * MIB, .path = link };
	struct error err = { 0 };

	write_text(file, "theirs", MIB);
	assert_int_equal(symlink(file, link), 0);
	prepare(bench, &want);
	assert_int_equal(bench->open.size, MIB);
	assert_string_equal(bench->open.layers[0].path, link);
	assert_non_null(strstr(bench->note, "as it is"));
	assert_begins(bench->open.layers[0].fd, "theirs");
	assert_int_equal(files_in(dir), 1); /* the claim */
	assert_int_equal(volume_release(bench->storage, "web", "root", 1, "alice", &err), 0);
	assert_int_equal(volume_remove(bench->storage, "web", "root", &err), -ENOENT);
	assert_int_equal(access(file, F_OK), 0);
}

/* ---- a full disk, a cancelled job ---- */

static void a_full_disk_leaves_nothing_half_made(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *image = bench_path(bench, "image.raw");
	CLEANUP_FREE char *small = bench_path(bench, "small");
	CLEANUP_FREE char *dir = bench_path(bench, "small/web");
	CLEANUP_FREE char *noise = xcalloc(8, MIB);
	struct volume_want want = { .vm = "web", .name = "root", .source = image };
	struct error err = { 0 };

	memset(noise, 'x', 8 * MIB);
	assert_int_equal(file_write(AT_FDCWD, image, noise, 8 * MIB, 0600, NULL), 0);
	assert_int_equal(mkdir(small, 0700), 0);
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", small, "tmpfs", 0, "size=4m") < 0) {
		print_message("skipped: cannot mount a small disk here\n");
		skip();
	}
	storage_close(bench->storage);
	assert_int_equal(storage_open(small, bench->loop, &bench->storage, &err), 0);
	refuse(bench, &want, -ENOSPC, "No space left on device");
	assert_int_equal(files_in(dir), 0);
	want.format = VOLUME_QCOW2;
	refuse(bench, &want, -ENOSPC, "No space left on device");
	assert_int_equal(files_in(dir), 0);
	bench->storage = storage_close(bench->storage);
	assert_int_equal(umount(small), 0);
}

static void a_cancelled_job_leaves_nothing_and_says_nothing(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *image = bench_path(bench, "image.raw");
	CLEANUP_FREE char *dir = bench_path(bench, "volumes/web");
	const struct volume_want want = { .vm = "web", .name = "root", .source = image };
	struct volume_job *job;
	struct volume_job *second;
	struct error err = { 0 };

	write_text(image, "x", 64 * MIB);
	assert_int_equal(volume_prepare(bench->storage, &want, 1, "alice", LONG, on_prepared, bench,
					&job, &err),
			 0);
	assert_int_equal(volume_prepare(bench->storage, &want, 1, "alice", LONG, on_prepared, bench,
					&second, &err),
			 -EAGAIN);
	assert_true(sd_event_run(bench->loop, 0) >= 0); /* the child has been started */
	assert_int_equal(files_in(dir), 1);
	assert_null(volume_cancel(job));
	while (sd_event_run(bench->loop, 0) > 0)
		;
	assert_int_equal(bench->replies, 0);
	assert_int_equal(files_in(dir), 0);
}

static void a_left_over_of_a_killed_keeper_is_no_obstacle(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *dir = bench_path(bench, "volumes/web");
	CLEANUP_FREE char *part = bench_path(bench, "volumes/web/.root.part");
	const struct volume_want want = { .vm = "web", .name = "root", .size = MIB };

	assert_int_equal(mkdir(dir, 0700), 0);
	write_text(part, "half an image", 4 * MIB);
	prepare(bench, &want);
	assert_int_equal(bench->open.size, MIB);
	assert_int_equal(files_in(dir), 2);
}

/* ---- claims ---- */

static void a_claim_of_a_higher_epoch_refuses(void **state)
{
	struct bench *bench = *state;
	const struct volume_want want = { .vm = "web", .name = "root", .size = MIB };
	struct error err = { 0 };

	assert_int_equal(prepare_as(bench, &want, 5, "alice"), 0);
	assert_int_equal(prepare_as(bench, &want, 5, "alice"), 0);
	assert_int_equal(prepare_as(bench, &want, 5, "bob"), -EPERM);
	assert_int_equal(prepare_as(bench, &want, 4, "alice"), -EPERM);
	assert_non_null(strstr(bench->error.text, "node 'alice' with epoch 5"));
	assert_int_equal(prepare_as(bench, &want, 6, "bob"), 0);
	assert_int_equal(prepare_as(bench, &want, 5, "alice"), -EPERM);

	assert_int_equal(volume_release(bench->storage, "web", "root", 5, "alice", &err), -EPERM);
	assert_int_equal(volume_release(bench->storage, "web", "root", 6, "alice", &err), -EPERM);
	assert_int_equal(volume_release(bench->storage, "web", "root", 6, "bob", &err), 0);
	assert_int_equal(volume_release(bench->storage, "web", "root", 6, "bob", &err), 0);
	assert_int_equal(volume_release(bench->storage, "nobody", "root", 6, "bob", &err), 0);
	assert_int_equal(prepare_as(bench, &want, 1, "alice"), 0);
}

static void an_empty_claim_is_none_and_a_damaged_one_is_not(void **state)
{
	struct bench *bench = *state;
	const struct volume_want want = { .vm = "web", .name = "root", .size = MIB };
	CLEANUP_FREE char *claim = bench_path(bench, "volumes/web/root.claim");

	prepare(bench, &want);
	write_text(claim, "", 0);
	prepare(bench, &want);
	write_text(claim, "{\"epoch\": \"many\"}", 17);
	refuse(bench, &want, -EBADMSG, "root.claim");
}

/* ---- listing and removing ---- */

static void volumes_are_listed_and_removed_by_name_only(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *base = bench_path(bench, "volumes/web/root.raw");
	CLEANUP_FREE char *dir = bench_path(bench, "volumes/web");
	struct volume_want want = { .vm = "web", .name = "root", .size = MIB };
	struct volume_info *infos = NULL;
	struct error err = { 0 };
	size_t count = 0;

	prepare(bench, &want);
	want.name = "data";
	prepare(bench, &want);
	want = (struct volume_want){
		.vm = "app", .name = "root", .format = VOLUME_QCOW2, .source = base, .overlay = true
	};
	prepare(bench, &want);
	assert_int_equal(volume_release(bench->storage, "web", "data", 1, "alice", &err), 0);

	assert_int_equal(volume_list(bench->storage, &infos, &count, &err), 0);
	assert_int_equal(count, 3);
	assert_string_equal(infos[0].vm, "app");
	assert_int_equal(infos[0].format, VOLUME_QCOW2);
	assert_int_equal(infos[0].size, MIB);
	assert_string_equal(infos[1].name, "data");
	assert_null(infos[1].claimed_by);
	assert_string_equal(infos[2].path, base);
	assert_string_equal(infos[2].claimed_by, "alice");
	assert_int_equal(infos[2].claim_epoch, 1);
	for (size_t i = 0; i < count; i++)
		volume_info_done(&infos[i]);
	free(infos);

	assert_int_equal(volume_remove(bench->storage, "web", "root", &err), -EPERM);
	assert_non_null(strstr(err.text, "in use by node 'alice'"));
	assert_int_equal(volume_release(bench->storage, "web", "root", 1, "alice", &err), 0);
	assert_int_equal(volume_remove(bench->storage, "web", "root", &err), -EPERM);
	assert_non_null(strstr(err.text, "volume 'root' of VM app lies on it"));
	assert_int_equal(volume_release(bench->storage, "app", "root", 1, "alice", &err), 0);
	assert_int_equal(volume_remove(bench->storage, "app", "root", &err), 0);
	assert_int_equal(volume_remove(bench->storage, "app", "root", &err), -ENOENT);
	assert_int_equal(volume_remove(bench->storage, "web", "root", &err), 0);
	assert_int_equal(files_in(dir), 1);
}

static void a_volume_that_a_process_has_locked_is_not_removed(void **state)
{
	struct bench *bench = *state;
	const struct volume_want want = { .vm = "web", .name = "root", .size = MIB };
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 1 };
	struct error err = { 0 };

	prepare(bench, &want);
	/* As QEMU does it (block/file-posix.c). */
	assert_int_equal(fcntl(bench->open.layers[0].fd, F_OFD_SETLK, &lock), 0);
	assert_int_equal(volume_release(bench->storage, "web", "root", 1, "alice", &err), 0);
	assert_int_equal(volume_remove(bench->storage, "web", "root", &err), -EPERM);
	assert_non_null(strstr(err.text, "has '"));
	volume_open_done(&bench->open);
	assert_int_equal(volume_remove(bench->storage, "web", "root", &err), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, bench_open, bench_close)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_empty_raw_volume_is_sparse_private_and_open),
		TEST(what_is_there_is_kept_and_only_grows),
		TEST(a_read_only_volume_is_neither_written_nor_grown),
		TEST(a_raw_volume_stays_raw_whatever_a_guest_writes_into_it),
		TEST(no_link_leads_out_of_the_directory),
		TEST(names_and_wishes_without_sense_are_refused_at_once),
		TEST(a_source_is_copied_and_grown),
		TEST(an_overlay_is_opened_with_all_below_it),
		TEST(a_volume_is_opened_past_the_cache_where_that_can_be),
		TEST(a_header_may_not_name_what_was_not_asked_for),
		TEST(a_source_brings_no_other_file_along),
		TEST(a_volume_is_looked_at_before_it_is_grown),
		TEST(qemu_img_sees_its_images_and_nothing_else),
		TEST(a_damaged_header_is_a_sentence_and_not_a_crash),
		TEST(another_format_than_the_one_there_is_refused),
		TEST(images_of_other_makes_are_refused_by_name),
		TEST(a_path_is_used_as_it_is),
		TEST(a_cancelled_job_leaves_nothing_and_says_nothing),
		TEST(a_left_over_of_a_killed_keeper_is_no_obstacle),
		TEST(a_claim_of_a_higher_epoch_refuses),
		TEST(an_empty_claim_is_none_and_a_damaged_one_is_not),
		TEST(volumes_are_listed_and_removed_by_name_only),
		TEST(a_volume_that_a_process_has_locked_is_not_removed),
		/* Last: it moves into a mount namespace of its own. */
		TEST(a_full_disk_leaves_nothing_half_made),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
