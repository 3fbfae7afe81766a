/* SPDX-License-Identifier: Apache-2.0 */
/* QEMU's own part of a migration, as it last said: by its status and run state, what kind of copy
 * this is (core/migration). */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/migration.h"

struct keeper;

/* COPIES: QEMU has not been heard lately, nothing may be decided. */
enum migration_copy transfer_copy(const struct keeper *keeper);
/* The guest runs, or stands still only for its move. */
bool transfer_is_healthy(const struct keeper *keeper);

/* Postcopy, as target: vcpus may run, or do, and some pages are still on the source. */
bool transfer_lacks_pages(const struct keeper *keeper);
/* Postcopy, on either side: the stream broke, and nothing flows before there is another. */
bool transfer_is_broken(const struct keeper *keeper);
/* Postcopy, as source: it came to nothing and all of the guest is here, stopped by us. */
bool transfer_is_undone(const struct keeper *keeper);

/* Asks for the status anew; keeper_look() follows. */
void transfer_ask(struct keeper *keeper);
/* An event of QEMU's; `usec`: its own clock. */
void transfer_event(struct keeper *keeper, const char *name, json_t *data, uint64_t usec);
