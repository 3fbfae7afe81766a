/* SPDX-License-Identifier: Apache-2.0 */
/* "Did you mean": distance between words in the mistakes of a typist: a letter too many, too few,
 * wrong, or two in the wrong order (optimal string alignment). */
#include "wire/document.h"

#include <string.h>

#define WORD_MAX 48
#define DISTANCE_MAX 2

static unsigned least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

static unsigned distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
	unsigned rows[WORD_MAX + 1][WORD_MAX + 1];

	for (size_t i = 0; i <= a_length; i++)
		rows[i][0] = (unsigned)i;
	for (size_t j = 0; j <= b_length; j++)
		rows[0][j] = (unsigned)j;
	for (size_t i = 1; i <= a_length; i++) {
		for (size_t j = 1; j <= b_length; j++) {
			unsigned best = least(rows[i - 1][j], rows[i][j - 1]) + 1;

			best = least(best, rows[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				best = least(best, rows[i - 2][j - 2] + 1);
			rows[i][j] = best;
		}
	}
	return rows[a_length][b_length];
}

const char *document_nearest(const char *word, const char *const *candidates)
{
	size_t length = strlen(word);
	unsigned best = DISTANCE_MAX + 1;
	const char *nearest = NULL;

	if (length > WORD_MAX)
		return NULL;
	for (; *candidates; candidates++) {
		size_t other = strlen(*candidates);
		unsigned d;

		if (other > WORD_MAX)
			continue;
		d = distance(word, length, *candidates, other);
		if (d < best && 2 * d < length) {
			best = d;
			nearest = *candidates;
		}
	}
	return nearest;
}
