/* SPDX-License-Identifier: Apache-2.0 */
/* The memory the guest keeps changing.  Each page starts with a number that tells which page it is
 * and in which pass it was written, so a page lost, swapped or left old by a migration shows. */
#pragma once

#include <stdint.h>

struct workset {
	uint32_t pages;
	uint32_t next; /* the page to be written next */
	uint32_t gen;  /* complete passes so far */
	uint32_t bad;  /* pages whose old number was not the expected one */
};

/* At most as much as there is RAM for.  Returns what it has become, in MiB. */
uint32_t workset_init(struct workset *set, uint32_t mib);

/* Checks and writes the next `pages` pages. */
void workset_dirty(struct workset *set, uint32_t pages);
