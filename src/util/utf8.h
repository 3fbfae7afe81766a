/* SPDX-License-Identifier: Apache-2.0 */
/* What is a character and what is only bytes (RFC 3629). */
#pragma once
#include <stddef.h>

/* Bytes of the well-formed character at the start of `bytes`; 0 when there is none. */
size_t utf8_length(const char *bytes, size_t length);
