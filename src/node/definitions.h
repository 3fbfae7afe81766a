/* SPDX-License-Identifier: Apache-2.0 */
/* The one way in which definitions get into the store, from `apply` and from files alike: a plan of
 * what would change, which may be refused as a whole, and then its writes, each with the version
 * that the plan was made for. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct definition;
struct definition_notes;
struct error;
struct node;

enum change { CHANGE_CREATED, CHANGE_CHANGED, CHANGE_NONE };
const char *change_name(enum change change);

struct plan {
	struct plan_item {
		char *name;
		enum change change;
		uint64_t version; /* expected */
		json_t *record;	  /* to be written; NULL for CHANGE_NONE */
		char *diff;	  /* or NULL */
		json_t *notes;	  /* list of strings */
		char *index;	  /* the node whose business it becomes; or NULL */
	} * items;
	size_t count;
};

/* Where definitions come from: a file of this node, Consul's feed, or `apply` (neither). */
struct source {
	const char *path;
	bool feed;
};

/* Adds what this definition would change.  Refused: another source has that name. */
int plan_add(struct plan *plan, const struct node *node, const struct source *source,
	     const struct definition *definition, const struct definition_notes *notes,
	     struct error *err);
/* The file of this VM is gone. */
void plan_add_gone(struct plan *plan, const struct node *node, const char *name);
void plan_done(struct plan *plan);
/* All or nothing is one transaction, and the store takes only so much in one. */
int plan_fits(const struct plan *plan, const struct node *node, struct error *err);

/* Writes what changes, up to STORE_OPS_MAX VMs in one transaction; `done` is called exactly once,
 * from the loop: 0; -ESTALE: somebody else wrote in between, plan anew; else as the store said. The
 * plan is the callee's from now on (TAKE). */
typedef void (*plan_written_fn)(void *ctx, int r, const struct error *err);
void plan_write(struct node *node, struct plan *plan, plan_written_fn done, void *ctx);
