/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that a VM's keeper answers: qmp, hmp, guest, exec, console; and the hardware record. */
#pragma once

struct node;
struct request;

void relay_request(struct node *node, struct request *request);
void relay_hardware(struct node *node, struct request *request);
