/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes in JSON: RFC 4648, with padding. */
#pragma once
#include <stddef.h>

struct error;

char *base64_encode(const void *bytes, size_t length); /* owned by the caller */
/* The result is owned by the caller, and never NULL on success. */
int base64_decode(const char *text, unsigned char **ret_bytes, size_t *ret_length,
		  struct error *err);
