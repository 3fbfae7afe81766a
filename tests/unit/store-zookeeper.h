/* SPDX-License-Identifier: Apache-2.0 */
/* A real ZooKeeper server of its own, for tests. */
#pragma once
#include "store-server.h"

static inline bool zookeeper_ready(const struct store_server *server)
{
	char answer[4096];

	return server_asks(server->port, "srvr", answer, sizeof(answer)) &&
	       strstr(answer, "Mode: standalone");
}

/* With the data that it had before, if it had any. */
static inline bool zookeeper_run(struct store_server *server)
{
	CLEANUP_FREE char *file = xasprintf("%s/zoo.cfg", server->dir);
	const char *const argv[] = {
		"java",
		"-Xmx128m",
		"-XX:+UseSerialGC",
		"-XX:TieredStopAtLevel=1",
		"-cp",
		"/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-nop.jar",
		"org.apache.zookeeper.server.quorum.QuorumPeerMain",
		file,
		NULL,
	};

	server_spawn(server, argv);
	return server_await(server, zookeeper_ready);
}

static inline bool zookeeper_try(struct store_server *server)
{
	CLEANUP_FREE char *file = NULL, *text = NULL;

	server_ports(&server->port, 1);
	(void)strcpy(server->dir, "/tmp/test-zookeeper-XXXXXX");
	if (!mkdtemp(server->dir))
		abort();
	file = xasprintf("%s/zoo.cfg", server->dir);
	text = xasprintf("tickTime=500\ndataDir=%s\nclientPort=%d\nclientPortAddress=127.0.0.1\n"
			 "admin.enableServer=false\nmaxSessionTimeout=3600000\n"
			 "maxClientCnxns=0\nforceSync=no\n",
			 server->dir, server->port);
	if (file_write(AT_FDCWD, file, text, strlen(text), 0600, NULL) < 0)
		abort();
	return zookeeper_run(server);
}

static inline bool zookeeper_start(struct store_server *server)
{
	for (int tries = 0; tries < 5; tries++) { /* a port may be taken meanwhile */
		if (zookeeper_try(server))
			return true;
		server_end(server);
	}
	fprintf(stderr, "ZooKeeper does not start: apt-get install libzookeeper-java "
			"openjdk-17-jre-headless\n");
	abort();
}
