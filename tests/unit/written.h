/* SPDX-License-Identifier: Apache-2.0 */
/* Documents that the program prints itself: a test holds the file in docs/ to them, and
 * `test-NAME --write-docs` writes the file anew. */
#pragma once
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"

#define WRITTEN_SIZE_MAX (1u << 20)

static inline int written_save(const char *path, const char *text)
{
	struct error err = { 0 };

	if (file_write(AT_FDCWD, path, text, strlen(text), 0644, &err) == 0)
		return 0;
	(void)fprintf(stderr, "%s\n", err.text);
	return 1;
}

static inline void written_check(const char *path, const char *text, const char *program)
{
	CLEANUP_FREE char *there = NULL;
	struct error err = { 0 };

	if (file_read(AT_FDCWD, path, WRITTEN_SIZE_MAX, &there, NULL, &err) < 0)
		fail_msg("%s: print it with %s --write-docs", err.text, program);
	if (strcmp(there, text) != 0)
		fail_msg("%s is not what the tables say: print it anew with %s --write-docs", path,
			 program);
}
