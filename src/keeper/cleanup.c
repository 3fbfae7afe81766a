/* SPDX-License-Identifier: Apache-2.0 */
/* Each part may have been done before: it is run after every end, by whichever keeper comes to it.
 */
#include "keeper/cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/wish.h"
#include "keeper/booking.h"
#include "keeper/claims.h"
#include "keeper/disks.h"
#include "keeper/keeper.h"
#include "keeper/monitor.h"
#include "keeper/ownership.h"
#include "keeper/report.h"
#include "model/config.h"
#include "net/net.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/log.h"
#include "util/mem.h"

struct cleanup {
	sd_event_source *retry;
	char trouble[512]; /* why it is tried again; "" when nothing went wrong */
};

struct cleanup *cleanup_cancel(struct cleanup *cleanup)
{
	if (!cleanup)
		return NULL;
	sd_event_source_disable_unref(cleanup->retry);
	free(cleanup);
	return NULL;
}

static int remove_taps(struct keeper *keeper, struct error *err)
{
	const struct definition *def = keeper->want.definition;
	char name[NET_NAME_SIZE];
	int r;

	for (size_t i = 0; i < def->n_nics; i++) {
		net_tap_name(keeper->root_id, keeper->name, def->nics[i].name, name);
		r = net_tap_remove(keeper->root_id, name, err);
		/* Somebody else's device of that name is nothing that we left. */
		if (r < 0 && err->class == ERROR_REFUSED) {
			log_warning("%s; it is left alone", err->text);
			continue;
		}
		if (r < 0)
			return error_prefix(err, r, "tap '%s'", name);
	}
	return 0;
}

/* The names of the copy go last: as long as copy.json is there, this routine is run again. */
static int remove_host_parts(struct keeper *keeper, struct error *err)
{
	static const char *const sockets[] = { "qmp.sock", "agent.sock", "serial.sock",
					       "receive.json" };
	int r;

	r = remove_taps(keeper, err);
	if (r < 0)
		return r;
	checkpoint("keeper.cleanup.claims");
	r = claims_release(keeper, err);
	if (r == 0)
		r = disks_settle(keeper, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(sockets); i++)
		(void)unlinkat(keeper->run_fd, sockets[i], 0);
	booking_remove(keeper);
	checkpoint("keeper.cleanup.last");
	if (unlinkat(keeper->run_fd, "copy.json", 0) < 0 && errno != ENOENT)
		return error_set(err, -errno, "cannot remove copy.json: %m");
	return 0;
}

static void finish(struct keeper *keeper)
{
	keeper->cleanup = cleanup_cancel(keeper->cleanup);
	keeper->remains = false;
	keeper_look(keeper);
}

static void clean(struct keeper *keeper);

static int on_retry(sd_event_source *source, uint64_t usec, void *ctx)
{
	clean(ctx);
	keeper_look(ctx); /* what goes wrong may have changed */
	return 0;
}

static void try_again(struct keeper *keeper, const char *why)
{
	struct cleanup *cleanup = keeper->cleanup;
	int r;

	log_warning("cleaning up: %s; retrying", why);
	(void)snprintf(cleanup->trouble, sizeof(cleanup->trouble), "%s", why);
	cleanup->retry = sd_event_source_disable_unref(cleanup->retry);
	r = sd_event_add_time_relative(keeper->loop, &cleanup->retry, CLOCK_BOOTTIME,
				       keeper->config->timers.cleanup / 6, 0, on_retry, keeper);
	if (r < 0)
		log_error("cannot set a timer: %s", strerror(-r));
	keeper_look(keeper);
}

static void on_released(struct keeper *keeper, int r, const struct error *err)
{
	if (!keeper->cleanup) {
		keeper_look(keeper);
	} else if (r < 0 && r != -ESTALE) {
		try_again(keeper, err->text);
	} else {
		/* A conflict is fine: then the record is somebody else's. */
		if (r < 0)
			log_info("release of the owner record: %s", err->text);
		finish(keeper);
	}
}

static void clean(struct keeper *keeper)
{
	struct error err = { 0 };

	checkpoint("keeper.cleanup.begin");
	if (remove_host_parts(keeper, &err) < 0) {
		try_again(keeper, err.text);
		return;
	}
	/* What is to be started again here keeps the record: the next write is a renew. */
	if (keeper->want.wish == WISH_RUN || !ownership_held_here(keeper)) {
		finish(keeper);
		return;
	}
	/* To release a record that was set back would bring it nearer to the claims. */
	if (claims_check_others(keeper, keeper->want.definition, &err) < 0 &&
	    err.class == ERROR_REFUSED) {
		try_again(keeper, err.text);
		return;
	}
	checkpoint("keeper.cleanup.release");
	if (ownership_release(keeper, on_released, &err) < 0) {
		log_warning("release of the owner record: %s", err.text);
		finish(keeper);
	}
}

const char *cleanup_trouble(const struct cleanup *cleanup)
{
	return cleanup ? cleanup->trouble : "";
}

void cleanup_begin(struct keeper *keeper)
{
	keeper->cleanup = xcalloc(1, sizeof(*keeper->cleanup));
	clean(keeper);
}
