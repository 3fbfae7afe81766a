/* SPDX-License-Identifier: Apache-2.0 */
/* The store in Consul: its address, its token, and one question with its answer.  Of several
 * servers one is asked until it does not answer or has no leader; then the next one. */
#include "store/consul.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>

#include "store/token.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

#define PARTS_MAX (4u * 1024 * 1024) /* JSON values of one answer: 1 GiB of memory */

static const char right_form[] =
	"write consul:http://ADDRESS:PORT[,ADDRESS:PORT...][/PREFIX][?token-file=PATH]"
	"[&ca-file=PATH], with https as well";

/* A name would have to be looked up, and that may take long: addresses only. */
static bool server_valid(const char *server)
{
	CLEANUP_FREE char *host = xstrdup(server);
	char *port = strrchr(host, ':');
	struct in6_addr address;
	size_t length;

	if (!port || strspn(port + 1, "0123456789") != strlen(port + 1) || !port[1] ||
	    strlen(port + 1) > 5)
		return false;
	*port = '\0';
	length = strlen(host);
	if (host[0] == '[' && length > 2 && host[length - 1] == ']') {
		host[length - 1] = '\0';
		return inet_pton(AF_INET6, host + 1, &address) == 1;
	}
	return strcmp(host, "localhost") == 0 || inet_pton(AF_INET, host, &address) == 1;
}

static int servers_parse(struct consul *consul, char *list, struct error *err)
{
	char *at = NULL;

	for (char *server = strtok_r(list, ",", &at); server; server = strtok_r(NULL, ",", &at)) {
		if (!server_valid(server))
			return error_usage(
				err,
				"'%s' is no server of Consul: it must be an address (no "
				"name) and a port, as in 10.0.0.1:8500 or [fd00::1]:8500",
				server);
		if (consul->count == CONSUL_SERVERS_MAX)
			return error_usage(err, "more than %d servers of Consul are named",
					   CONSUL_SERVERS_MAX);
		consul->servers[consul->count++] = xstrdup(server);
	}
	return consul->count ? 0 : error_usage(err, "no server of Consul is named: %s", right_form);
}

static int prefix_parse(struct consul *consul, char *path, struct error *err)
{
	char *part, *at = NULL;
	struct text prefix = { 0 };

	text_add(&prefix, "", 0);
	for (part = strtok_r(path, "/", &at); part; part = strtok_r(NULL, "/", &at)) {
		if (strcmp(part, ".") == 0 || strcmp(part, "..") == 0 ||
		    strspn(part, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				 "0123456789._-") != strlen(part)) {
			text_done(&prefix);
			return error_usage(err,
					   "the prefix of the keys in Consul has letters, digits, "
					   "'.', '_' and '-' between its slashes, not '%s'",
					   part);
		}
		text_addf(&prefix, "%s/", part);
	}
	consul->prefix = prefix.text;
	return 0;
}

static int options_parse(struct consul *consul, char *options, struct error *err)
{
	char *at = NULL;

	for (char *word = strtok_r(options, "&", &at); word; word = strtok_r(NULL, "&", &at)) {
		char **where = NULL;
		char *value = strchr(word, '=');

		if (value)
			*value++ = '\0';
		if (strcmp(word, "token-file") == 0)
			where = &consul->token_file;
		else if (strcmp(word, "ca-file") == 0)
			where = &consul->ca_file;
		if (!where || !value || value[0] != '/' || *where)
			return error_usage(err,
					   "'%s' in the address of the store is unknown, twice, or "
					   "names no absolute path: %s",
					   word, right_form);
		*where = xstrdup(value);
	}
	return 0;
}

static int address_parse(struct consul *consul, const char *address, struct error *err)
{
	CLEANUP_FREE char *copy = xstrdup(address);
	char *rest, *options, *path;
	int r;

	consul->scheme = strncmp(copy, "https://", 8) == 0 ? "https" : "http";
	rest = copy + strlen(consul->scheme);
	if (strncmp(copy, consul->scheme, strlen(consul->scheme)) != 0 ||
	    strncmp(rest, "://", 3) != 0)
		return error_usage(err, "'consul:%s' is no address of Consul: %s", address,
				   right_form);
	rest += 3;
	options = strchr(rest, '?');
	if (options)
		*options++ = '\0';
	path = rest + strcspn(rest, "/");
	if (*path)
		*path++ = '\0';
	r = servers_parse(consul, rest, err);
	if (r == 0)
		r = prefix_parse(consul, path, err);
	if (r == 0 && options)
		r = options_parse(consul, options, err);
	return r;
}

static int token_read(struct consul *consul, struct error *err)
{
	char *header = NULL;
	int r;

	if (!consul->token_file)
		return 0;
	r = token_header(consul->token_file, &header, err);
	if (r < 0)
		return r;
	token_forget(consul->token_header);
	consul->token_header = header;
	return 0;
}

char *consul_key(const struct consul *consul, const char *key)
{
	return xasprintf("%s%s", consul->prefix, key + 1);
}

char *consul_key_of(const struct consul *consul, const char *theirs)
{
	size_t length = strlen(consul->prefix);

	if (strncmp(theirs, consul->prefix, length) != 0 || !theirs[length])
		return NULL;
	return xasprintf("/%s", theirs + length);
}

char *consul_kv_path(const struct consul *consul, const char *key)
{
	CLEANUP_FREE char *theirs = consul_key(consul, key);
	struct text path = { 0 };

	text_addf(&path, "kv/");
	for (const char *at = theirs; *at; at++) {
		bool plain = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') ||
			     (*at >= '0' && *at <= '9') || strchr("-._~/", *at);

		if (plain)
			text_add(&path, at, 1);
		else
			text_addf(&path, "%%%02X", (unsigned char)*at);
	}
	return path.text;
}

int consul_parse(const char *body, size_t length, json_t **ret, struct error *err)
{
	if (json_parts(body, length) > PARTS_MAX)
		return error_bad_data(err, "Consul answered more than can be held in memory");
	return json_parse(body, length, ret, err);
}

/* From one that does not answer, or has no leader, to the next one. */
static void rotate(struct consul_ask *ask, const struct http_answer *answer)
{
	struct consul *consul = ask->consul;

	if (answer->status != 0 && answer->status < 500) {
		consul->rotating = false;
		return;
	}
	if (ask->server != consul->server || consul->count < 2)
		return;
	consul->server = (consul->server + 1) % consul->count;
	if (!consul->rotating)
		log_warning("Consul at %s does not serve (%.200s); asking the next one, %s",
			    consul->servers[ask->server],
			    answer->status ? answer->body : answer->trouble,
			    consul->servers[consul->server]);
	consul->rotating = true;
	consul_watch_again(consul);
	consul_calls_again(consul);
}

static void on_answer(void *ctx, const struct http_answer *answer)
{
	struct consul_ask *ask = ctx;

	ask->transfer = NULL;
	rotate(ask, answer);
	ask->answer(ask, answer);
}

int consul_ask(struct consul_ask *ask, const struct consul_question *question, struct error *err)
{
	const struct consul *consul = ask->consul;
	CLEANUP_FREE char *url = xasprintf("%s://%s/v1/%s", consul->scheme,
					   consul->servers[consul->server], question->path);
	const struct http_request request = {
		.method = question->method,
		.url = url,
		.header = consul->token_header,
		.body = question->body,
		.length = question->length,
		.ca_file = consul->ca_file,
		.timeout_usec = question->timeout_usec,
		.limit = question->limit,
	};

	ask->server = consul->server;
	return http_send(consul->http, &request, on_answer, ask, &ask->transfer, err);
}

void consul_ask_cancel(struct consul_ask *ask)
{
	ask->transfer = http_cancel(ask->transfer);
}

static int refused(struct consul *consul, const char *words, struct error *err)
{
	(void)token_read(consul, NULL); /* it may have been replaced: then the next one is right */
	return error_set_class(
		err, ERROR_REFUSED, -EACCES,
		"Consul refused ('%.100s'): the token %s%s needs 'write' for the keys below \"%s\" "
		"(key_prefix) and for session and node \"%s\"",
		words, consul->token_file ? "in " : "",
		consul->token_file ? consul->token_file : "(none: name one with ?token-file=PATH)",
		consul->prefix, CONSUL_NODE);
}

int consul_trouble(struct consul_ask *ask, const struct http_answer *answer, struct error *err)
{
	struct consul *consul = ask->consul;
	const char *server = consul->servers[ask->server];
	int words = (int)strcspn(answer->body ? answer->body : "", "\r\n");

	if (answer->status == 0)
		return error_try_again(err, "Consul at %s did not answer: %s", server,
				       answer->trouble);
	if (answer->status == 403 || answer->status == 401 ||
	    strstr(answer->body, "Permission denied") || strstr(answer->body, "ACL not found"))
		return refused(consul, answer->body, err);
	if (answer->status >= 500 || answer->status == 429)
		return error_try_again(err, "Consul at %s could not tell (%d): %.*s", server,
				       answer->status, words < 200 ? words : 200, answer->body);
	return error_set(err, -EIO, "Consul at %s refused (%d): %.*s", server, answer->status,
			 words < 200 ? words : 200, answer->body);
}

static void consul_close(struct store *store)
{
	struct consul *consul = container_of(store, struct consul, store);

	consul_session_done(consul);
	consul_watch_done(consul);
	consul_call_done(consul);
	(void)http_close(consul->http);
	for (size_t i = 0; i < consul->count; i++)
		free(consul->servers[i]);
	token_forget(consul->token_header);
	free(consul->token_file);
	free(consul->ca_file);
	free(consul->prefix);
	(void)sd_event_unref(consul->loop);
	free(consul);
}

static int consul_open(const char *address, const char *base_dir, sd_event *loop,
		       struct store **ret_store, struct error *err)
{
	struct consul *consul = xcalloc(1, sizeof(*consul));
	int r;

	consul->loop = sd_event_ref(loop);
	r = address_parse(consul, address, err);
	if (r == 0)
		r = token_read(consul, err);
	if (r == 0)
		r = http_open(loop, &consul->http, err);
	if (r == 0)
		r = consul_call_start(consul, err);
	if (r == 0)
		r = consul_session_start(consul, err);
	if (r < 0) {
		consul_close(&consul->store);
		return r;
	}
	*ret_store = &consul->store;
	return 0;
}

const struct store_ops store_consul = {
	.scheme = "consul",
	.open = consul_open,
	.close = consul_close,
	.get = consul_get,
	.list = consul_list,
	.write = consul_write,
	.watch = consul_watch,
	.unwatch = consul_unwatch,
	.session_open = consul_session_open,
	.session_close = consul_session_close,
	.session_id = consul_session_id,
	.session_timing = consul_session_timing,
	.session_renew = consul_session_renew,
	.limits = consul_limits,
};
