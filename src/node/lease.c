/* SPDX-License-Identifier: Apache-2.0 */
#include "node/lease.h"

#include <inttypes.h>
#include <stdlib.h>
#include <systemd/sd-event.h>

#include "core/lease.h"
#include "model/config.h"
#include "node/info.h"
#include "node/node.h"
#include "store/store.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"

struct lease_renewal {
	struct node *node;
	struct lease_page *page;
	sd_event_source *timer;
	uint64_t length; /* 0: no session, or one that is too short */
	uint64_t sent;	 /* when the open request was made */
	bool asked;	 /* one is open */
	bool stale;	 /* and it was made in a session that is over */
	bool another;	 /* the next answer is the first one of a new session */
};

static void renew(struct lease_renewal *renewal);

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	renew(userdata);
	return 0;
}

static void on_renewed(void *ctx, int r, const struct error *err)
{
	struct lease_renewal *renewal = ctx;
	struct lease before = lease_page_get(renewal->page), after;
	bool stale = renewal->stale;

	renewal->asked = renewal->stale = false;
	if (r < 0 || stale) {
		log_debug("lease: %s", r < 0 ? err->text : "answered for a session that is over");
		return;
	}
	info_note_latency(renewal->node, clock_now() - renewal->sent);
	after = lease_extend(&before, renewal->sent, renewal->length, clock_now(),
			     renewal->another);
	if (after.since != before.since)
		log_info("the lease of this node is valid for %" PRIu64 " ms after each renewal",
			 renewal->length / USEC_PER_MSEC);
	renewal->another = false;
	lease_page_set(renewal->page, after);
}

/* The next one does not wait for this one's answer, but two are never open. */
static void renew(struct lease_renewal *renewal)
{
	struct node *node = renewal->node;
	struct error err = { 0 };

	if (renewal->length == 0)
		return;
	node_timer(node, &renewal->timer, lease_interval(renewal->length), on_timer, renewal);
	if (renewal->asked)
		return;
	renewal->sent = clock_now();
	renewal->asked = store_session_renew(node->store, on_renewed, renewal, &err) == 0;
	if (!renewal->asked)
		log_debug("lease: %s", err.text);
}

/* Then a policy other than `keep` starts nothing, and `keep` is as it is without any lease; what
 * was promised before stands until it is over. */
static void no_lease(struct lease_renewal *renewal, uint64_t earliest)
{
	log_warning("the store ends our session as early as %" PRIu64
		    " ms after a renewal, which is too short for a lease: VMs with the lease "
		    "policy 'stop' or 'pause' are not started; make 'timers.session' longer",
		    earliest / USEC_PER_MSEC);
	if (lease_page_get(renewal->page).end <= clock_now())
		lease_page_set(renewal->page, (struct lease){ 0 });
}

void lease_session(struct node *node, bool another)
{
	struct lease_renewal *renewal = node->lease;
	struct store_timing timing = { 0 };

	renewal->another |= another;
	if (store_session_timing(node->store, &timing) < 0)
		return;
	renewal->length = lease_length(timing.earliest_usec, node->config->timers.lease_stop);
	if (renewal->length == 0)
		no_lease(renewal, timing.earliest_usec);
	else
		renew(renewal);
}

void lease_session_lost(struct node *node)
{
	node->lease->length = 0;
	node->lease->stale = node->lease->asked;
}

int lease_open(struct node *node, struct error *err)
{
	struct lease_renewal *renewal = xcalloc(1, sizeof(*renewal));

	renewal->node = node;
	node->lease = renewal;
	return lease_page_open(node->run_fd, node->boot_id, &renewal->page, err);
}

struct lease_renewal *lease_close(struct lease_renewal *renewal)
{
	if (!renewal)
		return NULL;
	sd_event_source_disable_unref(renewal->timer);
	lease_page_close(renewal->page);
	free(renewal);
	return NULL;
}
