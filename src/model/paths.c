/* SPDX-License-Identifier: Apache-2.0 */
/* Directories of one agent.  The root is made canonical, because it is the agent's identity: two
 * spellings of one root must not become two agents. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/config.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"

/* realpath(3) of the part that exists; what does not exist yet is put behind it. */
static int root_resolve(const char *root, char **ret_root, struct error *err)
{
	CLEANUP_FREE char *head = xstrdup(root[0] != '\0' ? root : ".");
	CLEANUP_FREE char *tail = xstrdup("");

	for (;;) {
		CLEANUP_FREE char *real = realpath(head, NULL);
		CLEANUP_FREE char *longer = NULL;
		char *slash;

		if (real) {
			*ret_root = xasprintf("%s%s", strcmp(real, "/") == 0 ? "" : real, tail);
			return 0;
		}
		if (errno != ENOENT)
			return error_set(err, -errno, "cannot use '%s' as root directory: %m",
					 root);
		slash = strrchr(head, '/');
		if (slash && (slash[1] == '\0' || strcmp(slash, "/.") == 0)) {
			slash[slash == head] = '\0';
			continue;
		}
		if (strcmp(slash ? slash + 1 : head, "..") == 0)
			return error_set(err, -ENOENT,
					 "cannot use '%s' as root directory: it goes up from a "
					 "directory that does not exist",
					 root);
		longer = xasprintf("/%s%s", slash ? slash + 1 : head, tail);
		free(tail);
		tail = TAKE_PTR(longer);
		if (!slash) {
			free(head);
			head = xstrdup(".");
		} else {
			slash[slash == head] = '\0';
		}
	}
}

int paths_init(const char *root, struct paths *ret, struct error *err)
{
	CLEANUP_FREE char *real = NULL;
	int r;

	if (!root)
		root = secure_getenv("DROVER_ROOT");
	if (root && root[0] != '\0') {
		r = root_resolve(root, &real, err);
		if (r < 0)
			return r;
	}
	if (!real || real[0] == '\0') {
		*ret = (struct paths){ .root = xstrdup(""),
				       .etc = xstrdup("/etc/drover"),
				       .run = xstrdup("/run/drover"),
				       .lib = xstrdup("/var/lib/drover"),
				       .log = xstrdup("/var/log/drover") };
		return 0;
	}
	/* Paths below it must stay shorter than PATH_MAX. */
	if (strlen(real) > PATH_MAX / 2)
		return error_set(
			err, -ENAMETOOLONG,
			"cannot use '%.200s...' as root directory: it is longer than %d bytes",
			real, PATH_MAX / 2);
	*ret = (struct paths){ .etc = xasprintf("%s/etc/drover", real),
			       .run = xasprintf("%s/run/drover", real),
			       .lib = xasprintf("%s/lib/drover", real),
			       .log = xasprintf("%s/log/drover", real) };
	ret->root = TAKE_PTR(real);
	return 0;
}

void paths_done(struct paths *paths)
{
	free(paths->root);
	free(paths->etc);
	free(paths->run);
	free(paths->lib);
	free(paths->log);
	*paths = (struct paths){ 0 };
}
