/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor of the copy: connects, follows QEMU's run state, notices when it stops answering. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

#include "core/reconcile.h"
#include "wire/peer.h"

struct error;
struct keeper;
struct monitor;

/* Connects to the monitor of keeper->copy, again and again if need be; keeper_look() follows when
 * it answered, when it stays mute for timers.qmp_greeting, and at every change. */
void monitor_open(struct keeper *keeper);
struct monitor *monitor_close(struct monitor *monitor); /* NULL allowed */

bool monitor_answers(const struct monitor *monitor);
bool monitor_mute(const struct monitor *monitor);
/* Run state as QEMU last said it, or NULL before the first answer. */
const char *monitor_run_state(const struct monitor *monitor);
struct qmp *monitor_qmp(struct monitor *monitor);

int monitor_call(struct monitor *monitor, const char *command, json_t *args, peer_reply_fn reply,
		 void *ctx, struct error *err);
/* With a descriptor, borrowed; -1: none. */
int monitor_call_fd(struct monitor *monitor, const char *command, json_t *args, int fd,
		    peer_reply_fn reply, void *ctx, struct error *err);
/* Answered also when QEMU's main loop waits for a page of the guest. */
int monitor_call_oob(struct monitor *monitor, const char *command, json_t *args,
		     peer_reply_fn reply, void *ctx, struct error *err);
/* Asks for the run state anew; keeper_look() follows. */
void monitor_refresh(struct monitor *monitor);
/* We have just changed the run state: what was heard of it is old, and nothing may be decided by
 * it before the next answer. */
void monitor_outdated(struct monitor *monitor);
