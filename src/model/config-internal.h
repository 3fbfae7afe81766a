/* SPDX-License-Identifier: Apache-2.0 */
/* The table of the configuration, for config.c and the reference. */
#pragma once
#include "model/key.h"

extern const struct key config_keys[];
extern const struct key config_network_keys[]; /* of an entry of `networks` */
int config_read_networks(const struct key_reader *reader, const struct key_place *place,
			 json_t *value, void *target, struct error *err);
