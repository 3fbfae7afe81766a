/* SPDX-License-Identifier: Apache-2.0 */
/* Which command fits which state.  What does not fit is refused (69) with a sentence and changes
 * nothing; a test walks the table, docs/STATES.md prints it. */
#pragma once
#include <stdbool.h>

#include "model/state.h"

struct error;

enum command {
	COMMAND_START,
	COMMAND_STOP,
	COMMAND_RESTART,
	COMMAND_KILL,
	COMMAND_PAUSE,
	COMMAND_RESUME,
	COMMAND_ENSURE,
	COMMAND_MIGRATE,
	COMMAND_MOVE,
	COMMAND_UNMIGRATE,
	COMMAND_RM,
	COMMAND_EXEC,	 /* also `guest` */
	COMMAND_MONITOR, /* also `qmp` */
	COMMAND_CONSOLE,
	COMMANDS,
};
const char *command_name(enum command command);
int command_of(const char *name); /* -1: none */

struct command_facts {
	enum vm_state state;
	enum vm_wish wish;
	const char *vm;
	const char *reason;  /* of the state, may be NULL */
	const char *source;  /* where the definition comes from: "file alpha:/etc/..." */
	bool source_is_file; /* and that file is there */
	const char *target;  /* node that it should be on; NULL: not known */
};

/* 0: it may be done.  ERROR_REFUSED: it does not fit.  ERROR_TRY_AGAIN: it cannot be told or there
 * is no QEMU that could answer. */
int command_check(enum command command, const struct command_facts *facts, struct error *err);

/* When is a waiting command done?  1 done, 0 not yet, -ECANCELED (in `err` why) when it cannot come
 * to that any more: the wish was changed by somebody else, or the VM failed. */
int command_finished(enum command command, const struct command_facts *facts, struct error *err);
