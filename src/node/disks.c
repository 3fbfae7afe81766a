/* SPDX-License-Identifier: Apache-2.0 */
#include "node/disks.h"

struct disk disk_definitions = { .what = "the directory of definitions" };
struct disk disk_logs = { .what = "the directory of logs" };
struct disk disk_credentials = { .what = "the directory of certificates" };
struct disk disk_volumes = { .what = "the directory of volumes" };
