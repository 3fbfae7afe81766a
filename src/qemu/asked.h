/* SPDX-License-Identifier: Apache-2.0 */
/* A QEMU without a machine, which is asked something over QMP and ends. */
#pragma once

struct error;
struct qmp_tool;

typedef int (*asked_fn)(struct qmp_tool *tool, void *ctx, struct error *err);
/* `data_dir` may be NULL or ""; `accel` NULL: none is touched.  An error has its own last words. */
int asked_run(const char *binary, const char *data_dir, const char *accel, asked_fn ask, void *ctx,
	      struct error *err);
