/* SPDX-License-Identifier: Apache-2.0 */
/* The agent itself in one loop with a store that goes wrong on order, a client, and a keeper that
 * says what a test wants.  No keeper process is ever started: the program of that name is not there
 * where a test looks for it. */
#include "store-harness.h"

#include "core/lease.h"
#include "model/config.h"
#include "model/records.h"
#include "node/control.h"
#include "node/directory.h"
#include "node/disks.h"
#include "node/feed.h"
#include "node/mode.h"
#include "node/node.h"
#include "node/nodes.h"
#include "node/records.h"
#include "node/renewal.h"
#include "node/session.h"
#include "node/vm.h"
#include "store/fault.h"
#include "tls/authority.h"
#include "util/log.h"
#include "wire/base64.h"
#include "wire/peer.h"
#include "wire/sock.h"

struct host {
	struct scene raw; /* another hand on the store, with a loop of its own */
	struct node *node;
	struct peer *client;
	struct listening {
		int fd;
		struct peer *peer;
		json_t *wishes;
		const char *refuse; /* wishes, with this sentence */
		json_t *state;
	} keeper;
};

/* ---- the store, by hand ---- */

static void put(struct host *host, const char *key, json_t *value)
{
	const struct store_op op = { STORE_PUT, key, STORE_ANY, value, false };
	ANSWER answer = { 0 };

	assert_int_equal(ask_write(host->raw.loop, host->raw.store, &op, 1, &answer), 0);
	json_decref(value);
}

static json_t *get(struct host *host, const char *key)
{
	ANSWER answer = { 0 };

	if (ask_get(host->raw.loop, host->raw.store, key, &answer) < 0)
		return json_object();
	return json_incref(answer.entry.value);
}

static void define(struct host *host, const char *vm, bool online)
{
	struct definition_record record = {
		.generation = 1,
		.source = "apply",
		.definition = json_pack("{s:s, s:{s:i, s:b}}", "name", vm, "parameters", "memory",
					64, "online", online),
	};
	char key[RECORD_KEY_SIZE];

	put(host, key_vm(key, vm, "definition"), definition_record_json(&record));
	definition_record_done(&record);
}

static void set_mode(struct host *host, const char *mode)
{
	put(host, "/drover/nodes/alpha/mode", json_pack("{s:i, s:s}", "v", 1, "mode", mode));
}

/* ---- a host ---- */

static void write_config(const struct host *host)
{
	static const char text[] = "node: alpha\n"
				   "store: fault:local:store.db\n"
				   "log: {level: error}\n"
				   "timers: {store_retry: 10ms, settle_files: 10ms}\n";
	CLEANUP_FREE char *etc = xasprintf("%s/etc/drover", host->raw.dir);
	CLEANUP_FREE char *path = xasprintf("%s/drover.yaml", etc);

	assert_return_code(file_make_dirs(AT_FDCWD, etc, 0755, NULL), 0);
	assert_return_code(file_write(AT_FDCWD, path, text, strlen(text), 0644, NULL), 0);
}

/* The store is there, the agent is not yet. */
static struct host host_make(void)
{
	struct host host = { .keeper = { .fd = -1, .wishes = json_array() } };
	CLEANUP_FREE char *lib = NULL;

	scene_init(&host.raw, "local:lib/drover/");
	lib = xasprintf("%s/lib/drover", host.raw.dir);
	assert_return_code(file_make_dirs(AT_FDCWD, lib, 0755, NULL), 0);
	write_config(&host);
	host.raw.store = scene_open(&host.raw);
	return host;
}

static void host_open(struct host *host)
{
	struct error err = { 0 };

	host->node = node_new();
	if (node_configure(host->node, host->raw.dir, &err) < 0 ||
	    node_lock(host->node, &err) < 0 || node_open_store(host->node, &err) < 0 ||
	    node_adopt_keepers(host->node, &err) < 0 || control_open(host->node, &err) < 0)
		fail_msg("%s", err.text);
}

static void host_done(struct host *host)
{
	peer_close(host->client);
	peer_close(host->keeper.peer);
	if (host->keeper.fd >= 0)
		(void)close(host->keeper.fd);
	json_decref(host->keeper.wishes);
	json_decref(host->keeper.state);
	node_free(host->node);
	scene_done(&host->raw);
}
#define HOST CLEANUP(host_done) struct host

typedef bool (*fact_fn)(struct host *host);

static void run_until(struct host *host, fact_fn fact)
{
	uint64_t end = clock_now() + DEADLINE_USEC;

	while (!fact(host)) {
		uint64_t now = clock_now();

		assert_true(now < end);
		assert_return_code(sd_event_run(host->node->loop, end - now), 0);
	}
}

static bool faults_are_through(struct host *host)
{
	return fault_pending(host->node->store) == 0;
}

static bool has_joined(struct host *host)
{
	return records_known(host->node) && session_check(host->node, NULL) == 0;
}

static bool knows_mode(struct host *host)
{
	return !mode_trouble(host->node);
}

/* ---- a client ---- */

struct reply {
	bool done;
	int r;
	struct error err;
	json_t *value;
};

static void reply_done(struct reply *reply)
{
	json_decref(reply->value);
}
#define REPLY CLEANUP(reply_done) struct reply

static void on_reply(void *ctx, int r, json_t *value, const struct error *err)
{
	struct reply *reply = ctx;

	reply->done = true;
	reply->r = r;
	if (r < 0)
		reply->err = *err;
	else
		reply->value = json_incref(value);
}

static json_t *client_events; /* progress events, as they come */

static void on_client_event(void *ctx, const char *name, json_t *data, json_t *whole)
{
	if (client_events)
		(void)json_array_append(client_events, data);
}

static void on_client_gone(void *ctx, const struct error *why)
{
}

static const struct peer_ops client_ops = { .event = on_client_event, .gone = on_client_gone };

static void ask(struct host *host, const char *command, json_t *args, struct reply *reply)
{
	struct error err = { 0 };
	int fd;

	if (!host->client) {
		fd = sock_connect(host->node->run_fd, "control.sock", &err);
		assert_return_code(fd, 0);
		assert_return_code(
			peer_open(fd, host->node->loop, &client_ops, host, &host->client, &err), 0);
	}
	assert_return_code(
		peer_call(host->client, command, args, DEADLINE_USEC, on_reply, reply, &err), 0);
	json_decref(args);
}

static void await(struct host *host, const struct reply *reply)
{
	assert_true(loop_until(host->node->loop, &reply->done));
}

/* ---- a keeper ---- */

static void on_keeper_request(void *ctx, struct request *request)
{
	struct host *host = ctx;
	const char *command = request_command(request);
	struct error err = { 0 };

	if (strcmp(command, "wish") == 0)
		(void)json_array_append(host->keeper.wishes, request_args(request));
	if (strcmp(command, "wish") == 0 && host->keeper.refuse) {
		(void)error_bad_data(&err, "%s", host->keeper.refuse);
		request_fail(request, &err);
	} else {
		request_return(request, strcmp(command, "status") == 0 ? host->keeper.state : NULL);
	}
}

static void on_keeper_gone(void *ctx, const struct error *why)
{
	struct host *host = ctx;

	host->keeper.peer = peer_close(host->keeper.peer);
}

static const struct peer_ops keeper_ops = { .request = on_keeper_request, .gone = on_keeper_gone };

static int on_keeper_accept(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct host *host = userdata;
	int peer = sock_accept(fd, NULL);

	if (peer >= 0)
		(void)peer_open(peer, host->node->loop, &keeper_ops, host, &host->keeper.peer,
				NULL);
	return 0;
}

/* Before the agent opens, which then finds it there. */
static void keeper_listen(struct host *host, const char *vm, json_t *state)
{
	CLEANUP_FREE char *path = xasprintf("%s/run/drover/vms/%s", host->raw.dir, vm);
	CLEANUP_FD int dir = -1;

	assert_return_code(file_make_dirs(AT_FDCWD, path, 0755, NULL), 0);
	dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	host->keeper.fd = sock_listen(dir, "keeper.sock", 0600, NULL);
	assert_return_code(host->keeper.fd, 0);
	host->keeper.state = state;
}

static void keeper_serve(struct host *host)
{
	assert_return_code(sd_event_add_io(host->node->loop, NULL, host->keeper.fd, EPOLLIN,
					   on_keeper_accept, host),
			   0);
}

static bool keeper_has_wish(struct host *host)
{
	return json_array_size(host->keeper.wishes) > 0;
}

/* ---- the mode of the node ---- */

static void no_wish_is_told_before_the_mode_can_be_read(void **state)
{
	HOST host = host_make();

	define(&host, "m1", true);
	set_mode(&host, "sideways");
	keeper_listen(&host, "m1", json_pack("{s:s}", "state", "off"));
	host_open(&host);
	keeper_serve(&host);
	run_until(&host, has_joined);
	loop_drain(host.node->loop);
	assert_non_null(mode_trouble(host.node));
	assert_false(vm_find(host.node, "m1")->wish_known);
	assert_false(keeper_has_wish(&host));

	set_mode(&host, "stopped");
	run_until(&host, keeper_has_wish);
	assert_string_equal(json_string_or(json_array_get(host.keeper.wishes, 0), "wish", ""),
			    "node-stopped");
}

static void a_mode_that_is_read_late_is_waited_for(void **state)
{
	/* Some of the first reads fail, whichever: among them is that of the mode. */
	for (unsigned skip = 0; skip < 6; skip++) {
		HOST host = host_make();
		const struct fault fault = { FAULT_FAIL, FAULT_READS, skip, 2, -EAGAIN };

		define(&host, "m1", true);
		set_mode(&host, "stopped");
		keeper_listen(&host, "m1", json_pack("{s:s}", "state", "off"));
		host_open(&host);
		keeper_serve(&host);
		fault_order(host.node->store, &fault);
		run_until(&host, keeper_has_wish);
		assert_string_equal(
			json_string_or(json_array_get(host.keeper.wishes, 0), "wish", ""),
			"node-stopped");
	}
}

static void node_ready_mends_a_mode_that_cannot_be_read(void **state)
{
	HOST host = host_make();
	REPLY start = { 0 }, ready = { 0 };

	define(&host, "m1", false);
	set_mode(&host, "sideways");
	host_open(&host);
	run_until(&host, has_joined);
	ask(&host, "start", json_pack("{s:s}", "vm", "m1"), &start);
	await(&host, &start);
	assert_int_equal(start.r, -EREMOTEIO);
	assert_int_equal(start.err.class, ERROR_TRY_AGAIN);
	assert_non_null(strstr(start.err.text, "drover node ready"));
	ask(&host, "node-ready", NULL, &ready);
	await(&host, &ready);
	assert_int_equal(ready.r, 0);
	assert_true(knows_mode(&host));
	loop_drain(host.node->loop);
	assert_int_equal(vm_find(host.node, "m1")->wish, WISH_OFF);
}

/* ---- orders ---- */

static void an_order_that_was_given_up_is_not_written_after_that(void **state)
{
	static const char *const vms[] = { "m1", "m2", "m3" };
	/* The listing that tells of another's orders, and the three writes. */
	const struct fault hold = { .kind = FAULT_HOLD, .calls = FAULT_CALLS, .count = 4 };
	char key[RECORD_KEY_SIZE];
	HOST host = host_make();
	REPLY ensure = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(vms); i++)
		define(&host, vms[i], true);
	host_open(&host);
	run_until(&host, has_joined);
	run_until(&host, knows_mode);
	loop_drain(host.node->loop);
	fault_order(host.node->store, &hold);
	/* Somebody was quicker, and we do not know yet. */
	for (size_t i = 0; i < ARRAY_SIZE(vms); i++)
		put(&host, key_vm(key, vms[i], "order"),
		    json_pack("{s:i, s:s, s:s}", "v", 1, "kind", "pause", "by", "another"));
	ask(&host, "ensure", json_pack("{s:n, s:i}", "vm", "timeout_ms", 20), &ensure);
	await(&host, &ensure);
	assert_int_equal(ensure.r, -EREMOTEIO);
	assert_int_equal(ensure.err.class, ERROR_TRY_AGAIN);
	assert_non_null(strstr(ensure.err.text, "not known"));
	run_until(&host, faults_are_through);

	fault_release(host.node->store);
	loop_drain(host.node->loop);
	loop_drain(host.node->loop);
	assert_null(host.node->orders);
	for (size_t i = 0; i < ARRAY_SIZE(vms); i++) {
		json_auto_t *order = get(&host, key_vm(key, vms[i], "order"));

		assert_string_equal(json_string_or(order, "by", ""), "another");
	}
}

static bool keeper_has_hardware(struct host *host)
{
	size_t count = json_array_size(host->keeper.wishes);
	json_t *wish = json_array_get(host->keeper.wishes, count ? count - 1 : 0);

	return json_is_object(json_object_get(wish, "hardware"));
}

/* A receiver cannot begin without it, and who had the VM is known before, when a claim was lost. */
static void a_keeper_hears_of_a_hardware_record_that_is_read_after_the_owner(void **state)
{
	HOST host = host_make();
	char key[RECORD_KEY_SIZE];

	define(&host, "m1", true);
	keeper_listen(&host, "m1", json_pack("{s:s, s:s}", "state", "off", "wish", "run"));
	host_open(&host);
	keeper_serve(&host);
	run_until(&host, keeper_has_wish);
	loop_drain(host.node->loop);
	assert_false(keeper_has_hardware(&host));
	put(&host, key_vm(key, "m1", "hardware"), json_pack("{s:i}", "v", 1));
	run_until(&host, keeper_has_hardware);
}

static void a_command_ends_when_the_keeper_does_not_take_the_wish(void **state)
{
	HOST host = host_make();
	REPLY stop = { 0 }, status = { 0 };

	define(&host, "m1", true);
	keeper_listen(&host, "m1", json_pack("{s:s, s:s}", "state", "running", "wish", "run"));
	host.keeper.refuse = "hardware record: 'v' is 9, this Drover knows 1";
	host_open(&host);
	keeper_serve(&host);
	run_until(&host, keeper_has_wish);
	ask(&host, "stop", json_pack("{s:s}", "vm", "m1"), &stop);
	await(&host, &stop);
	assert_int_equal(stop.r, -EREMOTEIO);
	assert_non_null(strstr(stop.err.text, "knows 1"));
	ask(&host, "status", json_pack("{s:s}", "vm", "m1"), &status);
	await(&host, &status);
	assert_non_null(strstr(json_string_or(status.value, "reason", ""), "knows 1"));
}

/* ---- definitions ---- */

static json_t *documents(size_t count)
{
	json_t *list = json_array();

	for (size_t i = 0; i < count; i++) {
		CLEANUP_FREE char *text =
			xasprintf("{name: vm%zu, parameters: {online: false}}", i);

		json_array_append_new(list, json_pack("{s:s, s:s}", "label", "-", "text", text));
	}
	return json_pack("{s:o}", "documents", list);
}

static size_t stored(struct host *host)
{
	ANSWER answer = { 0 };

	assert_int_equal(ask_list(host->raw.loop, host->raw.store, "/drover/vms/", &answer), 0);
	return json_array_size(answer.list);
}

static void an_apply_of_many_is_all_or_nothing(void **state)
{
	for (unsigned skip = 0; skip < 3; skip++) {
		const struct fault full = { FAULT_FAIL, FAULT_WRITES, skip, 1, -ENOSPC };
		HOST host = host_make();
		REPLY apply = { 0 };

		host_open(&host);
		run_until(&host, has_joined);
		fault_order(host.node->store, &full);
		ask(&host, "apply", documents(300), &apply);
		await(&host, &apply);
		assert_int_equal(stored(&host), apply.r == 0 ? 300 : 0);
		assert_int_equal(apply.r == 0, skip > 0);
	}
}

static void an_apply_of_too_many_is_refused_whole(void **state)
{
	HOST host = host_make();
	REPLY many = { 0 }, apply = { 0 };

	host_open(&host);
	run_until(&host, has_joined);
	ask(&host, "apply", documents(STORE_OPS_MAX + 1), &many);
	await(&host, &many);
	assert_int_equal(many.r, -EREMOTEIO);
	assert_int_equal(many.err.class, ERROR_REFUSED);
	assert_non_null(strstr(many.err.text, "nothing was applied"));
	assert_int_equal(stored(&host), 0);
	ask(&host, "apply", documents(STORE_OPS_MAX), &apply);
	await(&host, &apply);
	assert_int_equal(apply.r, 0);
	/* What is unchanged does not count. */
	apply.done = false;
	json_decref(apply.value);
	ask(&host, "apply", documents(STORE_OPS_MAX + 1), &apply);
	await(&host, &apply);
	assert_int_equal(apply.r, 0);
	assert_int_equal(stored(&host), STORE_OPS_MAX + 1);
}

#define EVENTS 25

static json_t *consul_events(void)
{
	json_t *list = json_array();

	for (int i = 0; i < EVENTS; i++) {
		CLEANUP_FREE char *text =
			xasprintf("{\"name\": \"vm%d\", \"parameters\": {\"machine\": \"virtual\", "
				  "\"online\": false, \"kvm_host\": \"beta\"}}",
				  i);
		CLEANUP_FREE char *value = base64_encode(text, strlen(text));
		CLEANUP_FREE char *key = xasprintf("node/vm%d", i);

		json_array_append_new(list, json_pack("{s:s, s:s, s:i}", "Key", key, "Value", value,
						      "ModifyIndex", i + 1));
	}
	return json_pack("{s:o}", "events", list);
}

static size_t defined(struct host *host)
{
	ANSWER answer = { 0 };
	size_t count = 0, i;
	json_t *entry;

	assert_int_equal(ask_list(host->raw.loop, host->raw.store, "/drover/vms/", &answer), 0);
	json_array_foreach(answer.list, i, entry)
	{
		count += strstr(json_string_value(entry), "/definition") != NULL;
	}
	return count;
}

static size_t goal;

static bool goal_is_reached(struct host *host)
{
	return defined(host) >= goal;
}

/* The store does what it is asked, and answers when it is told to: so what is at work is what it
 * has and nobody was told of. */
static void fc_C5_no_more_events_are_at_work_than_allowed(void **state)
{
	const struct fault hold = { FAULT_HOLD, FAULT_WRITES, 0, 1000, 0 };
	HOST host = host_make();
	REPLY events = { 0 };
	size_t allowed, done = 0;

	host_open(&host);
	feed_open(host.node);
	run_until(&host, has_joined);
	allowed = host.node->config->consul_event_threads;
	assert_true(allowed < EVENTS);
	fault_order(host.node->store, &hold);
	ask(&host, "consul-events", consul_events(), &events);
	while (done < EVENTS) {
		REPLY ping = { 0 };

		goal = done + allowed < EVENTS ? done + allowed : EVENTS;
		run_until(&host, goal_is_reached);
		/* Whatever would have begun as well has begun when this is answered. */
		ask(&host, "node", NULL, &ping);
		await(&host, &ping);
		assert_int_equal(defined(&host), goal);
		assert_false(events.done);
		done = goal;
		fault_release(host.node->store);
	}
	await(&host, &events);
	assert_int_equal(events.r, 0);
}

static void a_certificate_is_good_where_the_clock_is_a_day_late(void **state)
{
	HOST host = host_make();
	struct period period;

	host_open(&host);
	period = renewal_period(host.node);
	assert_true(period.from < time(NULL) - 24 * 3600);
	assert_true(period.until > time(NULL) + 24 * 3600);
}

static void put_file(const struct host *host, const char *name, const char *text)
{
	CLEANUP_FREE char *dir = xasprintf("%s/etc/drover/vms", host->raw.dir);
	CLEANUP_FREE char *path = xasprintf("%s/%s", dir, name);

	assert_return_code(file_make_dirs(AT_FDCWD, dir, 0755, NULL), 0);
	assert_return_code(file_write(AT_FDCWD, path, text, strlen(text), 0644, NULL), 0);
}

static bool small_is_defined(struct host *host)
{
	const struct node_vm *vm = vm_find(host->node, "small");

	return vm && vm_defined(vm);
}

static void a_file_that_is_too_large_for_the_store_holds_up_no_other(void **state)
{
	CLEANUP_FREE char *filler = xcalloc(1, 700 * 1024);
	CLEANUP_FREE char *large = NULL;
	const struct node_vm *vm;
	HOST host = host_make();

	memset(filler, 'x', 700 * 1024 - 1);
	large = xasprintf("{name: large, parameters: {online: false}, filler: %s}", filler);
	put_file(&host, "large.yaml", large);
	put_file(&host, "small.yaml", "{name: small, parameters: {online: false}}");
	host_open(&host);
	directory_open(host.node);
	run_until(&host, small_is_defined);
	vm = vm_find(host.node, "large");
	assert_false(vm_defined(vm));
	assert_non_null(strstr(vm->file_error, "can be stored"));
}

static void a_file_that_cannot_be_looked_at_may_well_be_there(void **state)
{
	CLEANUP_FREE char *path = NULL;
	char source[VM_SOURCE_SIZE];
	struct command_facts facts;
	HOST host = host_make();

	put_file(&host, "small.yaml", "{name: small, parameters: {online: false}}");
	host_open(&host);
	directory_open(host.node);
	run_until(&host, small_is_defined);
	path = xasprintf("%s/etc/drover/vms/small.yaml", host.raw.dir);
	assert_return_code(unlink(path), 0);
	atomic_store(&disk_definitions.hangs, true);
	vm_facts(vm_find(host.node, "small"), &facts, source);
	atomic_store(&disk_definitions.hangs, false);
	assert_true(facts.source_is_file);
	vm_facts(vm_find(host.node, "small"), &facts, source);
	assert_false(facts.source_is_file);
}

/* ---- what keepers write ---- */

static json_t *claim(const char *node)
{
	struct owner owner = { .epoch = 1, .phase = OWNER_HELD, .boot = "b", .lease = "keep" };

	(void)snprintf(owner.node, sizeof(owner.node), "%s", node);
	(void)snprintf(owner.by, sizeof(owner.by), "alpha/1/1");
	return json_pack("{s:i, s:o, s:n}", "expected", 0, "owner", owner_json(&owner), "hardware");
}

static bool keeper_connected(struct host *host)
{
	return host->keeper.peer && vm_find(host->node, "m1")->told_now;
}

static void a_claim_that_is_refused_before_the_store_was_asked_says_so(void **state)
{
	json_auto_t *args = claim("alpha");
	REPLY refused = { 0 };
	char key[RECORD_KEY_SIZE];
	HOST host = host_make();

	define(&host, "m1", true);
	put(&host, key_vm(key, "m1", "owner"), json_pack("{s:i, s:s}", "v", 1, "phase", "owned"));
	keeper_listen(&host, "m1", json_pack("{s:s}", "state", "off"));
	host_open(&host);
	keeper_serve(&host);
	run_until(&host, has_joined);
	run_until(&host, keeper_connected);
	(void)peer_call(host.keeper.peer, "owner-write", args, DEADLINE_USEC, on_reply, &refused,
			NULL);
	await(&host, &refused);
	assert_int_equal(refused.r, -EREMOTEIO);
	assert_int_equal(refused.err.class, ERROR_REFUSED);
}

static void keeper_asks(struct host *host, const char *command, json_t *args, struct reply *reply)
{
	struct error err = { 0 };

	assert_return_code(
		peer_call(host->keeper.peer, command, args, DEADLINE_USEC, on_reply, reply, &err),
		0);
	json_decref(args);
	await(host, reply);
}

static void host_with_keeper(struct host *host)
{
	define(host, "m1", true);
	keeper_listen(host, "m1", json_pack("{s:s}", "state", "off"));
	host_open(host);
	keeper_serve(host);
	run_until(host, has_joined);
	run_until(host, keeper_connected);
}

static json_t *owner_write_args(uint64_t expected, const struct owner *owner)
{
	return json_pack("{s:I, s:o, s:n}", "expected", (json_int_t)expected, "owner",
			 owner_json(owner), "hardware");
}

static bool is_indexed(struct host *host, const char *node)
{
	char key[RECORD_KEY_SIZE];
	json_auto_t *value = get(host, key_assign(key, node, "m1"));

	return json_object_size(value) > 0;
}

static void a_move_is_indexed_for_both_sides_and_written_by_its_holder_only(void **state)
{
	struct owner owner = { .epoch = 1,
			       .phase = OWNER_HELD,
			       .node = "alpha",
			       .boot = "b",
			       .lease = "keep",
			       .by = "alpha/1/1" };
	REPLY claimed = { 0 }, moving = { 0 }, stranger = { 0 }, late = { 0 }, back = { 0 };
	HOST host = host_make();
	uint64_t version;

	host_with_keeper(&host);
	keeper_asks(&host, "owner-write", owner_write_args(0, &owner), &claimed);
	assert_string_equal(json_string_or(claimed.value, "outcome", ""), "done");
	version = (uint64_t)json_int_or(claimed.value, "version", 0);
	assert_true(is_indexed(&host, "alpha"));

	owner.epoch = 2;
	owner.phase = OWNER_MOVING;
	(void)strcpy(owner.to, "beta");
	keeper_asks(&host, "owner-write", owner_write_args(version, &owner), &moving);
	assert_string_equal(json_string_or(moving.value, "outcome", ""), "done");
	version = (uint64_t)json_int_or(moving.value, "version", 0);
	assert_true(is_indexed(&host, "alpha") && is_indexed(&host, "beta"));

	/* R4: only the receiver takes. */
	owner.epoch = 3;
	owner.phase = OWNER_HELD;
	owner.to[0] = '\0';
	(void)strcpy(owner.node, "beta");
	keeper_asks(&host, "owner-write", owner_write_args(version, &owner), &stranger);
	assert_int_equal(stranger.r, -EREMOTEIO);
	assert_int_equal(stranger.err.class, ERROR_REFUSED);
	/* What compares a version of long ago cannot land; the keeper hears what there is. */
	(void)strcpy(owner.node, "alpha");
	keeper_asks(&host, "owner-write", owner_write_args(version + 1, &owner), &late);
	assert_string_equal(json_string_or(late.value, "outcome", ""), "conflict");
	assert_int_equal(json_int_or(late.value, "version", 0), version);

	keeper_asks(&host, "owner-write", owner_write_args(version, &owner), &back);
	assert_string_equal(json_string_or(back.value, "outcome", ""), "done");
	assert_true(is_indexed(&host, "alpha") && !is_indexed(&host, "beta"));
}

static bool knows_an_offer_of_beta(struct host *host)
{
	const struct node_vm *vm = vm_find(host->node, "m1");

	return vm->offer && strcmp(json_string_or(vm->offer, "node", ""), "beta") == 0;
}

static json_t *offer_of(const char *node)
{
	return json_pack("{s:{s:s, s:i}}", "offer", "node", node, "epoch", 2);
}

static void an_offer_is_written_and_withdrawn_by_its_own_node_only(void **state)
{
	REPLY offered = { 0 }, foreign = { 0 }, withdrawn = { 0 }, again = { 0 }, kept = { 0 };
	json_auto_t *there = NULL, *gone = NULL, *left = NULL;
	HOST host = host_make();
	char key[RECORD_KEY_SIZE];

	host_with_keeper(&host);
	key_vm(key, "m1", "offer");
	keeper_asks(&host, "offer-write", offer_of("alpha"), &offered);
	assert_int_equal(offered.r, 0);
	there = get(&host, key);
	assert_string_equal(json_string_or(there, "node", ""), "alpha");
	keeper_asks(&host, "offer-write", offer_of("beta"), &foreign);
	assert_int_equal(foreign.err.class, ERROR_USAGE);
	keeper_asks(&host, "offer-write", json_pack("{s:n}", "offer"), &withdrawn);
	assert_int_equal(withdrawn.r, 0);
	gone = get(&host, key);
	assert_int_equal(json_object_size(gone), 0);

	put(&host, key, json_pack("{s:s}", "node", "beta"));
	run_until(&host, knows_an_offer_of_beta);
	keeper_asks(&host, "offer-write", offer_of("alpha"), &again);
	assert_int_equal(again.err.class, ERROR_TRY_AGAIN);
	keeper_asks(&host, "offer-write", json_pack("{s:n}", "offer"), &kept);
	assert_int_equal(kept.err.class, ERROR_TRY_AGAIN);
	left = get(&host, key);
	assert_string_equal(json_string_or(left, "node", ""), "beta");
}

static void a_store_that_does_not_answer_is_not_fresh(void **state)
{
	const struct fault hold = { .kind = FAULT_HOLD, .calls = FAULT_READS, .count = 100 };
	REPLY fresh = { 0 }, silent = { 0 };
	HOST host = host_make();

	host_with_keeper(&host);
	keeper_asks(&host, "store-fresh", json_object(), &fresh);
	assert_int_equal(fresh.r, 0);
	fault_order(host.node->store, &hold);
	keeper_asks(&host, "store-fresh", json_object(), &silent);
	assert_int_equal(silent.r, -EREMOTEIO);
	assert_int_equal(silent.err.class, ERROR_TRY_AGAIN);
}

static bool keeper_is_to_send(struct host *host)
{
	size_t count = json_array_size(host->keeper.wishes);
	json_t *wish = json_array_get(host->keeper.wishes, count ? count - 1 : 0);

	return strcmp(json_string_or(wish, "wish", ""), "elsewhere") == 0 &&
	       strcmp(json_string_or(wish, "target", ""), "beta") == 0;
}

static json_t *running_after(int failures)
{
	return json_pack("{s:s, s:s, s:s, s:i}", "state", "running", "wish", "elsewhere", "reason",
			 "it did not work", "migration_failures", failures);
}

static void an_order_to_move_that_fails_and_fails_is_not_waited_for_any_more(void **state)
{
	const struct owner owner = { .epoch = 1,
				     .phase = OWNER_HELD,
				     .node = "alpha",
				     .boot = "b",
				     .lease = "keep",
				     .by = "alpha/1/1" };
	json_auto_t *two = running_after(7), *three = running_after(8);
	REPLY moved = { 0 };
	HOST host = host_make();
	char key[RECORD_KEY_SIZE];

	put(&host, "/drover/nodes/beta/life", json_pack("{s:i, s:s}", "n", 1, "state", "alive"));
	put(&host, "/drover/nodes/beta/session", json_pack("{s:i}", "n", 1));
	put(&host, key_vm(key, "m1", "owner"), owner_json(&owner));
	define(&host, "m1", true);
	keeper_listen(&host, "m1", running_after(5));
	host_open(&host);
	keeper_serve(&host);
	run_until(&host, has_joined);
	run_until(&host, keeper_connected);
	/* There is no cluster here, which another method would need. */
	ask(&host, "migrate",
	    json_pack("{s:s, s:s, s:s}", "vm", "m1", "to", "beta", "method", "shutdown"), &moved);
	run_until(&host, keeper_is_to_send);
	(void)peer_event(host.keeper.peer, "state", two);
	loop_drain(host.node->loop);
	assert_false(moved.done);
	(void)peer_event(host.keeper.peer, "state", three);
	await(&host, &moved);
	assert_int_equal(moved.r, -EREMOTEIO);
	assert_non_null(strstr(moved.err.text, "still on node 'alpha': it did not work"));
}

/* ---- the session ---- */

/* Whoever says that it has joined has its session's key in the store. */
static bool has_joined_in_truth(struct host *host)
{
	json_auto_t *life = NULL, *session = NULL;

	if (session_check(host->node, NULL) < 0)
		return false;
	life = get(host, "/drover/nodes/alpha/life");
	session = get(host, "/drover/nodes/alpha/session");
	assert_int_equal(json_int_or(session, "n", -1), json_int_or(life, "n", -2));
	return true;
}

static void a_join_that_is_answered_after_the_session_was_lost_is_none(void **state)
{
	const struct fault hold = { .kind = FAULT_HOLD, .calls = FAULT_WRITES, .count = 1 };
	HOST host = host_make();

	host_open(&host);
	fault_order(host.node->store, &hold);
	while (fault_pending(host.node->store))
		assert_return_code(sd_event_run(host.node->loop, DEADLINE_USEC), 0);
	loop_drain(host.node->loop);
	fault_expire(host.node->store);
	loop_drain(host.node->loop);
	fault_release(host.node->store);
	run_until(&host, has_joined_in_truth);
}

/* ---- the lease ---- */

static struct lease lease_told(const struct host *host)
{
	struct lease lease;

	(void)lease_page_read(host->node->config->paths.run, host->node->boot_id, &lease, NULL);
	return lease;
}

static bool has_a_lease(struct host *host)
{
	return lease_told(host).end > clock_now();
}

static uint64_t longest_lease(const struct host *host)
{
	return lease_length(host->node->config->timers.session,
			    host->node->config->timers.lease_stop);
}

static struct lease lease_before;

static bool lease_is_longer(struct host *host)
{
	return lease_told(host).end > lease_before.end;
}

static void the_lease_is_renewed_again_and_again(void **state)
{
	HOST host = host_make();
	uint64_t begin = clock_now();

	host_open(&host);
	for (unsigned i = 0; i < 3; i++) {
		lease_before = lease_told(&host);
		run_until(&host, lease_is_longer);
	}
	assert_true(lease_told(&host).since >= begin);
	assert_int_equal(lease_told(&host).since, lease_before.since);
	/* It never lasts longer than if it had been renewed just now. */
	assert_true(lease_told(&host).end <= clock_now() + longest_lease(&host));
}

static void a_renewal_that_is_not_answered_extends_nothing(void **state)
{
	const struct fault drop = { .kind = FAULT_DROP_ANSWER,
				    .calls = FAULT_RENEWALS,
				    .count = 2 };
	HOST host = host_make();

	host_open(&host);
	run_until(&host, has_a_lease);
	lease_before = lease_told(&host);
	fault_order(host.node->store, &drop);
	run_until(&host, faults_are_through);
	assert_int_equal(lease_told(&host).end, lease_before.end);
	run_until(&host, lease_is_longer);
}

/* The end counts from the request, however late the answer comes. */
static void an_answer_that_comes_late_gives_no_more_than_one_in_time(void **state)
{
	const struct fault hold = { .kind = FAULT_HOLD, .calls = FAULT_RENEWALS, .count = 1 };
	HOST host = host_make();
	uint64_t held_at;

	host_open(&host);
	run_until(&host, has_a_lease);
	lease_before = lease_told(&host);
	fault_order(host.node->store, &hold);
	run_until(&host, faults_are_through);
	held_at = clock_now();
	while (clock_now() == held_at)
		loop_drain(host.node->loop);
	fault_release(host.node->store);
	run_until(&host, lease_is_longer);
	assert_true(lease_told(&host).end <= held_at + longest_lease(&host));
}

static void the_next_agent_extends_the_lease_that_it_finds(void **state)
{
	HOST host = host_make();

	host_open(&host);
	run_until(&host, has_a_lease);
	lease_before = lease_told(&host);
	host.node = node_free(host.node);
	host_open(&host);
	/* The old end stands; longer it gets only by an answer to the new agent. */
	assert_int_equal(lease_told(&host).end, lease_before.end);
	run_until(&host, lease_is_longer);
}

static void what_was_won_in_a_session_that_is_over_is_not_won_in_the_next(void **state)
{
	HOST host = host_make();

	host_open(&host);
	run_until(&host, has_a_lease);
	lease_before = lease_told(&host);
	fault_expire(host.node->store);
	run_until(&host, lease_is_longer);
	assert_true(lease_told(&host).since > lease_before.since);
}

/* ---- events ---- */

static void log_event(const struct host *host, const char *vm, const char *event)
{
	CLEANUP_FREE char *dir = xasprintf("%s/log/drover/vms/%s", host->raw.dir, vm);
	CLEANUP_FREE char *path = xasprintf("%s/events.jsonl", dir);
	CLEANUP_FREE char *line = xasprintf(
		"{\"time\":\"2026-11-21T00:00:00Z\",\"vm\":\"%s\",\"event\":\"%s\"}\n", vm, event);
	CLEANUP_FD int fd = -1;

	assert_return_code(file_make_dirs(AT_FDCWD, dir, 0755, NULL), 0);
	fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, line, strlen(line)), strlen(line));
}

static size_t heard(const char *event)
{
	size_t i, count = 0;
	json_t *data;

	json_array_foreach(client_events, i, data) count +=
		strcmp(json_string_or(data, "event", ""), event) == 0;
	return count;
}

static bool heard_last(struct host *host)
{
	return heard("last") > 0;
}

static void a_follower_gets_what_a_keeper_wrote_while_nobody_was_connected(void **state)
{
	HOST host = host_make();
	REPLY follow = { 0 };

	client_events = json_array();
	define(&host, "m1", true);
	log_event(&host, "m1", "old");
	keeper_listen(&host, "m1", json_pack("{s:s}", "state", "running"));
	host_open(&host);
	keeper_serve(&host);
	run_until(&host, keeper_connected);
	ask(&host, "events", json_pack("{s:n, s:b}", "vm", "follow", true), &follow);
	loop_drain(host.node->loop);
	assert_int_equal(heard("old"), 1);

	host.keeper.peer = peer_close(host.keeper.peer);
	while (vm_find(host.node, "m1")->told_now)
		assert_return_code(sd_event_run(host.node->loop, DEADLINE_USEC), 0);
	log_event(&host, "m1", "alone");
	run_until(&host, keeper_connected);
	log_event(&host, "m1", "last");
	(void)peer_event(host.keeper.peer, "event", json_array_get(client_events, 0));
	run_until(&host, heard_last);
	assert_int_equal(heard("old"), 1);
	assert_int_equal(heard("alone"), 1);
	assert_int_equal(heard("last"), 1);
	json_decref(client_events);
	client_events = NULL;
}

static json_t *node_with(int free_mib, int provisioned, int allocated)
{
	return json_pack("{s:b, s:s, s:s, s:{s:i, s:i, s:i}}", "alive", 1, "life", "alive", "mode",
			 "ready", "memory_mib", "free", free_mib, "provisioned", provisioned,
			 "allocated", allocated);
}

static void pvc_S20_memory_promised_to_vms_that_are_off_is_taken(void **state)
{
	/* As much is free on both, but a large VM that is off belongs to the first. */
	json_auto_t *nodes =
		json_pack("{s:o, s:o, s:o}", "large", node_with(4000, 3500, 500), "small",
			  node_with(3900, 1000, 500), "here", node_with(9000, 0, 0));
	const char *name = NULL;

	assert_return_code(nodes_choose_target(nodes, "here", &name, NULL), 0);
	assert_string_equal(name, "small");
	/* More is promised than there is: still better than nowhere. */
	json_object_del(nodes, "small");
	json_object_set_new(nodes, "large", node_with(10, 4000, 500));
	assert_return_code(nodes_choose_target(nodes, "here", &name, NULL), 0);
	assert_string_equal(name, "large");
	json_object_del(nodes, "large");
	assert_true(nodes_choose_target(nodes, "here", &name, NULL) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_wish_is_told_before_the_mode_can_be_read),
		cmocka_unit_test(a_mode_that_is_read_late_is_waited_for),
		cmocka_unit_test(node_ready_mends_a_mode_that_cannot_be_read),
		cmocka_unit_test(an_order_that_was_given_up_is_not_written_after_that),
		cmocka_unit_test(a_keeper_hears_of_a_hardware_record_that_is_read_after_the_owner),
		cmocka_unit_test(a_command_ends_when_the_keeper_does_not_take_the_wish),
		cmocka_unit_test(an_apply_of_many_is_all_or_nothing),
		cmocka_unit_test(an_apply_of_too_many_is_refused_whole),
		cmocka_unit_test(fc_C5_no_more_events_are_at_work_than_allowed),
		cmocka_unit_test(a_certificate_is_good_where_the_clock_is_a_day_late),
		cmocka_unit_test(a_file_that_is_too_large_for_the_store_holds_up_no_other),
		cmocka_unit_test(a_file_that_cannot_be_looked_at_may_well_be_there),
		cmocka_unit_test(a_claim_that_is_refused_before_the_store_was_asked_says_so),
		cmocka_unit_test(a_move_is_indexed_for_both_sides_and_written_by_its_holder_only),
		cmocka_unit_test(an_offer_is_written_and_withdrawn_by_its_own_node_only),
		cmocka_unit_test(a_store_that_does_not_answer_is_not_fresh),
		cmocka_unit_test(an_order_to_move_that_fails_and_fails_is_not_waited_for_any_more),
		cmocka_unit_test(a_join_that_is_answered_after_the_session_was_lost_is_none),
		cmocka_unit_test(the_lease_is_renewed_again_and_again),
		cmocka_unit_test(a_renewal_that_is_not_answered_extends_nothing),
		cmocka_unit_test(an_answer_that_comes_late_gives_no_more_than_one_in_time),
		cmocka_unit_test(the_next_agent_extends_the_lease_that_it_finds),
		cmocka_unit_test(what_was_won_in_a_session_that_is_over_is_not_won_in_the_next),
		cmocka_unit_test(a_follower_gets_what_a_keeper_wrote_while_nobody_was_connected),
		cmocka_unit_test(pvc_S20_memory_promised_to_vms_that_are_off_is_taken),
	};
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
