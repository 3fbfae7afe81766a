/* SPDX-License-Identifier: Apache-2.0 */
/* Unix stream sockets named by directory and file, so that a path may be longer than sun_path:
 * they are reached through /proc/self/fd.  All close-on-exec and non-blocking. */
#pragma once
#include <stdint.h>
#include <sys/types.h>

struct error;

/* Binds beside and renames into place, so nobody ever sees a socket that does not listen; what
 * was there before goes. */
int sock_listen(int dir_fd, const char *name, mode_t mode, struct error *err);
/* -ECONNREFUSED or -ENOENT: nobody listens. */
int sock_connect(int dir_fd, const char *name, struct error *err);
int sock_accept(int listener, struct error *err);
/* The same as sock_connect by path, absolute or relative. */
int sock_connect_path(const char *path, struct error *err);
/* uid of the other end (SO_PEERCRED). */
int sock_peer(int fd, uid_t *ret_uid, pid_t *ret_pid, struct error *err);
