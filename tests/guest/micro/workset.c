/* SPDX-License-Identifier: Apache-2.0 */
#include "workset.h"

#include "port.h"

enum {
	MIB = 1 << 20,
	PAGE_SIZE = 4096,
	WORDS_PER_PAGE = PAGE_SIZE / sizeof(uint32_t),
	WORKSET_START = 2 * MIB,
	KEPT_FREE_MIB = 3, /* below the working set, and for firmware tables at the top */

	CMOS_INDEX = 0x70,
	CMOS_DATA = 0x71,
	CMOS_ABOVE_16M = 0x34, /* two bytes, in units of 64 KiB */
	CMOS_ABOVE_1M = 0x30,  /* two bytes, in KiB, up to 63 MiB */
};

static uint32_t cmos_word(uint8_t index)
{
	uint32_t word;

	port_out8(CMOS_INDEX, index);
	word = port_in8(CMOS_DATA);
	port_out8(CMOS_INDEX, index + 1);
	return word | (uint32_t)port_in8(CMOS_DATA) << 8;
}

/* RAM below 4 GiB.  A machine without CMOS reads as all ones, that is, as unlimited. */
static uint32_t ram_mib(void)
{
	uint32_t above_16m = cmos_word(CMOS_ABOVE_16M) / 16;

	return above_16m ? 16 + above_16m : 1 + cmos_word(CMOS_ABOVE_1M) / 1024;
}

uint32_t workset_init(struct workset *set, uint32_t mib)
{
	uint32_t ram = ram_mib();
	uint32_t most = ram > KEPT_FREE_MIB ? ram - KEPT_FREE_MIB : 0;

	if (mib > most)
		mib = most;
	*set = (struct workset){ .pages = mib * (MIB / PAGE_SIZE) };
	return mib;
}

static uint32_t number_of(uint32_t gen, uint32_t page)
{
	return gen * 0x9e3779b1 + page;
}

/* Every instruction of this loop counts: some KVMs emulate each of them. */
static uint32_t dirty_run(uint32_t *at, uint32_t pages, uint32_t expected, uint32_t number)
{
	uint32_t bad = 0;

	for (; pages; pages--, at += WORDS_PER_PAGE, expected++, number++) {
		if (__builtin_expect(*at != expected, 0))
			bad++;
		*at = number;
	}
	return bad;
}

void workset_dirty(struct workset *set, uint32_t pages)
{
	if (!set->pages)
		return;
	while (pages) {
		uint32_t left = set->pages - set->next;
		uint32_t run = pages < left ? pages : left;
		uint32_t bad;

		bad = dirty_run((uint32_t *)(WORKSET_START + set->next * PAGE_SIZE), run,
				number_of(set->gen - 1, set->next), number_of(set->gen, set->next));
		if (set->gen > 0) /* what was there before the first pass is anyone's */
			set->bad += bad;
		pages -= run;
		set->next += run;
		if (set->next == set->pages) {
			set->next = 0;
			set->gen++;
		}
	}
}
