/* SPDX-License-Identifier: Apache-2.0 */
/* A QEMU that is started only to learn something from it, and does not outlive us. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/mem.h"
#include "util/spawn.h"

struct error;

struct child {
	pid_t pid;
	int pidfd;
	int stderr_fd;	    /* our end of the pipe, non-blocking */
	struct text errors; /* what came out of it so far */
};
#define CHILD_NONE                                                                                 \
	{                                                                                          \
		.pidfd = -1, .stderr_fd = -1                                                       \
	}

/* Whom it runs as, when we are root: no QEMU runs as root, not even one without a guest. */
#define CHILD_UID 65534
#define CHILD_SANDBOX "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

/* `fds` arrive as 3, 4, ...; `stdout_fd` may be -1, `prepare` NULL. */
int child_start(const char *const *argv, const int *fds, size_t n_fds, int stdout_fd,
		spawn_prepare_fn prepare, struct child *ret, struct error *err);
/* For `prepare`: a /dev of its own with KVM for the user that it runs as, where the host's node is
 * for root only; without the host's network. */
#define CHILD_KVM "/dev/kvm"
int child_private_dev(void *ctx, struct error *err);
/* Waits until it ends or says something on stderr (then `errors` has it): 1 ended, 0 said
 * something, -ETIMEDOUT. */
int child_wait(struct child *child, uint64_t deadline);
/* Gives it `grace_usec` to end, then kills it.  Exit status, 128 + signal, or -1 when it was we who
 * ended it.  Reads the rest of stderr. */
int child_end(struct child *child, uint64_t grace_usec);
/* Last line that it wrote to stderr, "" if none; without "qemu-system-x86_64: " in front. Owned. */
char *child_last_words(const struct child *child);
void child_done(struct child *child);
