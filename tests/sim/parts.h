/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of a world share: see world.h. */
#pragma once
#include "core/ownership.h"
#include "sim/world.h"

/* One step, as its parts see it. */
struct step {
	const struct rules *rules;
	struct world *world;
	struct outcome *outcome;
	struct move move;
	struct node *node;
	struct vm *vm;
	struct site *site; /* of `vm` at `node` */
};

void step_fail(struct step *step, const char *violation);
void step_say(struct step *step, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The record, as the core has it. */
void record_owner(const struct record *record, struct owner *ret);
void record_of_owner(const struct owner *owner, struct record *ret);
const char *node_name(int node);
int node_number(const char *name);

/* Vcpus of `site` begin to run: every other copy grows old. */
void site_run(struct step *step, int node, enum migration_copy copy, const char *how);
void site_end_copy(struct site *site);
void site_forget(struct site *site); /* what a life of a keeper knows */
bool site_vcpus_run(const struct site *site);

/* site.c: the shell of a keeper around the core. */
bool site_look(struct step *step);
bool site_start(struct step *step);
bool site_ask(struct step *step, enum write_kind kind);
void site_answered(struct step *step, bool done);
void site_told(struct step *step, const struct record *record);
void site_lease_over(struct step *step, struct site *site);

/* life.c: what is wanted, and what reconcile() says */
enum vm_wish site_wish(const struct step *step);
bool site_may_receive(const struct step *step);
bool site_reconcile(struct step *step);
bool life_step(struct step *step);
bool users_step(struct step *step);

/* store.c */
bool node_reaches_store(const struct world *world, int node);
bool store_step(struct step *step);
void store_orphan(struct vm *vm, int node, struct site *site);
void store_ask(struct step *step, int node, struct site *site);
void store_recover(struct step *step);
