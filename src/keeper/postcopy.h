/* SPDX-License-Identifier: Apache-2.0 */
/* May a guest run on the target before all of its memory is there, and can QEMU do that here?  It
 * is asked by switching it on: only QEMU knows what it needs of the host. */
#pragma once
#include <stdbool.h>

#include "keeper/script.h"

struct error;
struct keeper;

/* Why this migration cannot end so although it may (`err`); false also when nobody allowed it. */
bool postcopy_possible(const struct keeper *keeper, struct error *err);
/* Switches it on.  `done` as for script_run(): QEMU's refusal comes with what to do. */
struct script *postcopy_try(struct keeper *keeper, script_done_fn done, void *ctx);
/* `err`: what QEMU said against it, completed by the next step. */
void postcopy_explain(const struct keeper *keeper, struct error *err);
