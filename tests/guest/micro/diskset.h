/* SPDX-License-Identifier: Apache-2.0 */
/* The blocks of the disk that the guest keeps writing: numbered, in a ring, each filled with what
 * only its number and place can give.  A block is read again before the next number goes over it,
 * so a write that was lost, undone, torn or went elsewhere shows; and a guest that boots tells how
 * far the one before it came. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define DISKSET_MOST 512 /* blocks */

struct diskset {
	uint32_t blocks;
	uint32_t number; /* the last one that is on the disk, as the disk has said */
	uint32_t bad;	 /* blocks that were not as expected, and requests that failed */
	bool known;	 /* what was found on the disk */

	uint32_t step; /* what is under way */
	uint32_t scanned;
	uint32_t seen[DISKSET_MOST];
};

/* False unless there is a disk with room for so many blocks. */
bool diskset_init(struct diskset *set, uint32_t blocks);

/* Begins the next request if the last one has ended.  True when it has become known just now what
 * was on the disk. */
bool diskset_go_on(struct diskset *set);
