/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a log, fetched through the agent. */
#pragma once
#include <stdint.h>

struct cli;
struct error;

/* `which`: "agent", "keeper", "qemu", "serial"; `vm` as the user wrote it, or NULL. */
int logs_print(const struct cli *cli, const char *vm, const char *which, int64_t lines,
	       struct error *err);
