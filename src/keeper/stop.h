/* SPDX-License-Identifier: Apache-2.0 */
/* Ending a copy: ask the guest, then QEMU, then the kernel, each for its time.  A signal goes only
 * through the pidfd of a proven process (I5). */
#pragma once
#include <stdbool.h>

struct keeper;
struct stop;

/* Asks the guest to shut down; past timers.graceful_stop goes on as stop_destroy(). */
void stop_shutdown(struct keeper *keeper);
/* Ends QEMU: quit, SIGTERM, SIGKILL. */
void stop_destroy(struct keeper *keeper, const char *why);
/* At once, also in the middle of one of the two above: there is no time for manners. */
void stop_kill(struct keeper *keeper, const char *why);
/* The wish changed: let a guest that was asked, but still runs, run on. */
void stop_give_up(struct keeper *keeper);
struct stop *stop_cancel(struct stop *stop); /* forgets the job; takes NULL */
bool stop_is_graceful(const struct stop *stop);
bool stop_is_kill(const struct stop *stop); /* SIGKILL was sent */
const char *stop_step(const struct stop *stop);
