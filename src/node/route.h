/* SPDX-License-Identifier: Apache-2.0 */
/* A request about a VM goes to the node that has it, by the agent that was asked, which hands on
 * progress and answer.  It goes one step only: who gets it so answers it himself. */
#pragma once
#include <stdbool.h>

struct node;
struct request;

/* True: another node answers it.  False: it is this node's to answer. */
bool route_request(struct node *node, struct request *request);
/* A client has gone: nobody waits for the answers to its requests any more. */
void route_forget(struct node *node);
