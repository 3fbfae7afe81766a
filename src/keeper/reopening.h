/* SPDX-License-Identifier: Apache-2.0 */
/* Postcopy, on the target: the stream broke, and the source's keeper asks for another way in.  QEMU
 * can be told so out of band only, for its vcpus may wait for a page in the middle of a device; and
 * then takes no descriptor.  So it listens at a socket in its private /run, and what comes in by
 * the door is passed on there. */
#pragma once
#include <stdbool.h>

struct keeper;
struct reopening;
struct request;

/* Takes `before` (may be NULL), whose way in is closed.  Answers the request: a ticket, good for
 * one connection, or why not yet. */
struct reopening *reopening_begin(struct keeper *keeper, struct reopening *before,
				  struct request *request);
/* Is the connection for it?  Then it takes it. */
bool reopening_takes(struct reopening *reopening, const char *ticket, int fd);
struct reopening *reopening_free(struct reopening *reopening); /* takes NULL, returns NULL */
