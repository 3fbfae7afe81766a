/* SPDX-License-Identifier: Apache-2.0 */
/* Records as agents write them, for tests/bench/store: what one VM has in the store. */
#pragma once
#include <jansson.h>

#define NODE_NAME_SIZE 16

const char *node_name(char buffer[NODE_NAME_SIZE], unsigned node); /* "n0017" */

/* Of VM number `vm` ("vm00017"), which node `node` holds.  Owned by the caller. */
json_t *definition_of(unsigned vm, unsigned node);
json_t *hardware_of(unsigned vm);
json_t *owner_of(unsigned node);
json_t *state_of(unsigned node);
