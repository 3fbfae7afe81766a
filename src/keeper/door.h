/* SPDX-License-Identifier: Apache-2.0 */
/* The port at which a keeper that receives a guest is reached.  Each connection opens with one line
 * in the clear that says what it is for:
 *
 *	drover-control 1	the conversation of the two keepers; mutual TLS follows
 *	drover-stream TICKET	bytes for QEMU, which encrypts them itself
 *
 * A ticket is told over the former, and good for one connection. */
#pragma once
#include <systemd/sd-event.h>

struct door;
struct error;

struct door_ops {
	/* Each takes `fd`. */
	void (*control)(void *ctx, int fd);
	void (*stream)(void *ctx, const char *ticket, int fd);
};

/* `address` as for tcp_listen(); port 0: any. */
int door_open(const char *address, sd_event *loop, const struct door_ops *ops, void *ctx,
	      struct door **ret_door, struct error *err);
struct door *door_close(struct door *door); /* takes NULL, returns NULL */
unsigned door_port(const struct door *door);

/* The line for the other side, with its newline. */
#define DOOR_LINE_MAX 96
const char *door_control_line(void);
void door_stream_line(const char *ticket, char line[DOOR_LINE_MAX]);
