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

/* Asks for the status anew; keeper_look() follows. */
void transfer_ask(struct keeper *keeper);
/* An event of QEMU's; `usec`: its own clock. */
void transfer_event(struct keeper *keeper, const char *name, json_t *data, uint64_t usec);
