/* SPDX-License-Identifier: Apache-2.0 */
/* The disks of a definition: each volume by its table, then what needs more than one key. */
#include <errno.h>
#include <string.h>

#include "model/definition-internal.h"
#include "util/error.h"

enum { FORMAT_RAW, FORMAT_QCOW2 }; /* enum volume_format */

/* Keys that do not go together: two ways to say where the bytes come from. */
static int check_origin(const struct key_reader *reader, const struct key_place *place,
			const json_t *value, const struct definition_volume *volume,
			struct error *err)
{
	const struct key_place at_source = { .up = place, .name = "source" };
	const struct key_place at_overlay = { .up = place, .name = "overlay" };
	const struct key_place at_size = { .up = place, .name = "size" };
	const struct key_place at_format = { .up = place, .name = "format" };

	if (volume->path && volume->source)
		return key_wrong(
			reader, &at_source, err,
			"'path' and 'source' exclude each other; write path to use a file or "
			"device as it is, or source to start a new volume from an image");
	if (volume->path && json_object_get(value, "size"))
		return key_wrong(reader, &at_size, err,
				 "a volume with 'path' has the size that it has; leave out size");
	if (volume->overlay && !volume->source)
		return key_wrong(
			reader, &at_overlay, err,
			"an overlay needs something to lie on; write source: /path/of/image "
			"beside it");
	if (volume->overlay && volume->format != FORMAT_QCOW2)
		return key_wrong(reader, &at_format, err,
				 "an overlay is always qcow2; write qcow2 or leave out format");
	return 0;
}

/* Linux native AIO blocks, or is refused by QEMU, unless the host's cache is off. */
static int check_aio(const struct key_reader *reader, const struct key_place *place,
		     const struct definition_volume *volume, struct error *err)
{
	const struct key_place at_aio = { .up = place, .name = "aio" };

	if (strcmp(volume->aio, "native") == 0 && strcmp(volume->cache, "none") != 0 &&
	    strcmp(volume->cache, "directsync") != 0)
		return key_wrong(reader, &at_aio, err,
				 "native does not work with cache: %s; write cache: none or "
				 "directsync, or aio: threads",
				 volume->cache);
	return 0;
}

static int read_volume(const struct key_reader *reader, const struct key_place *place,
		       json_t *value, struct definition_volume *volume, struct error *err)
{
	int r;

	key_defaults(definition_volume_keys, volume);
	r = key_read_map(reader, place, definition_volume_keys, value, volume, err);
	if (r < 0)
		return r;
	if (!volume->name)
		return key_wrong(reader, place, err,
				 "the volume has no name; write name: root (or data, ...)");
	if (volume->overlay && !json_object_get(value, "format"))
		volume->format = FORMAT_QCOW2;
	r = check_origin(reader, place, value, volume, err);
	if (r < 0)
		return r;
	return check_aio(reader, place, volume, err);
}

static const struct definition_volume *find_volume(const struct definition *definition,
						   const char *name)
{
	for (size_t i = 0; i < definition->n_volumes; i++)
		if (strcmp(definition->volumes[i].name, name) == 0)
			return &definition->volumes[i];
	return NULL;
}

int definition_read_volumes(const struct key_reader *reader, const struct key_place *place,
			    json_t *value, void *target, struct error *err)
{
	struct definition *definition = target;
	int r;

	if (json_array_size(value) > DEFINITION_VOLUMES_MAX)
		return key_wrong(reader, place, err, "%zu volumes are too many; write at most %d",
				 json_array_size(value), DEFINITION_VOLUMES_MAX);
	for (size_t i = 0; i < json_array_size(value); i++) {
		const struct key_place inside = { .up = place, .index = i };
		const struct key_place at_name = { .up = &inside, .name = "name" };
		struct definition_volume volume = { 0 };

		r = read_volume(reader, &inside, json_array_get(value, i), &volume, err);
		if (r < 0)
			return r;
		if (find_volume(definition, volume.name))
			return key_wrong(
				reader, &at_name, err,
				"'%s' is the name of an earlier volume too; write another one",
				volume.name);
		definition->volumes[definition->n_volumes++] = volume;
	}
	return 0;
}

/* `disk: N`: the size of root, which is made, as the first disk, when nobody listed it. */
static int apply_disk(const struct key_reader *reader, const struct key_place *parameters,
		      struct definition *definition, uint64_t size, struct error *err)
{
	const struct key_place at_disk = { .up = parameters, .name = "disk" };
	struct definition_volume *root = (void *)find_volume(definition, "root");

	if (!root) {
		if (definition->n_volumes == DEFINITION_VOLUMES_MAX)
			return key_wrong(
				reader, &at_disk, err,
				"the volume root of 'disk' would be one more than %d; leave "
				"out disk or a volume",
				DEFINITION_VOLUMES_MAX);
		root = definition->volumes;
		memmove(root + 1, root, definition->n_volumes * sizeof(*root));
		definition->n_volumes++;
		*root = (struct definition_volume){ .name = "root" };
		key_defaults(definition_volume_keys, root);
	}
	if (root->path)
		key_note(reader, &at_disk, "no effect: the volume root is '%s' as it is",
			 root->path);
	else if (root->size == 0)
		root->size = size;
	return 0;
}

static int check_boot(const struct key_reader *reader, const struct key_place *parameters,
		      const struct definition *definition, struct error *err)
{
	const struct key_place at_boot = { .up = parameters, .name = "boot" };

	if (!definition->boot || find_volume(definition, definition->boot))
		return 0;
	if (definition->n_volumes == 0)
		return key_wrong(reader, &at_boot, err,
				 "there is no volume to boot from; write disk: 5, or volumes");
	return key_wrong(reader, &at_boot, err,
			 "'%s' is none of the volumes; write the name of one, as in %s",
			 definition->boot, definition->volumes[0].name);
}

int definition_finish_volumes(const struct key_reader *reader, const struct key_place *parameters,
			      struct definition *definition, struct error *err)
{
	const json_t *tree = json_object_get(definition->tree, "parameters");
	const json_t *disk = json_object_get(tree, "disk");
	const struct key_place list = { .up = parameters, .name = "volumes" };
	int r;

	for (size_t i = 0; i < definition->n_volumes; i++) {
		const struct definition_volume *volume = &definition->volumes[i];
		const struct key_place place = { .up = &list, .index = i };

		if (volume->size == 0 && !volume->source && !volume->path &&
		    !(disk && strcmp(volume->name, "root") == 0))
			return key_wrong(
				reader, &place, err,
				"the volume '%s' has no size; write size: 5G, or source or "
				"path",
				volume->name);
	}
	if (disk) {
		r = apply_disk(reader, parameters, definition,
			       (uint64_t)json_integer_value(disk) << 30, err);
		if (r < 0)
			return r;
	}
	return check_boot(reader, parameters, definition, err);
}
