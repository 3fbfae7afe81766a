/* SPDX-License-Identifier: Apache-2.0 */
/* Times.  Durations and deadlines are microseconds of CLOCK_BOOTTIME, which goes on while a host
 * sleeps; wall-clock time is for people only and never decides anything. */
#pragma once
#include <stdint.h>

#define USEC_PER_MSEC UINT64_C(1000)
#define USEC_PER_SEC UINT64_C(1000000)
#define CLOCK_TEXT_SIZE 32

uint64_t clock_now(void);  /* CLOCK_BOOTTIME, microseconds */
uint64_t clock_wall(void); /* CLOCK_REALTIME, microseconds since the epoch */

/* RFC 3339 in UTC with whole seconds, "2026-11-20T09:30:00Z"; RFC 3339 section 5.6. */
const char *clock_text(uint64_t wall_usec, char buffer[CLOCK_TEXT_SIZE]);
/* The reverse; also takes fractions and offsets.  -EINVAL when it is no such time. */
int clock_parse(const char *text, uint64_t *ret_wall_usec);

/* Id of this boot of the kernel (/proc/sys/kernel/random/boot_id), without the dashes. */
#define BOOT_ID_SIZE 33
const char *clock_boot_id(char buffer[BOOT_ID_SIZE]);
