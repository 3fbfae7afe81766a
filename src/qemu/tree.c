/* SPDX-License-Identifier: Apache-2.0 */
#include "qemu/tree.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"

/* The text, two blanks to a level:
 *
 *	bus: pcie.0
 *	  type PCIE
 *	  dev: pcie-root-port, id "rp0"
 *	    addr = 10.0
 *	    bus: rp0
 *	      type PCIE
 *	      dev: virtio-net-pci, id "nic-srv"
 *	        addr = 00.0
 *	        bus: virtio-bus
 *	          dev: virtio-net-device, id ""
 *	            mac = "52:54:00:00:00:01"
 */
#define DEPTH_MAX 64

struct level {
	char *bus;	/* name, when this level is a bus */
	json_t *device; /* borrowed; NULL for a nameless one of nobody's */
};

struct tree {
	json_t *devices;
	struct level levels[DEPTH_MAX];
};

static void level_set(struct level *level, char *bus, json_t *device)
{
	free(level->bus);
	level->bus = bus;
	level->device = device;
}

/* TYPE, id "ID" */
static void read_device(struct tree *tree, size_t depth, const char *text)
{
	const char *id = strstr(text, ", id \""), *end = id ? strrchr(id, '"') : NULL;
	CLEANUP_FREE char *type = NULL, *name = NULL;
	json_t *device;

	if (!id || depth == 0 || end <= id + 5)
		return;
	type = xasprintf("%.*s", (int)(id - text), text);
	name = xasprintf("%.*s", (int)(end - id - 6), id + 6);
	if (!*name) {
		/* part of the device that owns the bus it is on, if that one has a name */
		device = depth >= 2 ? tree->levels[depth - 2].device : NULL;
		level_set(&tree->levels[depth], NULL, device);
		return;
	}
	device = json_object();
	json_set_string(device, "type", type);
	json_set_string(device, "bus", tree->levels[depth - 1].bus);
	json_object_set_new(device, "props", json_object());
	json_object_set_new(tree->devices, name, device);
	level_set(&tree->levels[depth], NULL, device);
}

/* KEY = VALUE */
static void read_property(struct tree *tree, size_t depth, const char *text)
{
	const char *equal = strstr(text, " = ");
	json_t *device = depth > 0 ? tree->levels[depth - 1].device : NULL;
	json_t *props = json_object_get(device, "props");
	CLEANUP_FREE char *key = NULL;
	const char *value;
	size_t length;

	if (!equal || !props)
		return;
	key = xasprintf("%.*s", (int)(equal - text), text);
	value = equal + 3;
	length = strlen(value);
	if (length >= 2 && *value == '"' && value[length - 1] == '"') {
		value++;
		length -= 2;
	}
	if (!json_object_get(props, key))
		json_object_set_new(props, key, json_text(value, length));
}

static void read_line(struct tree *tree, const char *line)
{
	size_t blanks = strspn(line, " "), depth = blanks / 2;
	const char *text = line + blanks;

	if (depth >= DEPTH_MAX)
		return;
	if (strncmp(text, "bus: ", 5) == 0)
		level_set(&tree->levels[depth], xstrdup(text + 5),
			  depth > 0 ? tree->levels[depth - 1].device : NULL);
	else if (strncmp(text, "dev: ", 5) == 0)
		read_device(tree, depth, text + 5);
	else
		read_property(tree, depth, text);
}

int tree_parse(const char *text, json_t **ret_devices, struct error *err)
{
	struct tree tree = { .devices = json_object() };

	while (*text) {
		size_t length = strcspn(text, "\r\n");
		CLEANUP_FREE char *line = xasprintf("%.*s", (int)length, text);

		read_line(&tree, line);
		text += length + strspn(text + length, "\r\n");
	}
	for (size_t i = 0; i < DEPTH_MAX; i++)
		free(tree.levels[i].bus);
	if (json_object_size(tree.devices) == 0) {
		json_decref(tree.devices);
		return error_bad_data(err,
				      "QEMU's list of devices (info qtree) cannot be read: this "
				      "QEMU writes it in a form that is not known here");
	}
	*ret_devices = tree.devices;
	return 0;
}

static int is_true(const char *value) /* -1: no boolean */
{
	if (strcmp(value, "on") == 0 || strcmp(value, "true") == 0)
		return 1;
	if (strcmp(value, "off") == 0 || strcmp(value, "false") == 0)
		return 0;
	return -1;
}

static bool same_number(const char *in_tree, const char *asked)
{
	char *end_tree, *end_asked;
	unsigned long long a, b;

	if (!isdigit((unsigned char)*in_tree) || !isdigit((unsigned char)*asked))
		return false;
	a = strtoull(in_tree, &end_tree, 0);
	b = strtoull(asked, &end_asked, 0);
	return a == b && *end_asked == '\0' && (*end_tree == '\0' || *end_tree == ' ');
}

bool tree_value_equal(const char *in_tree, const char *asked)
{
	if (strcasecmp(in_tree, asked) == 0)
		return true;
	if (is_true(in_tree) >= 0 && is_true(in_tree) == is_true(asked))
		return true;
	return same_number(in_tree, asked);
}
