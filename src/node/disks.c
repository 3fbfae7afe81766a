/* SPDX-License-Identifier: Apache-2.0 */
#include "node/disks.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "util/error.h"
#include "util/mem.h"

struct disk disk_definitions = { .what = "the directory of definitions" };
struct disk disk_logs = { .what = "the directory of logs" };
struct disk disk_credentials = { .what = "the directory of certificates" };
struct disk disk_volumes = { .what = "the directory of volumes" };

struct look {
	char *path;
	int r;
};

static void look_drop(void *ctx)
{
	struct look *look = ctx;

	free(look->path);
	free(look);
}

static void look_run(void *ctx)
{
	struct look *look = ctx;

	look->r = access(look->path, F_OK) < 0 ? -errno : 0;
}

int disk_look(struct disk *disk, const char *path)
{
	struct look *look = xcalloc(1, sizeof(*look));
	int r;

	look->path = xstrdup(path);
	r = disk_run(disk, look_run, look_drop, look, NULL);
	if (r < 0)
		return r;
	r = look->r;
	look_drop(look);
	return r;
}
