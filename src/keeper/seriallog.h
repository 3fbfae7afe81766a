/* SPDX-License-Identifier: Apache-2.0 */
/* serial.log is written by QEMU, which cannot be told to open another: it is shortened from the
 * front.  Whole blocks are copied to serial.log.1 and then taken out of the file while QEMU goes on
 * appending: no byte is lost or doubled.  Where a file system cannot take blocks out
 * (FALLOC_FL_COLLAPSE_RANGE: ext4, xfs), they become a hole, which readers skip with SEEK_DATA. */
#pragma once
#include <stdint.h>

struct error;

/* When it holds more than `max` bytes of data: 1, else 0. */
int seriallog_rotate(int dir_fd, uint64_t max, struct error *err);
