/* SPDX-License-Identifier: Apache-2.0 */
#include "diskset.h"

#include "blockdev.h"

enum {
	STEP_NONE,
	STEP_SCAN,
	STEP_CHECK,
	STEP_WRITE,

	WORDS = BLOCK_SIZE / sizeof(uint32_t),
	APART = 16, /* each block in a cluster of its own: 64 KiB */
};

#define DAMAGED UINT32_MAX

static uint32_t buffer[WORDS] __attribute__((aligned(BLOCK_SIZE)));

static uint32_t word_of(uint32_t number, uint32_t slot, uint32_t i)
{
	return number * 0x9e3779b1 + slot * 0x85ebca6b + i;
}

static void fill(uint32_t number, uint32_t slot)
{
	buffer[0] = number;
	for (uint32_t i = 1; i < WORDS; i++)
		buffer[i] = word_of(number, slot, i);
}

/* 0 for a block never written. */
static uint32_t number_in_buffer(uint32_t slot)
{
	uint32_t number = buffer[0];

	for (uint32_t i = 1; i < WORDS; i++)
		if (buffer[i] != (number ? word_of(number, slot, i) : 0))
			return DAMAGED;
	return number;
}

/* The number that belongs into the slot when `last` was written last. */
static uint32_t expected(const struct diskset *set, uint32_t slot, uint32_t last)
{
	uint32_t back = (last + set->blocks - slot) % set->blocks;

	return last > back ? last - back : 0;
}

bool diskset_init(struct diskset *set, uint32_t blocks)
{
	*set = (struct diskset){ 0 };
	if (blocks > DISKSET_MOST || blockdev_init() < blocks * APART)
		return false;
	set->blocks = blocks;
	return true;
}

static bool scanned(struct diskset *set)
{
	set->seen[set->scanned] = number_in_buffer(set->scanned);
	if (++set->scanned < set->blocks)
		return false;
	for (uint32_t i = 0; i < set->blocks; i++)
		if (set->seen[i] != DAMAGED && set->seen[i] > set->number)
			set->number = set->seen[i];
	for (uint32_t i = 0; i < set->blocks; i++)
		if (set->seen[i] != expected(set, i, set->number))
			set->bad++;
	set->known = true;
	return true;
}

static void begin(struct diskset *set, uint32_t step, uint32_t slot)
{
	set->step = step;
	blockdev_begin(step == STEP_WRITE, slot * APART, buffer);
}

bool diskset_go_on(struct diskset *set)
{
	enum blockdev_state state;
	uint32_t next = set->number + 1, slot;
	bool news = false, again;

	if (!set->blocks)
		return false;
	state = blockdev_poll();
	if (state == BLOCKDEV_BUSY)
		return false;
	again = state == BLOCKDEV_FAILED;
	slot = next % set->blocks;
	if (again) {
		set->bad++;
	} else if (set->step == STEP_SCAN) {
		news = scanned(set);
	} else if (set->step == STEP_CHECK) {
		if (number_in_buffer(slot) != expected(set, slot, set->number))
			set->bad++;
		fill(next, slot);
		begin(set, STEP_WRITE, slot);
		return false;
	} else if (set->step == STEP_WRITE) {
		set->number = next;
	}
	if (!set->known)
		begin(set, STEP_SCAN, set->scanned);
	else if (again && set->step == STEP_WRITE)
		begin(set, STEP_WRITE, slot);
	else
		begin(set, STEP_CHECK, (set->number + 1) % set->blocks);
	return news;
}
