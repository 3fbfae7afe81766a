/* SPDX-License-Identifier: Apache-2.0 */
/* Files that are there whole or not at all. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct error;

/* Reads a whole file of at most `limit` bytes; the result is terminated, and owned by the caller.
 * `ret_length` may be NULL.  A missing file is -ENOENT, a longer one -EFBIG. */
int file_read(int dir_fd, const char *path, size_t limit, char **ret_text, size_t *ret_length,
	      struct error *err);

/* Writes beside, fsync, rename, fsync of the directory.  On any error the old content stays. */
int file_write(int dir_fd, const char *path, const void *data, size_t length, mode_t mode,
	       struct error *err);

/* Until it is renamed into place, what is made beside has a name that begins so. */
#define FILE_UNFINISHED ".new-"
/* Removes what programs that died before the rename left in this directory.  The caller holds the
 * lock under which things are made there. */
void file_remove_unfinished(int dir_fd);

/* mkdir -p below dir_fd (or AT_FDCWD); the last part gets `mode`, those made on the way 0755. */
int file_make_dirs(int dir_fd, const char *path, mode_t mode, struct error *err);

/* Opens (creates, 0600) and locks a file exclusively: flock, close-on-exec.  Somebody else has
 * it: -EWOULDBLOCK when `wait_usec` is 0, else tries until then.  The file may be removed by its
 * holder, so what was locked is compared with what the path names before this returns. */
int file_lock(int dir_fd, const char *path, unsigned long wait_usec, int *ret_fd,
	      struct error *err);

/* Removes a file or a directory tree below dir_fd without following links; absent is success. */
int file_remove_tree(int dir_fd, const char *path, struct error *err);

/* 128 random bits as 32 hex digits plus NUL. */
void file_random_id(char buffer[33]);
