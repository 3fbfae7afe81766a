/* SPDX-License-Identifier: Apache-2.0 */
/* What is wanted of a VM on one node, out of everything that has a say in it. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "model/records.h"
#include "model/state.h"

struct wish_input {
	bool online;
	bool hands_off; /* `kvm_host` is there and empty */
	bool here;	/* the node that asks is the one it should be on (core/placement.h) */
	enum node_mode mode;
	enum order_kind order;
	bool source_gone; /* the definition's file was deleted */
	bool bystander;	  /* nothing of it is here, and another node has it or should have it */
};

/* First hit wins: `online: false`, an administrative stop, a stopped node, a pause, hands off,
 * another node, run.  A pause is for who has the VM, or should: to others it is on another node. An
 * explicit wish to be off or stopped goes before "hands off", which only says that silence about
 * the host is never read as "stop" (fc-qemu.md section 5, W1, K16). */
enum vm_wish wish_of(const struct wish_input *input);

/* Should no QEMU of this VM be here? */
bool wish_is_down(enum vm_wish wish);

/* Nothing runs because the wish is so: why, and what would change that, into `buffer`.  False (and
 * "") when the wish is no reason.  `node` is the one that it should be on; it may be NULL. */
bool wish_explain_off(enum vm_wish wish, const char *vm, const char *node, char *buffer,
		      size_t size);
