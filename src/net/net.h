/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of a guest's network cards: a tap device on a bridge, opened here and handed to QEMU,
 * which needs no right to any network.  Netlink by hand through libmnl: one file, net/rtnl.c. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

#define NET_NAME_SIZE 16 /* IFNAMSIZ */

/* Name of the tap of a VM's card: at most 15 bytes whatever the VM is called, the same at every
 * call, different per root: "dt" + 10 hex digits of a hash of (root id, vm, card). */
void net_tap_name(const char *root_id, const char *vm, const char *card, char name[NET_NAME_SIZE]);

/* Makes (or takes over a left-over of ours) a tap, sets alias "drover ROOT_ID VM CARD", MTU of the
 * bridge, no IPv6 address of the host on it, master bridge, up; returns its descriptor (owned;
 * IFF_VNET_HDR, IFF_NO_PI, one queue).  Removed by the kernel when the last descriptor closes, as
 * it is not persistent.  -ENODEV: there is no such bridge: the sentence tells how to make it or to
 * use `network: user`. */
int net_tap_open(const char *root_id, const char *vm, const char *card, const char *bridge,
		 int *ret_fd, char ret_name[NET_NAME_SIZE], struct error *err);

/* 1 exists, 0 not, negative error. */
int net_link_exists(const char *name, struct error *err);
/* Removes a tap whose alias says that it is ours; absent is success, somebody else's is refused. */
int net_tap_remove(const char *root_id, const char *name, struct error *err);
