/* SPDX-License-Identifier: Apache-2.0 */
/* What core/migration decided, carried out: a write of the owner record, or something that QEMU or
 * the other side is told. */
#pragma once
#include "core/migration.h"

struct keeper;

void step_take(struct keeper *keeper, const struct migration_decision *decision);
/* It runs here, by migration: what follows from that. */
void step_arrived(struct keeper *keeper);
