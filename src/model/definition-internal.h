/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of the definition: its tables and the readers that the tables name. */
#pragma once
#include "model/definition.h"
#include "model/key.h"

extern const struct key definition_keys[];
extern const struct key definition_parameter_keys[];
extern const struct key definition_volume_keys[];
extern const struct key definition_nic_keys[];
extern const struct key definition_interface_keys[];

typedef int definition_read_fn(const struct key_reader *reader, const struct key_place *place,
			       json_t *value, void *target, struct error *err);
definition_read_fn definition_read_volumes; /* the target of each is the struct definition */
definition_read_fn definition_read_nics;
definition_read_fn definition_read_interfaces;
definition_read_fn definition_read_uuid, definition_read_firmware;
definition_read_fn definition_read_environment_class;
definition_read_fn definition_read_mac; /* target: struct definition_nic */
definition_read_fn definition_read_networks, definition_read_gateways; /* no target */

/* A text made from others, kept as long as the definition. */
const char *definition_keep(struct definition *definition, char *text);

/* After everything was read: what needs more than one key. */
int definition_finish_volumes(const struct key_reader *reader, const struct key_place *parameters,
			      struct definition *definition, struct error *err);
int definition_finish_nics(const struct key_reader *reader, const struct key_place *parameters,
			   struct definition *definition, struct error *err);
