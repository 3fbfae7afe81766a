/* SPDX-License-Identifier: Apache-2.0 */
/* Work on files that may lie on a disk that hangs: done in a thread, waited for only so long.  For
 * a program whose loop may not stand still; what makes or changes something belongs into a child
 * process, which can be ended. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>

struct error;

struct disk {
	const char *what; /* for people: "the directory of volumes" */
	atomic_bool hangs;
};

/* Runs fn(work) and waits for it.  Once a disk hangs nothing more is begun on it before it answers.
 * -ETIMEDOUT: it hangs, and `work` is not the caller's any more: drop(work) is called, now or when
 * fn() has ended, then from another thread.  So fn and drop touch nothing but `work`, and neither
 * logs. */
int disk_run(struct disk *disk, void (*fn)(void *work), void (*drop)(void *work), void *work,
	     struct error *err);
