/* SPDX-License-Identifier: Apache-2.0 */
/* The one list of what a VM can be and of what can be wished for it.  docs/STATES.md is written
 * from it and tests hold the two together. */
#pragma once

enum vm_state {
	VM_OFF,		   /* no QEMU, none wanted or not yet */
	VM_STARTING,	   /* between the decision to start and running vcpus */
	VM_RUNNING,	   /* vcpus run */
	VM_PAUSED,	   /* vcpus stopped, by `drover pause` or somebody at the monitor */
	VM_SUSPENDED,	   /* the guest put itself to sleep (ACPI S3) */
	VM_STOPPING,	   /* asked to shut down, or being ended */
	VM_PANICKED,	   /* the guest's kernel panicked; it stays for inspection (on_panic) */
	VM_IO_ERROR,	   /* stopped by QEMU on a disk error; `drover resume` tries again */
	VM_INTERNAL_ERROR, /* KVM could not go on */
	VM_UNRESPONSIVE,   /* QEMU lives but its monitor does not answer */
	VM_FAILED,  /* should run, does not: a start failed or QEMU keeps dying; when and whether
		     * it is tried again is in the reason */
	VM_UNKNOWN, /* cannot be told, and why is in the reason */
	VM_STATES,
};

enum vm_wish {
	WISH_RUN,
	WISH_PAUSE,	/* online, paused by `drover pause` */
	WISH_STOP,	/* administratively stopped: `drover stop` or `kill`, until `start` */
	WISH_OFF,	/* the definition says `online: false` */
	WISH_HANDS_OFF, /* `kvm_host` is empty, or the definition's file is gone: change nothing */
	WISH_ELSEWHERE, /* it belongs on another node (core/placement.h) */
	WISH_NODE_STOPPED, /* the node is in mode `stopped` (shutdown-all) */
	VM_WISHES,
};

/* "off", "starting", "running", "paused", "suspended", "stopping", "panicked", "io-error",
 * "internal-error", "unresponsive", "failed", "unknown". */
const char *vm_state_name(enum vm_state state);
int vm_state_of(const char *name); /* -1: none */
/* "run", "pause", "stop", "off", "hands-off", "elsewhere", "node-stopped". */
const char *vm_wish_name(enum vm_wish wish);
int vm_wish_of(const char *name);
