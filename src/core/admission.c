/* SPDX-License-Identifier: Apache-2.0 */
#include "core/admission.h"

#include <errno.h>
#include <inttypes.h>

#include "util/error.h"

int admission_check(const struct admission *a, struct error *err)
{
	uint64_t need = a->need + a->overhead;

	if (a->limit && (a->booked >= a->limit || a->limit - a->booked < need))
		return error_try_again(err,
				       "insufficient bookable memory: %" PRIu64 " MiB (%" PRIu64
				       " + %" PRIu64 " overhead) are needed, %" PRIu64
				       " of %" PRIu64
				       " MiB are booked; stop a VM, or raise memory.limit_mib",
				       need, a->need, a->overhead, a->booked, a->limit);
	if (a->available < need)
		return error_try_again(
			err,
			"insufficient memory on this host: %" PRIu64 " MiB (%" PRIu64 " + %" PRIu64
			" overhead) are needed, %" PRIu64
			" MiB are available; stop a VM, or give this one less memory",
			need, a->need, a->overhead, a->available);
	return 0;
}
