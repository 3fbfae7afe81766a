/* SPDX-License-Identifier: Apache-2.0 */
/* The cluster's certificate authority: a key and a certificate in a directory, and what it signs.
 */
#pragma once
#include <stdbool.h>
#include <time.h>

#include "tls/tls.h"

struct error;

struct period {
	time_t from, until;
};

/* Makes a CA in `dir`; refused when there is one. */
int authority_make(const char *dir, const struct period *period, struct error *err);
bool authority_here(const char *dir);
/* A certificate (PEM) for `node` on the key of a request (PEM); whatever else the request asks for
 * is not granted. */
int authority_sign(const char *dir, const char *request, const char *node,
		   const struct period *period, char **ret_certificate, struct error *err);
/* SHA-256 of the CA's certificate. */
int authority_fingerprint(const char *dir, char buffer[TLS_FINGERPRINT_SIZE], struct error *err);
/* Takes back what authority_make() did, when the cluster has another one. */
void authority_remove(const char *dir);
/* The CA's certificate, PEM. */
int authority_certificate(const char *dir, char **ret_certificate, struct error *err);

/* A new key and the request for a certificate on it (PEM), for authority_sign(). */
int request_make(const char *node, char **ret_key, char **ret_request, struct error *err);

/* What may be kept of a secret: SHA-256 as hex. */
void secret_hash(const char *secret, char buffer[TLS_FINGERPRINT_SIZE]);
