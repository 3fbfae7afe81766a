/* SPDX-License-Identifier: Apache-2.0 */
/* How far the copying of a guest is, as its QEMU last told. */
#pragma once
#include <jansson.h>
#include <stdint.h>

struct timeline;

struct progress {
	uint64_t bytes, bytes_at; /* sent, and when that last grew (clock_now()); 0: never */
	uint64_t total, left, rounds, rate;
};

/* Before memory is sent: how much of the disks is there. */
void progress_take_disks(struct progress *progress, uint64_t done, uint64_t total,
			 struct timeline *timeline);
/* `info`: the answer to query-migrate; NULL: there is none. */
void progress_take(struct progress *progress, json_t *info, struct timeline *timeline);
/* {percent, bytes, total, rounds, rate} */
json_t *progress_json(const struct progress *progress);
