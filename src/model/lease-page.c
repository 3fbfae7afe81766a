/* SPDX-License-Identifier: Apache-2.0 */
#include "model/lease-page.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/error.h"

#define PAGE_FILE "lease"
#define PAGE_NEW "lease.new"
#define PAGE_SIZE 4096
#define PAGE_MAGIC "drover-lease-1\n"

struct lease_page {
	char magic[16];
	char boot[48];
	_Atomic uint64_t since, end;
};
static_assert(sizeof(struct lease_page) <= PAGE_SIZE, "one page");
static_assert(offsetof(struct lease_page, since) == 64, "as docs/PROTOCOL.md says");
static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "other processes know nothing of our locks");

static struct lease_page *map_page(int fd, int protection)
{
	struct lease_page *page = mmap(NULL, PAGE_SIZE, protection, MAP_SHARED, fd, 0);

	return page == MAP_FAILED ? NULL : page;
}

struct lease_page *lease_page_close(struct lease_page *page)
{
	if (page)
		(void)munmap(page, PAGE_SIZE);
	return NULL;
}

static bool of_this_boot(const struct lease_page *page, const char *boot_id)
{
	return memcmp(page->magic, PAGE_MAGIC, sizeof(page->magic)) == 0 &&
	       strncmp(page->boot, boot_id, sizeof(page->boot)) == 0;
}

/* The page that is there, when it is one of this boot; NULL with errno. */
static struct lease_page *open_page(int dir_fd, const char *path, int flags, int protection,
				    const char *boot_id)
{
	CLEANUP_FD int fd = openat(dir_fd, path, flags | O_CLOEXEC | O_NOFOLLOW);
	struct lease_page *page;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return NULL;
	errno = ENOENT;
	if (!S_ISREG(st.st_mode) || st.st_size != PAGE_SIZE)
		return NULL;
	page = map_page(fd, protection);
	if (page && !of_this_boot(page, boot_id)) {
		page = lease_page_close(page);
		errno = ENOENT;
	}
	return page;
}

static int make_page(int run_fd, const char *boot_id, struct lease_page **ret_page,
		     struct error *err)
{
	CLEANUP_FD int fd =
		openat(run_fd, PAGE_NEW, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	struct lease_page *page;

	if (fd < 0 || ftruncate(fd, PAGE_SIZE) < 0)
		return error_set(err, -errno, "cannot make the file '%s': %m", PAGE_NEW);
	page = map_page(fd, PROT_READ | PROT_WRITE);
	if (!page)
		return error_set(err, -errno, "cannot map the file '%s': %m", PAGE_NEW);
	memcpy(page->magic, PAGE_MAGIC, sizeof(page->magic));
	(void)snprintf(page->boot, sizeof(page->boot), "%s", boot_id);
	if (renameat(run_fd, PAGE_NEW, run_fd, PAGE_FILE) < 0) {
		(void)lease_page_close(page);
		return error_set(err, -errno, "cannot rename the file '%s': %m", PAGE_NEW);
	}
	*ret_page = page;
	return 0;
}

int lease_page_open(int run_fd, const char *boot_id, struct lease_page **ret_page,
		    struct error *err)
{
	struct lease_page *page =
		open_page(run_fd, PAGE_FILE, O_RDWR, PROT_READ | PROT_WRITE, boot_id);

	if (!page)
		return make_page(run_fd, boot_id, ret_page, err);
	*ret_page = page;
	return 0;
}

/* The end first: who sees the new one sees the begin that belongs to it. */
struct lease lease_page_get(const struct lease_page *page)
{
	struct lease lease;

	lease.end = atomic_load_explicit(&page->end, memory_order_acquire);
	lease.since = atomic_load_explicit(&page->since, memory_order_acquire);
	return lease;
}

void lease_page_set(struct lease_page *page, struct lease lease)
{
	atomic_store_explicit(&page->since, lease.since, memory_order_release);
	atomic_store_explicit(&page->end, lease.end, memory_order_release);
}

int lease_page_read(const char *run_dir, const char *boot_id, struct lease *ret_lease,
		    struct error *err)
{
	CLEANUP_FD int dir = open(run_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct lease_page *page =
		dir < 0 ? NULL : open_page(dir, PAGE_FILE, O_RDONLY, PROT_READ, boot_id);

	*ret_lease = (struct lease){ 0 };
	if (!page)
		return error_set(err, -errno, "there is no page '%s/%s' of this boot: %m", run_dir,
				 PAGE_FILE);
	*ret_lease = lease_page_get(page);
	(void)lease_page_close(page);
	return 0;
}
