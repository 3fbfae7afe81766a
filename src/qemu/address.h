/* SPDX-License-Identifier: Apache-2.0 */
/* Which device sits where.  A guest remembers its cards by their place, so a place belongs to an
 * id for as long as the id is there: a device that comes takes the lowest free place, one that goes
 * leaves a gap, nobody ever moves up. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "qemu/section.h"

struct error;

enum board { BOARD_Q35, BOARD_PC };

/* Gives `bus` and `addr` to each device of `devices` that has none.  On q35 those are root ports
 * of our own ("rp0"...), which go to `ports`: as many as were there before, and always
 * ADDRESS_SPARES without a device.  On pc they are slots of the only bus.  `last` and `site` may be
 * NULL: sections of the last cold start (of the same board), and of the site's template. */
#define ADDRESS_SPARES 4
int address_assign(enum board board, struct sections *devices, const struct sections *last,
		   const struct sections *site, struct sections *ports, struct error *err);

/* Refuses two PCI devices at one place. */
int address_check(const struct sections *sections, struct error *err);

/* "0x10.0x1", "10.1", "4": slot * 8 + function; -1: no such address. */
int address_of(const char *text);
