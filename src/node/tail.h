/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a file that grows. */
#pragma once
#include <stddef.h>

struct error;

/* The last `lines` lines of any bytes, at most `max` bytes; terminated, owned by the caller. */
int tail_read(const char *path, size_t lines, size_t max, char **ret_text, size_t *ret_length,
	      struct error *err);
