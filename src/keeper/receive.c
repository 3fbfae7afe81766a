/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/receive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "keeper/copy.h"
#include "keeper/door.h"
#include "keeper/export.h"
#include "keeper/keeper.h"
#include "keeper/link.h"
#include "keeper/migration.h"
#include "keeper/obstacle.h"
#include "keeper/offer.h"
#include "keeper/ownership.h"
#include "keeper/psk.h"
#include "keeper/receive-parts.h"
#include "keeper/reopening.h"
#include "keeper/report.h"
#include "keeper/script.h"
#include "keeper/timeline.h"
#include "keeper/transfer.h"
#include "model/config.h"
#include "tls/tls.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

#define FRESH_EVERY (300 * USEC_PER_MSEC)

bool receive_stopped_heard(const struct receive *receive)
{
	return receive && receive->stopped;
}

struct offer *receive_offer(struct receive *receive)
{
	return receive ? &receive->offer : NULL;
}

bool receive_failed(const struct receive *receive)
{
	return receive && receive->failed;
}

uint64_t receive_stopped_usec(const struct receive *receive)
{
	return receive ? receive->stopped_usec : 0;
}

bool receive_postcopy(const struct receive *receive)
{
	return receive && receive->offer.postcopy;
}

bool receive_lost_heard(const struct receive *receive)
{
	return receive && receive->lost;
}

/* Somebody may still have to come in. */
static bool is_open(const struct receive *receive)
{
	return receive->running ? transfer_lacks_pages(receive->keeper)
				: receive->offer.postcopy || !receive->failed;
}

const char *receive_source(const struct receive *receive)
{
	return receive->offer.source;
}

const char *receive_phase(const struct receive *receive)
{
	if (receive->running && transfer_lacks_pages(receive->keeper))
		return transfer_is_broken(receive->keeper) ? "reconnecting" : "fetching pages";
	if (receive->running)
		return "done";
	if (receive->stopped)
		return "taking over";
	if (receive->streaming)
		return "receiving";
	return receive->expected ? "preparing" : "waiting for the source";
}

/* ---- ends ---- */

struct receive *receive_free(struct receive *receive)
{
	struct error err = { 0 };

	if (!receive)
		return NULL;
	(void)error_try_again(&err, "the receiver has ended");
	if (receive->preparing)
		request_fail(receive->preparing, &err);
	script_cancel(receive->script);
	export_free(receive->export);
	reopening_free(receive->reopening);
	cleanup_closep(&receive->stream);
	for (size_t i = 0; i < CALLERS_MAX; i++)
		peer_close(receive->callers[i].peer);
	door_close(receive->door);
	tls_identity_unref(receive->identity);
	sd_event_source_disable_unref(receive->deadline);
	sd_event_source_disable_unref(receive->fresh);
	explicit_bzero(receive->key, sizeof(receive->key));
	free(receive);
	return NULL;
}

struct receive *receive_end(struct receive *receive, const char *why)
{
	json_auto_t *data = NULL;

	if (!receive)
		return NULL;
	if (!receive->running || transfer_lacks_pages(receive->keeper)) {
		data = json_pack("{s:I, s:o}", "epoch", (json_int_t)receive->offer.epoch, "why",
				 json_text(why, strlen(why)));
		caller_tell(receive, "gone", data);
	}
	psk_remove(receive->keeper);
	offer_withdraw(receive->keeper);
	return receive_free(receive);
}

void receive_give_up(struct receive *receive, const char *why)
{
	if (receive->failed || receive->running)
		return;
	receive->failed = true;
	/* As long as nothing has come in, it can be nobody's only copy. */
	if (strcmp(receive->keeper->migration->status, "none") == 0 && receive->offer.postcopy) {
		receive->offer.postcopy = false;
		(void)offer_save(&receive->offer, NULL);
	}
	report_event(receive->keeper, "receive-failed", NULL, "%s", why);
	migration_failed(receive->keeper, why);
	keeper_look(receive->keeper);
}

int receive_on_deadline(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct receive *receive = ctx;
	const struct timers *timers = &receive->keeper->config->timers;

	/* Disks are sent before anything else, and take what they take. */
	if (!receive->streaming && receive->expected && caller_accepted(receive) &&
	    clock_now() < receive->prepared + timers->migration_deadline) {
		receive_arm(receive, &receive->deadline, timers->migration_offer,
			    receive_on_deadline);
		return 0;
	}
	/* Once the source has stopped, the record decides and no clock. */
	if (!receive->stopped && !receive->running)
		receive_give_up(receive, receive->streaming
						 ? "the source has sent nothing for too long"
						 : "the source did not begin in time");
	return 0;
}

void receive_arm(struct receive *receive, sd_event_source **source, uint64_t usec,
		 sd_event_time_handler_t handler)
{
	int r;

	*source = sd_event_source_disable_unref(*source);
	r = sd_event_add_time_relative(receive->keeper->loop, source, CLOCK_BOOTTIME, usec, 0,
				       handler, receive);
	if (r < 0)
		log_error("cannot set a timer: %s", strerror(-r));
}

/* ---- the door ---- */

static void on_control(void *ctx, int fd)
{
	caller_let_in(ctx, fd);
}

static void on_streaming(void *ctx, int r, const struct error *err)
{
	struct receive *receive = ctx;

	receive->script = NULL;
	if (r < 0) {
		receive_give_up(receive, err->text);
		return;
	}
	transfer_ask(receive->keeper); /* what QEMU says of it from now on */
	keeper_look(receive->keeper);
}

/* As on the source: else QEMU would answer nothing before the first word of the other side. */
static void on_given(void *ctx, int r, const struct error *err)
{
	struct receive *receive = ctx;

	receive->script = NULL;
	if (r < 0) {
		receive_give_up(receive, err->text);
		return;
	}
	if (fcntl(receive->stream, F_SETFL, O_NONBLOCK) < 0)
		log_warning("cannot make the stream non-blocking: %m; ignoring");
	(void)close(TAKE_FD(receive->stream));
	receive->script = script_new(receive->keeper);
	script_add(receive->script, "migrate-incoming", json_pack("{s:s}", "uri", "fd:stream"));
	script_run(receive->script, on_streaming, receive);
}

static void on_stream(void *ctx, const char *ticket, int fd)
{
	struct receive *receive = ctx;

	if (reopening_takes(receive->reopening, ticket, fd))
		return;
	if (!receive->expected || receive->streaming || receive->script ||
	    !offer_secret_equal(ticket, receive->ticket)) {
		log_warning("a connection with a ticket that is not good (any more)");
		(void)close(fd);
		return;
	}
	receive->streaming = true;
	receive->deadline = sd_event_source_disable_unref(receive->deadline);
	timeline_phase(receive->keeper->migration->timeline, "stream");
	checkpoint("keeper.receive.stream");
	receive->stream = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	receive->script = script_new(receive->keeper);
	script_add_fd(receive->script, "stream", fd);
	script_run(receive->script, on_given, receive);
}

static const struct door_ops door_ops = { .control = on_control, .stream = on_stream };

#define PORTS_TRIED 64

static int open_door(struct receive *receive, unsigned port, struct error *err)
{
	struct keeper *keeper = receive->keeper;
	int r = -EADDRINUSE;

	for (unsigned i = 0; r == -EADDRINUSE && i < PORTS_TRIED; i++) {
		CLEANUP_FREE char *address = offer_address(keeper, port ? port + i : 0);

		r = door_open(address, keeper->loop, &door_ops, receive, &receive->door, err);
	}
	if (r == 0)
		receive->offer.port = door_port(receive->door);
	return r;
}

/* ---- the offer ---- */

void receive_link_up(struct receive *receive)
{
	if (receive && is_open(receive))
		offer_publish(&receive->offer);
}

/* Protocol, section 4, step 4: that this side reaches the store is told all the time, so that
 * nobody has to ask while the guest stands still. */
static void on_fresh(void *ctx, int r, json_t *value, const struct error *err)
{
	struct keeper *keeper = ctx;
	struct receive *receive = keeper->migration->receive;
	json_auto_t *data = NULL;

	if (!receive || r < 0)
		return;
	data = json_pack("{s:I}", "epoch", (json_int_t)receive->offer.epoch);
	caller_tell(receive, "fresh", data);
}

int receive_on_fresh_due(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct receive *receive = ctx;
	struct keeper *keeper = receive->keeper;

	receive_arm(receive, &receive->fresh, FRESH_EVERY, receive_on_fresh_due);
	if (!receive->offer.published && is_open(receive))
		offer_publish(&receive->offer);
	if (caller_accepted(receive) && !receive->running && link_up(keeper->link))
		(void)link_call(keeper->link, "store-fresh", NULL,
				keeper->config->timers.migration_switch, on_fresh, keeper, NULL);
	return 0;
}

/* ---- beginning ---- */

static struct receive *receive_new(struct keeper *keeper)
{
	struct receive *receive = xcalloc(1, sizeof(*receive));

	receive->keeper = keeper;
	receive->stream = -1;
	keeper->migration->receive = receive;
	receive_arm(receive, &receive->deadline, keeper->config->timers.migration_offer,
		    receive_on_deadline);
	receive_arm(receive, &receive->fresh, FRESH_EVERY, receive_on_fresh_due);
	return receive;
}

static int load_identity(const struct keeper *keeper, struct tls_identity **ret, struct error *err)
{
	CLEANUP_FREE char *dir = xasprintf("%s/tls", keeper->config->paths.lib);
	struct error why = { 0 };
	int r = tls_identity_load(dir, ret, &why);

	if (r == -ENOENT)
		return error_refuse(
			err,
			"node '%s' holds it, and this node is in no cluster: "
			"'drover cluster init' makes one, 'drover cluster join' enters one",
			keeper->ownership->record.node);
	return r < 0 ? error_set(err, r, "%s", why.text) : 0;
}

int receive_check(const struct keeper *keeper, struct error *err)
{
	struct tls_identity *identity = NULL;
	int r = load_identity(keeper, &identity, err);

	tls_identity_unref(identity);
	return r;
}

void receive_begin(struct keeper *keeper)
{
	struct receive *receive = receive_new(keeper);
	struct offer *offer = &receive->offer;
	struct error err = { 0 };
	int r;

	offer_init(offer, keeper, keeper->copy->attempt, keeper->ownership->record.node);
	file_random_id(receive->ticket);
	keeper->migration->timeline =
		timeline_new(keeper, "target", offer->source, keeper->config->node, offer->epoch);
	r = load_identity(keeper, &receive->identity, &err);
	if (r == 0)
		r = open_door(receive, keeper->config->migration_port, &err);
	if (r == 0)
		r = offer_save(offer, &err);
	if (r < 0) {
		keeper->migration->timeline = timeline_free(keeper->migration->timeline);
		obstacle_met(keeper, offer->epoch, &err);
		receive_give_up(receive, err.text);
		return;
	}
	obstacle_forget(keeper);
	checkpoint("keeper.receive.offer");
	report_event(keeper, "receiving", NULL, "ready to take it over from node '%s' (epoch %llu)",
		     offer->source, (unsigned long long)offer->epoch);
	offer_publish(offer);
	keeper_look(keeper);
}

void receive_resume(struct keeper *keeper)
{
	struct receive *receive = receive_new(keeper);
	struct error err = { 0 };
	int r;

	r = offer_load(&receive->offer, keeper, keeper->copy->attempt, &err);
	if (r == 0)
		r = load_identity(keeper, &receive->identity, &err);
	if (r == 0)
		r = open_door(receive, receive->offer.port, &err);
	/* What it was told of the stream went with the last keeper: the source may say that it has
	 * stopped, or it is given up. */
	receive->streaming = true;
	receive->running = transfer_copy(keeper) == COPY_FAULTING;
	receive_arm(receive, &receive->deadline, 2 * keeper->config->timers.migration_switch,
		    receive_on_deadline);
	if (r < 0)
		receive_give_up(receive, err.text);
}

void receive_running(struct receive *receive, uint64_t usec)
{
	receive->running = true;
	receive->running_usec = usec;
	receive->deadline = sd_event_source_disable_unref(receive->deadline);
	caller_say_running(receive);
}

void receive_over(struct keeper *keeper)
{
	psk_remove(keeper);
	offer_withdraw(keeper);
}
