/* SPDX-License-Identifier: Apache-2.0 */
/* A tap device for one card of one VM.  It is not persistent: it lives as long as somebody has it
 * open, so a QEMU that dies takes it along and nothing is left to clean up. */
#include "net/net.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "net/rtnl.h"
#include "util/cleanup.h"
#include "util/error.h"

/* FNV-1a, 64 bits (draft-eastlake-fnv): stable for all time, unlike a library's. */
static uint64_t hash_add(uint64_t hash, const char *text)
{
	/* With the NUL, so that ("a", "bc") and ("ab", "c") differ. */
	for (size_t i = 0; i <= strlen(text); i++) {
		hash ^= (unsigned char)text[i];
		hash *= UINT64_C(0x100000001b3);
	}
	return hash;
}

static uint64_t card_hash(const char *root_id, const char *vm, const char *card)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	hash = hash_add(hash_add(hash_add(hash, root_id), vm), card);
	return hash ^ hash >> 40; /* all 64 bits show in the lower 40 */
}

void net_tap_name(const char *root_id, const char *vm, const char *card, char name[NET_NAME_SIZE])
{
	(void)snprintf(name, NET_NAME_SIZE, "dt%010llx",
		       (unsigned long long)(card_hash(root_id, vm, card) & UINT64_C(0xffffffffff)));
}

static int bridge_get(const char *bridge, struct rtnl_link *ret_bridge, struct error *err)
{
	int r = rtnl_get(bridge, ret_bridge, err);

	if (r < 0)
		return r;
	if (r == 0)
		return error_set_class(
			err, ERROR_REFUSED, -ENODEV,
			"there is no bridge '%s' on this host; make it (ip link add "
			"name %s type bridge && ip link set %s up), name another with "
			"`bridge` in the definition, or use `network: user`",
			bridge, bridge, bridge);
	if (strcmp(ret_bridge->kind, "bridge") != 0)
		return error_refuse(err, "'%s' is no bridge%s%s; name a bridge in the definition",
				    bridge, ret_bridge->kind[0] ? " but a device of kind " : "",
				    ret_bridge->kind);
	return 0;
}

static int tun_open(const char *name, int *ret_fd, struct error *err)
{
	CLEANUP_FD int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };

	if (fd < 0)
		return error_set(err, -errno, "cannot open /dev/net/tun: %m%s",
				 errno == ENOENT || errno == ENODEV ? "; 'modprobe tun' loads it"
								    : "");
	(void)snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (ioctl(fd, TUNSETIFF, &request) < 0)
		return errno == EBUSY
			       ? error_set_class(err, ERROR_TRY_AGAIN, -EBUSY,
						 "tap '%s' is still open in another process", name)
			       : error_set(err, -errno, "cannot make tap '%s': %m", name);
	/* A left-over may have been made to stay. */
	if (ioctl(fd, TUNSETPERSIST, 0) < 0)
		return error_set(err, -errno, "cannot make tap '%s': %m", name);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* 0: the name is free or the device is ours. */
static int name_check(const char *name, const char *alias, struct error *err)
{
	struct rtnl_link link;
	int r = rtnl_get(name, &link, err);

	if (r <= 0)
		return r;
	/* One without an alias was made under this name, which nobody else makes up, and not
	 * finished. */
	if (link.alias[0] && strcmp(link.alias, alias) != 0)
		return error_refuse(err,
				    "network device '%s' is not ours ('%s'); remove it: ip "
				    "link del %s",
				    name, link.alias, name);
	return 0;
}

/* A bridge takes the lowest hardware address of its ports as its own, so the ports must not come
 * and go below it: fe: is above all that cards are sold with, and says "locally administered". */
static void tap_mac(const char *root_id, const char *vm, const char *card, uint8_t mac[6])
{
	uint64_t hash = card_hash(root_id, vm, card);

	mac[0] = 0xfe;
	for (int i = 1; i < 6; i++)
		mac[i] = (uint8_t)(hash >> 8 * (i - 1));
}

static int tap_setup(const char *name, const char *alias, const uint8_t mac[6],
		     const struct rtnl_link *bridge, struct error *err)
{
	struct rtnl_link tap;
	int r;

	r = rtnl_get(name, &tap, err);
	if (r < 0)
		return r;
	if (r == 0)
		return error_set(err, -ENODEV, "it has vanished");
	r = rtnl_adopt(tap.index, alias, mac, err);
	return r < 0 ? r : rtnl_attach(tap.index, bridge->index, bridge->mtu, err);
}

int net_tap_open(const char *root_id, const char *vm, const char *card, const char *bridge,
		 int *ret_fd, char ret_name[NET_NAME_SIZE], struct error *err)
{
	struct rtnl_link master = { 0 };
	char alias[RTNL_ALIAS_SIZE];
	char name[NET_NAME_SIZE];
	CLEANUP_FD int fd = -1;
	uint8_t mac[6];
	int r;

	net_tap_name(root_id, vm, card, name);
	tap_mac(root_id, vm, card, mac);
	r = snprintf(alias, sizeof(alias), "drover %s %s %s", root_id, vm, card);
	if (r < 0 || (size_t)r >= sizeof(alias))
		return error_bad_data(err, "card '%s' of VM %s: the names are too long", card, vm);
	r = bridge_get(bridge, &master, err);
	if (r == 0)
		r = name_check(name, alias, err);
	if (r == 0)
		r = tun_open(name, &fd, err);
	if (r < 0)
		return error_prefix(err, r, "card '%s' of VM %s", card, vm);
	r = tap_setup(name, alias, mac, &master, err);
	if (r < 0)
		return error_prefix(err, r, "card '%s' of VM %s: tap '%s' on bridge '%s'", card, vm,
				    name, bridge);
	*ret_fd = TAKE_FD(fd);
	memcpy(ret_name, name, NET_NAME_SIZE);
	return 0;
}

int net_link_exists(const char *name, struct error *err)
{
	struct rtnl_link link;

	return rtnl_get(name, &link, err);
}

int net_tap_remove(const char *root_id, const char *name, struct error *err)
{
	char ours[RTNL_ALIAS_SIZE];
	struct rtnl_link link;
	int r;

	r = rtnl_get(name, &link, err);
	if (r <= 0)
		return r;
	(void)snprintf(ours, sizeof(ours), "drover %s ", root_id);
	if (strncmp(link.alias, ours, strlen(ours)) != 0)
		return error_refuse(err, "network device '%s' is not ours (alias '%s')", name,
				    link.alias);
	return rtnl_delete(link.index, err);
}
