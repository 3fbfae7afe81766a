/* SPDX-License-Identifier: Apache-2.0 */
/* One keeper carries one VM through its states.  Its heart is keeper_look(): gather the facts, ask
 * core/reconcile what to do next, begin that; whatever ends or happens calls keeper_look() again.
 *
 *	link     what the agent says (wish, requests) and hears (state, writes of the record)
 *	owner    the record that permits vcpus to run, and the one write of it that may be open
 *	copy     the QEMU process: its identity, its pidfd, its end
 *	monitor  QMP: run state, events, whether it answers
 *	agent    the guest agent's port
 *	console  serial console for any number of clients, rotation of its log
 *	start    the job that goes from nothing to running vcpus
 *	guard    the lease of the node: before each `cont`, and at its end
 *	stop     the job that ends a copy; cleanup is the one routine that leaves nothing behind
 *	migration  what core/migration decides, carried out; source, receive: the two sides of it
 *	report   the state in words: to the agent, to state.json, to the event log
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "core/backoff.h"
#include "core/reconcile.h"
#include "model/definition.h"
#include "model/records.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/process.h"

struct agent;
struct cleanup;
struct config;
struct console;
struct copy;
struct hardware;
struct lease_guard;
struct link;
struct migration;
struct monitor;
struct ownership;
struct start;
struct stop;

/* Where the VM should be, and how it may get there. */
struct want_move {
	char target[RECORD_NAME_SIZE]; /* "": where it is */
	json_t *offer;		       /* of a receiver; owned, NULL: there is none */
	char method[16];	       /* "auto", "live", "shutdown"; "": as the definition says */
	uint64_t max_downtime_ms;      /* 0: as the definition says */
	uint64_t bandwidth;	       /* bytes per second; 0: as the definition says */
	bool postcopy;		       /* is allowed */
	uint64_t number;	       /* of the newest order; 0: there was none */
	bool cancelled;		       /* it was called off */
	bool may_send, may_receive;    /* this host has a place for one more */
};

/* What the agent has told us to want; `known` once it has. */
struct want {
	bool known;
	enum vm_wish wish;
	bool kill;
	uint64_t restarts, retry;
	uint64_t generation;
	json_t *tree; /* the definition as written; owned, for comparison */
	struct definition *definition;
	struct want_move move;
};

/* What the world is told; kept in state.json, so that the next keeper goes on from it. */
struct report {
	enum vm_state state;
	char reason[512];
	uint64_t since;	   /* wall clock, microseconds */
	json_t *last_exit; /* {"how": "power-off" | "panic" | "exit" | "signal" | "ended", "code",
			    * "time"}; owned, may be NULL */
};

struct keeper {
	const char *name; /* borrowed from the command line */
	struct config *config;
	sd_event *loop;
	int run_fd; /* RUN/vms/NAME */
	int log_fd; /* LOG/vms/NAME */
	int lock_fd;
	char root_id[33]; /* of this root: in tokens and tap names */
	char boot_id[BOOT_ID_SIZE];
	char life[9]; /* of this keeper, random: in `by` of owner records */

	struct want want;
	struct hardware *hardware; /* the record as last stored; NULL: never started */
	struct report report;
	char *pending;	   /* what only a restart brings about; NULL: nothing.  Owned */
	bool settled;	   /* the reconcile function wants nothing more */
	json_t *told;	   /* the last `state` event; owned */
	char failure[512]; /* why the last start failed or QEMU died; "" when it did not */
	struct backoff backoff;
	uint64_t not_before; /* clock_now() of the next try; 0: at once */
	uint64_t retry_done;
	bool scanned; /* /proc was searched: what no file tells of does not exist */

	struct link *link;
	struct ownership *ownership;
	struct lease_guard *guard; /* NULL: no copy obeyed a lease yet */
	struct copy *copy;	   /* NULL: no process */
	uint64_t claimed;	   /* newest epoch by which this host claimed its volumes; 0 */
	bool remains;		   /* something of a former copy may be on the host */
	struct monitor *monitor;
	struct agent *agent;
	struct console *console;
	struct start *start; /* at most one of start, stop and cleanup is under way */
	struct stop *stop;
	struct cleanup *cleanup;
	struct migration *migration;
	bool resuming, pausing, ordering; /* one request, no job of its own */
	bool letting_run; /* `cont` is on its way: whatever was heard last, it runs */
	bool unproven;	  /* a process that may be ours cannot be told apart */
	bool dismissed;	  /* by the agent: nothing is left to look after */

	sd_event_source *look;	/* deferred: many reasons to look, one look */
	sd_event_source *later; /* the next look that was asked for by time */
};

/* Something may have changed: look, soon, once. */
void keeper_look(struct keeper *keeper);
/* Look after a while, whatever happens until then; the nearest such time counts. */
void keeper_look_in(struct keeper *keeper, uint64_t usec);

/* A start failed or a copy ended although it should run: remember why, and when to try again. */
void keeper_failed(struct keeper *keeper, uint64_t ran_usec, const char *why);

void keeper_facts(const struct keeper *keeper, struct facts *ret);
/* SITUATIONS: not yet heard from, nothing may be decided. */
enum situation keeper_situation(const struct keeper *keeper);
