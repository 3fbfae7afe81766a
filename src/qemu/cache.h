/* SPDX-License-Identifier: Apache-2.0 */
/* What was learned from a QEMU binary, kept beside the identity of the files that it was learned
 * from: when one of them changes, the old knowledge is no longer found.  A cache that cannot be
 * read or written is no error, the question is only asked again. */
#pragma once
#include <jansson.h>

struct error;

/* Device, inode, size, mtime and ctime of a file, as one word; owned. */
int cache_identity(const char *path, char **ret_identity, struct error *err);

/* NULL: not known under this identity.  `subject` (a path) and `kind` name the entry. */
json_t *cache_load(const char *dir, const char *kind, const char *subject, const char *identity);
void cache_store(const char *dir, const char *kind, const char *subject, const char *identity,
		 json_t *value);
