/* SPDX-License-Identifier: Apache-2.0 */
#include "core/backoff.h"

uint64_t backoff_failed(struct backoff *backoff, uint64_t ran)
{
	uint64_t wait = backoff->first;

	if (ran >= backoff->forget)
		backoff->failures = 0;
	for (unsigned i = 0; i < backoff->failures && wait < backoff->max; i++)
		wait *= 2;
	backoff->failures++;
	return wait < backoff->max ? wait : backoff->max;
}

uint64_t backoff_spread(uint64_t wait, uint64_t random)
{
	return wait - random % (wait / 2 + 1);
}

void backoff_reset(struct backoff *backoff)
{
	backoff->failures = 0;
}
