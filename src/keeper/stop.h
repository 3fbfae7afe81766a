/* SPDX-License-Identifier: Apache-2.0 */
/* Ending a copy: ask the guest, then QEMU, then the kernel, each for its time.  A signal goes only
 * through the pidfd of a proven process (I5).  And the one cleanup routine, safe to repeat. */
#pragma once
#include <stdbool.h>

struct cleanup;
struct keeper;
struct stop;

/* Asks the guest to shut down; past timers.graceful_stop goes on as stop_destroy(). */
void stop_shutdown(struct keeper *keeper);
/* Ends QEMU: quit, SIGTERM, SIGKILL. */
void stop_destroy(struct keeper *keeper, const char *why);
/* The wish changed: let a guest that was asked, but still runs, run on. */
void stop_give_up(struct keeper *keeper);
struct stop *stop_cancel(struct stop *stop); /* forgets the job; takes NULL */
bool stop_is_graceful(const struct stop *stop);
const char *stop_step(const struct stop *stop);

/* The copy is proven gone: sockets, tap, booking, claims of volumes, copy.json; then, when it is
 * not to run here again, the record.  keeper_look() follows. */
void cleanup_begin(struct keeper *keeper);
struct cleanup *cleanup_cancel(struct cleanup *cleanup);
const char *cleanup_trouble(const struct cleanup *cleanup); /* "": none */
