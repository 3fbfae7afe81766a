/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/base64.h"

#include <errno.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *base64_encode(const void *bytes, size_t length)
{
	const unsigned char *in = bytes;
	char *text = xcalloc((length + 2) / 3 * 4 + 1, 1);
	char *out = text;

	for (size_t i = 0; i < length; i += 3) {
		size_t left = length - i;
		unsigned group = (unsigned)in[i] << 16 | (left > 1 ? in[i + 1] : 0u) << 8 |
				 (left > 2 ? in[i + 2] : 0u);

		*out++ = letters[group >> 18];
		*out++ = letters[group >> 12 & 63];
		*out++ = left > 1 ? letters[group >> 6 & 63] : '=';
		*out++ = left > 2 ? letters[group & 63] : '=';
	}
	return text;
}

int base64_decode(const char *text, unsigned char **ret_bytes, size_t *ret_length,
		  struct error *err)
{
	size_t length = strlen(text), n = 0;
	CLEANUP_FREE unsigned char *bytes = xcalloc(length / 4 * 3 + 3, 1);
	unsigned group = 0;

	while (length > 0 && text[length - 1] == '=')
		length--;
	for (size_t i = 0; i < length; i++) {
		const char *letter = memchr(letters, text[i], sizeof(letters) - 1);

		if (!letter)
			return error_set_class(err, ERROR_FAILED, -EINVAL, "not base64");
		group = group << 6 | (unsigned)(letter - letters);
		/* Each further letter after the first of four completes a byte. */
		if (i % 4 != 0)
			bytes[n++] = (unsigned char)(group >> (6 - i % 4 * 2));
	}
	*ret_bytes = TAKE_PTR(bytes);
	*ret_length = n;
	return 0;
}
