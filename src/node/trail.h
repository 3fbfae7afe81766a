/* SPDX-License-Identifier: Apache-2.0 */
/* The event file of one VM, read on from where it was left.  Its keeper writes there whether an
 * agent is connected or not, so this misses nothing; what comes over the connection only says
 * "look". */
#pragma once
#include <stdint.h>

struct trail {
	uint64_t inode; /* 0: there was no file */
	uint64_t at;
};

/* What is in the file now is no news. */
void trail_begin(struct trail *trail, const char *dir);

/* Each whole line since then, also across the file's turning into its ".1". */
typedef void (*trail_line_fn)(void *ctx, char *line);
void trail_read(struct trail *trail, const char *dir, trail_line_fn line, void *ctx);
