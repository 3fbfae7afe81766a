/* SPDX-License-Identifier: Apache-2.0 */
/* QEMU's own account of its devices: the text of the monitor command `info qtree`.  It is the only
 * way to learn type, bus, address and properties of all devices with one request; QMP's commands
 * cost half a millisecond for each single property. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

struct error;

/* {ID: {"type": ..., "bus": ..., "props": {NAME: VALUE, ...}}, ...} for devices with an id; the
 * properties of nameless parts (a virtio device inside of its PCI card) count as the owner's.
 * Values as QEMU writes them, but without quotes. */
int tree_parse(const char *text, json_t **ret_devices, struct error *err);

/* Is the value of a tree ("srv", "on", "true", "4 (0x4)") the one that was asked for on
 * the command line ("srv", "on", "on", "0x4")? */
bool tree_value_equal(const char *in_tree, const char *asked);
