/* SPDX-License-Identifier: Apache-2.0 */
/* The /run that only QEMU sees (keeper/jail.h), reached from outside.  What lies there is QEMU's,
 * and may be made by a guest that broke into it: names are never followed. */
#pragma once
#include <sys/types.h>

struct error;
struct keeper;

int private_run_open(const struct keeper *keeper, int *ret_fd, struct error *err);
/* A directory of QEMU's user in it, made if need be. */
int private_run_dir(const struct keeper *keeper, const char *name, mode_t mode, int *ret_fd,
		    struct error *err);
/* To a socket of QEMU's in `dir`. */
int private_run_connect(const struct keeper *keeper, int dir, const char *name, int *ret_fd,
			struct error *err);
