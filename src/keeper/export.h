/* SPDX-License-Identifier: Apache-2.0 */
/* The receiving side of local disks: QEMU's NBD server, which the source's mirror fills.  The port
 * is opened here and handed in; what flows is encrypted with the migration's key. */
#pragma once
#include <jansson.h>

struct error;
struct export;
struct keeper;
struct script;

/* Adds what QEMU has to do to `script`; NULL when no disk comes along. */
int export_begin(struct keeper *keeper, struct script *script, struct export **ret,
		 struct error *err);
/* Nobody writes to the disks any more once `script` is through. */
void export_end(struct export *export, struct script *script);
struct export *export_free(struct export *export);
/* For the source: {"port", "volumes": [..]} or null. */
json_t *export_json(const struct export *export);
