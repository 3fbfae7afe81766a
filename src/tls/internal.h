/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share. */
#pragma once
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "tls/tls.h"

#define PEM_SIZE_MAX (64u * 1024)
#define CA_FILE "ca.pem"
#define NODE_FILE "node.pem"
#define CA_KEY_FILE "ca-key.pem"

/* -EIO (or a better errno) with GnuTLS's words. */
int tls_error(struct error *err, int code, const char *what);

/* A datum that borrows a text. */
gnutls_datum_t tls_datum(const char *text);
/* The text of a datum, owned by the caller; frees the datum. */
char *tls_take_text(gnutls_datum_t *datum);
void tls_fingerprint(const gnutls_datum_t *der, char buffer[TLS_FINGERPRINT_SIZE]);
/* Common name of a certificate, "" when it has none that fits. */
void tls_common_name(gnutls_x509_crt_t certificate, char buffer[TLS_NAME_SIZE]);

/* A PEM file of `dir`; with `secret` it is refused when others than its owner may read it. */
int tls_read_file(const char *dir, const char *name, bool secret, char **ret_text,
		  struct error *err);
int tls_write_file(const char *dir, const char *name, bool secret, const char *text,
		   struct error *err);

struct tls_identity {
	unsigned refs;
	gnutls_certificate_credentials_t credentials;
	char name[TLS_NAME_SIZE];
	char ca[TLS_FINGERPRINT_SIZE];
	time_t from, until;
};
