/* SPDX-License-Identifier: Apache-2.0 */
/* A real Consul for the tests of stores: the program that DROVER_CONSUL names. */
#pragma once
#include "store-server.h"
static inline bool consul_ready(const struct store_server *server)
{
	/* A leader is named as "127.0.0.1:PORT"; there is none yet: "". */
	char answer[4096];

	return server_asks(server->port, "GET /v1/status/leader HTTP/1.0\r\n\r\n", answer,
			   sizeof(answer)) &&
	       strstr(answer, "\"127.0.0.1:");
}

static inline bool consul_try(struct store_server *server, const char *program, const char *more)
{
	CLEANUP_FREE char *file = NULL, *text = NULL;
	int ports[3];

	server_ports(ports, 3);
	server->port = ports[0];
	(void)strcpy(server->dir, "/tmp/test-consul-XXXXXX");
	if (!mkdtemp(server->dir))
		abort();
	file = xasprintf("%s/consul.json", server->dir);
	text = xasprintf("{%s\"session_ttl_min\":\"1s\",\"ports\":{\"http\":%d,\"server\":%d,"
			 "\"serf_lan\":%d,\"serf_wan\":-1,\"dns\":-1,\"grpc\":-1}}",
			 more, ports[0], ports[1], ports[2]);
	if (file_write(AT_FDCWD, file, text, strlen(text), 0600, NULL) < 0)
		abort();

	const char *const argv[] = { program, "agent",	   "-dev",	   "-node", "n1",
				     "-bind", "127.0.0.1", "-config-file", file,    NULL };
	server_spawn(server, argv);
	return server_await(server, consul_ready);
}

/* `more` of its configuration.  False: there is no Consul on this machine (tests/consul/fetch). */
static inline bool consul_start_with(struct store_server *server, const char *more)
{
	const char *program = getenv("DROVER_CONSUL");

	if (!program || access(program, X_OK) < 0)
		return false;
	for (int tries = 0; tries < 5; tries++) { /* a port may be taken meanwhile */
		if (consul_try(server, program, more))
			return true;
		server_end(server);
	}
	fprintf(stderr, "Consul does not start: %s\n", program);
	abort();
}

static inline bool consul_start(struct store_server *server)
{
	return consul_start_with(server, "");
}
