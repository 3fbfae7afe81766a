/* SPDX-License-Identifier: Apache-2.0 */
/* What an operator may not say to a monitor, and what to say to Drover instead.  The line is drawn
 * at promises: who may start or stop vcpus, what the hardware record says, which descriptors and
 * jobs are the keeper's.  What merely looks, or prods the guest as a person at its console could
 * (keys, reset, NMI, balloon), passes.
 *
 * A name ending in `*` stands for all that begin so, so that the siblings which newer QEMUs bring
 * are refused too. */
#include <string.h>

#include "qmp/qmp.h"
#include "util/cleanup.h"

struct refusal {
	const char *name;
	const char *sentence;
};

#define RECORD                                                                                     \
	" would change the machine behind its hardware record; change the definition and use "     \
	"'drover apply'"
#define VOLUME                                                                                     \
	" would change the disks behind Drover's back; change `volumes` of the definition and "    \
	"use "                                                                                     \
	"'drover apply'"
#define JOB " would interfere with work on disks that Drover must account for; see 'drover volume'"
#define DESCRIPTOR " is for the keeper alone, which counts QEMU's descriptors"
#define MOVE " would move a VM behind Drover's back; see 'drover status VM' for what it is doing"
#define BACKEND                                                                                    \
	" would change what the VM is connected to behind Drover's back; change the definition "   \
	"and use 'drover apply'"
#define SNAPSHOT " would save or load a state of the VM that Drover knows nothing of"
#define MEMORY                                                                                     \
	" of the host as QEMU's own user, who is to see and to write none; look at memory with "   \
	"'drover monitor VM x/64xb ADDRESS'"
#define THROTTLE " would slow the vcpus down, which is the business of a migration"
#define ACTION                                                                                     \
	" would change how QEMU ends, by which the keeper tells why; see `on_panic` of the "       \
	"definition"

/* clang-format off */
static const struct refusal qmp_refusals[] = {
	{ "cont", "'cont' would start a VM behind Drover's back; use 'drover resume VM'" },
	{ "stop", "'stop' would pause a VM behind Drover's back; use 'drover pause VM'" },
	{ "quit", "'quit' would kill a VM behind Drover's back; use 'drover stop VM' or "
		  "'drover kill VM'" },
	{ "system_powerdown", "'system_powerdown' would look like a guest that powers itself off; "
			      "use 'drover stop VM'" },
	{ "dump-guest-memory", "'dump-guest-memory' would stop the vcpus while it writes, to a "
			       "file" MEMORY },
	{ "memsave", "'memsave' would write to a file" MEMORY },
	{ "pmemsave", "'pmemsave' would write to a file" MEMORY },
	{ "x-exit-preconfig", "'x-exit-preconfig'" RECORD },
	{ "migrate*", "'migrate*'" MOVE },
	{ "client_migrate_info", "'client_migrate_info'" MOVE },
	{ "x-colo-*", "'x-colo-*'" MOVE },
	{ "xen-*", "'xen-*'" MOVE },
	{ "nbd-server-*", "'nbd-server-*'" JOB },
	{ "block-export-*", "'block-export-*'" JOB },
	{ "snapshot-*", "'snapshot-*'" SNAPSHOT },
	{ "savevm*", "'savevm'" SNAPSHOT },
	{ "loadvm*", "'loadvm'" SNAPSHOT },
	{ "replay-*", "'replay-*'" SNAPSHOT },
	{ "device_add", "'device_add'" RECORD },
	{ "device_del", "'device_del'" RECORD },
	{ "device-sync-config", "'device-sync-config'" RECORD },
	{ "object-add", "'object-add'" RECORD },
	{ "object-del", "'object-del'" RECORD },
	{ "object_*", "'object_*'" RECORD },
	{ "qom-set", "'qom-set'" RECORD },
	{ "set-numa-node", "'set-numa-node'" RECORD },
	{ "cpu-add", "'cpu-add'" RECORD },
	{ "set-cpu-topology", "'set-cpu-topology'" RECORD },
	{ "netdev_*", "'netdev_*'" BACKEND },
	{ "chardev-add", "'chardev-add'" BACKEND },
	{ "chardev-change", "'chardev-change'" BACKEND },
	{ "chardev-remove", "'chardev-remove'" BACKEND },
	{ "yank", "'yank'" BACKEND },
	{ "add_client", "'add_client'" DESCRIPTOR },
	{ "getfd", "'getfd'" DESCRIPTOR },
	{ "get-win32-socket", "'get-win32-socket'" DESCRIPTOR },
	{ "closefd", "'closefd'" DESCRIPTOR },
	{ "add-fd", "'add-fd'" DESCRIPTOR },
	{ "remove-fd", "'remove-fd'" DESCRIPTOR },
	{ "blockdev-*", "'blockdev-*'" VOLUME },
	{ "x-blockdev-*", "'x-blockdev-*'" VOLUME },
	{ "block_resize", "'block_resize' would grow a disk behind Drover's back; raise `size` in "
			  "the definition and use 'drover apply'" },
	{ "block-commit", "'block-commit'" VOLUME },
	{ "block-stream", "'block-stream'" VOLUME },
	{ "block_stream", "'block_stream'" VOLUME },
	{ "block-dirty-bitmap-*", "'block-dirty-bitmap-*'" JOB },
	{ "block-job-*", "'block-job-*'" JOB },
	{ "block_job_*", "'block_job_*'" JOB },
	{ "job-*", "'job-*'" JOB },
	{ "drive-*", "'drive-*'" VOLUME },
	{ "drive_*", "'drive_*'" VOLUME },
	{ "change-backing-file", "'change-backing-file'" VOLUME },
	{ "change", "'change'" VOLUME },
	{ "eject", "'eject'" VOLUME },
	{ "transaction", "'transaction'" VOLUME },
	{ "set-action", "'set-action'" ACTION },
	{ "watchdog-set-action", "'watchdog-set-action'" ACTION },
	{ "set-vcpu-dirty-limit", "'set-vcpu-dirty-limit'" THROTTLE },
	{ "cancel-vcpu-dirty-limit", "'cancel-vcpu-dirty-limit'" THROTTLE },
};

/* Names that only the human monitor has, or writes otherwise; the rest is looked up above. */
static const struct refusal hmp_refusals[] = {
	{ "c", "'cont' would start a VM behind Drover's back; use 'drover resume VM'" },
	{ "s", "'stop' would pause a VM behind Drover's back; use 'drover pause VM'" },
	{ "q", "'quit' would kill a VM behind Drover's back; use 'drover stop VM' or "
	       "'drover kill VM'" },
	{ "exit_preconfig", "'exit_preconfig'" RECORD },
	{ "x_colo_*", "'x_colo_*'" MOVE },
	{ "nbd_server_*", "'nbd_server_*'" JOB },
	{ "delvm", "'delvm'" SNAPSHOT },
	{ "snapshot_*", "'snapshot_*'" SNAPSHOT },
	{ "replay_*", "'replay_*'" SNAPSHOT },
	{ "boot_set", "'boot_set'" RECORD },
	{ "cpu_set", "'cpu_set'" RECORD },
	{ "o", "'o' would write to a port of the machine past the guest's driver, and nothing in "
	       "Drover needs that" },
	{ "hostfwd_*", "'hostfwd_*'" BACKEND },
	{ "host_net_*", "'host_net_*'" BACKEND },
	{ "pci_add", "'pci_add'" RECORD },
	{ "pci_del", "'pci_del'" RECORD },
	{ "commit", "'commit'" VOLUME },
	{ "qemu-io", "'qemu-io' would write to a disk past the guest" },
	{ "gdbserver", "'gdbserver' would let a debugger stop and start the vcpus behind Drover's "
		       "back" },
	{ "watchdog_action", "'watchdog_action'" ACTION },
	{ "set_vcpu_dirty_limit", "'set_vcpu_dirty_limit'" THROTTLE },
	{ "cancel_vcpu_dirty_limit", "'cancel_vcpu_dirty_limit'" THROTTLE },
};
/* clang-format on */

static const char *refusal_find(const struct refusal *refusals, size_t count, const char *name,
				size_t length)
{
	for (size_t i = 0; i < count; i++) {
		size_t known = strlen(refusals[i].name);
		bool prefix = refusals[i].name[known - 1] == '*';

		if (prefix ? length >= known - 1 && !memcmp(name, refusals[i].name, known - 1)
			   : length == known && !memcmp(name, refusals[i].name, known))
			return refusals[i].sentence;
	}
	return NULL;
}

const char *qmp_refusal(const char *command)
{
	return refusal_find(qmp_refusals, ARRAY_SIZE(qmp_refusals), command, strlen(command));
}

/* As QEMU cuts it (monitor/hmp.c, get_command_name): leading blanks, then everything up to a blank
 * or a slash; no quotes, no abbreviations. */
const char *hmp_refusal(const char *line)
{
	const char *name = line + strspn(line, " \t\n\v\f\r");
	size_t length = strcspn(name, " \t\n\v\f\r/");
	const char *sentence;

	if (length == 0)
		return NULL;
	sentence = refusal_find(hmp_refusals, ARRAY_SIZE(hmp_refusals), name, length);
	if (sentence)
		return sentence;
	return refusal_find(qmp_refusals, ARRAY_SIZE(qmp_refusals), name, length);
}
