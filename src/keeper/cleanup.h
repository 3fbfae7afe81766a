/* SPDX-License-Identifier: Apache-2.0 */
/* What a copy leaves on the host, and the one routine that removes it (fc-P17). */
#pragma once

struct cleanup;
struct keeper;

/* The copy is proven gone: sockets, tap, booking, claims of volumes, copy.json; then, when it is
 * not to run here again, the record.  keeper_look() follows. */
void cleanup_begin(struct keeper *keeper);
struct cleanup *cleanup_cancel(struct cleanup *cleanup);
const char *cleanup_trouble(const struct cleanup *cleanup); /* "": none */
