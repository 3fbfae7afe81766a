/* SPDX-License-Identifier: Apache-2.0 */
/* For sites that look VMs up in Consul: a service `qemu-NAME` for each VM that runs here, with this
 * node's name as its address and a check `qemu-process` that passes as long as we say so
 * (`consul.register_services`). */
#pragma once

struct node;
struct services;

void services_open(struct node *node);
struct services *services_close(struct services *services);
/* The state of a VM has changed. */
void services_touch(struct node *node);
