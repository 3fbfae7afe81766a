/* SPDX-License-Identifier: Apache-2.0 */
/* Postcopy, on the source: the guest runs on the target and its pages follow.  When the stream
 * breaks or nothing flows, both QEMUs wait, and another stream is made, again and again, for as
 * long as both copies live. */
#pragma once
#include <jansson.h>

struct keeper;
struct recovery;

/* Of a copy that hands out pages; called at every look. */
void recovery_look(struct keeper *keeper);
/* QEMU's answer to query-migrate, or NULL.  Takes NULL. */
void recovery_info(struct recovery *recovery, json_t *info);
unsigned recovery_tries(const struct recovery *recovery);  /* since pages last flowed; takes NULL */
struct recovery *recovery_free(struct recovery *recovery); /* takes NULL, returns NULL */
