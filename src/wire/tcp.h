/* SPDX-License-Identifier: Apache-2.0 */
/* TCP between hosts.  Addresses are numbers, "192.0.2.7:8441" or "[2001:db8::7]:8441": a name would
 * have to be looked up, and a resolver that hangs would hang the loop.  Descriptors are
 * close-on-exec and non-blocking. */
#pragma once
#include <stdint.h>

struct error;

/* The address must be one of this host, or 0.0.0.0 or [::]. */
int tcp_listen(const char *address, struct error *err);
/* Only begins: the descriptor becomes writable once it is connected, or tells why not with the
 * first use of it.  Who uses it sets the deadline. */
int tcp_connect(const char *address, struct error *err);
int tcp_accept(int listener, struct error *err);
/* What is sent and not received by the other host for so long ends the connection. */
void tcp_give_up_after(int fd, uint64_t usec);
unsigned tcp_port(int fd); /* our own end's; 0: it has none */
/* Who is at the other end, as a number, without a port; "" when that is not known. */
#define TCP_HOST_SIZE 64
void tcp_peer_host(int fd, char host[TCP_HOST_SIZE]);
/* -EINVAL with a sentence when it is no such address. */
int tcp_check(const char *address, struct error *err);
