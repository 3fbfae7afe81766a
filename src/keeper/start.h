/* SPDX-License-Identifier: Apache-2.0 */
/* From nothing to running vcpus, in steps that each may fail (DESIGN 6): plan the hardware, own the
 * record, book memory, prepare volumes, make taps, launch QEMU stopped, meet its monitor, verify
 * what it built, run.  Whatever fails, stop and cleanup leave nothing behind. */
#pragma once

struct error;
struct keeper;
struct start;

void start_begin(struct keeper *keeper);
/* Up to a QEMU that waits for the guest of another node, under the epoch that a move would have;
 * then receive_begin(). */
void start_receive(struct keeper *keeper);
/* Ends the job: what it made so far is ended and cleaned up by what follows.  Takes NULL. */
struct start *start_cancel(struct start *start);
/* The copy that this job launched has ended. */
void start_copy_ended(struct keeper *keeper);
/* Something may have changed: a QEMU that does not answer before it runs fails the start. */
void start_look(struct keeper *keeper);
/* The monitor has answered for the first time. */
void start_monitor_ready(struct keeper *keeper);
const char *start_step(const struct start *start); /* for people: "preparing volume root" */
