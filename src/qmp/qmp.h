/* SPDX-License-Identifier: Apache-2.0 */
/* QMP client over a connected monitor socket (QEMU docs/interop/qmp-spec).  It greets, negotiates
 * capabilities, then carries requests matched by id.  A mute QEMU is not an error of this module:
 * each request has its deadline and the caller decides. */
#pragma once
#include <jansson.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "wire/peer.h"

struct error;
struct qmp;

/* What one message of QEMU may hold; its longest answer (query-qmp-schema of 7.2) has 0.3 MiB and
 * 30 000 values.  A QEMU that a guest took over must not make us eat the host's memory. */
#define QMP_LINE_MAX (4u * 1024 * 1024)
#define QMP_PARTS_MAX (128u * 1024)

struct qmp_ops {
	/* Capabilities are negotiated; requests may be sent.  `greeting` is borrowed. */
	void (*ready)(void *ctx, json_t *greeting);
	/* `data` may be NULL; `usec` is QEMU's own time stamp (wall clock), 0 when it has none.
	 * May be NULL. */
	void (*event)(void *ctx, const char *name, json_t *data, uint64_t usec);
	/* Once, after every open request was answered with -ECONNRESET.  Also when the greeting or
	 * the negotiation fails.  The owner then calls qmp_close(). */
	void (*gone)(void *ctx, const struct error *why);
};

/* Takes `fd` in every case.  No deadline for the greeting here: a stopped QEMU greets when it
 * goes on; the caller keeps its own. */
int qmp_open(int fd, sd_event *loop, const struct qmp_ops *ops, void *ctx, struct qmp **ret_qmp,
	     struct error *err);
struct qmp *qmp_close(struct qmp *qmp);
bool qmp_ready(const struct qmp *qmp);
/* Version of the QEMU that greeted, 0 and 0 before it did. */
void qmp_version(const struct qmp *qmp, int *ret_major, int *ret_minor);
/* "10.0.13"; false: it has not greeted. */
bool qmp_version_text(const struct qmp *qmp, char *buffer, size_t size);

/* As peer_call().  A refusal by QEMU is -EREMOTEIO with "COMMAND: QEMU's own words". Not ready yet:
 * -EAGAIN. */
int qmp_call(struct qmp *qmp, const char *command, json_t *args, uint64_t timeout_usec,
	     peer_reply_fn reply, void *ctx, struct error *err);

/* With a descriptor, borrowed (QEMU's `getfd`); -EBUSY while another one is on its way. */
int qmp_call_fd(struct qmp *qmp, const char *command, json_t *args, int fd, uint64_t timeout_usec,
		peer_reply_fn reply, void *ctx, struct error *err);

/* Out of band: also answered by a QEMU whose main loop waits, for the commands that allow it. */
int qmp_call_oob(struct qmp *qmp, const char *command, json_t *args, uint64_t timeout_usec,
		 peer_reply_fn reply, void *ctx, struct error *err);

/* Waiting form, for tools, probes and tests: greets, negotiates, runs one command after another.
 * Takes `fd` in every case; `timeout_usec` is for the greeting, and anew for each command. */
struct qmp_tool;
int qmp_tool_open(int fd, uint64_t timeout_usec, struct qmp_tool **ret_tool, struct error *err);
int qmp_tool_call(struct qmp_tool *tool, const char *command, json_t *args, json_t **ret_value,
		  struct error *err);
struct qmp_tool *qmp_tool_close(struct qmp_tool *tool);

/* Commands of QMP and of the human monitor that would break a promise of the keeper.  NULL: it may
 * pass; else the sentence that refuses it, naming the Drover command to use instead. */
const char *qmp_refusal(const char *command);
const char *hmp_refusal(const char *line); /* the whole line: leading blanks, aliases (c, q, s) */
