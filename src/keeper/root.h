/* SPDX-License-Identifier: Apache-2.0 */
/* The root that this keeper belongs to: its id in tokens and names of taps, and what a VM leaves in
 * it when it is looked after no more. */
#pragma once

struct error;
struct keeper;

/* Random, made once, kept in LIB/root-id: several roots may share a machine and a VM's uuid. */
int root_id(const char *lib, char id[33], struct error *err);
/* Dismissed: run directory of the VM, its lock last. */
void root_forget_vm(struct keeper *keeper);
