/* SPDX-License-Identifier: Apache-2.0 */
/* Real servers for the tests of stores: a child on loopback, with free ports and a directory of its
 * own, that dies with us. */
#pragma once
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/file.h"
#include "util/mem.h"

struct store_server {
	pid_t pid;
	int port;
	char dir[64];
};

/* Ports that were free a moment ago: all are held until the last one is known. */
static inline void server_ports(int *ret_ports, size_t count)
{
	int *fds = xcalloc(count, sizeof(*fds));

	for (size_t i = 0; i < count; i++) {
		struct sockaddr_in address = { .sin_family = AF_INET,
					       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
		socklen_t length = sizeof(address);

		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (bind(fds[i], (struct sockaddr *)&address, length) < 0 ||
		    getsockname(fds[i], (struct sockaddr *)&address, &length) < 0)
			abort();
		ret_ports[i] = ntohs(address.sin_port);
	}
	for (size_t i = 0; i < count; i++)
		(void)close(fds[i]);
	free(fds);
}

/* What it says goes to DIR/log. */
static inline void server_spawn(struct store_server *server, const char *const *argv)
{
	CLEANUP_FREE char *log = xasprintf("%s/log", server->dir);

	server->pid = fork();
	if (server->pid != 0)
		return;
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!freopen(log, "a", stdout) || dup2(STDOUT_FILENO, STDERR_FILENO) < 0)
		_exit(98);
	(void)execvp(argv[0], (char *const *)(uintptr_t)argv);
	_exit(99);
}

/* Asks `ready` until it says yes; false: the server ended or the deadline came. */
static inline bool server_await(struct store_server *server,
				bool (*ready)(const struct store_server *server))
{
	uint64_t end = clock_now() + 60 * USEC_PER_SEC;

	while (clock_now() < end && waitpid(server->pid, NULL, WNOHANG) == 0) {
		const struct timespec pause = { .tv_nsec = 20 * 1000 * 1000 };

		if (ready(server))
			return true;
		(void)nanosleep(&pause, NULL); /* its port cannot be waited for */
	}
	return false;
}

static inline void server_end(struct store_server *server)
{
	if (server->pid > 0) {
		(void)kill(server->pid, SIGKILL);
		(void)waitpid(server->pid, NULL, 0);
	}
	server->pid = 0;
	if (server->dir[0])
		(void)file_remove_tree(AT_FDCWD, server->dir, NULL);
}

/* An exchange with a server that ends its answer by closing. */
static inline bool server_asks(int port, const char *question, char *ret_answer, size_t size)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_port = htons((uint16_t)port),
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const struct timeval patience = { .tv_sec = 5 };
	CLEANUP_FD int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	size_t length = 0;
	ssize_t n;

	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    send(fd, question, strlen(question), MSG_NOSIGNAL) < 0)
		return false;
	while (length < size - 1 && (n = recv(fd, ret_answer + length, size - 1 - length, 0)) > 0)
		length += (size_t)n;
	ret_answer[length] = '\0';
	return length > 0;
}
