/* SPDX-License-Identifier: Apache-2.0 */
/* A QEMU configuration as a list of sections, the shape of QEMU's -readconfig files:
 *
 *	[device "disk-root"]		group "device", id "disk-root"
 *	  driver = "virtio-blk-pci"
 *
 * Everything that we tell QEMU is such a section.  Guest-visible groups are `hardware` and are kept
 * in the hardware record; the others are `binding` and made anew at each start. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

struct error;
struct strv;

struct section {
	char *group;   /* "machine", "cpu", "smp-opts", "memory", "device", "object", "global",
			* "chardev", "netdev", "blockdev", "add-fd", "mon", ... */
	char *id;      /* or NULL for groups that exist once */
	json_t *props; /* object of strings; owned.  In a blockdev null is possible: no backing file
			*/
};

struct sections {
	struct section *items;
	size_t count;
};

/* The section stays where it is only until the next sections_add() or sections_remove(). */
struct section *sections_add(struct sections *sections, const char *group, const char *id);
/* A copy of `section`, with properties of its own. */
struct section *sections_copy(struct sections *sections, const struct section *section);
struct section *sections_find(const struct sections *sections, const char *group, const char *id);
void sections_remove(struct sections *sections, const char *group, const char *id);
void section_set(struct section *section, const char *key, const char *value); /* NULL: remove */
void section_setf(struct section *section, const char *key, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
const char *section_get(const struct section *section, const char *key); /* NULL: absent */
void sections_done(struct sections *sections);

bool section_is(const struct section *section, const char *group);
/* Is this group seen by the guest? (the split of DESIGN 1.3) */
bool section_is_hardware(const char *group);
bool section_is_known(const char *group);
/* Groups that may stand there many times without an id ("global", "numa", ...). */
bool section_is_list(const char *group);

/* [{"group": ..., "id": ..., "props": {...}}, ...] and back. */
json_t *sections_json(const struct sections *sections);
int sections_parse(json_t *array, struct sections *ret, struct error *err);

/* Adds "-device", "virtio-blk-pci,id=disk-root,..." for each section, in a fixed order of groups
 * (what others refer to first).  Within a section the name comes first, then the keys by alphabet,
 * so that a record gives the same text however it was stored.  Commas in values are doubled, as
 * QEMU wants. */
int sections_argv(const struct sections *sections, struct strv *argv, struct error *err);

/* A site's template (etc/drover/qemu.cfg.in): -readconfig syntax with {variables}; messages carry
 * FILE:LINE.  `vars` is an object of strings; an unknown variable is refused with the list. */
int template_parse(const char *label, const char *text, json_t *vars, struct sections *ret,
		   struct error *err);
/* Merges: a section of the same group and id replaces the keys that it names (value "" removes
 * one; the single key `remove = "on"` removes the section); others are added.  Refused: devices
 * without id, or PCI devices without bus and addr; groups that would break the keeper's promises
 * (mon, sandbox, run-with, add-fd, incoming, daemonize). */
int template_merge(struct sections *into, const struct sections *site, struct error *err);
