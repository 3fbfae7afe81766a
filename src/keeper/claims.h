/* SPDX-License-Identifier: Apache-2.0 */
/* The claims of a VM's volumes, as its keeper looks at them and frees them.  They tell of a store
 * that was set back to an older state: then another node may run the VM although the record does
 * not say so. */
#pragma once

struct definition;
struct error;
struct keeper;

/* Refuses as long as a claim is newer than the record; to be asked before each write of the record
 * that no copy stands behind. */
int claims_check(const struct keeper *keeper, const struct definition *definition,
		 struct error *err);
/* The same for claims of other nodes alone, for a record that is to be given back. */
int claims_check_others(const struct keeper *keeper, const struct definition *definition,
			struct error *err);

/* Frees what this node claims; nothing of the VM runs here any more. */
int claims_release(struct keeper *keeper, struct error *err);
