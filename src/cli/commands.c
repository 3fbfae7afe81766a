/* SPDX-License-Identifier: Apache-2.0 */
/* The index of commands: what there is, what each takes and what it is for. */
#include "cli/cli.h"

#include <string.h>

#include "util/cleanup.h"

#define ANY_NUMBER SIZE_MAX

/* clang-format off */
static const struct command commands[] = {
	{ "apply", "FILE|DIR|-", 1, 1, false, OPTION_WAITING | OPTION_DRY_RUN, run_apply,
	  "store definitions and wait until their VMs have settled",
	  "A directory means its *.yaml and *.yml in order of their names; - reads standard input.\n"
	  "All of it is stored or nothing.  What changed goes to standard output, notes and reasons\n"
	  "of failure to standard error." },
	{ "ls", "", 0, 0, false, 0, run_ls,
	  "list all VMs", NULL },
	{ "status", "VM", 1, 1, false, 0, run_status,
	  "show one VM",
	  "Exit codes: 0 running, 1 in any other known state, 69 no such VM, 75 cannot be told." },
	{ "explain", "VM", 1, 1, false, 0, run_explain,
	  "say why a VM is in its state and what comes next", NULL },
	{ "start", "VM", 1, 1, false, OPTION_WAITING, run_order,
	  "run a VM; takes back an earlier stop, kill or pause", NULL },
	{ "stop", "VM", 1, 1, false, OPTION_WAITING, run_order,
	  "shut a VM down, by force if it does not; it stays off until `start`", NULL },
	{ "restart", "VM", 1, 1, false, OPTION_WAITING, run_order,
	  "stop a VM and start it with its current definition", NULL },
	{ "kill", "VM", 1, 1, false, OPTION_WAITING, run_order,
	  "end a VM at once; it stays off until `start`", NULL },
	{ "pause", "VM", 1, 1, false, OPTION_WAITING, run_order,
	  "stop the processors of a VM, keep its memory", NULL },
	{ "resume", "VM", 1, 1, false, OPTION_WAITING, run_order,
	  "let a paused VM go on, or try again after a disk error", NULL },
	{ "ensure", "[VM]", 0, 1, false, OPTION_WAITING, run_order,
	  "bring one VM, or all, to what is wished for, now",
	  "Forgets the waiting time after failures." },
	{ "migrate", "VM", 1, 1, false,
	  OPTION_WAITING | OPTION_TO | OPTION_METHOD | OPTION_MAX_DOWNTIME | OPTION_BANDWIDTH |
		  OPTION_POSTCOPY | OPTION_CANCEL,
	  run_move, "let a VM run on another node for a while; `unmigrate` brings it back",
	  "Without --to the node with the most free memory is taken.  It goes live, with its memory,\n"
	  "or is shut down here and started there, as --method or its definition says; --method live\n"
	  "and auto never shut it down behind your back.  A VM that is off starts there next time.  A\n"
	  "newer order takes the place of one that is not done.  With --cancel it stays where it is." },
	{ "unmigrate", "VM", 1, 1, false, OPTION_WAITING, run_move,
	  "bring a migrated VM back to its own node", NULL },
	{ "move", "VM", 1, 1, false,
	  OPTION_WAITING | OPTION_TO | OPTION_METHOD | OPTION_MAX_DOWNTIME | OPTION_BANDWIDTH |
		  OPTION_POSTCOPY,
	  run_move,
	  "let a VM run on another node for good",
	  "For good means: until a new definition names another node as `kvm_host`.  To be on --to NODE." },
	{ "migrations", "[VM]", 0, 1, false, 0, run_migrations,
	  "show migrations as both sides saw them, step by step", NULL },
	{ "rm", "VM", 1, 1, false, OPTION_VOLUME | OPTION_TIMEOUT, run_rm,
	  "forget a VM that is off; its volumes stay",
	  "With --volume NAME the VM stays and that volume, with its data, is removed.  A VM that\n"
	  "was removed before still names the volumes that it left." },
	{ "exec", "VM -- COMMAND [ARGS]", 2, ANY_NUMBER, true, OPTION_STDIN | OPTION_TIMEOUT, run_exec,
	  "run a command in the guest, through its guest agent",
	  "Prints the command's output when it has ended and exits with its code: 128 + N when\n"
	  "signal N ended it, 125 when it could not be run.  Its standard input is empty unless\n"
	  "--stdin is given.  Options of drover come before COMMAND." },
	{ "console", "VM", 1, 1, false, OPTION_LINES, run_console,
	  "attach to the serial console; Ctrl-] ends",
	  "With --lines N the last N lines of its log are printed instead.  After the end of\n"
	  "standard input, output is still shown until the console closes." },
	{ "monitor", "VM [LINE]", 1, ANY_NUMBER, true, OPTION_TIMEOUT, run_monitor,
	  "say a line to QEMU's human monitor, or read lines until Ctrl-D", NULL },
	{ "qmp", "VM COMMAND [JSON]", 2, 3, false, OPTION_TIMEOUT, run_qmp,
	  "run a QMP command", "JSON is the object of its arguments.  The answer is JSON." },
	{ "guest", "VM COMMAND [JSON]", 2, 3, false, OPTION_TIMEOUT, run_guest,
	  "run a guest agent command", "JSON is the object of its arguments.  The answer is JSON." },
	{ "handle-consul-event", "", 0, 0, false, 0, run_handle_consul_event,
	  "take definitions that `consul watch` has on standard input",
	  "A JSON list of Consul's keys `node/VM` (a definition each) and `snapshot/ANYTHING`.  What\n"
	  "is no newer than what is stored changes nothing.  An event that is wrong is told, the\n"
	  "others go on, and the exit code is 0." },
	{ "hardware", "VM", 1, 1, false, 0, run_hardware,
	  "print the hardware that the guest sees", NULL },
	{ "volume ls", "[VM]", 0, 1, false, 0, run_volume_ls,
	  "list volumes, those without a VM too", NULL },
	{ "events", "[VM]", 0, 1, false, OPTION_LINES | OPTION_FOLLOW, run_events,
	  "show what happened to a VM, or to all",
	  "With --follow and --format json each event is one line." },
	{ "logs", "[VM]", 0, 1, false, OPTION_LOGS | OPTION_LINES, run_logs,
	  "show the end of a log: the agent's, or of a VM its keeper's", NULL },
	{ "config", "", 0, 0, false, 0, run_config,
	  "show the configuration in force and where each value comes from", NULL },
	{ "node status", "[NODE]", 0, 1, false, 0, run_node_status,
	  "show this node, or what another one last told of itself", NULL },
	{ "node ls", "", 0, 0, false, 0, run_node_ls,
	  "list all nodes", NULL },
	{ "node ready", "", 0, 0, false, 0, run_node_ready,
	  "let this node run VMs again after `shutdown-all`", NULL },
	{ "node reexec", "", 0, 0, false, OPTION_WAITING, run_node_reexec,
	  "let the agent and the keepers of this node become the programs installed now",
	  "The installed agent is asked first whether it can run here; if not, nothing changes.  Guests\n"
	  "notice nothing, commands that wait go on waiting.  Keepers are replaced one by one; one that\n"
	  "starts, stops or moves its VM comes later: exit code 75 when --timeout is over before." },
	{ "cluster status", "", 0, 0, false, 0, run_cluster_status,
	  "show the cluster: its nodes, this node's certificate, the store", NULL },
	{ "cluster init", "", 0, 0, false, 0, run_cluster_init,
	  "make a cluster, with this node as its first member",
	  "Makes the authority that signs the certificates of its nodes; its key stays here." },
	{ "cluster token", "[NODE]", 0, 1, false, 0, run_cluster_token,
	  "print a token that lets one node join, once and within an hour",
	  "With NODE only that one, which may have been a member before.  Whoever has the token can\n"
	  "use it: hand it over like a password." },
	{ "cluster join", "[FILE|-]", 0, 1, false, 0, run_cluster_join,
	  "make this node a member, with a token from standard input or a file",
	  NULL },
	{ "cluster leave", "[NODE]", 0, 1, false, 0, run_cluster_leave,
	  "end the membership of this node, or of one that is gone for good",
	  "It must hold no VM.  A NODE that is alive leaves by itself." },
	{ "shutdown-all", "", 0, 0, false, OPTION_WAITING | OPTION_YES, run_shutdown_all,
	  "stop all VMs of this node until `node ready`",
	  "Lists them and asks for a literal `yes`; without a terminal it needs --yes." },
	{ "version", "", 0, 0, false, 0, run_version,
	  "show the versions of this program, of the agent and of QEMU", NULL },
	{ "help", "[COMMAND]", 0, 2, false, 0, run_help,
	  "show this help, or that of a command", NULL },
};
/* clang-format on */

const struct command *commands_all(size_t *ret_count)
{
	*ret_count = ARRAY_SIZE(commands);
	return commands;
}

static bool is_two_words(const char *name, const char *first, const char *second)
{
	size_t length = strlen(first);

	return strncmp(name, first, length) == 0 && name[length] == ' ' &&
	       strcmp(name + length + 1, second) == 0;
}

/* `drover node` alone means its first row. */
const struct command *command_find(const char *const *words, size_t count, size_t *ret_used)
{
	const struct command *family = NULL;
	size_t length = count > 0 ? strlen(words[0]) : 0;

	for (size_t i = 0; count > 0 && i < ARRAY_SIZE(commands); i++) {
		*ret_used = 1;
		if (strcmp(commands[i].name, words[0]) == 0)
			return &commands[i];
		*ret_used = 2;
		if (count > 1 && is_two_words(commands[i].name, words[0], words[1]))
			return &commands[i];
		if (!family && length > 0 && strncmp(commands[i].name, words[0], length) == 0 &&
		    commands[i].name[length] == ' ')
			family = &commands[i];
	}
	*ret_used = 1;
	return family;
}
