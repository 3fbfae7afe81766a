/* SPDX-License-Identifier: Apache-2.0 */
/* Each prefix is asked for with a blocking query, whose answer is all that is below it: the same
 * events that `consul watch` hands out.  What is not new among them costs nothing. */
#include "node/consul.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "node/events.h"
#include "node/feed.h"
#include "node/node.h"
#include "node/records.h"
#include "store/http.h"
#include "store/token.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

#define WAIT_SEC 30 /* Consul adds a sixteenth */
#define ANSWER_USEC ((WAIT_SEC + WAIT_SEC / 16 + 15) * USEC_PER_SEC)
#define ANSWER_MAX (256u * 1024 * 1024)
#define PARTS_MAX (4u * 1024 * 1024)
#define RETRY_USEC (1 * USEC_PER_SEC)

struct prefix {
	struct consul_feed *consul;
	const char *name;
	uint64_t index; /* 0: all of it is asked for anew, at once */
	struct http_transfer *transfer;
	sd_event_source *retry;
};

struct consul_feed {
	struct node *node;
	struct http *http;
	char *token; /* header */
	struct prefix prefixes[2];
	char trouble[512]; /* said last; "": all is well */
};

static void prefix_ask(struct prefix *prefix);

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
	prefix_ask(userdata);
	return 0;
}

static void ask_later(struct prefix *prefix)
{
	prefix->index = 0;
	node_timer(prefix->consul->node, &prefix->retry, RETRY_USEC, on_retry, prefix);
}

static void trouble(struct prefix *prefix, const char *words)
{
	struct consul_feed *consul = prefix->consul;

	if (strncmp(consul->trouble, words, sizeof(consul->trouble) - 1) != 0) {
		(void)snprintf(consul->trouble, sizeof(consul->trouble), "%s", words);
		log_warning("%s; trying on", consul->trouble);
	}
	ask_later(prefix);
}

static void on_taken(void *ctx, json_t *results, bool again)
{
	struct prefix *prefix = ctx;

	if (again)
		ask_later(prefix);
	else
		prefix_ask(prefix);
}

static void events_arrived(struct prefix *prefix, const struct http_answer *answer)
{
	struct consul_feed *consul = prefix->consul;
	json_auto_t *events = NULL;
	struct error err = { 0 };
	int r;

	if (json_parts(answer->body, answer->length) > PARTS_MAX)
		r = error_bad_data(&err, "Consul answered more than can be held in memory");
	else
		r = json_parse(answer->body, answer->length, &events, &err);
	if (r < 0) {
		trouble(prefix, err.text);
		return;
	}
	/* As long as it is not known what there is, nothing is new. */
	if (records_trouble(consul->node)) {
		ask_later(prefix);
		return;
	}
	consul->trouble[0] = '\0';
	prefix->index = answer->index < prefix->index ? 0 : answer->index;
	feed_take(consul->node, events, on_taken, prefix);
}

static void refused(struct prefix *prefix, const struct http_answer *answer)
{
	struct consul_feed *consul = prefix->consul;
	const struct config *config = consul->node->config;
	CLEANUP_FREE char *words = NULL;
	char *header = NULL;

	if (answer->status != 403) {
		words = xasprintf("Consul at %s does not give the keys below '%s': %.200s",
				  config->consul_address, prefix->name,
				  answer->status ? answer->body : answer->trouble);
	} else {
		words = xasprintf("Consul at %s refuses the keys below '%s': the token in '%s' "
				  "(consul.token_file) needs 'read' for that key_prefix",
				  config->consul_address, prefix->name, config->consul_token_file);
		/* It may have been replaced. */
		if (config->consul_token_file[0] &&
		    token_header(config->consul_token_file, &header, NULL) == 0) {
			token_forget(consul->token);
			consul->token = header;
		}
	}
	trouble(prefix, words);
}

static void on_answer(void *ctx, const struct http_answer *answer)
{
	struct prefix *prefix = ctx;

	prefix->transfer = NULL;
	if (answer->status == 200 && answer->index > 0) {
		events_arrived(prefix, answer);
	} else if (answer->status == 404 && answer->index > 0) { /* nothing is below it */
		prefix->index = answer->index;
		prefix_ask(prefix);
	} else {
		refused(prefix, answer);
	}
}

static void prefix_ask(struct prefix *prefix)
{
	struct consul_feed *consul = prefix->consul;
	const struct config *config = consul->node->config;
	CLEANUP_FREE char *wait =
		prefix->index ? xasprintf("&index=%" PRIu64 "&wait=%ds", prefix->index, WAIT_SEC)
			      : xstrdup("");
	CLEANUP_FREE char *url =
		xasprintf("%s/v1/kv/%s?recurse%s", config->consul_address, prefix->name, wait);
	const struct http_request request = {
		.method = "GET",
		.url = url,
		.header = consul->token,
		.ca_file = config->consul_ca_file[0] ? config->consul_ca_file : NULL,
		.timeout_usec = ANSWER_USEC,
		.limit = ANSWER_MAX,
	};
	struct error err = { 0 };

	if (http_send(consul->http, &request, on_answer, prefix, &prefix->transfer, &err) < 0)
		trouble(prefix, err.text);
}

int consul_feed_open(struct node *node, struct error *err)
{
	static const char *const names[] = { "node/", "snapshot/" };
	const struct config *config = node->config;
	struct consul_feed *consul;
	int r = 0;

	if (!config->consul_address[0])
		return 0;
	consul = xcalloc(1, sizeof(*consul));
	consul->node = node;
	node->consul = consul;
	if (config->consul_token_file[0])
		r = token_header(config->consul_token_file, &consul->token, err);
	if (r == 0)
		r = http_open(node->loop, &consul->http, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		consul->prefixes[i] = (struct prefix){ .consul = consul, .name = names[i] };
		node_timer(node, &consul->prefixes[i].retry, 0, on_retry, &consul->prefixes[i]);
	}
	return 0;
}

struct consul_feed *consul_feed_close(struct consul_feed *consul)
{
	if (!consul)
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(consul->prefixes); i++)
		sd_event_source_disable_unref(consul->prefixes[i].retry);
	(void)http_close(consul->http);
	token_forget(consul->token);
	free(consul);
	return NULL;
}
