/* SPDX-License-Identifier: Apache-2.0 */
/* RUN/lease: one page of memory in which the agent tells all keepers until when this node's lease
 * lasts.  It outlives the agent, so an agent that is dead, hangs or is cut off tells the same as
 * one that says nothing: the end comes nearer.  docs/PROTOCOL.md has the layout. */
#pragma once
#include <stdint.h>

#include "util/clock.h"

struct error;
struct lease_page;

/* CLOCK_BOOTTIME in microseconds; it was valid without a gap from `since` on.  An end of 0: no
 * lease was given in this boot. */
struct lease {
	uint64_t since, end;
};

/* The agent's side: takes over the page of its forerunner in this boot, or makes an empty one. */
int lease_page_open(int run_fd, const char *boot_id, struct lease_page **ret_page,
		    struct error *err);
struct lease_page *lease_page_close(struct lease_page *page); /* NULL allowed; the file stays */
struct lease lease_page_get(const struct lease_page *page);
/* A reader in the middle of this sees the old lease or the new one, or one that was interrupted
 * and is over: never one that is longer than both. */
void lease_page_set(struct lease_page *page, struct lease lease);

/* A keeper's side: opened anew at each look, so that it is the page of now.  -ENOENT: there is none
 * of this boot; the result is then no lease. */
int lease_page_read(const char *run_dir, const char *boot_id, struct lease *ret_lease,
		    struct error *err);
