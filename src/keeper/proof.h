/* SPDX-License-Identifier: Apache-2.0 */
/* What of this VM runs here, when no keeper of ours has watched it begin: its file tells, and where
 * that is lost or damaged the process table.  Before this is known nothing is started, freed or
 * said to be off: a guest that nobody knows of may be running. */
#pragma once

struct keeper;

/* At the start of a keeper: adopts what copy.json names. */
void proof_begin(struct keeper *keeper);
/* Once the agent has told what there should be: searches /proc, until that was answered. */
void proof_look(struct keeper *keeper);
