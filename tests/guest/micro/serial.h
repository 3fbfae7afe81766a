/* SPDX-License-Identifier: Apache-2.0 */
/* COM1, for output only.  A reader that does not read must not stop the guest (it could no longer
 * hear the power button), so text is queued and handed over when the port takes it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SERIAL_QUEUE 16384 /* a power of two */

struct serial {
	uint32_t written, sent; /* bytes so far; the difference is what is queued */
	char queue[SERIAL_QUEUE];
};

void serial_init(struct serial *serial);

/* Queues the text as a whole.  False if there is no room, nothing is queued then. */
bool serial_write(struct serial *serial, const char *text, size_t len);

/* Hands over as much as the port takes now. */
void serial_flush(struct serial *serial);
