/* SPDX-License-Identifier: Apache-2.0 */
/* Is there memory for one more VM?  Both what is promised and what is really free must suffice
 * (fc-qemu.md section 10, lessons K19 and K20).  All sizes in MiB. */
#pragma once
#include <stdint.h>

struct error;

struct admission {
	uint64_t need;	    /* memory of the VM */
	uint64_t overhead;  /* expected on top, per VM */
	uint64_t limit;	    /* bookable on this host; 0: no limit */
	uint64_t booked;    /* sum of memory + overhead of the VMs that run or start */
	uint64_t available; /* MemAvailable of the kernel */
};

/* 0, or -EAGAIN with a sentence that names the numbers and what to do. */
int admission_check(const struct admission *admission, struct error *err);
