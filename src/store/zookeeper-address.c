/* SPDX-License-Identifier: Apache-2.0 */
/* HOST:PORT,HOST:PORT/CHROOT?tick=MS.  Hosts are addresses: looking up a name would hold up the
 * loop, and with it the lease of every VM here. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/zookeeper.h"
#include "util/cleanup.h"
#include "util/mem.h"

#define SERVERS_MAX 32
#define CHROOT_MAX 256
#define TICK_DEFAULT_USEC (2000 * USEC_PER_MSEC) /* ZooKeeper's own */
#define TICK_MAX_MS 60000

static int number_parse(const char *text, long max, long *ret)
{
	char *end;
	long number;

	errno = 0;
	number = strtol(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end || errno || number < 1 || number > max)
		return -EINVAL;
	*ret = number;
	return 0;
}

/* "10.0.0.1:2181" or "[fd00::1]:2181", into the form that the library takes. */
static int server_parse(char *server, struct text *servers, struct error *err)
{
	char *colon = strrchr(server, ':');
	unsigned char binary[sizeof(struct in6_addr)];
	char *host = server;
	int family = AF_INET;
	long port;

	if (!colon || number_parse(colon + 1, 65535, &port) < 0)
		return error_usage(err, "'%s' is no ZooKeeper server: write ADDRESS:PORT", server);
	*colon = '\0';
	if (host[0] == '[' && colon[-1] == ']') {
		colon[-1] = '\0';
		host++;
		family = AF_INET6;
	}
	if (inet_pton(family, host, binary) != 1)
		return error_usage(err,
				   "'%s' is no address of a ZooKeeper server: names are not looked "
				   "up, write 10.0.0.1:2181 or [fd00::1]:2181",
				   host);
	text_addf(servers, "%s%s:%ld", servers->length ? "," : "", host, port);
	return 0;
}

static int servers_parse(char *list, struct zk_address *address, struct error *err)
{
	struct text servers = { 0 };
	char *save = NULL;
	int r = 0;

	for (char *one = strtok_r(list, ",", &save); one && r == 0;
	     one = strtok_r(NULL, ",", &save)) {
		r = server_parse(one, &servers, err);
		if (r == 0 && ++address->count > SERVERS_MAX)
			r = error_usage(err, "more than %d ZooKeeper servers", SERVERS_MAX);
	}
	if (r == 0 && address->count == 0)
		r = error_usage(err, "no ZooKeeper server is named: write "
				     "zookeeper:ADDRESS:PORT,ADDRESS:PORT/CHROOT");
	if (r < 0)
		text_done(&servers);
	else
		address->servers = servers.text;
	return r;
}

static int chroot_parse(const char *chroot, struct zk_address *address, struct error *err)
{
	size_t length = strlen(chroot);
	bool good = length <= CHROOT_MAX && !strstr(chroot, "//") &&
		    (length == 0 || chroot[length - 1] != '/');

	for (const char *part = chroot; good && *part; part += 1 + strcspn(part + 1, "/"))
		if (part[1 + strspn(part + 1, ".")] == '/' || part[1 + strspn(part + 1, ".")] == 0)
			good = false;
	for (const char *at = chroot; good && *at; at++)
		good = *at > ' ' && *at <= '~';
	if (!good)
		return error_usage(err,
				   "'%s' is no path for the records of the cluster in ZooKeeper: "
				   "write something like /drover",
				   chroot);
	address->chroot = xstrdup(chroot);
	return 0;
}

static int options_parse(const char *options, struct zk_address *address, struct error *err)
{
	long ms;

	if (strncmp(options, "tick=", strlen("tick=")) != 0 ||
	    number_parse(options + strlen("tick="), TICK_MAX_MS, &ms) < 0)
		return error_usage(err,
				   "'?%s' is no option of a ZooKeeper store: write ?tick=MS with "
				   "the servers' tickTime in milliseconds",
				   options);
	address->tick_usec = (uint64_t)ms * USEC_PER_MSEC;
	return 0;
}

int zk_address_parse(const char *text, struct zk_address *ret_address, struct error *err)
{
	CLEANUP(zk_address_done) struct zk_address address = { .tick_usec = TICK_DEFAULT_USEC };
	CLEANUP_FREE char *copy = xstrdup(text);
	CLEANUP_FREE char *chroot = NULL;
	char *options = strchr(copy, '?');
	char *slash;
	int r = 0;

	if (options) {
		*options = '\0';
		r = options_parse(options + 1, &address, err);
	}
	slash = strchr(copy, '/');
	chroot = xstrdup(slash ? slash : "");
	if (slash)
		*slash = '\0';
	if (r == 0)
		r = chroot_parse(chroot, &address, err);
	if (r == 0)
		r = servers_parse(copy, &address, err);
	if (r < 0)
		return r;
	*ret_address = address;
	address = (struct zk_address){ 0 };
	return 0;
}

void zk_address_done(struct zk_address *address)
{
	free(address->servers);
	free(address->chroot);
}
