/* SPDX-License-Identifier: Apache-2.0 */
/* The few sentences of rtnetlink(7) that this room needs.  Each opens a socket of its own: they are
 * rare, and nothing is left behind. */
#pragma once
#include <stdint.h>

#include "net/net.h"

#define RTNL_ALIAS_SIZE 256 /* IFALIASZ */
#define RTNL_KIND_SIZE 16

struct rtnl_link {
	unsigned index;
	uint32_t mtu;
	char alias[RTNL_ALIAS_SIZE]; /* "" when it has none */
	char kind[RTNL_KIND_SIZE];   /* "bridge", "tun"; "" for hardware */
};

/* 1 found, 0 there is no such link. */
int rtnl_get(const char *name, struct rtnl_link *ret_link, struct error *err);
/* The link is ours and nobody's address: alias, hardware address, no IPv6 address by itself. */
int rtnl_adopt(unsigned index, const char *alias, const uint8_t mac[6], struct error *err);
/* On the bridge, with that MTU, and up. */
int rtnl_attach(unsigned index, unsigned bridge, uint32_t mtu, struct error *err);
/* Absent is success. */
int rtnl_delete(unsigned index, struct error *err);
