/* SPDX-License-Identifier: Apache-2.0 */
/* One VM as the agent of a node sees it: its records as last read or written, the wish that comes
 * out of them, what its keeper last said, and the link to that keeper. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/command.h"
#include "core/placement.h"
#include "model/records.h"
#include "model/state.h"
#include "node/link.h"
#include "node/slots.h"
#include "node/trail.h"

struct definition;
struct error;
struct node;
struct request;

enum vm_leaf {
	VM_DEFINITION,
	VM_ORDER,
	VM_PLACEMENT,
	VM_OWNER,
	VM_HARDWARE,
	VM_OFFER,
	VM_OBSTACLE,
	VM_STATE,
	VM_LEAVES
};

struct node_vm {
	struct node *node;
	char *name;

	/* Records; a version of 0: there is none. */
	uint64_t version[VM_LEAVES];
	struct definition_record record; /* .definition lives in `definition` when that is there */
	struct definition *definition;	 /* NULL: none, or this Drover cannot read it */
	char *unreadable[VM_LEAVES];	 /* why that record cannot be read; then nothing is done */
	struct order order;
	struct placement placement;
	struct owner owner;
	json_t *offer;	  /* of a receiver, for the keepers; NULL: none */
	json_t *obstacle; /* why the node that it is to go to cannot let it in; NULL: none told */
	char *hardware;	  /* as text: large, and rarely looked at */
	char *file_error; /* the file in etc/drover/vms is broken or refused; the last good
			   * definition stays */
	json_t *machine;  /* of it: machine_type, accelerator, qemu_version, uuid; or NULL */
	uint64_t written; /* node-wide count at our last write: older listings do not count */
	bool arrivals;	  /* disks of a move that a crash of the host ended are here */
	bool removed;	  /* by `rm`; goes once its keeper has */

	enum vm_wish wish;
	bool wish_known; /* false: no readable definition, so nothing is wanted and nothing touched
			  */
	char off_reason[256]; /* why it is off, when the wish is why; else "" */

	json_t *told;	  /* the keeper's part of the VM object, as last told */
	uint64_t told_at; /* clock_now() */
	json_t *said;	  /* the state record; or NULL */
	bool told_now;	  /* by the keeper that is connected; else by one before, or the record */
	bool state_due;	  /* its state record is to be written */
	struct slots slots;
	struct link link;
	struct trail trail;    /* of its keeper's events, while somebody follows */
	bool due;	       /* vm_touch() was called */
	bool taken;	       /* from the listing that is being taken, or read since */
	bool telling_obstacle; /* a write of that record is open */
};

/* Where it is in the table, or would be. */
size_t vm_position(const struct node *node, const char *name);
struct node_vm *vm_find(const struct node *node, const char *name);
struct node_vm *vm_need(struct node *node, const char *name); /* made when absent */
struct node_vm *vm_free(struct node_vm *vm);		      /* and out of the node's table */

/* Something about it changed: soon, once, the wish is worked out anew, the keeper told, waiting
 * commands judged. */
void vm_touch(struct node_vm *vm);
void vm_touch_all(struct node *node);

/* One record as read or written; NULL and 0: it is gone.  `value` is borrowed.  Version equal to
 * what is known: nothing happens. */
void vm_set_record(struct node_vm *vm, enum vm_leaf leaf, json_t *value, uint64_t version);
int vm_leaf_of(const char *name); /* "definition"...; -1: a record that is not kept here */
const char *vm_leaf_name(enum vm_leaf leaf);
/* The first record that cannot be read, in a sentence; NULL: all can. */
const char *vm_unreadable(const struct node_vm *vm);

/* What its keeper says of it; borrowed. */
void vm_set_told(struct node_vm *vm, json_t *told);

/* As the user wrote it, borrowed; NULL without a definition. */
json_t *vm_tree(const struct node_vm *vm);
bool vm_defined(const struct node_vm *vm);
/* Anything of it on this host: a copy's file, a claim of the owner record. */
bool vm_is_here(const struct node_vm *vm);

/* For core/placement; only with a definition that can be read. */
struct placement_facts vm_placement_facts(const struct node_vm *vm);
/* The node that it should be on, borrowed; NULL without a definition that can be read. */
const char *vm_target(const struct node_vm *vm);

/* What would be wanted of it if that were the standing order. */
enum vm_wish vm_wish_under(const struct node_vm *vm, enum order_kind order);

/* State by the keeper's word, or without a keeper by what there is; `ret_reason` (may be NULL)
 * lives as long as the VM's data stay as they are. */
enum vm_state vm_state(const struct node_vm *vm, const char **ret_reason);
#define VM_SOURCE_SIZE 600
/* For command_check() and command_finished(); the source's text goes into `buffer`. */
void vm_facts(const struct node_vm *vm, struct command_facts *ret, char buffer[VM_SOURCE_SIZE]);

/* The VM that the argument `vm` names; NULL with a sentence when there is none such. */
struct node_vm *vm_of_request(const struct node *node, const struct request *request,
			      struct error *err);
