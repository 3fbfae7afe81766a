/* SPDX-License-Identifier: Apache-2.0 */
/* Logs whose writers cannot be told to open another file: QEMU's serial.log and qemu.log, and the
 * stderr of a keeper, which may be written to while there is none.  They are shortened from the
 * front: whole blocks are copied to NAME.1 and then taken out of the file while the writer goes on
 * appending, so that no byte is lost or doubled.  Where a file system cannot take blocks out
 * (FALLOC_FL_COLLAPSE_RANGE: ext4, xfs), they become a hole, which readers skip with SEEK_DATA.
 *
 * A writer may be hostile: QEMU can truncate its logs, and extend them to any size.  So a call
 * copies `max` bytes at most and reads no holes, whatever the file looks like. */
#pragma once
#include <stdint.h>

struct error;

/* When it holds more than `max` bytes of data: 1, else 0; no such file: 0.  `ret_dropped` (may be
 * NULL) is how much had to go unkept, because it was more than `max` or the disk is full. */
int logfile_shorten(int dir_fd, const char *name, uint64_t max, uint64_t *ret_dropped,
		    struct error *err);
