/* SPDX-License-Identifier: Apache-2.0 */
/* What only this host sees, and the command line: hardware + binding.  QEMU opens no file and no
 * socket of its own: everything reaches it as a descriptor, so it can run without rights. */
#include "qemu/hardware.h"

#include <errno.h>
#include <string.h>

#include "model/definition.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"

#define SERIAL_LOG_SET 1
#define SANDBOX "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

struct binding {
	const struct binding_input *input;
	struct sections sections;
	int next_set;
};

static struct section *add(struct binding *binding, const char *group, const char *id)
{
	return sections_add(&binding->sections, group, id);
}

/* Every set carries the token: whoever looks for this VM's processes finds it there (I5). */
static int add_set(struct binding *binding, int fd)
{
	struct section *section = add(binding, "add-fd", NULL);

	section_setf(section, "fd", "%d", fd);
	section_setf(section, "set", "%d", binding->next_set);
	section_set(section, "opaque", binding->input->token);
	return binding->next_set++;
}

static struct section *add_socket(struct binding *binding, const char *id, int fd)
{
	struct section *section = add(binding, "chardev", id);

	section_set(section, "backend", "socket");
	section_setf(section, "fd", "%d", fd);
	section_set(section, "server", "on");
	section_set(section, "wait", "off");
	return section;
}

/* The log is written by QEMU itself: it must outlive us. */
static void add_channels(struct binding *binding)
{
	const struct binding_input *input = binding->input;
	struct section *section;
	int set = add_set(binding, input->serial_log_fd);

	add_socket(binding, "qmp", input->monitor_fd);
	section = add(binding, "mon", NULL);
	section_set(section, "chardev", "qmp");
	section_set(section, "mode", "control");
	section = add_socket(binding, "serial0", input->serial_fd);
	section_setf(section, "logfile", "/dev/fdset/%d", set);
	section_set(section, "logappend", "on");
	add_socket(binding, "agent0", input->agent_fd);
}

bool binding_is_direct(const struct binding_volume *volume)
{
	return strcmp(volume->cache, "none") == 0 || strcmp(volume->cache, "directsync") == 0;
}

static void set_cache(struct section *section, const struct binding_volume *volume)
{
	const char *cache = volume->cache;

	section_set(section, "cache.direct", binding_is_direct(volume) ? "on" : "off");
	section_set(section, "cache.no-flush", strcmp(cache, "unsafe") == 0 ? "on" : "off");
}

static char *node_name(const struct binding_volume *volume, size_t layer, const char *suffix)
{
	return layer == 0 ? xasprintf("vol-%s%s", volume->name, suffix)
			  : xasprintf("vol-%s-%zu%s", volume->name, layer, suffix);
}

static void add_layer(struct binding *binding, const struct binding_volume *volume, size_t layer)
{
	CLEANUP_FREE char *file = node_name(volume, layer, "-file");
	CLEANUP_FREE char *node = node_name(volume, layer, "");
	bool read_only = volume->read_only || layer > 0;
	int set = add_set(binding, volume->fds[layer]);
	struct section *section = add(binding, "blockdev", file);

	section_set(section, "driver", "file");
	section_setf(section, "filename", "/dev/fdset/%d", set);
	section_set(section, "aio", volume->aio);
	section_set(section, "read-only", read_only ? "on" : "off");
	section_set(section, "discard", "unmap");
	set_cache(section, volume);
	section = add(binding, "blockdev", node);
	section_set(section, "driver", volume->formats[layer]);
	section_set(section, "file", file);
	section_set(section, "read-only", read_only ? "on" : "off");
	section_set(section, "discard", "unmap");
	set_cache(section, volume);
	if (layer + 1 < volume->n_layers) {
		CLEANUP_FREE char *below = node_name(volume, layer + 1, "");

		section_set(section, "backing", below);
	} else if (strcmp(volume->formats[layer], "raw") != 0) {
		/* Else QEMU would open whatever the image's header names. */
		json_object_set_new(section->props, "backing", json_null());
	}
}

static int add_volume(struct binding *binding, const struct binding_volume *volume,
		      struct error *err)
{
	if (volume->n_layers == 0 || volume->n_layers > ARRAY_SIZE(volume->fds))
		return error_set(err, -EINVAL, "volume '%s' has %zu layers", volume->name,
				 volume->n_layers);
	if (strcmp(volume->aio, "native") == 0 && !binding_is_direct(volume))
		return error_refuse(err,
				    "volume '%s': aio native works only with cache none, not "
				    "with %s; use aio: threads",
				    volume->name, volume->cache);
	for (size_t layer = volume->n_layers; layer-- > 0;)
		add_layer(binding, volume, layer);
	return 0;
}

static bool has_cable(const struct binding_nic *nic)
{
	return nic->user || nic->tap_fd >= 0;
}

static void add_nic(struct binding *binding, const struct binding_nic *nic)
{
	CLEANUP_FREE char *id = xasprintf("net-%s", nic->name);
	struct section *section;

	if (!has_cable(nic))
		return;
	section = add(binding, "netdev", id);
	section_set(section, "type", nic->user ? "user" : "tap");
	if (nic->user)
		return;
	section_setf(section, "fd", "%d", nic->tap_fd);
	section_set(section, "vhost", "off");
}

/* The record names the cable of each card, and there may be none: "net-srv" without a netdev. */
static void unplug_cards(struct sections *all)
{
	for (size_t i = 0; i < all->count; i++) {
		const char *netdev = section_get(&all->items[i], "netdev");

		if (section_is(&all->items[i], "device") && netdev &&
		    !sections_find(all, "netdev", netdev))
			section_set(&all->items[i], "netdev", NULL);
	}
}

static int add_all(struct binding *binding, struct error *err)
{
	const struct binding_input *input = binding->input;
	struct section *section = add(binding, "name", NULL);
	int r = 0;

	section_set(section, "guest", input->vm);
	section_setf(section, "process", "vm.%s", input->vm);
	add_channels(binding);
	for (size_t i = 0; i < input->n_volumes && r == 0; i++)
		r = add_volume(binding, &input->volumes[i], err);
	for (size_t i = 0; i < input->n_nics; i++)
		add_nic(binding, &input->nics[i]);
	return r;
}

static void add_pair(struct strv *argv, const char *option, const char *value)
{
	if (!value || !*value)
		return;
	strv_add(argv, option);
	strv_add(argv, value);
}

/* Options that are no sections. */
static void add_options(const struct binding_input *input, struct strv *argv)
{
	strv_add(argv, input->binary);
	add_pair(argv, "-L", input->data_dir);
	strv_add(argv, "-nodefaults");
	strv_add(argv, "-no-user-config");
	strv_add(argv, "-S");
	add_pair(argv, "-incoming", input->incoming ? "defer" : NULL);
	strv_add(argv, "-only-migratable");
	add_pair(argv, "-display", "none");
	add_pair(argv, "-vga", "none");
	add_pair(argv, "-sandbox", SANDBOX);
	/* The end of a guest is a state to be seen, not an exit status to be lost. */
	add_pair(argv, "-action", "shutdown=pause,panic=pause");
	add_pair(argv, "-uuid", input->hardware->uuid);
	add_pair(argv, "-bios", input->firmware_path);
	add_pair(argv, "-kernel", input->kernel_path);
	add_pair(argv, "-initrd", input->initrd_path);
}

int qemu_command_line(const struct binding_input *input, struct strv *ret_argv, struct error *err)
{
	struct binding binding = { .input = input, .next_set = SERIAL_LOG_SET };
	CLEANUP(strv_done) struct strv argv = { 0 };
	const struct sections *hardware = &input->hardware->sections;
	int r;

	if (input->monitor_fd < 0 || input->agent_fd < 0 || input->serial_fd < 0 ||
	    input->serial_log_fd < 0)
		return error_set(err, -EBADF,
				 "a descriptor for monitor, agent or console is missing");
	r = add_all(&binding, err);
	for (size_t i = 0; i < hardware->count && r == 0; i++)
		sections_copy(&binding.sections, &hardware->items[i]);
	if (r == 0 && input->template_binding) {
		r = template_merge(&binding.sections, input->template_binding, err);
		if (r < 0)
			error_prefix(err, r, "the site's template qemu.cfg.in");
	}
	if (r == 0) {
		unplug_cards(&binding.sections);
		add_options(input, &argv);
		r = sections_argv(&binding.sections, &argv, err);
	}
	sections_done(&binding.sections);
	if (r < 0)
		return r;
	*ret_argv = argv;
	argv = (struct strv){ 0 };
	return 0;
}
