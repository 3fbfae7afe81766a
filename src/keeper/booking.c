/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/booking.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/admission.h"
#include "keeper/copy.h"
#include "keeper/keeper.h"
#include "model/config.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

/* Held for some file reads; who waits longer waits for a stopped keeper. */
#define LOCK_WAIT (500 * USEC_PER_MSEC)

struct ledger {
	int dir_fd, lock_fd;
	uint64_t booked_mib;
	const char *own; /* file of the booking that is being written: it stays until it is */
	uid_t uid_base;
	unsigned char *uids_used; /* one byte for each of the configured uids */
};

static void ledger_done(struct ledger *ledger)
{
	cleanup_closep(&ledger->dir_fd);
	cleanup_closep(&ledger->lock_fd);
	free(ledger->uids_used);
}

static void booking_file(const char *token, char *name, size_t size)
{
	(void)snprintf(name, size, "%s.json", token);
}

/* Does the process that a booking names still live?  Errors count as yes: a booking too many
 * refuses a start, one too few overcommits the host. */
static bool holder_lives(const json_t *booking)
{
	struct process_id id, now;
	int r;

	id.pid = (pid_t)json_int_or(booking, "pid", 0);
	id.start_time = (uint64_t)json_int_or(booking, "start_time", 0);
	r = process_identify(id.pid, "", &now, NULL);
	if (r < 0)
		return r != -ESRCH && r != -ENOENT;
	return now.start_time == id.start_time &&
	       strcmp(now.boot_id, json_string_or(booking, "boot_id", "")) == 0;
}

/* A booking of this very VM, made by this keeper or by one before it: there is one keeper at a
 * time, so it is void unless this keeper writes it anew. */
static bool is_own(const struct keeper *keeper, const char *name, const json_t *booking)
{
	CLEANUP_FREE char *prefix = xasprintf("drover:%s:", keeper->root_id);

	return strncmp(name, prefix, strlen(prefix)) == 0 &&
	       strcmp(json_string_or(booking, "vm", ""), keeper->name) == 0;
}

static int count_booking(struct keeper *keeper, struct ledger *ledger, const char *name,
			 struct error *err)
{
	json_auto_t *booking = NULL;
	unsigned base = keeper->config->qemu_uid_base;
	int64_t uid;
	int r;

	r = json_read_file(ledger->dir_fd, name, &booking, err);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return error_prefix(err, r,
				    "memory booking in '%s/bookings' (remove the file when no VM "
				    "of it runs)",
				    keeper->config->host_dir);
	if (strcmp(name, ledger->own) == 0)
		return 0;
	if (is_own(keeper, name, booking) || !holder_lives(booking)) {
		(void)unlinkat(ledger->dir_fd, name, 0);
		return 0;
	}
	ledger->booked_mib += (uint64_t)json_int_or(booking, "memory_mib", 0) +
			      (uint64_t)json_int_or(booking, "overhead_mib", 0);
	uid = json_int_or(booking, "uid", -1);
	if (uid >= base && uid < base + keeper->config->qemu_uid_count)
		ledger->uids_used[uid - base] = 1;
	return 0;
}

/* A booking may be lost, or made in another host_dir; a process with that user is there all the
 * same, and two QEMUs of one user could reach into each other. */
static void count_owner(void *ctx, pid_t pid, uid_t uid, const char *argument)
{
	struct ledger *ledger = ctx;

	ledger->uids_used[uid - ledger->uid_base] = 1;
}

static int ledger_open(struct keeper *keeper, struct ledger *ledger, struct error *err)
{
	const struct uid_range uids = { keeper->config->qemu_uid_base,
					keeper->config->qemu_uid_count };
	CLEANUP_FREE char *path = xasprintf("%s/bookings", keeper->config->host_dir);
	struct dirent *entry;
	DIR *dir;
	int r;

	r = file_make_dirs(AT_FDCWD, path, 0700, err);
	if (r < 0)
		return r;
	ledger->dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (ledger->dir_fd < 0)
		return error_set(err, -errno, "cannot open '%s': %m", path);
	r = file_lock(ledger->dir_fd, "../lock", LOCK_WAIT, &ledger->lock_fd, err);
	if (r < 0)
		return error_prefix(err, r, "host-wide lock");
	file_remove_unfinished(ledger->dir_fd);
	ledger->uid_base = uids.first;
	ledger->uids_used = xcalloc(uids.count, 1);
	r = process_owners(uids, count_owner, ledger, err);
	if (r < 0)
		return r;
	dir = fdopendir(fcntl(ledger->dir_fd, F_DUPFD_CLOEXEC, 3));
	if (!dir)
		return error_set(err, -errno, "cannot read '%s': %m", path);
	while (r == 0 && (entry = readdir(dir)))
		if (strstr(entry->d_name, ".json") && entry->d_name[0] != '.')
			r = count_booking(keeper, ledger, entry->d_name, err);
	(void)closedir(dir);
	return r;
}

static int pick_uid(struct keeper *keeper, const struct ledger *ledger, uid_t *ret_uid,
		    struct error *err)
{
	for (unsigned i = 0; i < keeper->config->qemu_uid_count; i++) {
		if (ledger->uids_used[i])
			continue;
		*ret_uid = keeper->config->qemu_uid_base + i;
		return 0;
	}
	return error_try_again(err, "all %u user ids for QEMU are in use: raise qemu.uid_count",
			       keeper->config->qemu_uid_count);
}

static int write_booking(struct keeper *keeper, int dir_fd, const char *token,
			 const struct process_id *holder, uint64_t memory_mib, uid_t uid,
			 struct error *err)
{
	char name[PROCESS_TOKEN_SIZE + 8];
	json_auto_t *booking =
		json_build(err, "{s:s, s:s, s:I, s:I, s:s, s:I, s:I, s:I}", "vm", keeper->name,
			   "root", keeper->config->paths.root, "pid", (json_int_t)holder->pid,
			   "start_time", (json_int_t)holder->start_time, "boot_id", holder->boot_id,
			   "memory_mib", (json_int_t)memory_mib, "overhead_mib",
			   (json_int_t)keeper->config->memory_overhead_mib, "uid", (json_int_t)uid);

	if (!booking)
		return -EINVAL;
	booking_file(token, name, sizeof(name));
	return json_write_file(dir_fd, name, booking, 0600, err);
}

/* MemAvailable of /proc/meminfo (proc(5)), in MiB. */
static int available_mib(uint64_t *ret, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	const char *line;
	int r;

	r = file_read(AT_FDCWD, "/proc/meminfo", 65536, &text, NULL, err);
	if (r < 0)
		return r;
	line = strstr(text, "MemAvailable:");
	if (!line)
		return error_set(err, -ENODATA, "/proc/meminfo has no MemAvailable");
	*ret = strtoull(line + strlen("MemAvailable:"), NULL, 10) / 1024;
	return 0;
}

int booking_make(struct keeper *keeper, const char *token, uint64_t memory_mib, uid_t *ret_uid,
		 struct error *err)
{
	CLEANUP(ledger_done) struct ledger ledger = { .dir_fd = -1, .lock_fd = -1, .own = "" };
	struct admission admission = { .need = memory_mib,
				       .overhead = keeper->config->memory_overhead_mib,
				       .limit = keeper->config->memory_limit_mib };
	struct process_id self;
	int r;

	r = ledger_open(keeper, &ledger, err);
	if (r < 0)
		return r;
	r = available_mib(&admission.available, err);
	if (r < 0)
		return r;
	admission.booked = ledger.booked_mib;
	r = admission_check(&admission, err);
	if (r < 0)
		return r;
	r = pick_uid(keeper, &ledger, ret_uid, err);
	if (r < 0)
		return r;
	r = process_identify(getpid(), "", &self, err);
	if (r < 0)
		return r;
	return write_booking(keeper, ledger.dir_fd, token, &self, memory_mib, *ret_uid, err);
}

int booking_move(struct keeper *keeper, struct error *err)
{
	CLEANUP(ledger_done) struct ledger ledger = { .dir_fd = -1, .lock_fd = -1, .own = "" };
	const struct copy *copy = keeper->copy;
	char own[PROCESS_TOKEN_SIZE + 8];
	int r;

	booking_file(copy->id.token, own, sizeof(own));
	ledger.own = own;
	r = ledger_open(keeper, &ledger, err);
	if (r < 0)
		return r;
	return write_booking(keeper, ledger.dir_fd, copy->id.token, &copy->id, copy->memory_mib,
			     copy->uid, err);
}

void booking_remove(struct keeper *keeper)
{
	CLEANUP(ledger_done) struct ledger ledger = { .dir_fd = -1, .lock_fd = -1, .own = "" };
	struct error err = { 0 };

	if (ledger_open(keeper, &ledger, &err) < 0)
		log_warning("cannot remove the memory booking: %s; it ends with its process",
			    err.text);
}
