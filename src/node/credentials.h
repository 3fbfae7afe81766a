/* SPDX-License-Identifier: Apache-2.0 */
/* Keys and certificates of this node and of the authority, in LIB/tls: read and written in a time
 * that is known (node/disks.h), for the session of the node depends on whoever waits here.  What
 * was answered with -ETIMEDOUT may be done later all the same. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

#include "tls/authority.h"

struct error;
struct node;

/* As tls_identity_load(), _write() and _remove(). */
int credentials_load(const struct node *node, struct tls_identity **ret, struct error *err);
int credentials_write(const struct node *node, const char *ca, const char *key,
		      const char *certificate, struct error *err);
int credentials_remove(const struct node *node, struct error *err);

/* 1: the key of the authority is here; 0: no; or it cannot be told. */
int credentials_authority(const struct node *node, struct error *err);
int credentials_make_authority(const struct node *node, const struct period *period,
			       struct error *err);
int credentials_remove_authority(const struct node *node, struct error *err);
int credentials_fingerprint(const struct node *node, char buffer[TLS_FINGERPRINT_SIZE],
			    struct error *err);
/* As authority_sign(), and the certificate of the CA with it; `ret_ca` may be NULL. */
int credentials_sign(const struct node *node, const char *request, const char *member,
		     const struct period *period, char **ret_certificate, char **ret_ca,
		     struct error *err);

/* The file of that name there, an object; -ENOENT. */
int credentials_read_file(const struct node *node, const char *name, json_t **ret,
			  struct error *err);
int credentials_write_file(const struct node *node, const char *name, const json_t *value,
			   struct error *err);
