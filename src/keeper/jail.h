/* SPDX-License-Identifier: Apache-2.0 */
/* What QEMU sees of the host: its files read-only, with an own /dev (where /dev/kvm belongs to the
 * VM's user, whatever the host's says), an own /tmp, a /proc that shows nobody else, and an own
 * /run with the guest's kernel, initrd and firmware, so that they may lie in directories that this
 * user cannot enter; no network but the descriptors that are handed in, no shared memory segments
 * of others.  Process ids stay the host's: pidfds and adoption need them. */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

struct error;

#define JAIL_KERNEL "/run/vm/kernel"
#define JAIL_INITRD "/run/vm/initrd"
#define JAIL_FIRMWARE "/run/vm/firmware"

struct jail {
	uid_t uid;
	bool kvm;
	bool userfault; /* gets /dev/userfaultfd, if there is one: the target of a postcopy */
	bool network;	/* stays in the host's network namespace: QEMU's own NAT needs it */
	int kernel_fd, initrd_fd, firmware_fd; /* O_PATH; -1: none */
	int resolv_fd;	  /* /etc/resolv.conf when it lies in /run: QEMU's own NAT reads it */
	char resolv[128]; /* where */
};

/* Opens the files (NULL: none) and checks that QEMU's user may read them. */
int jail_open(struct jail *jail, const char *kernel, const char *initrd, const char *firmware,
	      struct error *err);
void jail_done(struct jail *jail);
/* spawn_prepare_fn: `ctx` is the jail. */
int jail_enter(void *ctx, struct error *err);
