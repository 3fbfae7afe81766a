/* SPDX-License-Identifier: Apache-2.0 */
/* The records of the store (DESIGN 4; ownership protocol, section 2) as C structs, to and from
 * JSON.  Keys that are not known are kept: `rest` carries them through a read and a write, since a
 * newer version of the program may have put them there. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "model/state.h"

struct error;

#define RECORD_NAME_SIZE 72
#define RECORD_KEY_SIZE 256

enum owner_phase { OWNER_OFF, OWNER_HELD, OWNER_MOVING };

struct owner {
	uint64_t epoch;
	enum owner_phase phase;
	char node[RECORD_NAME_SIZE]; /* "" while off */
	char boot[40];
	char to[RECORD_NAME_SIZE]; /* this and the next three: "" = null */
	char mode[8];
	char feeder[RECORD_NAME_SIZE];
	uint64_t try_epoch;	     /* 0 = null */
	char home[RECORD_NAME_SIZE]; /* "" = null */
	char lease[8];		     /* "keep" */
	char by[160];
	json_t *rest; /* owned; may be NULL */
};
int owner_parse(json_t *value, struct owner *ret, struct error *err);
json_t *owner_json(const struct owner *owner);
void owner_done(struct owner *owner);

/* The user's standing order for a VM, beside the definition: /drover/vms/NAME/order.  A new
 * generation of the definition does not clear it. */
enum order_kind { ORDER_NONE, ORDER_STOP, ORDER_KILL, ORDER_PAUSE };
struct order {
	enum order_kind kind;
	uint64_t restarts; /* raised by `restart`; a copy that was started under a lower number is
			    * stopped and started anew */
	uint64_t retry;	   /* raised by `ensure` and `start`: forget the back-off */
	char since[32];	   /* RFC 3339 */
	char by[96];	   /* who, for people: "uid 0 at alpha" */
};
int order_parse(json_t *value, struct order *ret, struct error *err); /* NULL value: none */
json_t *order_json(const struct order *order);
const char *order_kind_name(enum order_kind kind);

/* /drover/vms/NAME/placement: where the VM should be, beside its definition.  An order to migrate
 * or move writes it, later a recovery too; core/placement.h says for how long it counts. */
enum placement_kind {
	PLACEMENT_NONE,	   /* nothing any more; the numbers stay */
	PLACEMENT_MIGRATE, /* for a while; `return_to` is its home */
	PLACEMENT_MOVE,	   /* for good */
	PLACEMENT_RECOVER, /* because its node is gone */
};
enum placement_method { PLACEMENT_AUTO, PLACEMENT_LIVE, PLACEMENT_SHUTDOWN };
struct placement {
	enum placement_kind kind;
	char node[RECORD_NAME_SIZE];	  /* "" with PLACEMENT_NONE */
	char return_to[RECORD_NAME_SIZE]; /* "" = null */
	char kvm_host[RECORD_NAME_SIZE]; /* that of the definition when it was written; "" = null */
	uint64_t generation;		 /* of the definition then */
	enum placement_method method;
	uint64_t max_downtime_ms, bandwidth; /* bytes a second; 0 = null: the definition says */
	bool postcopy;			     /* allowed; false: as the definition says */
	uint64_t number;		     /* grows with each order */
	uint64_t cancel;		     /* of the newest order to cancel; 0 = null */
	char since[32];			     /* RFC 3339 */
	char by[96];			     /* who, for people */
	json_t *rest;
};
int placement_parse(json_t *value, struct placement *ret, struct error *err); /* NULL: none */
json_t *placement_json(const struct placement *placement);
void placement_done(struct placement *placement);
const char *placement_kind_name(enum placement_kind kind);
const char *placement_method_name(enum placement_method method);
int placement_method_of(const char *name); /* -1: none */

/* /drover/nodes/NODE/life */
struct life {
	uint64_t n;
	char state[16]; /* "alive", "fencing", "fenced" */
	char boot[40];
	char machine[40];
	json_t *rest;
};
int life_parse(json_t *value, struct life *ret, struct error *err);
json_t *life_json(const struct life *life);
void life_done(struct life *life);

/* /drover/vms/NAME/definition */
struct definition_record {
	uint64_t generation;
	uint64_t host_generation;    /* the one that last changed `kvm_host`; 0: none did */
	char source[16];	     /* "file", "apply", "consul" */
	char node[RECORD_NAME_SIZE]; /* where it came in */
	char path[512];		     /* of a file */
	bool gone;	    /* the file was deleted: hands off until `rm` or it comes back */
	json_t *definition; /* as written; owned */
	json_t *rest;
};
int definition_record_parse(json_t *value, struct definition_record *ret, struct error *err);
json_t *definition_record_json(const struct definition_record *record);
void definition_record_done(struct definition_record *record);
/* "file alpha:/etc/drover/vms/web01.yaml", "apply" or "consul"; into `buffer`. */
const char *definition_record_source(const struct definition_record *record, char *buffer,
				     size_t size);

enum node_mode { NODE_READY, NODE_STOPPED }; /* draining and maintenance come with the cluster */
const char *node_mode_name(enum node_mode mode);
int node_mode_of(const char *name);

/* "/drover/vms/NAME/LEAF", "/drover/assign/NODE/NAME", "/drover/nodes/NODE/LEAF". */
const char *key_vm(char buffer[RECORD_KEY_SIZE], const char *vm, const char *leaf);
const char *key_assign(char buffer[RECORD_KEY_SIZE], const char *node, const char *vm);
const char *key_node(char buffer[RECORD_KEY_SIZE], const char *node, const char *leaf);
