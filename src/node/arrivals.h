/* SPDX-License-Identifier: Apache-2.0 */
/* Disks that were on their way here when this host went down.  Nothing else is left of such a move,
 * RUN is empty, and the VM may never come again; its keeper knows which of the files may go. */
#pragma once

struct node;

/* Once, when the records are known: marks the VMs that have such files. */
void arrivals_look(struct node *node);
