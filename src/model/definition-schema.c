/* SPDX-License-Identifier: Apache-2.0 */
/* The definition's tables as documentation: a JSON schema for editors, Markdown for people. */
#include <assert.h>
#include <string.h>

#include "model/definition-internal.h"
#include "util/mem.h"

json_t *definition_schema(void)
{
	json_t *map = key_schema_map(definition_keys, false);
	json_t *schema = json_pack(
		"{s:s, s:s, s:s, s:[s]}", "$schema", "https://json-schema.org/draft/2020-12/schema",
		"title", "Drover: definition of a VM", "description",
		"Printed from the tables in src/model/definition-keys.c; do not edit.", "required",
		"name");
	json_t *volumes;

	assert(map && schema);
	volumes = json_object_get(
		json_object_get(json_object_get(json_object_get(map, "properties"), "parameters"),
				"properties"),
		"volumes");
	(void)json_object_set_new(json_object_get(volumes, "items"), "required",
				  json_pack("[s]", "name"));
	(void)json_object_update_new(schema, map);
	return schema;
}

void definition_reference(struct text *ret)
{
	static const char head[] =
		"# The definition of a VM\n\n"
		"<!-- Printed from the tables in src/model/definition-keys.c; do not edit.  To "
		"print "
		"it anew,\n     run build/tests/unit/test-definition --write-docs -->\n\n"
		"A YAML file in `etc/drover/vms/`, or given to `drover apply`. Nothing but `name` "
		"is "
		"required:\n\n"
		"```yaml\nname: web01\nparameters:\n  memory: 1024\n  disk: 10\n"
		"  nics: [{network: srv}]\n```\n\n"
		"YAML is read as version 1.2: `true` and `false` are the only booleans, `yes` and "
		"`on` "
		"are text. A number in\nquotes is text too. Unknown keys are kept and "
		"warned about; wrong values are refused, with file, line\nand column. fc.qemu's "
		"definitions load unchanged.\n\n";

	text_add(ret, head, sizeof(head) - 1);
	key_reference(definition_keys, "", ret);
	text_addf(ret, "\n## Parameters\n\n");
	key_reference(definition_parameter_keys, "parameters.", ret);
	text_addf(ret, "\n## Volumes\n\nEach entry of `parameters.volumes`:\n\n");
	key_reference(definition_volume_keys, "", ret);
	text_addf(ret, "\n`disk: N` alone is one volume `root` of N GiB. `path` excludes `source` "
		       "and `size`; `overlay` needs\n`source`. A `source` that lies on "
		       "another image is refused, unless it is the source of an overlay and the "
		       "other\nis in the same directory; `qemu-img convert` makes one image of "
		       "both. Who may write a definition may read\nand write any file of the "
		       "host by it: see [SECURITY.md](SECURITY.md).\n"
		       "\n## Network cards\n\nEach entry of `parameters.nics` (or the short form "
		       "`{NETWORK: MAC}`):\n\n");
	key_reference(definition_nic_keys, "", ret);
	text_addf(ret, "\nA guest with `mode: user` (or network `user`) reaches whatever the host "
		       "itself listens for on 127.0.0.1,\nas 10.0.2.2: databases, agents, "
		       "metrics. Give such a card to guests that you trust with that.\n");
	text_addf(ret,
		  "\n## Interfaces\n\nThe same by network, as fc.qemu writes it. Each entry of "
		  "`parameters.interfaces`:\n\n");
	key_reference(definition_interface_keys, "", ret);
}
