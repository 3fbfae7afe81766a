/* SPDX-License-Identifier: Apache-2.0 */
#include "qemu/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

#define CACHE_VERSION 1

int cache_identity(const char *path, char **ret_identity, struct error *err)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return error_set(err, -errno, "cannot look at '%s': %m", path);
	*ret_identity =
		xasprintf("%" PRIx64 "-%" PRIu64 "-%" PRIx64 "-%" PRId64 "-%" PRId64
			  ".%09ld-%" PRId64 ".%09ld",
			  (uint64_t)st.st_dev, (uint64_t)st.st_ino, (uint64_t)st.st_rdev,
			  (int64_t)st.st_size, (int64_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
			  (int64_t)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
	return 0;
}

/* FNV-1a: paths become file names of one length. */
static uint64_t hash(const char *text)
{
	uint64_t value = UINT64_C(0xcbf29ce484222325);

	for (; *text; text++)
		value = (value ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
	return value;
}

static char *entry_path(const char *dir, const char *kind, const char *subject)
{
	return xasprintf("%s/%s-%016" PRIx64 ".json", dir, kind, hash(subject));
}

json_t *cache_load(const char *dir, const char *kind, const char *subject, const char *identity)
{
	CLEANUP_FREE char *path = entry_path(dir, kind, subject);
	json_auto_t *entry = NULL;

	if (json_read_file(AT_FDCWD, path, &entry, NULL) < 0)
		return NULL;
	if (json_int_or(entry, "v", 0) != CACHE_VERSION ||
	    strcmp(json_string_or(entry, "subject", ""), subject) != 0 ||
	    strcmp(json_string_or(entry, "identity", ""), identity) != 0)
		return NULL;
	return json_incref(json_object_get(entry, "value"));
}

void cache_store(const char *dir, const char *kind, const char *subject, const char *identity,
		 json_t *value)
{
	CLEANUP_FREE char *path = entry_path(dir, kind, subject);
	json_auto_t *entry = NULL;
	struct error err = { 0 };

	entry = json_build(&err, "{s:i, s:s, s:s, s:O}", "v", CACHE_VERSION, "subject", subject,
			   "identity", identity, "value", value);
	if (!entry || file_make_dirs(AT_FDCWD, dir, 0755, &err) < 0 ||
	    json_write_file(AT_FDCWD, path, entry, 0644, &err) < 0)
		log_warning("cannot keep what QEMU said (%s), asking again next time", err.text);
}
