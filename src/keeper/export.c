/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/export.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "keeper/keeper.h"
#include "keeper/ownership.h"
#include "keeper/psk.h"
#include "keeper/script.h"
#include "model/config.h"
#include "util/cleanup.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/tcp.h"

#define LISTENER "nbd-listen"

struct export
{
	unsigned port;
	json_t *volumes;
};

/* Exactly those that start.c prepared as arriving. */
static bool arrives(const struct keeper *keeper, const struct definition_volume *volume)
{
	return keeper->ownership->record.home[0] && !volume->read_only;
}

static void add_exports(const struct keeper *keeper, struct export *export, struct script *script)
{
	const struct definition *def = keeper->want.definition;

	for (size_t i = 0; i < def->n_volumes; i++) {
		const char *name = def->volumes[i].name;
		CLEANUP_FREE char *id = xasprintf("exp-%s", name);
		CLEANUP_FREE char *node = xasprintf("vol-%s", name);

		if (!arrives(keeper, &def->volumes[i]))
			continue;
		json_array_append_new(export->volumes, json_string(name));
		script_add(script, "block-export-add",
			   json_pack("{s:s, s:s, s:s, s:s, s:b}", "type", "nbd", "id", id,
				     "node-name", node, "name", name, "writable", 1));
	}
}

static bool any_arrives(const struct keeper *keeper)
{
	const struct definition *def = keeper->want.definition;

	for (size_t i = 0; i < def->n_volumes; i++)
		if (arrives(keeper, &def->volumes[i]))
			return true;
	return false;
}

int export_begin(struct keeper *keeper, struct script *script, struct export **ret,
		 struct error *err)
{
	const char *host = keeper->config->migration_address;
	CLEANUP_FREE char *address =
		strchr(host, ':') ? xasprintf("[%s]:0", host) : xasprintf("%s:0", host);
	CLEANUP_FD int listener = -1;
	struct export *export;

	*ret = NULL;
	if (!any_arrives(keeper))
		return 0;
	listener = tcp_listen(address, err);
	if (listener < 0)
		return listener;
	export = xcalloc(1, sizeof(*export));
	export->port = tcp_port(listener);
	export->volumes = json_array();
	script_add_fd(script, LISTENER, TAKE_FD(listener));
	script_add(script, "nbd-server-start",
		   json_pack("{s:{s:s, s:{s:s}}, s:s}", "addr", "type", "fd", "data", "str",
			     LISTENER, "tls-creds", PSK_ID));
	add_exports(keeper, export, script);
	*ret = export;
	return 0;
}

void export_end(struct export *export, struct script *script)
{
	if (export)
		script_add(script, "nbd-server-stop", NULL);
}

struct export *export_free(struct export *export)
{
	if (!export)
		return NULL;
	json_decref(export->volumes);
	free(export);
	return NULL;
}

json_t *export_json(const struct export *export)
{
	if (!export)
		return json_null();
	return json_pack("{s:i, s:O}", "port", (int)export->port, "volumes", export->volumes);
}
