/* SPDX-License-Identifier: Apache-2.0 */
/* All that happens without a keeper's decision: QEMUs, messages, time, the leader, faults. */
#pragma once
#include "sim/parts.h"

bool nature_step(struct step *step);
bool nature_can_tell(const struct world *world, int vm, int node);

/* faults.c */
bool fault_step(struct step *step);
/* cluster.c: sessions and leases */
bool cluster_step(struct step *step);
void life_passes(struct step *step, bool hidden);
void cluster_power_off(struct world *world, const struct rules *rules, int node);

/* leader.c */
bool leader_step(struct step *step);
