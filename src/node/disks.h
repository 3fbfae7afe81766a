/* SPDX-License-Identifier: Apache-2.0 */
/* Where the agent reads files while it serves, and where one that hangs would hold up its session:
 * through util/disk.h.  What it keeps in RUN is memory. */
#pragma once
#include "util/disk.h"

extern struct disk disk_definitions, disk_logs, disk_credentials, disk_volumes;

/* 0: there is such a file; -ENOENT: there is none; else it cannot be told, as -ETIMEDOUT. */
int disk_look(struct disk *disk, const char *path);
