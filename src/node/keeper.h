/* SPDX-License-Identifier: Apache-2.0 */
/* Starting the keeper of a VM: a process of its own session, which is meant to outlive us. */
#pragma once
#include <sys/types.h>

struct error;
struct node_vm;

/* The program that keepers are started from, by its path; owned by the caller. */
char *keeper_program(void);
/* Where what it logs is found, in words; owned by the caller. */
char *keeper_log_place(const struct node_vm *vm);
/* The caller owns `ret_pidfd` and reaps the child, should it end before us. */
int keeper_start(const struct node_vm *vm, pid_t *ret_pid, int *ret_pidfd, struct error *err);
