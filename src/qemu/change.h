/* SPDX-License-Identifier: Apache-2.0 */
/* Two hardware records, and what a guest would notice between them. */
#pragma once

struct hardware;
struct text;

/* Adds a line for each difference: "memory 512 -> 1024 MiB", "device nic-lan added: ...". */
void hardware_changes(const struct hardware *before, const struct hardware *after,
		      struct text *ret);
