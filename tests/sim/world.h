/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts, their keepers and QEMUs, a network and a store, small enough to be looked at in every
 * state: what happens to them is one `move` after another, and whatever a keeper decides or writes
 * is decided and made by the production core.  The alphabet is that of the ownership protocol's
 * model.  A world is bytes only, so that it can be copied, compared and kept by the million.
 *
 *	world	the moves: which are possible, and what they do
 *	site	a keeper and its copy of one VM: the shell around the core
 *	restored	a store that is set back, and claims of volumes
 *	store	requests that land, are lost or late, and their answers
 *	explorer, simulation	who chooses the moves */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/lease.h"
#include "core/migration.h"
#include "model/definition.h"

#define NODES 3
#define VMS 2
#define GHOSTS 3
#define NOBODY 255

/* The owner record; nodes are numbers.  `by`: the node whose keeper's write of now made it. */
struct record {
	uint8_t epoch, phase, node, to, post, feeder, try_epoch, home, lease, by;
};

enum keeper_life { KEEPER_DEAD, KEEPER_ALIVE, KEEPER_HUNG };
enum flight { FLIGHT_NONE, FLIGHT_ASKED, FLIGHT_DONE, FLIGHT_CONFLICT };
enum write_kind {
	WRITE_NONE,
	WRITE_ACQUIRE,
	WRITE_RENEW,
	WRITE_RELEASE,
	WRITE_MOVE,
	WRITE_TAKE,
	WRITE_BACK,
	WRITE_DECLINE,
	WRITE_GIVE,
	WRITE_SETTLE,
	WRITE_RECOVER, /* the leader's */
};

/* A keeper and its copy of one VM on one node. */
struct site {
	uint8_t keeper, known, permitted;
	struct record record; /* as this life of the keeper knows it */

	uint8_t copy, attempt;
	uint8_t fresh;	   /* nobody has run past the state that this copy holds */
	uint8_t paused;	   /* STOPPED because the lease ended */
	uint8_t situation; /* STOPPED: why */
	uint8_t by_user;   /* STOPPED by their order to pause */
	uint8_t remains;   /* of a copy that ended */
	uint8_t starting, stopping, resuming;
	uint8_t restart, retry; /* ordered by users */

	uint8_t offered, target, wanted, ready, said, told_long, released, gone;
	uint8_t heard, unwanted, refused, from;
	uint8_t agreed; /* upon postcopy, with this receiver: known to later keepers too (R7) */

	uint8_t write, flight; /* the write that is not answered, and where it is */
	uint8_t former;	       /* the request on its way was made in a former life of the node */
	uint8_t stale;	       /* and the store can see it by the `life` record */
	uint8_t lapsed;	       /* it was asked under a lease that has ended */
	uint8_t asked;	       /* different writes since the copy was loaded (V6) */
	struct record next;

	uint8_t claimed; /* newest epoch by which this host claimed the volumes */
	uint8_t policy;	 /* at the end of the lease, as the keeper has it beside its copy */
	uint8_t stopped_coming, running_coming; /* messages on their way here: their attempt */
	uint8_t stopped_late;			/* one that was overtaken */
};

/* A request on its way whose writer does not wait for it any more. */
struct ghost {
	uint8_t write, node, former, stale;
	struct record next;
};

/* What an older state of the store says of a VM. */
struct backup {
	struct record record;
	uint8_t stop, pause, place;
};
/* Beside a volume that all hosts share; epoch 0: free. */
struct claim {
	uint8_t epoch, node;
};

struct vm {
	struct record record;
	struct record former; /* the one before, which a late reader may still be told */
	struct site site[NODES];
	struct ghost ghost[GHOSTS];
	/* What has been sent in full and is not read yet: its attempt, and to whom. */
	uint8_t stream, stream_to, stream_fresh;
	uint8_t disk[NODES]; /* the local disk is as the guest left it */
	uint8_t offers;
	uint8_t stop, pause; /* ordered by users */
	uint8_t place;	     /* and where they want it: its `kvm_host` */
	uint8_t policy;	     /* of its definition */
	struct claim claim;
	struct backup backup; /* epoch 0: there is none */
};

enum life_state { LIFE_ALIVE, LIFE_FENCING, LIFE_FENCED };
struct node {
	uint8_t up, connected, session, lease, link, life, revoked;
	uint8_t slow;	/* its disks hang */
	uint8_t frozen; /* suspended: nothing on it goes on */
	/* What the leader has in hand: it saw the session missing, ordered the power off and has
	 * not read it back, has proof that no copy of this node can do harm. */
	uint8_t seen, power, proof;
};

/* See clock.h.  Microseconds; `sent`, `lease` and `won` by the node's own clock. */
enum renewal { RENEWAL_NONE, RENEWAL_SENT, RENEWAL_LANDED, RENEWAL_ORPHAN };
struct node_time {
	struct lease lease;
	uint64_t sent;
	uint64_t expires; /* the store does not end the session before */
	uint64_t slept, woke, woke_local;
	int64_t jumped; /* its wall clock */
	enum renewal renewal;
	bool another; /* the next answer is the first one of a new session */
};
struct time {
	uint64_t now;
	struct node_time node[NODES];
	uint64_t won[VMS][NODES]; /* when the last write was asked for */
};

struct world {
	struct node node[NODES];
	struct vm vm[VMS];
	uint8_t faults;
	uint8_t store_down;
	uint8_t restored; /* the store was set back */
	struct time time; /* only with rules.time; the explorer has none */
};

/* Rules that are wrong and live outside of the core. */
enum wrong {
	RIGHT,
	WRONG_UNKNOWN_IS_NO,
	WRONG_CONFLICT_IS_NO,
	WRONG_RUN_ON_UNKNOWN,
	WRONG_TAKE_UNVERSIONED,
	WRONG_EXPIRE_BEFORE_LEASE,
	WRONG_NO_PROOF,
	WRONG_LEASE_ONLY_PROOF,
	WRONG_REJOIN_KEEPS_COPIES,
	WRONG_RECOVER_UNVERSIONED,
	WRONG_EARLY_BLOCK_ACTIVATE,
	WRONG_LEASE_SPARES_DEVICE_PHASE,
	WRONG_POSTCOPY_NO_STOP,
	WRONG_BLOCKLIST_KEEP,
	WRONG_LEASE_KILLS_FULL_COPIES,
	WRONG_PERMISSION_KEPT,
	WRONG_TOLD_KEEPS_PERMISSION,
	WRONG_PERMISSION_NEVER_VOID, /* both */
	WRONG_NO_LIFE_CHECK,
	WRONG_NO_NEW_LIFE,
	WRONG_REJOIN_DURING_FENCE,
	WRONG_SESSION_KEY,
	WRONG_POWER_OFF_LATE,
	WRONG_POLICY_OF_DEFINITION,
	WRONG_BLOCKLIST_ENDS,
	WRONG_RECOVER_HELD,
	WRONG_NOT_THERE_YET,
	WRONG_STALE_READ,
	WRONG_ANY_EPOCH,
	WRONG_STORE_FORGETS,
	WRONG_LEASE_FROM_ANSWER,
	WRONG_LEASE_OF_TWO_TTL,
	WRONG_WALL_CLOCK,
	WRONG_CLOCK_MONOTONIC,
	WRONG_CLAIM_SEEN_LATE,
	WRONG_WRITTEN_UNDER_CLAIM,
	WRONGS,
};

enum store_kind { STORE_ZOOKEEPER, STORE_CONSUL, STORE_EMBEDDED, STORES };
#define TIME_STRIDES 6

struct rules {
	int nodes, vms;
	bool post, disks;
	bool stale; /* a keeper learns of the record when it is told, not at once */
	enum lease_policy policy;
	int faults, offers; /* at most */
	bool users;	    /* who stop and start the VM, and change its lease policy */
	bool life;	    /* guests that end, panic, take their time; users who pause and move */
	enum panic_policy on_panic;
	bool restored; /* the store may be set back, and volumes have claims */
	bool time;     /* clocks, and leases in time */
	enum store_kind store;
	int drift[NODES]; /* of a node's clock, in millionths; the store promises true time */
	enum wrong wrong;
};

enum move_kind {
	/* The store and the network. */
	MOVE_STORE,
	MOVE_STORE_ANSWER_LOST,
	MOVE_REQUEST_LOST,
	MOVE_ANSWER,
	MOVE_ANSWER_LOST,
	MOVE_REPEAT,
	MOVE_STORE_TWICE,
	MOVE_GHOST_LANDS,
	MOVE_GHOST_LOST,
	MOVE_TOLD,
	MOVE_TOLD_OLD,
	MOVE_STOPPED_ARRIVES,
	MOVE_STOPPED_TWICE,
	MOVE_STOPPED_LATE,
	MOVE_STOPPED_LOST,
	MOVE_RUNNING_ARRIVES,
	MOVE_RUNNING_TWICE,
	MOVE_RUNNING_LOST,
	/* The keeper. */
	MOVE_LOOK,
	MOVE_START,
	MOVE_RECEIVE,
	MOVE_OFFER,
	MOVE_TOLD_LONG,
	MOVE_RELEASED,
	MOVE_GIVE_UP,
	MOVE_CALLED_OFF,
	MOVE_GONE_HEARD,
	MOVE_KEEPER_STARTS,
	MOVE_KEEPER_WAKES,
	/* QEMU. */
	MOVE_SWITCH,
	MOVE_COMPLETES,
	MOVE_RESUMES,
	MOVE_LOADS,
	MOVE_PAGES,
	MOVE_GUEST_OBEYS,
	/* Time, the leader, repairs. */
	MOVE_TIME,
	MOVE_RENEWAL_SENT,
	MOVE_RENEWAL_LANDS,
	MOVE_RENEWAL_ANSWERED,
	MOVE_LEASE_ENDS,
	MOVE_SESSION_ENDS,
	MOVE_JOINS,
	MOVE_SEES,
	MOVE_FENCE,
	MOVE_POWER_ORDER,
	MOVE_POWER_OFF,
	MOVE_POWER_REFUSED,
	MOVE_BLOCKLIST,
	MOVE_BLOCKLIST_ENDS,
	MOVE_PROOF,
	MOVE_FENCED,
	MOVE_RECOVER,
	MOVE_BOOTS,
	MOVE_RECONNECTS,
	MOVE_LINK_MENDED,
	MOVE_THAWS,
	MOVE_DISKS_MENDED,
	MOVE_STORE_UP,
	MOVE_USER_STARTS,
	MOVE_BACKUP,
	MOVE_CLAIM_REMOVED,
	MOVE_KILLED,
	/* Faults. */
	FAULT_KEEPER_DIES,
	FAULT_KEEPER_HANGS,
	FAULT_QEMU_DIES,
	FAULT_CUT,
	FAULT_POWER,
	FAULT_LINK,
	FAULT_RESUMES,
	FAULT_SENDING,
	FAULT_INCOMING,
	FAULT_CONT,
	FAULT_CANCELLED,
	FAULT_DISKS,
	FAULT_STORE,
	FAULT_FREEZES,
	FAULT_CLOCK,
	FAULT_GUEST_OFF,
	FAULT_GUEST_PANICS,
	FAULT_IO_ERROR,
	FAULT_QEMU_ERROR,
	FAULT_USER_STOPS,
	FAULT_USER_POLICY,
	FAULT_USER_PAUSES,
	FAULT_USER_MOVES,
	FAULT_USER_RESTARTS,
	FAULT_RESTORED,
	MOVES,
};
enum move_class { CLASS_NORMAL, CLASS_LOSS, CLASS_REPAIR, CLASS_FAULT };

struct move {
	uint8_t kind, vm, node, other;
};

/* What a step did. */
struct outcome {
	const char *violation; /* NULL: none */
	bool say;	       /* make `text` */
	char text[160];
};

void world_init(const struct rules *rules, struct world *ret);
/* Where `move` is possible, does it and returns true.  A fault that is one too many is not. */
bool world_step(const struct rules *rules, struct world *world, struct move move,
		struct outcome *ret);
enum move_class world_class(enum move_kind kind);
/* Time that passes, and what ends a move before its time: else no history comes far. */
bool world_seldom(enum move_kind kind);
/* "n1 vm0: the keeper looks: asks for take (epoch 12)" */
void world_describe(const struct rules *rules, struct move move, const struct outcome *outcome,
		    char *buffer, size_t size);
/* All moves that these rules can ever allow; returns how many. */
#define CANDIDATES 1024
size_t world_candidates(const struct rules *rules, struct move ret[CANDIDATES]);
/* The VM runs somewhere where it may write. */
bool world_runs(const struct rules *rules, const struct world *world, int vm);
/* It does not, because a user wants it so or the guest has stopped, which is reported (I2). */
bool world_told_why(const struct rules *rules, const struct world *world, int vm);
/* And nothing else is there of it: no other copy, nothing left of one, no open write (I9). */
bool world_clean(const struct rules *rules, const struct world *world, int vm);
/* Forgets what can make no difference any more, so that equal futures are one state. */
void world_normalise(const struct rules *rules, struct world *world);
