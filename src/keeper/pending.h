/* SPDX-License-Identifier: Apache-2.0 */
/* What of the definition the running guest has not got yet, because only a restart brings it. */
#pragma once

struct keeper;

/* Works keeper->pending out anew. */
void pending_look(struct keeper *keeper);
