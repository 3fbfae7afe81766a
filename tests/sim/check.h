/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include "sim/parts.h"

/* After each step. */
void check_world(struct step *step);
/* The guest's whole state is somewhere, running or not; asked before a step and after it. */
bool check_is_somewhere(const struct step *step);
/* And this step may be its end. */
bool check_may_end(const struct step *step);
