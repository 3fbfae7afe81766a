/* SPDX-License-Identifier: Apache-2.0 */
/* docs/STATES.md is printed from the tables of the core: what a VM can be, what can be wished,
 * which command fits when, and what is done about what. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/command.h"
#include "core/reconcile.h"
#include "model/state.h"
#include "util/mem.h"
#include "written.h"

#define DOC TEST_SOURCE_DIR "/docs/STATES.md"

static const char *const state_words[VM_STATES] = {
	[VM_OFF] = "no QEMU; none is wanted, or not yet",
	[VM_STARTING] = "between the decision to start and running processors",
	[VM_RUNNING] = "the guest's processors run",
	[VM_PAUSED] = "they are stopped, by `drover pause` or by somebody at the monitor",
	[VM_SUSPENDED] = "the guest put itself to sleep (ACPI S3)",
	[VM_STOPPING] = "asked to shut down, or being ended and cleaned up",
	[VM_PANICKED] = "the guest's kernel panicked; kept for a look, as `on_panic` says",
	[VM_IO_ERROR] = "stopped by QEMU on a disk error; `drover resume` tries again",
	[VM_INTERNAL_ERROR] = "stopped since QEMU or KVM could not go on",
	[VM_UNRESPONSIVE] = "QEMU lives, its monitor does not answer",
	[VM_FAILED] = "should run and does not; the reason says why and when it is tried again",
	[VM_UNKNOWN] = "cannot be told now; the reason says why",
};

static const char *const wish_words[VM_WISHES] = {
	[WISH_RUN] = "`online: true`, this node is to have it, no order stands against it",
	[WISH_PAUSE] = "`drover pause`, until `resume` or `start`",
	[WISH_STOP] = "`drover stop` or `kill`, until `start`; a new definition does not end it",
	[WISH_OFF] = "the definition says `online: false`",
	[WISH_HANDS_OFF] =
		"`kvm_host` is there and empty, the definition's file is gone, or a record "
		"cannot be read: nothing is changed",
	[WISH_ELSEWHERE] = "an order, `kvm_host` or where it is names another node",
	[WISH_NODE_STOPPED] =
		"this node is in mode `stopped` (`drover shutdown-all`), until `drover "
		"node ready`",
};

static void print_words(struct text *text, const char *head, int count,
			const char *(*name)(int index), const char *const *words)
{
	text_addf(text, "| %s | meaning |\n|---|---|\n", head);
	for (int i = 0; i < count; i++)
		text_addf(text, "| `%s` | %s |\n", name(i), words[i]);
}

static const char *state_name(int index)
{
	return vm_state_name((enum vm_state)index);
}

static const char *wish_name(int index)
{
	return vm_wish_name((enum vm_wish)index);
}

/* What the exit code would be, all else being well. */
static void print_cell(struct text *text, enum command command, enum vm_state state)
{
	const struct command_facts facts = {
		.state = state,
		.wish = WISH_RUN,
		.vm = "vm",
		.source = "apply",
	};
	struct error err = { 0 };

	if (command_check(command, &facts, &err) == 0)
		text_addf(text, " yes |");
	else
		text_addf(text, " %d |", error_exit_code(err.class));
}

static void print_commands(struct text *text)
{
	text_addf(text, "| state |");
	for (int command = 0; command < COMMANDS; command++)
		text_addf(text, " %s |", command_name((enum command)command));
	text_addf(text, "\n|---|");
	for (int command = 0; command < COMMANDS; command++)
		text_addf(text, "---|");
	for (int state = 0; state < VM_STATES; state++) {
		text_addf(text, "\n| `%s` |", vm_state_name((enum vm_state)state));
		for (int command = 0; command < COMMANDS; command++)
			print_cell(text, (enum command)command, (enum vm_state)state);
	}
	text_addf(text, "\n");
}

static void print_actions(struct text *text)
{
	text_addf(text, "| what there is |");
	for (int wish = 0; wish < VM_WISHES; wish++)
		text_addf(text, " %s |", vm_wish_name((enum vm_wish)wish));
	text_addf(text, "\n|---|");
	for (int wish = 0; wish < VM_WISHES; wish++)
		text_addf(text, "---|");
	for (int situation = 0; situation < SITUATIONS; situation++) {
		const struct facts facts = { .situation = (enum situation)situation };

		text_addf(text, "\n| %s |", situation_name((enum situation)situation));
		for (int wish = 0; wish < VM_WISHES; wish++) {
			enum action action = reconcile((enum vm_wish)wish, &facts).action;

			text_addf(text, " %s |", action == ACTION_NONE ? "-" : action_name(action));
		}
	}
	text_addf(text, "\n");
}

static char *print_doc(void)
{
	struct text text = { 0 };

	text_addf(&text, "# States, wishes and commands\n\n"
			 "Printed from the tables of `src/core` and `src/model` by `test-states "
			 "--write-docs`; a test compares.\n\n"
			 "## What a VM can be (`state`)\n\n");
	print_words(&text, "state", VM_STATES, state_name, state_words);
	text_addf(&text, "\n## What can be wanted of it (`wish`)\n\n"
			 "Worked out by `src/core/wish.c` from definition, order, node mode and "
			 "source. The first that is true\ncounts, in this order: `off`, `stop`, "
			 "`node-stopped`, `pause`, `hands-off`, `elsewhere`, `run`.\n\n");
	print_words(&text, "wish", VM_WISHES, wish_name, wish_words);
	text_addf(&text,
		  "\n## Which command fits which state\n\n"
		  "`yes`: it is done. 69: refused, it does not fit. 75: it cannot be told, or "
		  "no QEMU answers; try again.\nAll with the wish `run`. Whatever the state, "
		  "`start`, `restart` and `resume` are refused where the\ndefinition says "
		  "`online: false`, where the node is stopped, and where the VM is not this "
		  "node's; `rm` is\nrefused while the file of the definition exists. `exec` "
		  "stands for `guest` too, `monitor` for `qmp`.\n\n");
	print_commands(&text);
	text_addf(&text, "\n## What is done about it\n\n"
			 "Rows are what the keeper finds, columns what is wanted. Orders (restart, "
			 "kill, retry), back-off and the\npanic policy refine this; see "
			 "`src/core/reconcile.c`.\n\n");
	print_actions(&text);
	return text.text;
}

static void the_document_is_what_the_tables_say(void **state)
{
	CLEANUP_FREE char *text = print_doc();

	written_check(DOC, text, "test-states");
}

static void each_state_and_wish_has_a_name_that_can_be_read_back(void **state)
{
	for (int i = 0; i < VM_STATES; i++)
		assert_int_equal(vm_state_of(state_name(i)), i);
	for (int i = 0; i < VM_WISHES; i++)
		assert_int_equal(vm_wish_of(wish_name(i)), i);
}

/* I3: silence is no wish to stop. */
static void hands_off_never_ends_a_guest_that_runs(void **state)
{
	for (int s = SITUATION_RUNNING; s < SITUATIONS; s++) {
		const struct facts facts = { .situation = (enum situation)s };

		if (s == SITUATION_POWERED_OFF)
			continue;
		assert_int_equal(reconcile(WISH_HANDS_OFF, &facts).action, ACTION_NONE);
		assert_int_equal(reconcile(WISH_ELSEWHERE, &facts).action, ACTION_NONE);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_document_is_what_the_tables_say),
		cmocka_unit_test(each_state_and_wish_has_a_name_that_can_be_read_back),
		cmocka_unit_test(hands_off_never_ends_a_guest_that_runs),
	};

	if (argc == 2 && strcmp(argv[1], "--write-docs") == 0) {
		CLEANUP_FREE char *text = print_doc();

		return written_save(DOC, text);
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
