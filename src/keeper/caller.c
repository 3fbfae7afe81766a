/* SPDX-License-Identifier: Apache-2.0 */
/* The source's keeper at the door: who it is, what it asks, what it is told. */
#include <string.h>

#include "keeper/export.h"
#include "keeper/keeper.h"
#include "keeper/migration.h"
#include "keeper/monitor.h"
#include "keeper/postcopy.h"
#include "keeper/receive-parts.h"
#include "keeper/reopening.h"
#include "keeper/report.h"
#include "keeper/script.h"
#include "keeper/timeline.h"
#include "keeper/transfer.h"
#include "model/config.h"
#include "qemu/hardware.h"
#include "tls/tls.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

struct caller *caller_accepted(struct receive *receive)
{
	for (size_t i = 0; i < CALLERS_MAX; i++)
		if (receive->callers[i].peer && receive->callers[i].accepted)
			return &receive->callers[i];
	return NULL;
}

void caller_tell(struct receive *receive, const char *event, json_t *data)
{
	struct caller *caller = caller_accepted(receive);

	if (caller)
		(void)peer_event(caller->peer, event, data);
}

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
	if (json_is_null(json_object_get(args, "hardware")))
		return 0; /* of a keeper that comes to say what has become of it */
	if (receive->failed)
		return error_try_again(err, "the receiver is being given up");
	r = json_need_object(args, "hardware", &hardware, err);
	return r < 0 ? r : check_hardware(receive, hardware, err);
}

static struct caller *caller_of(struct receive *receive, const struct request *request)
{
	for (size_t i = 0; i < CALLERS_MAX; i++)
		if (receive->callers[i].peer && receive->callers[i].peer == request_peer(request))
			return &receive->callers[i];
	return NULL;
}

/* `trouble`: why there can be no postcopy; NULL: there can, or nobody asked. */
static void accept_caller(struct receive *receive, struct request *request, const char *trouble)
{
	struct caller *before = caller_accepted(receive), *caller = caller_of(receive, request);
	json_auto_t *answer = NULL;

	if (caller && before && before != caller)
		before->peer = peer_close(before->peer);
	if (caller)
		caller->accepted = true;
	answer = json_pack("{s:i, s:b, s:s, s:b, s:s?}", "v", 1, "loaded",
			   (int)(transfer_copy(receive->keeper) == COPY_LOADED), "node",
			   receive->keeper->config->node, "postcopy", (int)receive->offer.postcopy,
			   "postcopy_trouble", trouble);
	request_return(request, answer);
	receive_arm(receive, &receive->fresh, 0, receive_on_fresh_due);
	if (!receive->streaming)
		receive_arm(receive, &receive->deadline,
			    receive->keeper->config->timers.migration_offer, receive_on_deadline);
	keeper_look(receive->keeper);
}

/* Noted before it is said: a later keeper must know that this very receiver was agreed upon. */
static int note_postcopy(struct receive *receive, bool agreed, struct error *err)
{
	int r;

	receive->offer.postcopy = agreed;
	r = offer_save(&receive->offer, err);
	if (r < 0)
		receive->offer.postcopy = false;
	return r;
}

static void on_postcopy_tried(void *ctx, int r, const struct error *why)
{
	struct receive *receive = ctx;
	struct request *request = TAKE_PTR(receive->preparing);
	struct error err = { 0 };

	receive->script = NULL;
	if (r < 0) {
		err = *why;
		postcopy_explain(receive->keeper, &err);
	} else {
		r = note_postcopy(receive, true, &err);
	}
	checkpoint("keeper.receive.postcopy-agreed");
	accept_caller(receive, request, r < 0 ? err.text : NULL);
}

static void on_hello(struct receive *receive, struct caller *caller, struct request *request)
{
	bool late = json_is_null(json_object_get(request_args(request), "hardware"));
	struct error err = { 0 };

	if (check_hello(receive, request_args(request), &err) < 0) {
		request_fail(request, &err);
	} else if (late) {
		accept_caller(receive, request, NULL);
	} else if (receive->preparing || receive->script) {
		(void)error_try_again(&err, "something else is under way");
		request_fail(request, &err);
	} else if (json_bool_or(request_args(request), "postcopy", false)) {
		receive->preparing = request;
		receive->script = postcopy_try(receive->keeper, on_postcopy_tried, receive);
	} else {
		(void)note_postcopy(receive, false, NULL);
		accept_caller(receive, request, NULL);
	}
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
	receive->prepared = clock_now();
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
			     capability("postcopy-ram", receive->offer.postcopy)));
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
	if (!receive->running)
		(void)note_postcopy(receive, false, NULL);
	receive_give_up(receive, text);
}

/* The stream of a postcopy broke; the source wants another way in. */
static void on_recover(struct receive *receive, struct caller *caller, struct request *request)
{
	receive->reopening = reopening_begin(receive->keeper, receive->reopening, request);
}

static const struct {
	const char *command;
	void (*answer)(struct receive *receive, struct caller *caller, struct request *request);
} requests[] = {
	{ "hello", on_hello }, { "prepare", on_prepare }, { "disks-end", on_disks_end },
	{ "bye", on_bye },     { "recover", on_recover },
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

void caller_say_running(struct receive *receive)
{
	json_auto_t *data = json_pack("{s:I, s:I}", "epoch", (json_int_t)receive->offer.epoch,
				      "resume_usec", (json_int_t)receive->running_usec);

	caller_tell(receive, "running", data);
}

/* The source's keeper says that its copy, which still had pages, is gone.  A guest whose last page
 * came a moment before does not need it: so QEMU is made to look at its stream. */
static void hear_lost(struct receive *receive, json_t *data)
{
	struct keeper *keeper = receive->keeper;

	if (!receive->lost)
		report_event(keeper, "feeder-lost", NULL, "node '%s': %.200s",
			     receive->offer.source,
			     json_string_or(data, "why", "the source's copy is gone"));
	receive->lost = true;
	if (transfer_lacks_pages(keeper))
		(void)monitor_call_oob(keeper->monitor, "migrate-pause", NULL, NULL, NULL, NULL);
	keeper_look(keeper);
}

static void on_event(void *ctx, const char *name, json_t *data, json_t *whole)
{
	struct caller *caller = ctx;
	struct receive *receive = caller->receive;

	if (!caller->accepted || (uint64_t)json_int_or(data, "epoch", 0) != receive->offer.epoch)
		return;
	if (strcmp(name, "lost") == 0)
		hear_lost(receive, data);
	if (strcmp(name, "stopped") != 0)
		return;
	if (receive->running) {
		caller_say_running(receive);
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
		receive_arm(receive, &receive->deadline,
			    2 * receive->keeper->config->timers.migration_switch,
			    receive_on_deadline);
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

/* A place for one more.  Whoever came and said nothing of itself keeps the source not out: it makes
 * room, the one that has been here longest. */
static struct caller *find_room(struct receive *receive)
{
	struct caller *oldest = NULL;

	for (size_t i = 0; i < CALLERS_MAX; i++) {
		struct caller *caller = &receive->callers[i];

		if (!caller->peer)
			return caller;
		if (!caller->accepted && (!oldest || caller->since < oldest->since))
			oldest = caller;
	}
	oldest->peer = peer_close(oldest->peer); /* one at most is accepted */
	return oldest;
}

void caller_let_in(struct receive *receive, int fd)
{
	struct transport *transport = NULL;
	struct caller *caller = find_room(receive);
	struct error err = { 0 };
	int r;

	*caller = (struct caller){ .receive = receive, .since = clock_now() };
	r = tls_accept(fd, receive->identity, false, &transport, &err);
	if (r == 0)
		r = peer_open_transport(transport, receive->keeper->loop, &caller_ops, caller,
					&caller->peer, &err);
	if (r < 0)
		log_warning("a connection to the receiver: %s", err.text);
}
