/* SPDX-License-Identifier: Apache-2.0 */
#include "core/command.h"

#include <errno.h>
#include <string.h>

#include "core/wish.h"
#include "util/cleanup.h"
#include "util/error.h"

static const char *const command_names[] = {
	[COMMAND_START] = "start",     [COMMAND_STOP] = "stop",
	[COMMAND_RESTART] = "restart", [COMMAND_KILL] = "kill",
	[COMMAND_PAUSE] = "pause",     [COMMAND_RESUME] = "resume",
	[COMMAND_ENSURE] = "ensure",   [COMMAND_RM] = "rm",
	[COMMAND_EXEC] = "exec",       [COMMAND_MONITOR] = "monitor",
	[COMMAND_CONSOLE] = "console", [COMMAND_MIGRATE] = "migrate",
	[COMMAND_MOVE] = "move",       [COMMAND_UNMIGRATE] = "unmigrate",
};

const char *command_name(enum command command)
{
	return command_names[command];
}

int command_of(const char *name)
{
	for (int i = 0; i < COMMANDS; i++)
		if (strcmp(command_names[i], name) == 0)
			return i;
	return -1;
}

enum verdict {
	FITS,
	IS_RUNNING,  /* refused: there is a QEMU */
	IS_OFF,	     /* refused: there is none */
	IS_STOPPING, /* refused: it is being stopped */
	NOT_PAUSED,  /* refused: nothing to resume */
	NOT_RUNNING, /* refused: vcpus do not run */
	NO_ANSWER,   /* try again: no QEMU that answers */
	CANNOT_TELL, /* try again: state unknown */
};

/* clang-format off */
#define COLUMNS(off, starting, running, paused, suspended, stopping, panicked, io, internal, \
		unresponsive, failed, unknown) \
	{ [VM_OFF] = off, [VM_STARTING] = starting, [VM_RUNNING] = running, [VM_PAUSED] = paused, \
	  [VM_SUSPENDED] = suspended, [VM_STOPPING] = stopping, [VM_PANICKED] = panicked, \
	  [VM_IO_ERROR] = io, [VM_INTERNAL_ERROR] = internal, [VM_UNRESPONSIVE] = unresponsive, \
	  [VM_FAILED] = failed, [VM_UNKNOWN] = unknown }

/* What is off moves with its placement; what stands still, once it goes on. */
#define MOVING \
	COLUMNS(FITS, FITS, FITS, FITS, FITS, FITS, NOT_RUNNING, NOT_RUNNING, NOT_RUNNING, NO_ANSWER, \
		FITS, CANNOT_TELL)

static const enum verdict table[COMMANDS][VM_STATES] = {
			   /* off	starting	running		paused
			      suspended	stopping	panicked	io-error
			      internal	unresponsive	failed		unknown */
	[COMMAND_START] = COLUMNS(FITS,	FITS,		IS_RUNNING,	IS_RUNNING,
			      IS_RUNNING, FITS,		IS_RUNNING,	IS_RUNNING,
			      IS_RUNNING, IS_RUNNING,	FITS,		CANNOT_TELL),
	[COMMAND_STOP] = COLUMNS(FITS,	FITS,		FITS,		FITS,
			      FITS,	FITS,		FITS,		FITS,
			      FITS,	FITS,		FITS,		CANNOT_TELL),
	[COMMAND_RESTART] = COLUMNS(IS_OFF, FITS,	FITS,		FITS,
			      FITS,	IS_STOPPING,	FITS,		FITS,
			      FITS,	FITS,		IS_OFF,		CANNOT_TELL),
	[COMMAND_KILL] = COLUMNS(FITS,	FITS,		FITS,		FITS,
			      FITS,	FITS,		FITS,		FITS,
			      FITS,	FITS,		FITS,		CANNOT_TELL),
	[COMMAND_PAUSE] = COLUMNS(IS_OFF, NOT_RUNNING,	FITS,		FITS,
			      NOT_RUNNING, IS_STOPPING,	NOT_RUNNING,	NOT_RUNNING,
			      NOT_RUNNING, NO_ANSWER,	IS_OFF,		CANNOT_TELL),
	[COMMAND_RESUME] = COLUMNS(NOT_PAUSED, NOT_PAUSED, NOT_PAUSED,	FITS,
			      NOT_PAUSED, IS_STOPPING,	NOT_PAUSED,	FITS,
			      NOT_PAUSED, NO_ANSWER,	NOT_PAUSED,	CANNOT_TELL),
	[COMMAND_ENSURE] = COLUMNS(FITS, FITS,		FITS,		FITS,
			      FITS,	FITS,		FITS,		FITS,
			      FITS,	FITS,		FITS,		CANNOT_TELL),
	[COMMAND_MIGRATE] = MOVING,
	[COMMAND_MOVE] = MOVING,
	[COMMAND_UNMIGRATE] = MOVING,
	[COMMAND_RM] = COLUMNS(FITS,	IS_RUNNING,	IS_RUNNING,	IS_RUNNING,
			      IS_RUNNING, IS_STOPPING,	IS_RUNNING,	IS_RUNNING,
			      IS_RUNNING, IS_RUNNING,	FITS,		CANNOT_TELL),
	[COMMAND_EXEC] = COLUMNS(NO_ANSWER, NO_ANSWER,	FITS,		NOT_RUNNING,
			      NOT_RUNNING, FITS,	NOT_RUNNING,	NOT_RUNNING,
			      NOT_RUNNING, NO_ANSWER,	NO_ANSWER,	CANNOT_TELL),
	[COMMAND_MONITOR] = COLUMNS(NO_ANSWER, NO_ANSWER, FITS,		FITS,
			      FITS,	FITS,		FITS,		FITS,
			      FITS,	NO_ANSWER,	NO_ANSWER,	CANNOT_TELL),
	[COMMAND_CONSOLE] = COLUMNS(NO_ANSWER, FITS,	FITS,		FITS,
			      FITS,	FITS,		FITS,		FITS,
			      FITS,	FITS,		NO_ANSWER,	CANNOT_TELL),
};
/* clang-format on */

static int refuse_by_state(enum verdict verdict, enum command command,
			   const struct command_facts *f, struct error *err)
{
	const char *state = vm_state_name(f->state);

	switch (verdict) {
	case FITS:
		return 0;
	case IS_RUNNING:
		if (command == COMMAND_RM)
			return error_refuse(err, "VM '%s' is %s; 'drover stop %s' first", f->vm,
					    state, f->vm);
		return error_refuse(err, "VM '%s' is %s already", f->vm, state);
	case IS_OFF:
		return error_refuse(err, "VM '%s' is not running (%s)", f->vm, state);
	case IS_STOPPING:
		return error_refuse(err, "VM '%s' is being stopped", f->vm);
	case NOT_PAUSED:
		return error_refuse(err, "VM '%s' is not paused but %s", f->vm, state);
	case NOT_RUNNING:
		return error_refuse(err, "VM '%s' is not running but %s%s%s", f->vm, state,
				    f->reason && *f->reason ? ": " : "",
				    f->reason ? f->reason : "");
	case NO_ANSWER:
		return error_try_again(err, "VM '%s' is %s: there is no QEMU that answers", f->vm,
				       state);
	case CANNOT_TELL:
	default:
		return error_try_again(err, "the state of VM '%s' cannot be told now%s%s", f->vm,
				       f->reason && *f->reason ? ": " : "",
				       f->reason ? f->reason : "");
	}
}

/* What the definition says stands above commands that want the VM up. */
static int refuse_by_wish(enum command command, const struct command_facts *f, struct error *err)
{
	if (command == COMMAND_MIGRATE || command == COMMAND_MOVE || command == COMMAND_UNMIGRATE)
		return f->wish != WISH_HANDS_OFF
			       ? 0
			       : error_refuse(
					 err,
					 "VM '%s' is not to be touched: 'kvm_host' is empty in "
					 "its definition (%s), or that is gone",
					 f->vm, f->source);
	if (command != COMMAND_START && command != COMMAND_RESTART && command != COMMAND_RESUME)
		return 0;
	switch (f->wish) {
	case WISH_OFF:
		return error_refuse(err,
				    "the definition of VM '%s' says 'online: false' (%s); change "
				    "it there",
				    f->vm, f->source);
	case WISH_NODE_STOPPED:
		return error_refuse(err,
				    "this node is in mode 'stopped'; 'drover node ready' ends it");
	default:
		return 0;
	}
}

/* What does not run yet, but is about to or tried again and again, can be stopped as well. */
static bool nothing_to_stop(const struct command_facts *f)
{
	return (f->state == VM_OFF && f->wish != WISH_RUN) ||
	       (f->state == VM_FAILED && wish_is_down(f->wish));
}

int command_check(enum command command, const struct command_facts *f, struct error *err)
{
	int r;

	r = refuse_by_wish(command, f, err);
	if (r < 0)
		return r;
	r = refuse_by_state(table[command][f->state], command, f, err);
	if (r < 0)
		return r;
	if (command == COMMAND_RM && f->source_is_file)
		return error_refuse(err, "VM '%s' is defined by %s; remove that file first", f->vm,
				    f->source);
	if ((command == COMMAND_STOP || command == COMMAND_KILL) && nothing_to_stop(f))
		return refuse_by_state(IS_OFF, command, f, err);
	return 0;
}

static int finished_up(const struct command_facts *f, struct error *err)
{
	if (f->state == VM_RUNNING)
		return 1;
	if (f->wish != WISH_RUN)
		return error_set_class(err, ERROR_REFUSED, -ECANCELED,
				       "VM '%s' is not to run any more (wish: %s)", f->vm,
				       vm_wish_name(f->wish));
	if (f->state == VM_FAILED)
		return error_set(err, -ECANCELED, "VM '%s' did not start: %s", f->vm,
				 f->reason ? f->reason : "reason unknown");
	/* It is kept for a look, and only an order ends it: its reason says which. */
	if (f->state == VM_PANICKED || f->state == VM_INTERNAL_ERROR)
		return error_set(err, -ECANCELED, "VM '%s' is %s: %s", f->vm,
				 vm_state_name(f->state), f->reason ? f->reason : "reason unknown");
	return 0;
}

static int finished_down(const struct command_facts *f, struct error *err)
{
	if (f->state == VM_OFF)
		return 1;
	if (!wish_is_down(f->wish))
		return error_set_class(err, ERROR_REFUSED, -ECANCELED,
				       "VM '%s' is not to be stopped any more (wish: %s)", f->vm,
				       vm_wish_name(f->wish));
	return 0;
}

static int finished_pause(const struct command_facts *f, struct error *err)
{
	const char *state = vm_state_name(f->state);

	switch (f->state) {
	case VM_PAUSED:
		return 1;
	case VM_RUNNING:
	case VM_UNRESPONSIVE:
	case VM_UNKNOWN:
		if (f->wish == WISH_PAUSE)
			return 0;
		return error_set_class(err, ERROR_REFUSED, -ECANCELED,
				       "VM '%s' is not to be paused any more (wish: %s)", f->vm,
				       vm_wish_name(f->wish));
	default:
		return error_set(err, -ECANCELED, "VM '%s' is %s: there is nothing to pause", f->vm,
				 state);
	}
}

/* A guest that sleeps does as it likes. */
static int finished_ensure_up(const struct command_facts *f, struct error *err)
{
	return f->state == VM_SUSPENDED ? 1 : finished_up(f, err);
}

/* `ensure` is done when the state is what the wish leads to, or cannot be helped. */
static int finished_ensure(const struct command_facts *f, struct error *err)
{
	switch (f->wish) {
	case WISH_RUN:
		return finished_ensure_up(f, err);
	case WISH_PAUSE:
		return f->state != VM_STARTING && f->state != VM_RUNNING &&
		       f->state != VM_STOPPING && f->state != VM_UNRESPONSIVE &&
		       f->state != VM_UNKNOWN;
	case WISH_HANDS_OFF:
	case WISH_ELSEWHERE:
		return 1;
	default:
		return finished_down(f, err);
	}
}

int command_finished(enum command command, const struct command_facts *f, struct error *err)
{
	switch (command) {
	case COMMAND_START:
	case COMMAND_RESTART:
	case COMMAND_RESUME:
		return finished_up(f, err);
	case COMMAND_STOP:
	case COMMAND_KILL:
		return finished_down(f, err);
	case COMMAND_PAUSE:
		return finished_pause(f, err);
	case COMMAND_ENSURE:
		return finished_ensure(f, err);
	default:
		return 1;
	}
}
