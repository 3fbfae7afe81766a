/* SPDX-License-Identifier: Apache-2.0 */
/* What the keepers of a migration ask the agent for, beside writes of the owner record. */
#pragma once

struct node_vm;
struct request;

/* {offer: {...}|null}: a receiver of this node waits for the VM, or no more.  The record goes with
 * the node's session; what another node offers is never touched. */
void offer_write(struct node_vm *vm, struct request *request);
/* {}: answered once the store has answered a read that was made for it, or soon failed. */
void offer_store_fresh(struct node_vm *vm, struct request *request);
