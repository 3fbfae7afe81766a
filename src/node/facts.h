/* SPDX-License-Identifier: Apache-2.0 */
/* What this host has and can: memory, load, QEMU builds, accelerator.  Asking QEMU takes seconds,
 * so that is done by a child of ours (droverd --probe), once, while the agent serves already. */
#pragma once
#include <jansson.h>

struct error;
struct facts;
struct node;

void facts_open(struct node *node);
struct facts *facts_close(struct facts *facts);

json_t *node_json(const struct node *node);
json_t *facts_qemu(const struct node *node); /* list of builds, new reference */

/* The child: prints {"qemu": [...]} or {"accelerator": {...}} on stdout.  `what` is "builds" or
 * "accelerator". */
int facts_probe(const char *root, const char *what, struct error *err);
