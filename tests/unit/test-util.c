/* SPDX-License-Identifier: Apache-2.0 */
/* The floor: errors, texts, clock, files, log lines, children, tools, identities.  Everything here
 * is done for real, in a directory of its own below /tmp. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/file.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/process.h"
#include "util/spawn.h"
#include "util/utf8.h"

#define PATIENCE (60 * USEC_PER_SEC)

static char root[] = "/tmp/drover-test-util-XXXXXX";
static int root_fd = -1;

static int setup(void **state)
{
	int fd;

	if (!mkdtemp(root))
		return -1;
	fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	root_fd = fcntl(fd, F_DUPFD_CLOEXEC, 100); /* out of the way of the low numbers */
	(void)close(fd);
	return root_fd < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	(void)close(root_fd);
	return file_remove_tree(AT_FDCWD, root, NULL);
}

static void an_error_keeps_code_class_and_words(void **state)
{
	struct error err;

	errno = EPERM;
	assert_int_equal(error_set(&err, -ENOENT, "cannot open '%s': %m", "x"), -ENOENT);
	assert_string_equal(err.text, "cannot open 'x': No such file or directory");
	assert_int_equal(errno, EPERM);
	assert_int_equal(error_refuse(&err, "not while %s", err.text), -EPERM);
	assert_string_equal(err.text, "not while cannot open 'x': No such file or directory");
	assert_int_equal(error_prefix(&err, -EPERM, "VM %s", "web01"), -EPERM);
	assert_string_equal(err.text,
			    "VM web01: not while cannot open 'x': No such file or directory");
	assert_int_equal(err.class, ERROR_REFUSED);
	assert_int_equal(error_exit_code(err.class), 69);
	assert_int_equal(error_class_of(error_class_name(ERROR_TRY_AGAIN)), ERROR_TRY_AGAIN);
	assert_int_equal(error_class_of("CommandNotFound"), ERROR_FAILED);
	assert_int_equal(error_usage(NULL, "nobody listens"), -EINVAL);
	assert_int_equal(error_prefix(NULL, -EIO, "nobody listens"), -EIO);
}

static void a_long_error_is_cut_between_two_characters(void **state)
{
	CLEANUP(text_done) struct text text = { 0 };
	struct error err;

	for (unsigned offset = 0; offset < 4; offset++) {
		size_t at = 0;

		text_done(&text);
		text_add(&text, "abcd", offset);
		for (unsigned i = 0; i < 600; i++)
			text_add(&text, "\xe2\x82\xac", 3);
		(void)error_set(&err, -EIO, "%s", text.text);
		assert_true(strlen(err.text) >= sizeof(err.text) - 4);
		while (err.text[at]) {
			size_t n = utf8_length(err.text + at, strlen(err.text + at));

			assert_int_not_equal(n, 0);
			at += n;
		}
	}
}

static void only_well_formed_utf8_counts(void **state)
{
	assert_int_equal(utf8_length("a", 1), 1);
	assert_int_equal(utf8_length("\xc3\xa4", 2), 2);
	assert_int_equal(utf8_length("\xf0\x9f\x90\x84", 4), 4);
	assert_int_equal(utf8_length("\xc3\xa4", 1), 0);
	assert_int_equal(utf8_length("\xc0\x80", 2), 0);
	assert_int_equal(utf8_length("\xe0\x80\x80", 3), 0);
	assert_int_equal(utf8_length("\xed\xa0\x80", 3), 0);
	assert_int_equal(utf8_length("\xf4\x90\x80\x80", 4), 0);
	assert_int_equal(utf8_length("\xff", 1), 0);
	assert_int_equal(utf8_length("", 0), 0);
}

static void lists_and_texts_grow(void **state)
{
	CLEANUP(strv_done) struct strv list = { 0 };
	CLEANUP(text_done) struct text text = { 0 };

	strv_add(&list, "a");
	strv_addf(&list, "%d", 2);
	assert_int_equal(list.count, 2);
	assert_string_equal(list.items[1], "2");
	assert_null(list.items[2]);
	for (int i = 0; i < 1000; i++)
		text_addf(&text, "%d,", i % 10);
	assert_int_equal(text.length, 2000);
	assert_string_equal(text.text + 1990, "5,6,7,8,9,");
}

static void times_are_written_and_read_as_rfc_3339(void **state)
{
	static const char *const bad[] = { "",
					   "2026-11-20",
					   "2026-11-20T09:30:00",
					   "2026-11-20 09:30:00Z",
					   "2026-13-20T09:30:00Z",
					   "2026-02-30T09:30:00Z",
					   "2026-11-20T24:30:00Z",
					   "2026-11-20T09:30:00.Z",
					   "2026-11-20T09:30:00+0100",
					   "2026-11-20T09:30:00Zx",
					   "1960-01-01T00:00:00Z" };
	char text[CLOCK_TEXT_SIZE];
	uint64_t usec;

	assert_return_code(clock_parse("2026-11-20T10:30:00.25+01:00", &usec), 0);
	assert_int_equal(usec % USEC_PER_SEC, 250000);
	assert_string_equal(clock_text(usec, text), "2026-11-20T09:30:00Z");
	assert_return_code(clock_parse("2024-02-29t09:30:00z", &usec), 0);
	assert_string_equal(clock_text(usec, text), "2024-02-29T09:30:00Z");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(clock_parse(bad[i], &usec), -EINVAL);
}

static void a_file_is_written_whole_and_read_back(void **state)
{
	CLEANUP_FREE char *text = NULL;
	struct error err = { 0 };
	struct stat st;
	size_t length;

	assert_return_code(file_write(root_fd, "whole", "a\0b", 3, 0640, &err), 0);
	assert_return_code(file_read(root_fd, "whole", 3, &text, &length, &err), 0);
	assert_int_equal(length, 3);
	assert_memory_equal(text, "a\0b", 4);
	assert_return_code(fstatat(root_fd, "whole", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	assert_int_equal(file_read(root_fd, "whole", 2, &text, NULL, &err), -EFBIG);
	assert_int_equal(file_read(root_fd, "absent", 2, &text, NULL, &err), -ENOENT);
	assert_string_equal(err.text, "cannot open 'absent': No such file or directory");
}

static void a_failed_write_leaves_the_old_content(void **state)
{
	CLEANUP_FREE char *text = NULL;
	struct error err = { 0 };
	pid_t child;
	int status;

	assert_return_code(file_write(root_fd, "old", "old", 3, 0600, &err), 0);
	child = fork();
	if (child == 0) {
		struct rlimit limit = { .rlim_cur = 1000, .rlim_max = 1000 };
		CLEANUP_FREE char *large = xcalloc(1, 4000);

		(void)signal(SIGXFSZ, SIG_IGN);
		(void)setrlimit(RLIMIT_FSIZE, &limit);
		_exit(file_write(root_fd, "old", large, 4000, 0600, NULL) == -EFBIG ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_return_code(file_read(root_fd, "old", 100, &text, NULL, &err), 0);
	assert_string_equal(text, "old");
}

static unsigned unfinished_files(void)
{
	int fd = openat(root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fdopendir(fd);
	struct dirent *entry;
	unsigned count = 0;

	assert_non_null(dir);
	while ((entry = readdir(dir)))
		count += strncmp(entry->d_name, ".new-", strlen(".new-")) == 0;
	(void)closedir(dir);
	return count;
}

static void what_a_killed_writer_left_can_be_removed(void **state)
{
	CLEANUP_FREE char *text = NULL;
	struct error err = { 0 };
	pid_t child;
	int status;

	assert_return_code(file_write(root_fd, "kept", "kept", 4, 0600, &err), 0);
	child = fork();
	if (child == 0) {
		struct rlimit limit = { .rlim_cur = 1000, .rlim_max = 1000 }, no_core = { 0 };
		CLEANUP_FREE char *large = xcalloc(1, 4000);

		(void)setrlimit(RLIMIT_CORE, &no_core);
		(void)signal(SIGXFSZ, SIG_DFL);
		(void)setrlimit(RLIMIT_FSIZE, &limit);
		_exit(file_write(root_fd, "kept", large, 4000, 0600, NULL));
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ);
	assert_int_equal(unfinished_files(), 1);
	file_remove_unfinished(root_fd);
	assert_int_equal(unfinished_files(), 0);
	assert_return_code(file_read(root_fd, "kept", 100, &text, NULL, &err), 0);
	assert_string_equal(text, "kept");
}

static void a_fifo_in_place_of_a_file_does_not_hold_us(void **state)
{
	CLEANUP_FREE char *text = NULL;
	struct error err = { 0 };

	assert_return_code(mkfifoat(root_fd, "fifo", 0600), 0);
	assert_int_equal(file_read(root_fd, "fifo", 100, &text, NULL, &err), -EINVAL);
	assert_non_null(strstr(err.text, "not a regular file"));
}

static void directories_are_made_and_trees_removed(void **state)
{
	struct error err = { 0 };
	struct stat st;

	assert_return_code(file_make_dirs(root_fd, "tree/a/b", 0700, &err), 0);
	assert_return_code(file_make_dirs(root_fd, "tree/a/b/", 0700, &err), 0);
	assert_return_code(fstatat(root_fd, "tree/a/b", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_return_code(file_write(root_fd, "tree/a/f", "", 0, 0600, &err), 0);
	assert_int_equal(file_make_dirs(root_fd, "tree/a/f", 0700, &err), -ENOTDIR);
	assert_return_code(file_write(root_fd, "kept", "", 0, 0600, &err), 0);
	assert_return_code(symlinkat("../kept", root_fd, "tree/link"), 0);
	assert_return_code(symlinkat("..", root_fd, "tree/up"), 0);
	assert_return_code(file_remove_tree(root_fd, "tree", &err), 0);
	assert_int_equal(fstatat(root_fd, "tree", &st, 0), -1);
	assert_return_code(fstatat(root_fd, "kept", &st, 0), 0);
	assert_return_code(file_remove_tree(root_fd, "tree", &err), 0);
	assert_return_code(file_remove_tree(root_fd, "no/such/thing", &err), 0);
}

static void a_lock_has_one_holder(void **state)
{
	CLEANUP_FD int other = -1;
	struct error err = { 0 };
	int held = -1;

	assert_return_code(file_lock(root_fd, "lock", 0, &held, &err), 0);
	assert_int_equal(file_lock(root_fd, "lock", 0, &other, &err), -EWOULDBLOCK);
	assert_int_equal(err.class, ERROR_TRY_AGAIN);
	/* A holder that removes the file leaves a lock on nothing; the next takes a new file. */
	assert_return_code(unlinkat(root_fd, "lock", 0), 0);
	assert_return_code(file_lock(root_fd, "lock", 0, &other, &err), 0);
	(void)close(held);
}

static void a_log_line_cannot_forge_another(void **state)
{
	CLEANUP_FREE char *path = xasprintf("%s/log", root);
	CLEANUP_FREE char *text = NULL;
	CLEANUP_FREE char *wanted = NULL;
	struct error err = { 0 };

	log_open("test", "web01", path, LOG_LEVEL_INFO);
	log_info("name '%s'", "a\nb\x1b[2J\xff\xc2\x9b\xc3\xa4");
	log_debug("not this one");
	assert_return_code(file_read(AT_FDCWD, path, 4096, &text, NULL, &err), 0);
	wanted = xasprintf(" %d I web01 name 'a\\x0ab\\x1b[2J\\xff\\xc2\\x9b\xc3\xa4'\n",
			   (int)getpid());
	assert_non_null(strstr(text, wanted));
	assert_string_equal(strchr(text, ' '), wanted);
	assert_int_equal(strchr(text, ' ') - text, strlen("2026-11-20T10:15:03.123+01:00"));
	log_open("test", NULL, NULL, LOG_LEVEL_ERROR);
}

static void a_log_file_that_was_renamed_is_opened_anew(void **state)
{
	CLEANUP_FREE char *path = xasprintf("%s/rotated", root);
	CLEANUP_FREE char *old = xasprintf("%s/rotated.1", root);
	CLEANUP_FREE char *text = NULL;
	struct error err = { 0 };

	log_open("test", NULL, path, LOG_LEVEL_INFO);
	log_info("first");
	assert_return_code(rename(path, old), 0);
	log_vm(LOG_LEVEL_WARNING, "db", "second");
	assert_return_code(file_read(AT_FDCWD, path, 4096, &text, NULL, &err), 0);
	assert_non_null(strstr(text, "W db second\n"));
	assert_null(strstr(text, "first"));
	log_open("test", NULL, NULL, LOG_LEVEL_ERROR);
}

static void a_closed_stderr_does_not_kill_who_logs(void **state)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		int ends[2];

		if (pipe(ends) < 0 || dup2(ends[1], STDERR_FILENO) < 0)
			_exit(1);
		(void)close(ends[0]);
		(void)close(ends[1]);
		log_open("test", NULL, NULL, LOG_LEVEL_INFO);
		log_error("nobody reads this");
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/* Runs a shell script as a tool. */
static int run_script(const char *script, struct spawn what, uint64_t timeout,
		      struct tool_result *ret, struct error *err)
{
	const char *argv[] = { "sh", "-c", script, NULL };

	what.argv = argv;
	return tool_run(&what, timeout, ret, err);
}

static void a_tool_gives_its_words_and_its_code(void **state)
{
	CLEANUP(tool_result_done) struct tool_result result = { 0 };
	struct error err = { 0 };

	assert_return_code(run_script("pwd; umask; echo no >&2; exit 3", (struct spawn){ 0 },
				      PATIENCE, &result, &err),
			   0);
	assert_int_equal(result.code, 3);
	assert_string_equal(result.out, "/\n0022\n");
	assert_int_equal(result.out_length, strlen("/\n0022\n"));
	assert_string_equal(result.err_text, "no\n");
}

static void a_tool_that_talks_without_end_is_cut_not_stuck(void **state)
{
	CLEANUP(tool_result_done) struct tool_result result = { 0 };
	struct error err = { 0 };

	assert_return_code(run_script("head -c 1000000 /dev/zero; kill -TERM $$",
				      (struct spawn){ 0 }, PATIENCE, &result, &err),
			   0);
	assert_int_equal(result.code, 128 + SIGTERM);
	assert_int_equal(result.out_length, 65536);
}

static void a_tool_past_its_deadline_goes_with_its_children(void **state)
{
	CLEANUP_FREE char *script =
		xasprintf("sleep 1000 & echo $! >%s/sleeper; echo said; wait", root);
	CLEANUP(tool_result_done) struct tool_result result = { 0 };
	CLEANUP_FREE char *number = NULL;
	struct error err = { 0 };
	uint64_t give_up, deadline = USEC_PER_SEC;
	char stat_path[64];

	/* Longer if the machine is too busy to get a shell so far. */
	for (; !number; deadline *= 4) {
		assert_true(deadline <= PATIENCE);
		assert_int_equal(run_script(script, (struct spawn){ 0 }, deadline, &result, &err),
				 -ETIMEDOUT);
		assert_non_null(strstr(err.text, "'sh' did not end within "));
		tool_result_done(&result);
		(void)file_read(root_fd, "sleeper", 100, &number, NULL, NULL);
	}
	/* It is an orphan now, which whoever is process 1 reaps: gone, or a zombie until then. */
	(void)snprintf(stat_path, sizeof(stat_path), "/proc/%d/cmdline", atoi(number));
	for (give_up = clock_now() + PATIENCE;;) {
		CLEANUP_FREE char *line = NULL;
		size_t length;

		if (file_read(AT_FDCWD, stat_path, 4096, &line, &length, NULL) < 0 || length == 0)
			break;
		assert_true(clock_now() < give_up);
	}
}

static void a_descendant_that_keeps_the_pipe_does_not_delay_the_end(void **state)
{
	CLEANUP(tool_result_done) struct tool_result result = { 0 };
	struct error err = { 0 };

	assert_return_code(
		run_script("sleep 1000 & echo $!", (struct spawn){ 0 }, PATIENCE, &result, &err),
		0);
	assert_int_equal(result.code, 0);
	(void)kill(atoi(result.out), SIGKILL);
}

static void never_done(void *ctx, int r, struct tool_result *result, const struct error *err)
{
	fail_msg("a cancelled tool was reported");
}

static void a_cancelled_tool_is_never_reported(void **state)
{
	const char *const argv[] = { "sleep", "1000", NULL };
	const struct spawn what = { .argv = argv };
	struct error err = { 0 };
	struct tool *tool = NULL;
	sd_event *loop = NULL;

	assert_return_code(sd_event_new(&loop), 0);
	assert_return_code(tool_start(loop, &what, PATIENCE, never_done, NULL, &tool, &err), 0);
	tool = tool_cancel(tool);
	assert_null(tool);
	assert_true(sd_event_run(loop, PATIENCE) > 0); /* it is reaped */
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	/* And one whose end nobody waits for goes with the loop. */
	assert_return_code(tool_start(loop, &what, PATIENCE, never_done, NULL, &tool, &err), 0);
	tool = tool_cancel(tool);
	loop = sd_event_unref(loop);
	assert_true(waitpid(-1, NULL, 0) > 0);
}

static void a_missing_program_is_named(void **state)
{
	const char *const argv[] = { "no-such-program", NULL };
	const struct spawn what = { .argv = argv };
	struct error err = { 0 };
	int pidfd = -1;

	assert_int_equal(spawn(&what, NULL, &pidfd, &err), -ENOENT);
	assert_non_null(strstr(err.text, "program 'no-such-program' is not there"));
	assert_int_equal(pidfd, -1);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static int refuse(void *ctx, struct error *err)
{
	return error_refuse(err, "not on a %s", (const char *)ctx);
}

static void the_words_of_prepare_reach_the_parent(void **state)
{
	const char *const argv[] = { "true", NULL };
	const struct spawn what = { .argv = argv,
				    .prepare = refuse,
				    .prepare_ctx = (char[]){ "Friday" } };
	struct error err = { 0 };
	int pidfd = -1;

	assert_int_equal(spawn(&what, NULL, &pidfd, &err), -EPERM);
	assert_string_equal(err.text, "not on a Friday");
	assert_int_equal(err.class, ERROR_REFUSED);
}

/* A descriptor of a file with `words`, at exactly `number`. */
static int words_at(int number, const char *name, const char *words)
{
	int fd, high;

	assert_return_code(file_write(root_fd, name, words, strlen(words), 0600, NULL), 0);
	fd = openat(root_fd, name, O_RDONLY | O_CLOEXEC);
	assert_return_code(fd, errno);
	high = fcntl(fd, F_DUPFD_CLOEXEC, 60);
	(void)close(fd);
	assert_int_equal(dup3(high, number, O_CLOEXEC), number);
	(void)close(high);
	return number;
}

static void a_child_gets_exactly_the_descriptors_it_is_handed(void **state)
{
	/* Crosswise, so that each source is the target of another. */
	const int keep[] = { dup(3), dup(4), dup(5) };
	const int fds[] = { words_at(5, "w5", "five"), words_at(3, "w3", "three"),
			    words_at(4, "w4", "four"), 5 };
	CLEANUP(tool_result_done) struct tool_result result = { 0 };
	int stray = fcntl(3, F_DUPFD, 50); /* not close-on-exec, on purpose */
	struct error err = { 0 };

	assert_true(stray >= 50);
	/* No pipe and no list of a directory: both would be descriptors of the shell's own. */
	assert_return_code(run_script("cat <&3; cat <&4; cat <&5; i=0; while [ $i -lt 100 ]; do "
				      "[ -e /proc/$$/fd/$i ] && printf '%s ' $i; i=$((i + 1)); "
				      "done",
				      (struct spawn){ .fds = fds, .n_fds = ARRAY_SIZE(fds) },
				      PATIENCE, &result, &err),
			   0);
	(void)close(stray);
	for (int i = 0; i < 3; i++) {
		if (keep[i] >= 0)
			(void)dup3(keep[i], 3 + i, O_CLOEXEC);
		else
			(void)close(3 + i);
		(void)close(keep[i]);
	}
	assert_string_equal(result.out, "fivethreefour0 1 2 3 4 5 6 ");
}

static void signals_are_reset_for_a_child(void **state)
{
	CLEANUP(tool_result_done) struct tool_result result = { 0 };
	struct error err = { 0 };
	sigset_t set, before;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &set, &before);
	(void)signal(SIGPIPE, SIG_IGN);
	assert_return_code(run_script("sed -nE '/^Sig(Blk|Ign|Cgt)/p' /proc/self/status",
				      (struct spawn){ 0 }, PATIENCE, &result, &err),
			   0);
	(void)signal(SIGPIPE, SIG_DFL);
	(void)sigprocmask(SIG_SETMASK, &before, NULL);
	assert_string_equal(result.out, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"
					"SigCgt:\t0000000000000000\n");
}

static void a_child_with_an_own_uid_has_no_way_back(void **state)
{
	CLEANUP(tool_result_done) struct tool_result result = { 0 };
	struct error err = { 0 };

	if (geteuid() != 0)
		skip();
	assert_return_code(run_script("id -u; id -g; id -G; grep NoNewPrivs /proc/self/status",
				      (struct spawn){ .uid = 65533, .gid = 65532 }, PATIENCE,
				      &result, &err),
			   0);
	assert_string_equal(result.out, "65533\n65532\n65532\nNoNewPrivs:\t1\n");
}

/* A process with a token on its command line; ends with us at the latest. */
static pid_t start_marked(const char *argument, int *ret_pidfd)
{
	const char *const argv[] = { "sh", "-c", "kill -STOP $$", "sh", argument, NULL };
	const struct spawn what = { .argv = argv, .die_with_parent = true };
	pid_t pid = -1;

	assert_return_code(spawn(&what, &pid, ret_pidfd, NULL), 0);
	return pid;
}

static void a_process_is_known_by_start_time_boot_and_token(void **state)
{
	struct process_id id = { 0 };
	struct error err = { 0 };
	struct process_id other;
	CLEANUP_FD int pidfd = -1;
	int found = -1;
	pid_t pid = start_marked("set=1,fd=3,opaque=tok.42:1,x=y", &pidfd);

	assert_return_code(process_identify(pid, "tok.42:1", &id, &err), 0);
	assert_int_equal(process_open(&id, &found, &err), 1);
	(void)close(found);
	other = id;
	/* A process can rewrite its command line, so it may be the one all the same. */
	strcpy(other.token, "tok.42");
	assert_int_equal(process_open(&other, &found, &err), -EBADE);
	strcpy(other.token, "ok.42:1");
	assert_int_equal(process_open(&other, &found, &err), -EBADE);
	other = id;
	other.start_time++;
	assert_int_equal(process_open(&other, &found, &err), 0);
	other = id;
	other.boot_id[0] = 'x';
	assert_int_equal(process_open(&other, &found, &err), 0);

	assert_int_equal(process_wait(pidfd, 0), 0);
	assert_return_code(process_signal(pidfd, SIGKILL, &err), 0);
	assert_int_equal(process_wait(pidfd, PATIENCE), 1);
	/* A zombie is no process any more, and neither is what was reaped. */
	assert_int_equal(process_open(&id, &found, &err), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(process_open(&id, &found, &err), 0);
	assert_return_code(process_signal(pidfd, SIGKILL, &err), 0);
}

static void *stay(void *arg)
{
	(void)pause();
	return arg;
}

/* Its main thread has ended, another has not: so looks a QEMU that was killed while the kernel
 * still writes for it.  Ends with us at the latest. */
static pid_t start_dying(int *ret_pidfd)
{
	uint64_t deadline = clock_now() + PATIENCE;
	char path[64];
	pthread_t thread;
	bool dead = false;
	pid_t pid = fork();

	assert_return_code(pid, errno);
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (pthread_create(&thread, NULL, stay, NULL) == 0)
			(void)syscall(SYS_exit, 0);
		_exit(1);
	}
	*ret_pidfd = pidfd_open(pid, 0);
	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	while (!dead) {
		CLEANUP_FREE char *stat = NULL;

		assert_int_equal(process_wait(*ret_pidfd, 10 * USEC_PER_MSEC), 0);
		assert_return_code(file_read(AT_FDCWD, path, 4096, &stat, NULL, NULL), 0);
		dead = strstr(stat, ") Z ") != NULL;
		assert_true(dead || clock_now() < deadline);
	}
	return pid;
}

static void a_dying_process_without_a_command_line_is_still_itself(void **state)
{
	struct process_id id = { 0 }, other;
	struct error err = { 0 };
	CLEANUP_FD int pidfd = -1;
	int found = -1;
	pid_t pid = start_dying(&pidfd);

	assert_return_code(process_identify(pid, "tok.42:1", &id, &err), 0);
	assert_int_equal(process_open(&id, &found, &err), 1);
	assert_int_equal(process_wait(found, 0), 0);
	(void)close(found);
	other = id;
	other.start_time++;
	assert_int_equal(process_open(&other, &found, &err), 0);

	assert_return_code(process_signal(pidfd, SIGKILL, &err), 0);
	assert_int_equal(process_wait(pidfd, PATIENCE), 1);
	assert_int_equal(process_open(&id, &found, &err), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void collect(void *ctx, pid_t pid, uid_t uid, const char *argument)
{
	if (strstr(argument, "opaque=scan.7.1"))
		*(pid_t *)ctx = pid;
}

static void a_lost_process_is_found_by_the_start_of_its_token(void **state)
{
	struct error err = { 0 };
	CLEANUP_FD int pidfd = -1;
	uint64_t pss, swap;
	pid_t found = -1;
	pid_t pid = start_marked("opaque=scan.7.1", &pidfd);

	/* Others can put what they like on their command lines: they are not asked. */
	assert_return_code(process_scan("scan.7.", (struct uid_range){ getuid() + 1, 9 }, collect,
					&found, &err),
			   0);
	assert_int_equal(found, -1);
	assert_return_code(
		process_scan("scan.7.", (struct uid_range){ getuid(), 1 }, collect, &found, &err),
		0);
	assert_int_equal(found, pid);
	assert_return_code(process_memory(pid, &pss, &swap, &err), 0);
	assert_true(pss > 0);
	(void)process_signal(pidfd, SIGKILL, NULL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(process_memory(pid, &pss, &swap, &err), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_error_keeps_code_class_and_words),
		cmocka_unit_test(a_long_error_is_cut_between_two_characters),
		cmocka_unit_test(only_well_formed_utf8_counts),
		cmocka_unit_test(lists_and_texts_grow),
		cmocka_unit_test(times_are_written_and_read_as_rfc_3339),
		cmocka_unit_test(a_file_is_written_whole_and_read_back),
		cmocka_unit_test(a_failed_write_leaves_the_old_content),
		cmocka_unit_test(what_a_killed_writer_left_can_be_removed),
		cmocka_unit_test(a_fifo_in_place_of_a_file_does_not_hold_us),
		cmocka_unit_test(directories_are_made_and_trees_removed),
		cmocka_unit_test(a_lock_has_one_holder),
		cmocka_unit_test(a_log_line_cannot_forge_another),
		cmocka_unit_test(a_log_file_that_was_renamed_is_opened_anew),
		cmocka_unit_test(a_closed_stderr_does_not_kill_who_logs),
		cmocka_unit_test(a_tool_gives_its_words_and_its_code),
		cmocka_unit_test(a_tool_that_talks_without_end_is_cut_not_stuck),
		cmocka_unit_test(a_tool_past_its_deadline_goes_with_its_children),
		cmocka_unit_test(a_descendant_that_keeps_the_pipe_does_not_delay_the_end),
		cmocka_unit_test(a_cancelled_tool_is_never_reported),
		cmocka_unit_test(a_missing_program_is_named),
		cmocka_unit_test(the_words_of_prepare_reach_the_parent),
		cmocka_unit_test(a_child_gets_exactly_the_descriptors_it_is_handed),
		cmocka_unit_test(signals_are_reset_for_a_child),
		cmocka_unit_test(a_child_with_an_own_uid_has_no_way_back),
		cmocka_unit_test(a_process_is_known_by_start_time_boot_and_token),
		cmocka_unit_test(a_dying_process_without_a_command_line_is_still_itself),
		cmocka_unit_test(a_lost_process_is_found_by_the_start_of_its_token),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
