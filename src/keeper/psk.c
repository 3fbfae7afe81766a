/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/psk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "keeper/copy.h"
#include "keeper/keeper.h"
#include "keeper/private-run.h"
#include "tls/tls.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/mem.h"

/* The names are QEMU's. */
#define KEY_FILE "keys.psk"
#define PARAMS_FILE "dh-params.pem"

int psk_make(char key[PSK_SIZE], struct error *err)
{
	unsigned char bytes[(PSK_SIZE - 1) / 2];

	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		return error_set(err, -errno, "cannot get random bytes: %m");
	for (size_t i = 0; i < sizeof(bytes); i++)
		(void)snprintf(key + 2 * i, 3, "%02x", bytes[i]);
	return 0;
}

static int write_text(int dir, uid_t uid, const char *name, const char *text, struct error *err)
{
	CLEANUP_FD int fd = -1;

	(void)unlinkat(dir, name, 0);
	fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0400);
	if (fd < 0 || fchown(fd, uid, (gid_t)uid) < 0 || dprintf(fd, "%s", text) < 0)
		return error_set(err, -errno, "cannot write '%s' for QEMU: %m", name);
	return 0;
}

static int write_files(int dir, uid_t uid, const char *key, bool server, struct error *err)
{
	CLEANUP_FREE char *keys = xasprintf("%s:%s\n", PSK_USER, key);
	CLEANUP_FREE char *params = NULL;
	int r;

	r = write_text(dir, uid, KEY_FILE, keys, err);
	explicit_bzero(keys, strlen(keys));
	if (r < 0 || !server)
		return r;
	r = tls_dh_params(&params, err);
	return r < 0 ? r : write_text(dir, uid, PARAMS_FILE, params, err);
}

int psk_place(const struct keeper *keeper, const char *key, bool server, struct error *err)
{
	CLEANUP_FD int dir = -1;
	int r = private_run_dir(keeper, strrchr(PSK_DIR, '/') + 1, 0500, &dir, err);

	return r < 0 ? r : write_files(dir, keeper->copy->uid, key, server, err);
}

void psk_remove(const struct keeper *keeper)
{
	CLEANUP_FD int run = -1;

	if (keeper->copy && private_run_open(keeper, &run, NULL) == 0)
		(void)file_remove_tree(run, strrchr(PSK_DIR, '/') + 1, NULL);
}
