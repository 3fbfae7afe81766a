/* SPDX-License-Identifier: Apache-2.0 */
/* Identity of processes.  The idea: hold a pidfd first, read /proc then, and look last whether the
 * pidfd still lives; if it does, the number was never given to anybody else in between, so what
 * was read belongs to what the pidfd names. */
#include "util/process.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <time.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"

#define STAT_MAX 4096
#define COMMAND_LINE_MAX (8 * 1024 * 1024) /* the kernel allows 6; execve(2) */
#define ROLLUP_MAX 65536

/* `length` may be NULL.  -ENOENT also when it died while we read. */
static int read_proc(pid_t pid, const char *name, size_t limit, char **ret_text, size_t *ret_length,
		     struct error *err)
{
	char path[64];
	int r;

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	r = file_read(AT_FDCWD, path, limit, ret_text, ret_length, err);
	return r == -ESRCH ? -ENOENT : r;
}

/* Field 22; counted from the last ')' because the name in field 2 may hold anything. */
static int parse_start_time(const char *stat, uint64_t *ret)
{
	const char *at = strrchr(stat, ')');
	char *end;

	if (!at || at[1] != ' ')
		return -EBADMSG;
	at++;
	for (unsigned field = 3; field <= 22; field++) {
		while (*at == ' ')
			at++;
		if (field == 22)
			break;
		at += strcspn(at, " ");
	}
	errno = 0;
	*ret = strtoull(at, &end, 10);
	return end == at || errno ? -EBADMSG : 0;
}

static int read_start_time(pid_t pid, uint64_t *ret, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	int r;

	r = read_proc(pid, "stat", STAT_MAX, &text, NULL, err);
	if (r < 0)
		return r;
	if (parse_start_time(text, ret) < 0)
		return error_bad_data(err, "/proc/%d/stat has no start time", (int)pid);
	return 0;
}

/* Where in `argument` the token stands as a word of its own: at the start or after `,` or `=`; and
 * up to its end or a `,` when the token is whole. */
static bool argument_holds(const char *argument, const char *token, bool whole)
{
	size_t length = strlen(token);

	for (const char *at = strstr(argument, token); length && at; at = strstr(at + 1, token)) {
		if (at != argument && at[-1] != ',' && at[-1] != '=')
			continue;
		if (!whole || at[length] == '\0' || at[length] == ',')
			return true;
	}
	return false;
}

static const char *find_argument(const char *line, size_t length, const char *token, bool whole)
{
	for (const char *at = line; at < line + length; at += strlen(at) + 1)
		if (argument_holds(at, token, whole))
			return at;
	return NULL;
}

int process_identify(pid_t pid, const char *token, struct process_id *ret_id, struct error *err)
{
	struct process_id id = { .pid = pid };
	int r;

	if (!token || strlen(token) >= sizeof(id.token))
		return error_set(err, -EINVAL, "the token of process %d is too long", (int)pid);
	strcpy(id.token, token);
	r = read_start_time(pid, &id.start_time, err);
	if (r < 0)
		return r;
	if (clock_boot_id(id.boot_id)[0] == '\0')
		return error_set(err, -EIO, "the kernel does not tell its boot id: mount /proc");
	*ret_id = id;
	return 0;
}

/* 1 it is `id`, 0 it is not (or has gone). */
static int matches(const struct process_id *id, struct error *err)
{
	CLEANUP_FREE char *line = NULL;
	uint64_t start_time;
	size_t length;
	int r;

	r = read_start_time(id->pid, &start_time, err);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (start_time != id->start_time)
		return 0;
	r = read_proc(id->pid, "cmdline", COMMAND_LINE_MAX, &line, &length, err);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (length == 0 || find_argument(line, length, id->token, true))
		return 1;
	return error_set(err, -EBADE,
			 "process %d began when ours did, but does not carry the token '%s'; if it "
			 "is not that VM's QEMU, end it by hand",
			 (int)id->pid, id->token);
}

int process_open(const struct process_id *id, int *ret_pidfd, struct error *err)
{
	char boot_id[BOOT_ID_SIZE];
	CLEANUP_FD int fd = -1;
	int r;

	if (id->pid <= 0 || id->token[0] == '\0')
		return 0;
	if (clock_boot_id(boot_id)[0] == '\0')
		return error_set(err, -EIO, "the kernel does not tell its boot id: mount /proc");
	if (strcmp(boot_id, id->boot_id) != 0)
		return 0;
	fd = pidfd_open(id->pid, 0);
	/* EINVAL, ENOENT: the number is that of a thread now. */
	if (fd < 0 && (errno == ESRCH || errno == EINVAL || errno == ENOENT))
		return 0;
	if (fd < 0)
		return error_set(err, -errno, "cannot open process %d: %m", (int)id->pid);
	r = matches(id, err);
	if (r <= 0)
		return r;
	if (process_wait(fd, 0) != 0)
		return 0;
	*ret_pidfd = TAKE_FD(fd);
	return 1;
}

int process_signal(int pidfd, int signal, struct error *err)
{
	if (pidfd_send_signal(pidfd, signal, NULL, 0) < 0 && errno != ESRCH)
		return error_set(err, -errno, "cannot send signal %d (%s): %m", signal,
				 strsignal(signal));
	return 0;
}

int process_wait(int pidfd, uint64_t timeout_usec)
{
	uint64_t deadline = clock_now() + timeout_usec;
	struct pollfd ended = { .fd = pidfd, .events = POLLIN };

	if (deadline < timeout_usec)
		deadline = UINT64_MAX;
	for (;;) {
		uint64_t now = clock_now();
		uint64_t left = deadline > now ? deadline - now : 0;
		struct timespec wait = { .tv_sec = (time_t)(left / USEC_PER_SEC),
					 .tv_nsec = (long)(left % USEC_PER_SEC) * 1000 };
		int r = ppoll(&ended, 1, &wait, NULL);

		if (r < 0 && errno == EINTR)
			continue;
		return r < 0 ? -errno : r;
	}
}

/* Calls `look` for each process that belongs to one of the users.  The owner of /proc/PID is the
 * process's effective user (proc(5)). */
static int each_of_users(struct uid_range uids,
			 int (*look)(pid_t pid, uid_t uid, void *ctx, struct error *err), void *ctx,
			 struct error *err)
{
	struct dirent *entry;
	struct stat st;
	int r = 0;
	DIR *proc;

	proc = opendir("/proc");
	if (!proc)
		return error_set(err, -errno, "cannot list processes in /proc: %m");
	while (r >= 0 && (errno = 0, entry = readdir(proc)) != NULL) {
		if (!isdigit((unsigned char)entry->d_name[0]) ||
		    fstatat(dirfd(proc), entry->d_name, &st, 0) < 0)
			continue; /* it ended meanwhile */
		if (st.st_uid < uids.first || st.st_uid - uids.first >= uids.count)
			continue;
		r = look(atoi(entry->d_name), st.st_uid, ctx, err);
		errno = 0;
	}
	if (r >= 0 && errno != 0)
		r = error_set(err, -errno, "cannot list processes in /proc: %m");
	(void)closedir(proc);
	return r;
}

struct scan {
	const char *token_prefix;
	process_found_fn found;
	void *ctx;
};

static int look_at_arguments(pid_t pid, uid_t uid, void *ctx, struct error *err)
{
	const struct scan *scan = ctx;
	CLEANUP_FREE char *line = NULL;
	const char *argument;
	size_t length;
	int r;

	r = read_proc(pid, "cmdline", COMMAND_LINE_MAX, &line, &length, err);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	argument = find_argument(line, length, scan->token_prefix, false);
	if (argument)
		scan->found(scan->ctx, pid, uid, argument);
	return 0;
}

int process_scan(const char *token_prefix, struct uid_range uids, process_found_fn found, void *ctx,
		 struct error *err)
{
	struct scan scan = { token_prefix, found, ctx };

	return each_of_users(uids, look_at_arguments, &scan, err);
}

static int look_at_owner(pid_t pid, uid_t uid, void *ctx, struct error *err)
{
	const struct scan *scan = ctx;

	scan->found(scan->ctx, pid, uid, NULL);
	return 0;
}

int process_owners(struct uid_range uids, process_found_fn found, void *ctx, struct error *err)
{
	struct scan scan = { NULL, found, ctx };

	return each_of_users(uids, look_at_owner, &scan, err);
}

static uint64_t rollup_field(const char *text, const char *name)
{
	const char *at = strstr(text, name);
	uint64_t kib = 0;

	if (at)
		(void)sscanf(at + strlen(name), "%" SCNu64, &kib);
	return kib;
}

int process_memory(pid_t pid, uint64_t *ret_pss_kib, uint64_t *ret_swap_kib, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	int r;

	r = read_proc(pid, "smaps_rollup", ROLLUP_MAX, &text, NULL, err);
	if (r < 0)
		return r;
	*ret_pss_kib = rollup_field(text, "\nPss:");
	*ret_swap_kib = rollup_field(text, "\nSwap:");
	return 0;
}
