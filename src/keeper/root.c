/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/root.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "keeper/keeper.h"
#include "model/config.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/mem.h"

#define ID_LENGTH 12 /* hex digits: short enough to be read in a command line */

static int read_id(int dir_fd, char id[33], struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	int r;

	r = file_read(dir_fd, "root-id", 64, &text, NULL, err);
	if (r < 0)
		return r;
	if (strspn(text, "0123456789abcdef") != ID_LENGTH)
		return error_bad_data(err, "'root-id' is damaged; it holds %d hex digits",
				      ID_LENGTH);
	(void)snprintf(id, 33, "%.*s", ID_LENGTH, text);
	return 0;
}

int root_id(const char *lib, char id[33], struct error *err)
{
	CLEANUP_FD int dir = -1, lock = -1;
	struct error none = { 0 };
	int r;

	r = file_make_dirs(AT_FDCWD, lib, 0700, err);
	if (r < 0)
		return r;
	dir = open(lib, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	if (dir < 0)
		return error_set(err, -errno, "cannot open '%s': %m", lib);
	r = read_id(dir, id, &none);
	if (r == 0)
		return 0;
	/* Two keepers may come to this at once: one makes it, the other reads it. */
	r = file_lock(dir, "root-id.lock", 5 * USEC_PER_SEC, &lock, err);
	if (r < 0)
		return r;
	r = read_id(dir, id, err);
	if (r != -ENOENT)
		return r;
	file_random_id(id);
	id[ID_LENGTH] = '\0';
	return file_write(dir, "root-id", id, ID_LENGTH, 0600, err);
}

void root_forget_vm(struct keeper *keeper)
{
	static const char *const names[] = { "console.sock", "keeper.sock", "state.json",
					     "copy.json.damaged", "keeper.lock" };
	CLEANUP_FREE char *path = xasprintf("%s/vms/%s", keeper->config->paths.run, keeper->name);

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		(void)unlinkat(keeper->run_fd, names[i], 0);
	(void)rmdir(path);
}
