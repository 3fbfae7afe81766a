/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration of a node: the defaults of the table, what the host knows, and drover.yaml over
 * both.  A misspelt key is an error: a timer that is silently not set would be found out at night.
 */
#include "model/config.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/config-internal.h"
#include "model/definition.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"
#include "util/mem.h"
#include "wire/document.h"

#define CONFIG_SIZE_MAX (1u << 20)

static const struct key_place root_place;

static void config_freep(struct config **config)
{
	(void)config_free(*config);
}

struct config *config_free(struct config *config)
{
	if (!config)
		return NULL;
	paths_done(&config->paths);
	free(config->node);
	free(config->store);
	free(config->qemu_binary);
	free(config->qemu_data);
	free(config->probe_rom);
	free(config->accelerator);
	free(config->machine_type);
	free(config->cpu_model);
	free(config->host_dir);
	free(config->cluster_address);
	free(config->consul_address);
	free(config->consul_token_file);
	free(config->consul_ca_file);
	free(config->log_level);
	free(config->bridge_prefix);
	free(config->migration_address);
	json_decref(config->networks);
	json_decref(config->sources);
	free(config);
	return NULL;
}

int config_read_networks(const struct key_reader *reader, const struct key_place *place,
			 json_t *value, void *target, struct error *err)
{
	struct config *config = target;
	const char *network;
	json_t *entry;
	int r;

	json_object_foreach(value, network, entry)
	{
		const struct key_place inside = { .up = place, .name = network };

		r = key_read_map(reader, &inside, config_network_keys, entry, NULL, err);
		if (r < 0)
			return r;
	}
	json_decref(config->networks);
	config->networks = json_incref(value);
	return 0;
}

/* Line of each key that the file has, for `drover config`. */
static void record_sources(const struct document *document, const struct key *keys, json_t *tree,
			   const char *pointer, const char *prefix, json_t *sources)
{
	for (const struct key *key = keys; key->name; key++) {
		CLEANUP_FREE char *name = xasprintf("%s%s", prefix, key->name);
		CLEANUP_FREE char *inside = xasprintf("%s/%s", pointer, key->name);
		json_t *value = json_object_get(tree, key->name);
		unsigned line, column;

		if (!value)
			continue;
		if (key->type == KEY_MAP) {
			CLEANUP_FREE char *deeper = xasprintf("%s.", name);

			record_sources(document, key->inner, value, inside, deeper, sources);
			continue;
		}
		document_where(document, inside, &line, &column);
		(void)json_object_set_new(sources, name,
					  json_sprintf("%s:%u", document_label(document), line));
	}
}

static int read_document(struct config *config, const struct document *document, struct error *err)
{
	const struct key_reader reader = { .document = document, .strict = true };
	json_t *tree = document_root(document);
	int r;

	/* A file of nothing but comments. */
	if (json_is_null(tree))
		return 0;
	r = key_read_map(&reader, &root_place, config_keys, tree, config, err);
	if (r < 0)
		return r;
	record_sources(document, config_keys, tree, "", "", config->sources);
	return 0;
}

static int read_file(struct config *config, struct error *err)
{
	CLEANUP_FREE char *path = xasprintf("%s/drover.yaml", config->paths.etc);
	CLEANUP_FREE char *text = NULL;
	struct document **documents = NULL;
	struct error unread = { 0 };
	size_t length, count = 0;
	int r;

	if (access(path, F_OK) < 0 && errno == ENOENT)
		return 0;
	r = file_read(AT_FDCWD, path, CONFIG_SIZE_MAX, &text, &length, &unread);
	if (r < 0)
		return error_set_class(err, unread.class, r, "configuration: %s", unread.text);
	r = documents_parse(path, text, length, &documents, &count, err);
	if (r < 0)
		return r;
	if (count > 1)
		r = error_bad_data(err,
				   "%s: there are %zu documents in it; write one, without '---'",
				   path, count);
	else if (count == 1)
		r = read_document(config, documents[0], err);
	documents_free(documents, count);
	return r;
}

/* The host name up to its first dot, in lower case. */
static int name_node(struct config *config, struct error *err)
{
	static const char good[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
	char name[HOST_NAME_MAX + 1] = { 0 };

	if (gethostname(name, sizeof(name) - 1) < 0)
		return error_set(err, -errno, "cannot read the host name: %m");
	name[strcspn(name, ".")] = '\0';
	for (char *c = name; *c; c++)
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c - 'A' + 'a');
	if (name[0] == '\0' || name[0] == '-' || strlen(name) > 63 ||
	    name[strspn(name, good)] != '\0')
		return error_bad_data(
			err,
			"the host name '%s' cannot name a node; write node: NAME (a-z, "
			"0-9, '-') in %s/drover.yaml",
			name, config->paths.etc);
	config->node = xstrdup(name);
	(void)json_object_set_new(config->sources, "node", json_string("host name"));
	return 0;
}

int config_check_node(const char *name)
{
	static const char good[] = "abcdefghijklmnopqrstuvwxyz0123456789.-";
	size_t length = strlen(name);

	if (length == 0 || length > 63 || strspn(name, good) != length || name[0] == '.' ||
	    name[0] == '-')
		return -EINVAL;
	return 0;
}

static bool path_exists(const char *path)
{
	return access(path, F_OK) == 0;
}

/* In a build tree the ROM lies beside what was built; else where it is installed. */
static char *find_probe_rom(void)
{
	static const char *const beside[] = { "accel-probe.rom", "src/probe/accel-probe.rom",
					      "../probe/accel-probe.rom" };
	char program[PATH_MAX];
	ssize_t length;
	char *slash;

	length = readlink("/proc/self/exe", program, sizeof(program) - 1);
	program[length > 0 ? length : 0] = '\0';
	slash = strrchr(program, '/');
	for (size_t i = 0; slash && i < ARRAY_SIZE(beside); i++) {
		CLEANUP_FREE char *path = NULL;

		*slash = '\0';
		path = xasprintf("%s/%s", program, beside[i]);
		if (path_exists(path))
			return TAKE_PTR(path);
	}
	return xstrdup(DROVER_LIBEXECDIR "/accel-probe.rom");
}

static int check_together(const struct config *config, struct error *err)
{
	if (config->timers.backoff_max < config->timers.backoff_first)
		return error_bad_data(err,
				      "%s/drover.yaml: timers.backoff_max is shorter than "
				      "timers.backoff_first; write at least the same",
				      config->paths.etc);
	return 0;
}

int config_load(const char *root, struct config **ret_config, struct error *err)
{
	CLEANUP(config_freep) struct config *config = xcalloc(1, sizeof(*config));
	int r;

	r = paths_init(root, &config->paths, err);
	if (r < 0)
		return r;
	config->sources = json_object();
	config->networks = json_object();
	key_defaults(config_keys, config);
	r = read_file(config, err);
	if (r < 0)
		return r;
	if (!config->node) {
		r = name_node(config, err);
		if (r < 0)
			return r;
	}
	if (!config->store)
		config->store = xasprintf("local:%s/store.db", config->paths.lib);
	if (!config->probe_rom)
		config->probe_rom = find_probe_rom();
	if (!config->migration_address)
		config->migration_address =
			xstrdup(*config->cluster_address ? config->cluster_address : "127.0.0.1");
	r = check_together(config, err);
	if (r < 0)
		return r;
	*ret_config = TAKE_PTR(config);
	return 0;
}

int config_nic(const struct config *config, const struct definition_nic *nic,
	       enum nic_mode *ret_mode, char bridge[16], struct error *err)
{
	static const char *const modes[] = {
		[NIC_BRIDGE] = "bridge",
		[NIC_USER] = "user",
		[NIC_NONE] = "none",
	};
	const json_t *entry = json_object_get(config->networks, nic->network);
	const char *there = json_string_value(json_object_get(entry, "mode"));
	const char *name =
		nic->bridge ? nic->bridge : json_string_value(json_object_get(entry, "bridge"));
	CLEANUP_FREE char *made = NULL;
	enum nic_mode mode = nic->mode;

	if (!nic->mode_given && !nic->bridge && there)
		for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
			if (strcmp(modes[i], there) == 0)
				mode = (enum nic_mode)i;
	bridge[0] = '\0';
	if (mode == NIC_BRIDGE && !name)
		name = made = xasprintf("%s%s", config->bridge_prefix, nic->network);
	if (mode == NIC_BRIDGE && strlen(name) > 15)
		return error_bad_data(
			err,
			"the bridge of network '%s' would be called '%s', but Linux takes "
			"15 letters at most; name one under networks.%s.bridge in "
			"%s/drover.yaml",
			nic->network, name, nic->network, config->paths.etc);
	if (mode == NIC_BRIDGE)
		(void)strcpy(bridge, name);
	*ret_mode = mode;
	return 0;
}

static json_t *value_json(const struct key *key, const struct config *config)
{
	CLEANUP(text_done) struct text text = { 0 };
	const void *at = (const char *)config + key->offset;

	if (key->type == KEY_NAMED)
		return json_incref(config->networks);
	switch (key->store) {
	case STORE_COPY:
		return json_string(*(char *const *)at);
	case STORE_BOOL:
		return json_boolean(*(const bool *)at);
	case STORE_UNSIGNED:
		return json_integer((json_int_t) * (const unsigned *)at);
	case STORE_U64:
		if (key->type == KEY_DURATION)
			key_print_duration(*(const uint64_t *)at, &text);
		else if (key->type == KEY_SIZE)
			key_print_size(*(const uint64_t *)at, &text);
		else
			return json_integer((json_int_t) * (const uint64_t *)at);
		return json_string(text.text);
	default:
		return json_null();
	}
}

static void list_values(const struct key *keys, const struct config *config, const char *prefix,
			json_t *all)
{
	for (const struct key *key = keys; key->name; key++) {
		CLEANUP_FREE char *name = xasprintf("%s%s", prefix, key->name);
		json_t *source = json_object_get(config->sources, name);

		if (key->type == KEY_MAP) {
			CLEANUP_FREE char *deeper = xasprintf("%s.", name);

			list_values(key->inner, config, deeper, all);
			continue;
		}
		(void)json_object_set_new(
			all, name,
			json_pack("{s:o, s:o}", "value", value_json(key, config), "source",
				  source ? json_incref(source) : json_string("default")));
	}
}

json_t *config_json(const struct config *config)
{
	json_t *all = json_object();

	list_values(config_keys, config, "", all);
	return all;
}

void config_reference(struct text *ret)
{
	static const char head[] =
		"# Configuration of a node\n\n"
		"<!-- Printed from the table in src/model/config-keys.c; do not edit.  To print it "
		"anew,\n     run build/tests/unit/test-config --write-docs -->\n\n"
		"`etc/drover/drover.yaml`; every key may be left out, and so may the file. With "
		"`--root DIR` or `DROVER_ROOT`\nit is read below that directory. A key that is not "
		"known is refused. `drover config` prints each\neffective value and where it came "
		"from.\n\n"
		"```yaml\nnode: alpha\nnetworks:\n  srv: {bridge: br0}\ntimers:\n"
		"  graceful_stop: 120s\n```\n\n";

	text_add(ret, head, sizeof(head) - 1);
	key_reference(config_keys, "", ret);
	for (const struct key *key = config_keys; key->name; key++) {
		CLEANUP_FREE char *prefix = xasprintf("%s.", key->name);

		if (key->type != KEY_MAP && key->type != KEY_NAMED)
			continue;
		text_addf(ret, "\n## %s\n\n%s\n\n", key->name, key->meaning);
		if (key->type == KEY_NAMED)
			text_addf(ret, "Each entry is `NETWORK: {...}` with:\n\n");
		key_reference(key->inner, key->type == KEY_NAMED ? "" : prefix, ret);
	}
}
