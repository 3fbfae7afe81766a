/* SPDX-License-Identifier: Apache-2.0 */
/* One line per fact: local time with offset, pid, level, VM, words.  A line goes out with one
 * write; a sink that fails (closed stdout, full disk, journald away) is ignored, because logging
 * must never be the reason that something else fails.  Secrets never get here. */
#pragma once
#include <stdarg.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* `file`: append here (opened anew when it was renamed away, so that logrotate needs no signal);
 * NULL: journald when stderr is a journal stream, else stderr.  `program` and `vm` are copied,
 * vm may be NULL. */
void log_open(const char *program, const char *vm, const char *file, enum log_level max);

void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The same with the name of a VM, for the agent, which has many. */
void log_vm(enum log_level level, const char *vm, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* "error", "warning", "info", "debug"; -1 for anything else. */
int log_level_of(const char *name);
