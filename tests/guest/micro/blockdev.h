/* SPDX-License-Identifier: Apache-2.0 */
/* The first virtio-blk disk, one request at a time, polled. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define BLOCK_SIZE 4096

enum blockdev_state {
	BLOCKDEV_IDLE,
	BLOCKDEV_BUSY,
	BLOCKDEV_FAILED, /* the last request; told once, then idle */
};

/* Number of blocks of the disk; 0 if there is none that can be used. */
uint32_t blockdev_init(void);

/* Moves one block between the disk and `buffer`, which must not be touched until it is idle. */
void blockdev_begin(bool write, uint32_t block, void *buffer);

enum blockdev_state blockdev_poll(void);
