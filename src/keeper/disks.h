/* SPDX-License-Identifier: Apache-2.0 */
/* Local disks after a migration, on either side (protocol, section 10).  Each may be done again. */
#pragma once
#include <stdbool.h>

struct error;
struct keeper;

/* The VM runs here: what was filled for it takes its volumes' names, and is claimed. */
void disks_arrived(struct keeper *keeper);
/* Nothing of it runs here, which is proven: are there files of a move that is over, as after a
 * crash of the host? */
bool disks_left(struct keeper *keeper);
/* Nothing of it runs here: what a move left half-made goes, and what is old since the VM went away
 * with its disks is put aside. */
int disks_settle(struct keeper *keeper, struct error *err);
