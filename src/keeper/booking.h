/* SPDX-License-Identifier: Apache-2.0 */
/* Memory and user ids that VMs of one machine share out among them, whichever root they belong to:
 * one small file per copy in host_dir, made under one host-wide lock.  A booking counts as long as
 * the process that it names lives. */
#pragma once
#include <stdint.h>
#include <sys/types.h>

struct error;
struct keeper;

/* Checks admission and books under the lock, for this keeper's process until booking_move(). */
int booking_make(struct keeper *keeper, const char *token, uint64_t memory_mib, uid_t *ret_uid,
		 struct error *err);
/* From now on it lives with the copy (also after adoption, when the file may be lost). */
int booking_move(struct keeper *keeper, struct error *err);
/* All bookings of this VM, also those that a keeper before this one made and told nobody of. */
void booking_remove(struct keeper *keeper);
