/* SPDX-License-Identifier: Apache-2.0 */
/* The agent of one host.  It fetches facts and carries messages: what is wanted of a VM comes out
 * of core/wish.c, what is done about it is decided by the VM's keeper.  Nothing here waits: each
 * change is a small chain of callbacks, and a VM that hangs hangs alone.
 *
 *	records      what the store knows of VMs and of this node, kept beside it
 *	near         in a large cluster: those of them that are this node's business
 *	vm           one VM: records, wish, link to its keeper
 *	link         a keeper process: start, adopt, ping, dismiss
 *	ownership    the writes that keepers ask for
 *	placement    on which node a VM should be, and how it gets there
 *	slots        how many VMs move at the same time
 *	session      life and session of this node in the cluster
 *	schema       the form of the records; upgrade: how they get into the next one
 *	lease        until when this node may be counted on, told to the keepers
 *	definitions  the one way in which a definition gets into the store
 *	directory    etc/drover/vms, watched
 *	feed         definitions that come as events of Consul; consul: our own watch of them
 *	services     the VMs that run here, as services in Consul
 *	mode         may VMs run on this node at all?
 *	orders       commands of users that are waited for
 *	moves        those of them that say where a VM should be
 *	reexec       the agent becomes the program that is installed now; replacement: its keepers
 *too control      control.sock and its table of requests membership   certificate and list of
 *members (renewal, enrol, tokens, cluster) channel      where the agents of other nodes ask;
 *remote: where we ask them events       what happened, for people
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "model/records.h"
#include "util/clock.h"

struct channel;
struct config;
struct consul_feed;
struct control;
struct directory;
struct error;
struct events;
struct facts;
struct feed;
struct info;
struct job;
struct lease_renewal;
struct membership;
struct move;
struct near;
struct node_vm;
struct order_wait;
struct records;
struct reexec;
struct renewal;
struct replacement;
struct services;
struct session;
struct storage;
struct store;
struct taking;
struct upgrade;

struct node {
	struct config *config;
	sd_event *loop;
	int run_fd; /* RUN */
	int lock_fd;
	char boot_id[BOOT_ID_SIZE];
	char machine_id[40];
	uint64_t started; /* wall clock */

	struct store *store;
	struct storage *storage;
	struct records *records;
	struct taking *taking; /* a listing of all that is being taken; or NULL */
	struct near *near;
	struct session *session;
	struct lease_renewal *lease;
	struct membership *membership;
	struct renewal *renewal;
	struct channel *channel;
	struct directory *directory;
	struct control *control;
	struct events *events;
	struct feed *feed;
	struct consul_feed *consul;
	struct services *services;
	struct facts *facts;
	struct info *info;
	struct reexec *reexec;
	struct replacement *replacement;
	struct upgrade *upgrade;
	struct order_wait *orders;
	struct move *moves;
	struct job *jobs;

	/* The form of the records: node/schema.h. */
	struct {
		int64_t loaded;	  /* 0: not known yet */
		uint64_t version; /* of the record, when it was looked at last; 0: there was none */
		char trouble[400]; /* why we may not work with what stands there; "" */
	} schema;
	struct node_vm **vms; /* sorted by name */
	size_t n_vms;
	enum node_mode mode; /* NODE_READY as long as it is not known: see mode.h */
	bool mode_known, mode_answered;
	char mode_trouble[256]; /* why it could not be read (lately) */
	sd_event_source *mode_retry;
	uint64_t written; /* counts answered writes of ours, so that an older listing is known as
			     such */
	sd_event_source *states; /* the next write of changed states */
	bool states_late;	 /* the last one failed, which was told */
	sd_event_source *slots;	 /* a slot for a migration that was given and is not used */
	sd_event_source *settle; /* deferred: many reasons to look at VMs, one look */
};

struct node *node_new(void);
struct node *node_free(struct node *node);

/* The phases of main.c, in order; `root` as on the command line, or NULL. */
int node_configure(struct node *node, const char *root, struct error *err);
int node_lock(struct node *node, struct error *err);
int node_open_store(struct node *node, struct error *err);
int node_adopt_keepers(struct node *node, struct error *err);
int node_listen(struct node *node, struct error *err);
int node_serve(struct node *node, struct error *err);

/* (Re)arms a one-shot timer `usec` from now; makes the source when it is NULL. */
void node_timer(struct node *node, sd_event_source **source, uint64_t usec,
		sd_event_time_handler_t handler, void *ctx);

bool node_logs_to_file(const struct node *node);

/* What `drover version` shows. */
json_t *node_version(const struct node *node);
