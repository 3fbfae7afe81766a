/* SPDX-License-Identifier: Apache-2.0 */
#include "node/tokens.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "node/credentials.h"
#include "node/membership.h"
#include "node/node.h"
#include "tls/authority.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/tcp.h"

#define TOKENS_MAX 64
#define TOKENS "tokens.json"
#define TOKEN_HEAD "drover1/"
#define HEX "0123456789abcdef"

/* {HASH: {until, node}} without those whose time is over. */
static int tokens_read(const struct node *node, json_t **ret, struct error *err)
{
	json_t *all = NULL, *token;
	time_t now = time(NULL);
	const char *hash;
	void *next;
	int r;

	r = credentials_read_file(node, TOKENS, &all, err);
	if (r == -ENOENT) {
		*ret = json_object();
		return 0;
	}
	if (r < 0)
		return r;
	json_object_foreach_safe(all, next, hash, token)
	{
		int64_t until = json_int_or(token, "until", 0);

		/* Further away than any token's: the clock was wrong. */
		if (until <= now || until > now + TOKEN_LIFE)
			(void)json_object_del(all, hash);
	}
	*ret = all;
	return 0;
}

static int tokens_write(const struct node *node, const json_t *all, struct error *err)
{
	return credentials_write_file(node, TOKENS, all, err);
}

int token_make(struct node *node, const char *member, char **ret_text, time_t *ret_until,
	       struct error *err)
{
	char secret[33], hash[TLS_FINGERPRINT_SIZE];
	time_t until = time(NULL) + TOKEN_LIFE;
	json_auto_t *all = NULL;
	int r;

	r = tokens_read(node, &all, err);
	if (r < 0)
		return r;
	if (json_object_size(all) >= TOKENS_MAX)
		return error_refuse(err, "%d tokens are out already; each ends after an hour",
				    TOKENS_MAX);
	file_random_id(secret);
	secret_hash(secret, hash);
	(void)json_object_set_new(
		all, hash, json_pack("{s:I, s:s?}", "until", (json_int_t)until, "node", member));
	r = tokens_write(node, all, err);
	if (r < 0)
		return r;
	*ret_text = xasprintf(TOKEN_HEAD "%s/%s/%s", tls_identity_ca(membership_identity(node)),
			      secret, membership_address(node));
	*ret_until = until;
	explicit_bzero(secret, sizeof(secret));
	return 0;
}

/* One part up to the next slash, of exactly that many hex digits. */
static bool take_hex(const char **at, char *buffer, size_t digits)
{
	if (strspn(*at, HEX) != digits || (*at)[digits] != '/')
		return false;
	memcpy(buffer, *at, digits);
	buffer[digits] = '\0';
	*at += digits + 1;
	return true;
}

int token_parse(const char *text, struct token *ret, struct error *err)
{
	const char *at = text + strlen(TOKEN_HEAD);
	size_t length;

	if (strncmp(text, TOKEN_HEAD, strlen(TOKEN_HEAD)) != 0 ||
	    !take_hex(&at, ret->fingerprint, sizeof(ret->fingerprint) - 1) ||
	    !take_hex(&at, ret->secret, sizeof(ret->secret) - 1) ||
	    (length = strlen(at)) >= sizeof(ret->address) || tcp_check(at, NULL) < 0)
		return error_bad_data(err, "this is no token of 'drover cluster token'");
	memcpy(ret->address, at, length + 1);
	return 0;
}

int token_check(const struct node *node, const char *secret, const char *member, bool *ret_bound,
		struct error *err)
{
	char hash[TLS_FINGERPRINT_SIZE];
	json_auto_t *all = NULL;
	const char *bound;
	json_t *token;
	int r;

	r = tokens_read(node, &all, err);
	if (r < 0)
		return r;
	secret_hash(secret, hash);
	token = json_object_get(all, hash);
	if (!token)
		return error_refuse(err, "this token was used before, or its hour is over; 'drover "
					 "cluster token' makes another one");
	bound = json_string_or(token, "node", NULL);
	if (bound && strcmp(bound, member) != 0)
		return error_refuse(err, "this token is for node '%s', and this is '%s'", bound,
				    member);
	*ret_bound = bound != NULL;
	return 0;
}

int token_burn(const struct node *node, const char *secret, struct error *err)
{
	char hash[TLS_FINGERPRINT_SIZE];
	json_auto_t *all = NULL;
	int r;

	r = tokens_read(node, &all, err);
	if (r < 0)
		return r;
	secret_hash(secret, hash);
	(void)json_object_del(all, hash);
	return tokens_write(node, all, err);
}
