/* SPDX-License-Identifier: Apache-2.0 */
/* `drover ensure /etc/drover/vms/web01.yaml` means web01 (fc-K15).  Only here, and only of a path:
 * a name is a name, with all its dots, and "web01.yaml" is another VM than "web01" (fc-W24). */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "util/cleanup.h"
#include "util/error.h"

int vm_argument(const char *argument, char buffer[VM_ARGUMENT_SIZE], struct error *err)
{
	static const char *const suffixes[] = { ".yaml", ".yml", ".cfg" };
	const char *slash = strrchr(argument, '/');
	const char *name = slash ? slash + 1 : argument;
	size_t length = strlen(name);

	for (size_t i = 0; slash && i < ARRAY_SIZE(suffixes); i++) {
		size_t suffix = strlen(suffixes[i]);

		if (length > suffix && strcmp(name + length - suffix, suffixes[i]) == 0) {
			length -= suffix;
			break;
		}
	}
	if (length == 0 || length >= VM_ARGUMENT_SIZE)
		return error_usage(err, "'%s' is no name of a VM; 'drover ls' lists them",
				   argument);
	(void)snprintf(buffer, VM_ARGUMENT_SIZE, "%.*s", (int)length, name);
	return 0;
}
