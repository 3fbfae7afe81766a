/* SPDX-License-Identifier: Apache-2.0 */
/* One event of the feed, read and checked once, where it comes in. */
#pragma once
#include <jansson.h>
#include <stdint.h>

#include "model/definition.h"

struct error;

struct feed_event {
	enum feed_kind { FEED_IGNORED, FEED_DEFINITION, FEED_SNAPSHOT } kind;
	char name[VM_NAME_MAX + 1]; /* of the VM */
	char snapshot[128];
	uint64_t generation;	       /* its ModifyIndex */
	struct definition *definition; /* with the generation in it; owned */
	const char *why;	       /* it is ignored */
};

/* What can be told without its value: the VM that a definition is for, and its generation.
 * FEED_IGNORED with `why` for what is not for us; negative for what is broken. */
int feed_event_head(const json_t *json, struct feed_event *ret, struct error *err);
/* And the value. */
int feed_event_body(const json_t *json, struct feed_event *event, struct error *err);
void feed_event_done(struct feed_event *event);
