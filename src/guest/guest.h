/* SPDX-License-Identifier: Apache-2.0 */
/* Client of the QEMU guest agent (docs/interop/qemu-ga).  The guest is hostile and slow: answers
 * may be late, of an earlier client, endless or garbage.  So every conversation starts with
 * guest-sync-delimited and a fresh random id, all before its answer is thrown away, and after any
 * time-out the next command starts by synchronising anew.  One command at a time, others queue. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "wire/peer.h"

struct error;
struct guest;

/* `gone`: QEMU closed the socket, or the guest broke a limit (a new connection may be tried); all
 * open commands were answered with -ECONNRESET before; the owner then calls guest_close().  Takes
 * `fd` in every case. */
int guest_open(int fd, sd_event *loop, void (*gone)(void *ctx), void *ctx, struct guest **ret_guest,
	       struct error *err);
struct guest *guest_close(struct guest *guest); /* open commands are not answered any more */

/* Runs one command (synchronising first when needed).  `args` borrowed, may be NULL.  The deadline
 * counts from now and includes waiting in the queue.  -EREMOTEIO: the agent's own words;
 * -ETIMEDOUT: it did not answer (a command that was sent may still be carried out: who gives up a
 * freeze sends a thaw); -EBADMSG: it sent nonsense.  An answer is at most 4 MiB.  Commands that do
 * not answer when they succeed (guest-shutdown, guest-suspend-*) are answered with {} once the
 * agent goes on; when the guest is gone before, it is -ETIMEDOUT or -ECONNRESET, and the VM's state
 * tells how it ended.  -EAGAIN: too many are waiting. */
int guest_call(struct guest *guest, const char *command, json_t *args, uint64_t timeout_usec,
	       peer_reply_fn reply, void *ctx, struct error *err);

/* guest-exec with captured output, followed to its end.  The value is
 * {"exitcode": N | "signal": N, "out": base64, "err": base64, "out-truncated": bool,
 * "err-truncated": bool}.
 * `input` (borrowed, may be NULL) is fed to its stdin, at most 1 MiB.  After a time-out the program
 * may still be running in the guest: the agent has no way to end it.  Output that does not fit a
 * message (more than 3 MiB together) ends the connection: -ECONNRESET. */
int guest_exec(struct guest *guest, const char *const *argv, const void *input, size_t input_length,
	       uint64_t timeout_usec, peer_reply_fn reply, void *ctx, struct error *err);
