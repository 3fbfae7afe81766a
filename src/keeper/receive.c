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
#include "keeper/monitor.h"
#include "keeper/offer.h"
#include "keeper/ownership.h"
#include "keeper/psk.h"
#include "keeper/report.h"
#include "keeper/script.h"
#include "keeper/timeline.h"
#include "keeper/transfer.h"
#include "model/config.h"
#include "qemu/hardware.h"
#include "tls/tls.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

#define FRESH_EVERY (300 * USEC_PER_MSEC)
#define CALLERS_MAX 4

/* A conversation; at most one of them has said the secret. */
struct caller {
	struct receive *receive;
	struct peer *peer;
	bool accepted;
};

struct receive {
	struct keeper *keeper;
	struct offer offer;
	char ticket[33], key[PSK_SIZE];
	struct tls_identity *identity;
	struct door *door;
	struct caller callers[CALLERS_MAX];
	struct request *preparing; /* of the source's, not answered yet */
	struct script *script;
	struct export *export; /* disks that are being filled */
	int stream;	       /* on its way to QEMU; -1 */
	bool expected;	       /* the stream: `ticket` is good */
	bool streaming, stopped, running, failed;
	uint64_t stopped_usec, running_usec;
	sd_event_source *deadline, *fresh;
};

static const struct door_ops door_ops;

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

const char *receive_phase(const struct receive *receive)
{
	if (receive->running)
		return "done";
	if (receive->stopped)
		return "taking over";
	if (receive->streaming)
		return "receiving";
	return receive->expected ? "preparing" : "waiting for the source";
}

/* ---- ends ---- */

static struct caller *accepted(struct receive *receive)
{
	for (size_t i = 0; i < CALLERS_MAX; i++)
		if (receive->callers[i].peer && receive->callers[i].accepted)
			return &receive->callers[i];
	return NULL;
}

static void tell(struct receive *receive, const char *event, json_t *data)
{
	struct caller *caller = accepted(receive);

	if (caller)
		(void)peer_event(caller->peer, event, data);
}

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
	if (!receive->running) {
		data = json_pack("{s:I, s:s}", "epoch", (json_int_t)receive->offer.epoch, "why",
				 why);
		tell(receive, "gone", data);
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
	report_event(receive->keeper, "receive-failed", NULL, "%s", why);
	migration_failed(receive->keeper, why);
	keeper_look(receive->keeper);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct receive *receive = ctx;

	/* Once the source has stopped, the record decides and no clock. */
	if (!receive->stopped)
		receive_give_up(receive, receive->streaming
						 ? "the source has sent nothing for too long"
						 : "the source did not begin in time");
	return 0;
}

static void arm(struct receive *receive, sd_event_source **source, uint64_t usec,
		sd_event_time_handler_t handler)
{
	int r;

	*source = sd_event_source_disable_unref(*source);
	r = sd_event_add_time_relative(receive->keeper->loop, source, CLOCK_BOOTTIME, usec, 0,
				       handler, receive);
	if (r < 0)
		log_error("cannot set a timer: %s", strerror(-r));
}

/* ---- the source's requests ---- */

static int on_fresh_due(sd_event_source *source, uint64_t usec, void *ctx);

/* What the guest sees must be what was launched here, in every property (I6). */
static int check_hardware(struct receive *receive, json_t *theirs, struct error *err)
{
	json_auto_t *ours = hardware_json(receive->keeper->hardware);
	const char *key;
	json_t *value;

	json_object_foreach(ours, key, value)
	{
		json_t *other = json_object_get(theirs, key);

		if (other && !json_equal(value, other))
			return error_refuse(err,
					    "the hardware of VM '%s' differs in '%s' between the "
					    "two nodes: the record has changed meanwhile",
					    receive->keeper->name, key);
	}
	return 0;
}

static int check_hello(struct receive *receive, json_t *args, struct error *err)
{
	const char *secret = "", *vm = "";
	int64_t epoch = 0;
	json_t *hardware;
	int r;

	r = json_need_string(args, "vm", &vm, err);
	if (r == 0)
		r = json_need_string(args, "secret", &secret, err);
	if (r == 0)
		r = json_need_int(args, "epoch", &epoch, err);
	if (r < 0)
		return r;
	if (strcmp(vm, receive->keeper->name) != 0 ||
	    !offer_secret_equal(secret, receive->offer.secret) ||
	    (uint64_t)epoch != receive->offer.epoch)
		return error_refuse(err, "nobody waits here for VM '%s' under epoch %lld", vm,
				    (long long)epoch);
	if (receive->failed)
		return error_try_again(err, "the receiver is being given up");
	if (json_is_null(json_object_get(args, "hardware")))
		return 0; /* of a keeper that comes to say what has become of it */
	r = json_need_object(args, "hardware", &hardware, err);
	return r < 0 ? r : check_hardware(receive, hardware, err);
}

static void on_hello(struct receive *receive, struct caller *caller, struct request *request)
{
	json_auto_t *answer = NULL;
	struct error err = { 0 };
	struct caller *before;

	if (check_hello(receive, request_args(request), &err) < 0) {
		request_fail(request, &err);
		return;
	}
	before = accepted(receive);
	if (before && before != caller)
		before->peer = peer_close(before->peer);
	caller->accepted = true;
	answer = json_pack("{s:i, s:b, s:s}", "v", 1, "loaded",
			   (int)(transfer_copy(receive->keeper) == COPY_LOADED), "node",
			   receive->keeper->config->node);
	request_return(request, answer);
	arm(receive, &receive->fresh, 0, on_fresh_due);
	if (!receive->streaming)
		arm(receive, &receive->deadline, receive->keeper->config->timers.migration_offer,
		    on_deadline);
	keeper_look(receive->keeper);
}

static void answer_prepare(struct receive *receive, int r, const struct error *err)
{
	struct request *request = TAKE_PTR(receive->preparing);
	json_auto_t *answer = NULL;

	if (!request)
		return;
	if (r < 0) {
		request_fail(request, err);
		receive_give_up(receive, err->text);
		return;
	}
	receive->expected = true;
	answer = json_pack("{s:s, s:s, s:o}", "key", receive->key, "ticket", receive->ticket,
			   "disks", export_json(receive->export));
	request_return(request, answer);
}

static void on_prepared(void *ctx, int r, const struct error *err)
{
	struct receive *receive = ctx;

	receive->script = NULL;
	checkpoint("keeper.receive.prepared");
	answer_prepare(receive, r, err);
}

static json_t *capability(const char *name, bool on)
{
	return json_pack("{s:s, s:b}", "capability", name, "state", (int)on);
}

static void on_prepare(struct receive *receive, struct caller *caller, struct request *request)
{
	bool postcopy = json_bool_or(request_args(request), "postcopy", false);
	struct script *script;
	struct error err = { 0 };
	int r;

	if (receive->preparing || receive->expected) {
		(void)error_refuse(&err, "that was asked before");
		request_fail(request, &err);
		return;
	}
	receive->preparing = request;
	r = psk_make(receive->key, &err);
	if (r == 0)
		r = psk_place(receive->keeper, receive->key, true, &err);
	if (r < 0) {
		answer_prepare(receive, r, &err);
		return;
	}
	script = receive->script = script_new(receive->keeper);
	script_add(script, "migrate-set-capabilities",
		   json_pack("{s:[o,o,o]}", "capabilities", capability("events", true),
			     capability("late-block-activate", true),
			     capability("postcopy-ram", postcopy)));
	script_add(script, "object-add",
		   json_pack("{s:s, s:s, s:s, s:s}", "qom-type", "tls-creds-psk", "id", PSK_ID,
			     "endpoint", "server", "dir", PSK_DIR));
	/* The network hears of the guest once it runs here, and not before. */
	script_add(script, "migrate-set-parameters",
		   json_pack("{s:s, s:i}", "tls-creds", PSK_ID, "announce-rounds", 0));
	r = export_begin(receive->keeper, script, &receive->export, &err);
	if (r < 0) {
		receive->script = script_cancel(script);
		answer_prepare(receive, r, &err);
		return;
	}
	script_run(script, on_prepared, receive);
}

static void on_disks_ended(void *ctx, int r, const struct error *err)
{
	struct receive *receive = ctx;
	struct request *request = TAKE_PTR(receive->preparing);

	receive->script = NULL;
	checkpoint("keeper.receive.disks-ended");
	if (r < 0) {
		request_fail(request, err);
		receive_give_up(receive, err->text);
		return;
	}
	request_return(request, NULL);
}

/* Before the vcpus may run here nobody else may write to the disks. */
static void on_disks_end(struct receive *receive, struct caller *caller, struct request *request)
{
	struct error err = { 0 };

	if (receive->script) {
		(void)error_try_again(&err, "something else is under way");
		request_fail(request, &err);
		return;
	}
	receive->preparing = request;
	receive->script = script_new(receive->keeper);
	export_end(receive->export, receive->script);
	script_run(receive->script, on_disks_ended, receive);
}

static void on_bye(struct receive *receive, struct caller *caller, struct request *request)
{
	const char *why = json_string_or(request_args(request), "why", "the source gave up");
	CLEANUP_FREE char *text = xstrdup(why);

	request_return(request, NULL);
	receive_give_up(receive, text);
}

static const struct {
	const char *command;
	void (*answer)(struct receive *receive, struct caller *caller, struct request *request);
} requests[] = {
	{ "hello", on_hello },
	{ "prepare", on_prepare },
	{ "disks-end", on_disks_end },
	{ "bye", on_bye },
};

static void on_request(void *ctx, struct request *request)
{
	struct caller *caller = ctx;
	struct error err = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		if (strcmp(requests[i].command, request_command(request)) != 0)
			continue;
		if (!caller->accepted && i > 0)
			break;
		requests[i].answer(caller->receive, caller, request);
		return;
	}
	(void)error_refuse(&err, "'%s' is not answered here", request_command(request));
	request_fail(request, &err);
}

static void say_running(struct receive *receive)
{
	json_auto_t *data = json_pack("{s:I, s:I}", "epoch", (json_int_t)receive->offer.epoch,
				      "resume_usec", (json_int_t)receive->running_usec);

	tell(receive, "running", data);
}

static void on_event(void *ctx, const char *name, json_t *data, json_t *whole)
{
	struct caller *caller = ctx;
	struct receive *receive = caller->receive;

	if (!caller->accepted || strcmp(name, "stopped") != 0 ||
	    (uint64_t)json_int_or(data, "epoch", 0) != receive->offer.epoch)
		return;
	if (receive->running) {
		say_running(receive);
		return;
	}
	if (receive->stopped)
		return;
	receive->stopped = true;
	receive->stopped_usec = (uint64_t)json_int_or(data, "stop_usec", 0);
	timeline_phase(receive->keeper->migration->timeline, "stopped heard");
	checkpoint("keeper.receive.stopped");
	keeper_look(receive->keeper);
}

static void on_caller_gone(void *ctx, const struct error *why)
{
	struct caller *caller = ctx;
	struct receive *receive = caller->receive;
	bool was = caller->accepted;

	caller->peer = peer_close(caller->peer);
	caller->accepted = false;
	if (!was)
		return;
	log_info("the source's keeper is gone: %s", why->text);
	/* A new one may come; a guest that is not here whole by then is not ours. */
	if (!receive->stopped && !receive->running)
		arm(receive, &receive->deadline,
		    2 * receive->keeper->config->timers.migration_switch, on_deadline);
}

/* A certificate of the cluster is not enough: it must be the node that has the VM. */
static void on_begun(void *ctx)
{
	struct caller *caller = ctx;
	const char *name = tls_peer_name(peer_transport(caller->peer));

	if (strcmp(name, caller->receive->offer.source) == 0)
		return;
	log_warning("node '%s' came to the receiver; node '%s' has the VM", name,
		    caller->receive->offer.source);
	caller->peer = peer_close(caller->peer);
}

static const struct peer_ops caller_ops = {
	.request = on_request, .event = on_event, .begun = on_begun, .gone = on_caller_gone
};

/* ---- the door ---- */

static void on_control(void *ctx, int fd)
{
	struct receive *receive = ctx;
	struct transport *transport = NULL;
	struct caller *caller = NULL;
	struct error err = { 0 };
	int r;

	for (size_t i = 0; i < CALLERS_MAX && !caller; i++)
		if (!receive->callers[i].peer)
			caller = &receive->callers[i];
	if (!caller) {
		(void)close(fd);
		return;
	}
	*caller = (struct caller){ .receive = receive };
	r = tls_accept(fd, receive->identity, false, &transport, &err);
	if (r == 0)
		r = peer_open_transport(transport, receive->keeper->loop, &caller_ops, caller,
					&caller->peer, &err);
	if (r < 0)
		log_warning("a connection to the receiver: %s", err.text);
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
	if (receive && !receive->failed && !receive->running)
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
	tell(receive, "fresh", data);
}

static int on_fresh_due(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct receive *receive = ctx;
	struct keeper *keeper = receive->keeper;

	arm(receive, &receive->fresh, FRESH_EVERY, on_fresh_due);
	if (!receive->offer.published && !receive->failed && !receive->running)
		offer_publish(&receive->offer);
	if (accepted(receive) && !receive->running && link_up(keeper->link))
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
	arm(receive, &receive->deadline, keeper->config->timers.migration_offer, on_deadline);
	arm(receive, &receive->fresh, FRESH_EVERY, on_fresh_due);
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
		receive_give_up(receive, err.text);
		return;
	}
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
	arm(receive, &receive->deadline, 2 * keeper->config->timers.migration_switch, on_deadline);
	if (r < 0)
		receive_give_up(receive, err.text);
}

void receive_running(struct receive *receive, uint64_t usec)
{
	receive->running = true;
	receive->running_usec = usec;
	receive->deadline = sd_event_source_disable_unref(receive->deadline);
	psk_remove(receive->keeper);
	say_running(receive);
	offer_withdraw(receive->keeper);
}

void receive_left(struct keeper *keeper)
{
	psk_remove(keeper);
	offer_withdraw(keeper);
}
