/* SPDX-License-Identifier: Apache-2.0 */
/* The state of the VM in words.  Told when it changes; kept in state.json; each change and each
 * thing that happened to the guest is a line of the VM's event log. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

struct keeper;

void report_load(struct keeper *keeper); /* what the last keeper left */
/* Works the state out of the facts; when it differs from what was told, tells.  `settled`: the
 * reconcile function wants nothing more. */
void report_update(struct keeper *keeper, bool settled);
void report_save(const struct keeper *keeper);
/* The keeper's part of the VM object (docs/PROTOCOL.md). */
json_t *report_json(const struct keeper *keeper);

/* A line of the event log, and a line of the log.  `details` is borrowed, may be NULL. */
void report_event(struct keeper *keeper, const char *event, json_t *details, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
