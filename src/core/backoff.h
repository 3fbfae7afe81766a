/* SPDX-License-Identifier: Apache-2.0 */
/* How long to wait before what keeps failing is tried again: doubling, with an upper limit,
 * forgotten after a good while of running. */
#pragma once
#include <stdint.h>

struct backoff {
	uint64_t first, max, forget; /* microseconds; configuration */
	unsigned failures;	     /* in a row */
};

/* A start failed, or a copy ended by itself after running for `ran` microseconds.  Returns how long
 * to wait from now. */
uint64_t backoff_failed(struct backoff *backoff, uint64_t ran);
/* Those who failed together do not try again together: from half of `wait` to all of it, by a
 * random number. */
uint64_t backoff_spread(uint64_t wait, uint64_t random);
void backoff_reset(struct backoff *backoff);
