/* SPDX-License-Identifier: Apache-2.0 */
/* How a stream reads and writes what is not a plain socket: TLS, in a room above this one. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct error;
struct transport;

/* Nothing here waits.  -EAGAIN: not now, ask again when the descriptor is ready.  Any other
 * negative errno ends the stream, and `err` has a sentence. */
struct transport_ops {
	/* Both sides find out who the other one is; called until it answers 0.  The stream waits
	 * for `*ret_events` (EPOLLIN, EPOLLOUT) after -EAGAIN. */
	int (*begin)(struct transport *transport, uint32_t *ret_events, struct error *err);
	/* Bytes read or written; 0 from read: the other side said its last word. */
	ssize_t (*read)(struct transport *transport, void *bytes, size_t size, struct error *err);
	ssize_t (*write)(struct transport *transport, const void *bytes, size_t length,
			 struct error *err);
	/* There is more to read although the descriptor may say nothing of it. */
	bool (*more)(const struct transport *transport);
	void (*close)(struct transport *transport); /* with the descriptor; frees it */
};

struct transport { /* embedded, first, by each kind */
	const struct transport_ops *ops;
	int fd;
	uint64_t patience; /* microseconds from the opening of the stream to the end of begin() */
};
