/* SPDX-License-Identifier: Apache-2.0 */
/* What lets a node join: FINGERPRINT of the CA, so that it knows whom it asks; a SECRET, so that we
 * know who asks; and where.  Each is good once and for an hour.  Only the hash of the secret is
 * kept, in LIB/tls/tokens.json of the node that made it. */
#pragma once
#include <stdbool.h>
#include <time.h>

#include "tls/tls.h"

struct error;
struct node;

#define TOKEN_LIFE 3600 /* s */

struct token {
	char fingerprint[TLS_FINGERPRINT_SIZE];
	char secret[33];
	char address[80];
};

/* Its text, owned by the caller.  `member` (may be NULL): for that node only, which may have been a
 * member before. */
int token_make(struct node *node, const char *member, char **ret_text, time_t *ret_until,
	       struct error *err);
int token_parse(const char *text, struct token *ret, struct error *err);

/* 0: this secret lets that node in now; `*ret_bound`: it was made for that very node. */
int token_check(const struct node *node, const char *secret, const char *member, bool *ret_bound,
		struct error *err);
/* Not any more.  Safe on disk when it returns. */
int token_burn(const struct node *node, const char *secret, struct error *err);
