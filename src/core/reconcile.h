/* SPDX-License-Identifier: Apache-2.0 */
/* The next thing to do with a VM on this node.  A pure function of wish and facts; its table in
 * reconcile.c is the documentation, and a test walks every cell (DESIGN 6; fc-qemu.md section 5
 * without its defects W1, W2 and W31).
 *
 * One action at a time: when it is done, failed or overtaken by a new wish, the keeper looks at the
 * facts again and asks again. */
#pragma once
#include <stdbool.h>

#include "model/definition.h"
#include "model/records.h"
#include "model/state.h"

/* What there is of a VM on this host. */
enum situation {
	SITUATION_ABSENT,    /* no process, nothing left of one */
	SITUATION_REMAINS,   /* no process, but something of one: run file, claim, tap */
	SITUATION_UNPROVEN,  /* a process that may be ours cannot be told apart (I5) */
	SITUATION_PRELAUNCH, /* our QEMU, loaded, its vcpus never ran */
	SITUATION_RUNNING,
	SITUATION_PAUSED,
	SITUATION_SUSPENDED,
	SITUATION_POWERED_OFF, /* the guest is off, QEMU waits to be ended */
	SITUATION_PANICKED,
	SITUATION_IO_ERROR,
	SITUATION_INTERNAL_ERROR,
	SITUATION_MUTE, /* our QEMU lives, its monitor does not answer */
	SITUATIONS,
};
const char *situation_name(enum situation situation);
/* From QEMU's RunState (QAPI run-state.json); a state that is not known counts as paused, which is
 * reported and never acted upon. */
enum situation situation_of_run_state(const char *run_state);

enum action {
	ACTION_NONE,
	ACTION_START,	 /* win the record, prepare, launch, verify, run */
	ACTION_RECEIVE,	 /* prepare, launch a QEMU that waits for the guest of another node */
	ACTION_SHUTDOWN, /* ask the guest; end it by force when its time is over */
	ACTION_DESTROY,	 /* end QEMU now */
	ACTION_CLEANUP,	 /* remove what is left, free claims, release the record */
	ACTION_PAUSE,
	ACTION_RESUME,	     /* renew the record, then `cont` */
	ACTION_ORDER_STOP,   /* ask that the wish becomes an administrative stop (on_panic: off) */
	ACTION_GIVE_UP_STOP, /* the wish changed while a guest was asked to shut down: let it run */
	ACTION_GIVE_UP_START, /* the wish changed while starting: end what was begun */
	ACTIONS,
};
const char *action_name(enum action action);

/* What the keeper is in the middle of. */
enum busy {
	BUSY_NOTHING,
	BUSY_STARTING,
	BUSY_STOPPING, /* the guest was asked to shut down */
	BUSY_ENDING,   /* QEMU is being ended: there is no way back */
	BUSY_OTHER,    /* a write, a pause, a cleanup: soon over */
};

struct facts {
	enum situation situation;
	enum busy busy;
	bool restart_due;     /* the copy was started before the newest order to restart */
	bool retry_due;	      /* `ensure`, `start` or `resume` was said since the last attempt */
	bool kill;	      /* end it without asking the guest */
	bool paused_by_us;    /* by `drover pause`, remembered with the copy */
	bool paused_by_lease; /* the node's lease was over */
	bool lease_over;      /* it is: no permission to run can be won now */
	bool waiting;	      /* back-off after a failure: not yet time for another try */
	bool ran;	      /* the vcpus of this copy were let run */
	bool held_elsewhere;  /* the owner record names another node, or the disks are elsewhere */
	bool claims_held;     /* nothing runs, but the owner record still names this node */
	bool may_receive;     /* another node runs it and this one has a place for it */
	bool move_cold;	      /* it goes to another node by being shut down here */
	enum panic_policy on_panic;
};

struct decision {
	enum action action;
	const char *why; /* half a sentence for the log: "guest has powered off" */
};

struct decision reconcile(enum vm_wish wish, const struct facts *facts);
