/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/tcp.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"

/* A host that is gone without a word is noticed after KEEP_IDLE + KEEP_COUNT * KEEP_INTERVAL. */
#define KEEP_IDLE 15
#define KEEP_INTERVAL 5
#define KEEP_COUNT 3

static void freeaddrinfop(struct addrinfo **info)
{
	if (*info)
		freeaddrinfo(*info);
}

static int not_an_address(const char *text, struct error *err)
{
	return error_usage(
		err,
		"'%s' is no address: write 192.0.2.7:8441 or [2001:db8::7]:8441 (numbers; "
		"names are not looked up)",
		text);
}

/* Host and port apart, without the brackets. */
static int split(const char *text, char host[64], const char **ret_port)
{
	const char *colon = strrchr(text, ':');
	size_t length = colon ? (size_t)(colon - text) : 0;

	if (length > 2 && text[0] == '[' && text[length - 1] == ']') {
		text++;
		length -= 2;
	} else if (memchr(text, ':', length)) {
		return -EINVAL; /* IPv6 without brackets */
	}
	if (length == 0 || length >= 64 || colon[1] == '\0')
		return -EINVAL;
	memcpy(host, text, length);
	host[length] = '\0';
	*ret_port = colon + 1;
	return 0;
}

static int resolve(const char *text, struct addrinfo **ret, struct error *err)
{
	const struct addrinfo hints = { .ai_family = AF_UNSPEC,
					.ai_socktype = SOCK_STREAM,
					.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV };
	const char *port;
	char host[64];

	if (split(text, host, &port) < 0 || getaddrinfo(host, port, &hints, ret) != 0)
		return not_an_address(text, err);
	return 0;
}

static int make_socket(int family, int *ret_fd, struct error *err)
{
	*ret_fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return *ret_fd < 0 ? error_set(err, -errno, "cannot make a socket: %m") : 0;
}

/* Without it the kernel sends again for a quarter of an hour, and asks no host that owes it an
 * acknowledgement whether it is there. */
void tcp_give_up_after(int fd, uint64_t usec)
{
	unsigned msec = usec / USEC_PER_MSEC > INT_MAX ? INT_MAX : (unsigned)(usec / USEC_PER_MSEC);

	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &msec, sizeof(msec));
}

/* Neither waits with small messages nor believes for ever in a host that is gone. */
static void tune(int fd)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, KEEP_IDLE },
		{ IPPROTO_TCP, TCP_KEEPINTVL, KEEP_INTERVAL },
		{ IPPROTO_TCP, TCP_KEEPCNT, KEEP_COUNT },
	};

	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		(void)setsockopt(fd, options[i].level, options[i].name, &options[i].value,
				 sizeof(options[i].value));
	tcp_give_up_after(fd, (KEEP_IDLE + KEEP_COUNT * KEEP_INTERVAL) * USEC_PER_SEC);
}

int tcp_listen(const char *address, struct error *err)
{
	CLEANUP(freeaddrinfop) struct addrinfo *info = NULL;
	CLEANUP_FD int fd = -1;
	const int yes = 1;
	int r;

	r = resolve(address, &info, err);
	if (r < 0)
		return r;
	r = make_socket(info->ai_family, &fd, err);
	if (r < 0)
		return r;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (bind(fd, info->ai_addr, info->ai_addrlen) < 0 || listen(fd, SOMAXCONN) < 0)
		return error_set(err, -errno, "cannot listen on %s: %m", address);
	return TAKE_FD(fd);
}

int tcp_connect(const char *address, struct error *err)
{
	CLEANUP(freeaddrinfop) struct addrinfo *info = NULL;
	CLEANUP_FD int fd = -1;
	int r;

	r = resolve(address, &info, err);
	if (r < 0)
		return r;
	r = make_socket(info->ai_family, &fd, err);
	if (r < 0)
		return r;
	tune(fd);
	if (connect(fd, info->ai_addr, info->ai_addrlen) < 0 && errno != EINPROGRESS)
		return error_set_class(err, ERROR_TRY_AGAIN, -errno, "cannot connect to %s: %s",
				       address, strerror(errno));
	return TAKE_FD(fd);
}

int tcp_accept(int listener, struct error *err)
{
	int fd;

	do
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	while (fd < 0 && errno == EINTR);
	if (fd < 0)
		return error_set(err, -errno, "cannot accept a connection: %m");
	tune(fd);
	return fd;
}

int tcp_check(const char *address, struct error *err)
{
	CLEANUP(freeaddrinfop) struct addrinfo *info = NULL;

	return resolve(address, &info, err);
}

unsigned tcp_port(int fd)
{
	union {
		struct sockaddr any;
		struct sockaddr_storage storage;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} address = { .any = { 0 } };
	socklen_t length = sizeof(address);

	if (getsockname(fd, &address.any, &length) < 0)
		return 0;
	return ntohs(address.any.sa_family == AF_INET6 ? address.v6.sin6_port
						       : address.v4.sin_port);
}

void tcp_peer_host(int fd, char host[TCP_HOST_SIZE])
{
	union {
		struct sockaddr any;
		struct sockaddr_storage storage;
	} address = { .any = { 0 } };
	socklen_t length = sizeof(address);

	host[0] = '\0';
	if (getpeername(fd, &address.any, &length) == 0)
		(void)getnameinfo(&address.any, length, host, TCP_HOST_SIZE, NULL, 0,
				  NI_NUMERICHOST);
}
