/* SPDX-License-Identifier: Apache-2.0 */
/* Where keys lie in the tree of znodes.  The key /drover/vms/web01/owner of a store with the chroot
 * /c is
 *
 *	/c/drover/vms/web01/=owner	its value
 *	/c/drover/vms/web01/#UID	its mark: there for as long as this very making of the key
 *
 * and the znodes above are directories.  They carry no value of their own but are bells: each
 * transaction writes them, for each key that it changes, up to the root, so that one watch tells of
 * everything below.  When a session ends nobody writes anything; so an ephemeral key also has a
 * shadow in each directory above it, DIRECTORY/#s/UID, which goes with it.
 *
 * A part of a key that would look like one of these as a directory gets a '%' in front. */
#include <string.h>

#include "store/zookeeper.h"
#include "util/cleanup.h"
#include "util/mem.h"

#define ODD "=#%"

char *zk_join(const char *dir, const char *name)
{
	return xasprintf("%s/%s", strcmp(dir, "/") == 0 ? "" : dir, name);
}

/* The directory of the first `length` bytes of a key, that is of some of its parts. */
char *zk_dir(const struct zk *zk, const char *key, size_t length)
{
	struct text dir = { 0 };

	text_addf(&dir, "%s", zk->address.chroot);
	for (size_t at = 0; at < length;) {
		size_t size = strcspn(key + at + 1, "/");
		const char *part = key + at + 1;
		bool odd = strchr(ODD, part[0]) || (at == 0 && size == strlen("zookeeper") &&
						    strncmp(part, "zookeeper", size) == 0);

		text_addf(&dir, "/%s%.*s", odd ? "%" : "", (int)size, part);
		at += 1 + size;
	}
	if (dir.length == 0)
		text_addf(&dir, "/");
	return dir.text;
}

/* How much of a key its parent is; 0: the root. */
size_t zk_parent(const char *key, size_t length)
{
	while (length > 0 && key[length - 1] != '/')
		length--;
	return length > 0 ? length - 1 : 0;
}

char *zk_key_dir(const struct zk *zk, const char *key)
{
	return zk_dir(zk, key, zk_parent(key, strlen(key)));
}

char *zk_key_path(const struct zk *zk, const char *key)
{
	CLEANUP_FREE char *dir = zk_key_dir(zk, key);
	CLEANUP_FREE char *name = xasprintf("=%s", strrchr(key, '/') + 1);

	return zk_join(dir, name);
}

char *zk_mark_path(const struct zk *zk, const char *key, const char *uid)
{
	CLEANUP_FREE char *dir = zk_key_dir(zk, key);
	CLEANUP_FREE char *name = xasprintf("#%s", uid);

	return zk_join(dir, name);
}

char *zk_shadow_dir(const char *dir)
{
	return zk_join(dir, "#s");
}

static void chroot_add(const struct zk *zk, json_t *dirs)
{
	const char *chroot = zk->address.chroot;

	for (size_t at = 0; chroot[at]; at++)
		if (at > 0 && (chroot[at + 1] == '/' || !chroot[at + 1])) {
			CLEANUP_FREE char *path = xasprintf("%.*s", (int)at + 1, chroot);

			(void)json_object_set_new(dirs, path, json_true());
		}
}

/* All directories that a key needs, parents first, as keys of `dirs`. */
void zk_dirs_add(const struct zk *zk, const char *key, bool shadows, json_t *dirs)
{
	size_t length = strlen(key);

	chroot_add(zk, dirs);
	for (size_t at = 0; at < length; at += 1 + strcspn(key + at + 1, "/")) {
		CLEANUP_FREE char *path = zk_dir(zk, key, at);
		CLEANUP_FREE char *shadow = zk_shadow_dir(path);

		if (strcmp(path, "/") != 0)
			(void)json_object_set_new(dirs, path, json_true());
		if (shadows)
			(void)json_object_set_new(dirs, shadow, json_true());
	}
}

/* What a child of a directory is, and the part of keys that it stands for. */
enum zk_name zk_name_read(const char *name, const char **ret_part)
{
	switch (name[0]) {
	case '=':
		*ret_part = name + 1;
		return ZK_NAME_KEY;
	case '#':
		return ZK_NAME_OTHER;
	case '%':
		*ret_part = name + 1;
		return ZK_NAME_DIR;
	default:
		*ret_part = name;
		return ZK_NAME_DIR;
	}
}
