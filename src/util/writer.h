/* SPDX-License-Identifier: Apache-2.0 */
/* Lines that are appended to files by a thread of their own: a disk that hangs (NFS, a frozen file
 * system) holds up who logs for a moment, once, and nobody while it hangs on. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct error;

int writer_start(struct error *err);
/* What waits is written before, unless the disk hangs. */
void writer_stop(void);
/* In this process, not in a child of it. */
bool writer_runs(void);

/* Comes back when the line is in the file, or when that took too long; from then on at once, until
 * the disk takes lines again.  What waits is bounded, more is lost.  A file that was renamed away
 * is made anew; one that has `max` bytes (0: never) becomes FILE.1.  Without the thread it is done
 * at once. */
void writer_append(const char *file, mode_t mode, uint64_t max, const char *line, size_t length);
/* How many were lost since this was asked last; 0 as long as the disk hangs. */
size_t writer_lost(void);
