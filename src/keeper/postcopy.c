/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/postcopy.h"

#include <errno.h>
#include <string.h>

#include "keeper/keeper.h"
#include "keeper/monitor.h"
#include "keeper/ownership.h"
#include "model/config.h"
#include "qemu/hardware.h"
#include "qmp/qmp.h"
#include "util/error.h"

/* 11.1 under TCG lets one guest in ten go on with pages from a moment before (docs/QEMU.md). */
static bool loses_pages(const struct keeper *keeper)
{
	int major = 0, minor = 0;

	qmp_version(monitor_qmp(keeper->monitor), &major, &minor);
	return major >= 11 && keeper->hardware && strcmp(keeper->hardware->accelerator, "tcg") == 0;
}

bool postcopy_possible(const struct keeper *keeper, struct error *err)
{
	if (!keeper->want.move.postcopy)
		return false;
	/* Section 10 of the ownership protocol. */
	if (keeper->ownership->record.home[0]) {
		(void)error_refuse(err, "its disks come along, and they are on one side only");
		return false;
	}
	if (loses_pages(keeper)) {
		(void)error_refuse(err, "this version of QEMU loses pages then without KVM");
		return false;
	}
	return true;
}

struct script *postcopy_try(struct keeper *keeper, script_done_fn done, void *ctx)
{
	struct script *script = script_new(keeper);

	script_add(script, "migrate-set-capabilities",
		   json_pack("{s:[{s:s, s:b}]}", "capabilities", "capability", "postcopy-ram",
			     "state", 1));
	script_run(script, done, ctx);
	return script;
}

/* QEMU tells what is missing on stderr only, and mostly it is this: the kernel gives the faults of
 * a process without rights to nobody, unless by a device that QEMU knows since 8.0. */
void postcopy_explain(const struct keeper *keeper, struct error *err)
{
	int major = 0, minor = 0;

	qmp_version(monitor_qmp(keeper->monitor), &major, &minor);
	if (major && major < 8)
		(void)error_prefix(err, -EPERM,
				   "QEMU %d.%d needs 'sysctl vm.unprivileged_userfaultfd=1', 8.0 "
				   "and later need /dev/userfaultfd of the kernel (node '%s')",
				   major, minor, keeper->config->node);
	else
		(void)error_prefix(err, -EPERM,
				   "QEMU %d.%d needs /dev/userfaultfd of the kernel, or 'sysctl "
				   "vm.unprivileged_userfaultfd=1' (node '%s')",
				   major, minor, keeper->config->node);
}
