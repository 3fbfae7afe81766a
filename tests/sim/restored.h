/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include "sim/parts.h"

/* A claim is ahead of the record that this keeper knows. */
bool claim_forbids_start(const struct step *step);
/* One of another node, for a record that is to be given or taken back without a copy. */
bool claim_forbids_release(const struct step *step);
/* Under the record that was won; false: a newer one is there. */
bool claim_write(struct step *step);
void claim_free(struct vm *vm, int node);

bool restored_step(struct step *step);
