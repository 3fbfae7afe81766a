/* SPDX-License-Identifier: Apache-2.0 */
#include "node/session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/config.h"
#include "node/ask.h"
#include "node/events.h"
#include "node/info.h"
#include "node/lease.h"
#include "node/node.h"
#include "node/schema.h"
#include "node/upgrade.h"
#include "node/vm.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

#define SESSION_FILE "session" /* in RUN, which a reboot empties: no boot resumes another's */
#define LOOK_AGAIN (1 * USEC_PER_SEC)

struct session {
	struct node *node;
	enum store_session_state state;
	bool asked; /* a step of joining is on its way */
	bool stale; /* and the session that it was for is over: its answer says nothing */
	bool again; /* and another is wanted after it */
	bool joined;
	struct life life;
	uint64_t life_version;
	char trouble[512]; /* why we have not joined */
	bool lost_before;  /* and not connected since: do not hurry */
	char *id;	   /* of the session that we were in last, or were to resume; or NULL */
	sd_event_source *retry, *reopen;
};

static void join(struct session *session);

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
	join(userdata);
	return 0;
}

static void not_joined(struct session *session, const char *why)
{
	if (strcmp(session->trouble, why) != 0)
		log_error("not in the cluster: %s; trying on", why);
	(void)snprintf(session->trouble, sizeof(session->trouble), "%s", why);
	session->asked = false;
	node_timer(session->node, &session->retry, LOOK_AGAIN, on_retry, session);
}

/* A step was answered; true: for a session that is over, so the way begins anew. */
static bool begins_anew(struct session *session)
{
	if (!session->stale)
		return false;
	session->stale = false;
	session->again = false;
	session->asked = false;
	join(session);
	return true;
}

static void on_joined(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct session *session = ctx;

	if (begins_anew(session))
		return;
	if (r < 0) {
		not_joined(session, err->text);
		return;
	}
	session->asked = false;
	session->joined = true;
	session->life_version = versions[0];
	session->trouble[0] = '\0';
	info_written(session->node);
	log_info("joined the cluster as '%s', life %" PRIu64, session->node->config->node,
		 session->life.n);
	if (session->again) {
		session->again = false;
		join(session);
	}
	vm_touch_all(session->node);
}

static int write_life(struct session *session, uint64_t expected, struct error *err)
{
	const struct node *node = session->node;
	const char *name = node->config->node;
	char life[RECORD_KEY_SIZE], key[RECORD_KEY_SIZE], info[RECORD_KEY_SIZE];
	json_auto_t *life_value = life_json(&session->life);
	json_auto_t *info_value = info_json(node);
	json_auto_t *value =
		json_pack("{s:i, s:I, s:s, s:s}", "v", 1, "n", (json_int_t)session->life.n,
			  "machine", node->machine_id, "root", node->config->paths.run);
	const struct schema schema = { .version = schema_loaded(node) };
	json_auto_t *schema_value = schema_json(&schema);
	uint64_t known = node->schema.version;
	const struct store_op ops[] = {
		{ STORE_PUT, key_node(life, name, "life"), expected, life_value, false },
		{ STORE_PUT, key_node(key, name, "session"), STORE_ANY, value, true },
		{ STORE_PUT, key_node(info, name, "info"), STORE_ANY, info_value, false },
		/* What was looked at must still stand: another node may raise it meanwhile. */
		{ known ? STORE_CHECK : STORE_PUT, SCHEMA_KEY, known ? known : STORE_ABSENT,
		  known ? NULL : schema_value, false },
	};

	return ask_write(session->node, ops, ARRAY_SIZE(ops), session->node->config->timers.session,
			 on_joined, session, err);
}

/* One node name is one agent: of two, the second waits. */
static int check_name_is_free(const struct session *session, json_t *other, struct error *err)
{
	const struct node *node = session->node;
	const char *machine = json_string_or(other, "machine", "");
	const char *root = json_string_or(other, "root", "");

	if (!other ||
	    (strcmp(machine, node->machine_id) == 0 && strcmp(root, node->config->paths.run) == 0))
		return 0;
	return error_refuse(err,
			    "another agent is in the cluster as node '%s' (run directory '%s'); "
			    "give this one another name with 'node:' in '%s/drover.yaml'",
			    node->config->node, root, node->config->paths.etc);
}

static int next_life(struct session *session, json_t *value, struct error *err)
{
	const struct node *node = session->node;
	struct life life = { 0 };
	int r;

	if (value) {
		r = life_parse(value, &life, err);
		if (r < 0)
			return r;
	}
	if (strcmp(life.state, "fencing") == 0) {
		life_done(&life);
		return error_try_again(err,
				       "this node is being fenced; waiting until that is over");
	}
	life.n++;
	(void)snprintf(life.state, sizeof(life.state), "alive");
	(void)snprintf(life.boot, sizeof(life.boot), "%s", node->boot_id);
	(void)snprintf(life.machine, sizeof(life.machine), "%s", node->machine_id);
	life_done(&session->life);
	session->life = life;
	return 0;
}

static const struct store_entry *entry_named(const struct store_entry *entries, size_t count,
					     const char *node, const char *leaf)
{
	char key[RECORD_KEY_SIZE];

	key_node(key, node, leaf);
	for (size_t i = 0; i < count; i++)
		if (strcmp(entries[i].key, key) == 0)
			return &entries[i];
	return NULL;
}

static int join_with(struct session *session, const struct store_entry *entries, size_t count,
		     struct error *err)
{
	const char *name = session->node->config->node;
	const struct store_entry *life = entry_named(entries, count, name, "life");
	const struct store_entry *other = entry_named(entries, count, name, "session");
	int r;

	/* Nobody touched it: what we wanted to know is known. */
	if (session->joined && life && life->version == session->life_version && other) {
		session->asked = false;
		return 0;
	}
	session->joined = false;
	r = check_name_is_free(session, other ? other->value : NULL, err);
	if (r < 0)
		return r;
	r = next_life(session, life ? life->value : NULL, err);
	if (r < 0)
		return r;
	return write_life(session, life ? life->version : STORE_ABSENT, err);
}

static void on_listed(void *ctx, int r, const struct store_entry *entries, size_t count,
		      const struct error *err)
{
	struct session *session = ctx;
	struct error why = { 0 };

	if (begins_anew(session))
		return;
	if (r < 0) {
		not_joined(session, err->text);
		return;
	}
	if (join_with(session, entries, count, &why) < 0)
		not_joined(session, why.text);
}

static void on_schema(void *ctx, int r, const struct store_entry *entry, const struct error *err)
{
	struct session *session = ctx;
	char prefix[RECORD_KEY_SIZE];
	struct error why = { 0 };

	if (begins_anew(session))
		return;
	if (r == 0 || r == -ENOENT)
		r = schema_check(session->node, r == 0 ? entry : NULL, &why);
	else
		why = *err;
	upgrade_look(session->node);
	if (r == 0)
		r = store_list(session->node->store,
			       key_node(prefix, session->node->config->node, ""), on_listed,
			       session, &why);
	if (r < 0)
		not_joined(session, why.text);
}

static void join(struct session *session)
{
	struct error err = { 0 };

	if (session->asked) {
		session->again = true;
		return;
	}
	if (session->state != STORE_CONNECTED)
		return;
	session->asked = true;
	if (store_get(session->node->store, SCHEMA_KEY, on_schema, session, &err) < 0)
		not_joined(session, err.text);
}

static void on_session(void *ctx, enum store_session_state state);

static int begin(struct session *session, const char *resume, struct error *err)
{
	struct node *node = session->node;

	return store_session_open(node->store, resume, node->config->timers.session, on_session,
				  session, err);
}

static int on_begin(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct session *session = userdata;
	struct error err = { 0 };

	if (begin(session, NULL, &err) < 0)
		not_joined(session, err.text);
	return 0;
}

static void session_lost(struct session *session)
{
	struct node *node = session->node;

	if (session->joined)
		events_add(node, NULL, "session-lost", "the store has ended our session");
	session->joined = false;
	session->stale = session->asked;
	(void)snprintf(session->trouble, sizeof(session->trouble),
		       "there is no session with the store; see the log");
	lease_session_lost(node);
	node_timer(node, &session->reopen, session->lost_before ? LOOK_AGAIN : 0, on_begin,
		   session);
	session->lost_before = true;
}

static void session_found(struct session *session)
{
	struct node *node = session->node;
	const char *id = store_session_id(node->store);
	bool another = !id || !session->id || strcmp(id, session->id) != 0;
	struct error err = { 0 };

	session->lost_before = false;
	if (another) {
		free(session->id);
		session->id = id ? xstrdup(id) : NULL;
	}
	if (id && file_write(node->run_fd, SESSION_FILE, id, strlen(id), 0600, &err) < 0)
		log_warning("%s; ignoring", err.text);
	lease_session(node, another);
	join(session);
}

static void on_session(void *ctx, enum store_session_state state)
{
	struct session *session = ctx;

	session->state = state;
	switch (state) {
	case STORE_CONNECTED:
		session_found(session);
		break;
	case STORE_SUSPENDED:
		log_warning("the store does not answer; waiting for it");
		break;
	case STORE_LOST:
		session_lost(session);
		break;
	}
}

int session_open(struct node *node, struct error *err)
{
	struct session *session = xcalloc(1, sizeof(*session));

	session->node = node;
	session->state = STORE_LOST;
	(void)snprintf(session->trouble, sizeof(session->trouble),
		       "the store has not answered yet");
	node->session = session;
	(void)file_read(node->run_fd, SESSION_FILE, 256, &session->id, NULL, NULL);
	return begin(session, session->id, err);
}

struct session *session_close(struct session *session)
{
	if (!session)
		return NULL;
	sd_event_source_disable_unref(session->retry);
	sd_event_source_disable_unref(session->reopen);
	life_done(&session->life);
	free(session->id);
	free(session);
	return NULL;
}

void session_renew(struct node *node)
{
	join(node->session);
}

int session_check(const struct node *node, struct error *err)
{
	if (node->session && node->session->joined)
		return 0;
	return error_try_again(err, "this node is not in the cluster: %s",
			       node->session ? node->session->trouble : "starting");
}

uint64_t session_life_version(const struct node *node)
{
	return node->session->life_version;
}

const char *session_words(const struct node *node)
{
	static const char *const words[] = {
		[STORE_CONNECTED] = "connected",
		[STORE_SUSPENDED] = "suspended",
		[STORE_LOST] = "lost",
	};

	if (!node->session)
		return "not connected";
	if (node->session->state == STORE_CONNECTED && !node->session->joined)
		return node->session->trouble;
	return words[node->session->state];
}
