/* SPDX-License-Identifier: Apache-2.0 */
/* What keepers ask of their agent: it is the only client of the store and carries their writes
 * (ownership protocol, sections 2, 3 and 6).  The keeper decides, the store compares; the agent
 * adds the check of its own life record and the index of its node. */
#pragma once

struct node_vm;
struct request;

void ownership_request(struct node_vm *vm, struct request *request);
