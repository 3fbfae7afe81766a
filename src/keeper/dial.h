/* SPDX-License-Identifier: Apache-2.0 */
/* The other side of a door: connects, says its line, hands the connection over. */
#pragma once
#include <stdint.h>
#include <systemd/sd-event.h>

struct dial;
struct error;

/* `fd` (owned by the callee) or -1 with `err`.  Called exactly once, from the loop; the dial is
 * gone then. */
typedef void (*dial_done_fn)(void *ctx, int fd, const struct error *err);
/* `line` may be "".  A negative result: `done` will not come. */
int dial_start(sd_event *loop, const char *address, const char *line, uint64_t timeout_usec,
	       dial_done_fn done, void *ctx, struct dial **ret_dial, struct error *err);
struct dial *dial_cancel(struct dial *dial); /* takes NULL, returns NULL */
