/* SPDX-License-Identifier: Apache-2.0 */
/* Who a node is: its key, its certificate and the CA whose others it believes.  Loaded once, shared
 * by all connections that were made with it; a new certificate is a new identity. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "tls/internal.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"
#include "util/mem.h"
#include "wire/transport.h"

static void unrefp(struct tls_identity **identity)
{
	tls_identity_unref(*identity);
}

struct tls_identity *tls_identity_ref(struct tls_identity *identity)
{
	identity->refs++;
	return identity;
}

struct tls_identity *tls_identity_unref(struct tls_identity *identity)
{
	if (!identity || --identity->refs > 0)
		return NULL;
	if (identity->credentials)
		gnutls_certificate_free_credentials(identity->credentials);
	free(identity);
	return NULL;
}

const char *tls_identity_name(const struct tls_identity *identity)
{
	return identity->name;
}

const char *tls_identity_ca(const struct tls_identity *identity)
{
	return identity->ca;
}

void tls_identity_period(const struct tls_identity *identity, time_t *ret_from, time_t *ret_until)
{
	*ret_from = identity->from;
	*ret_until = identity->until;
}

static void deinit_certificate(gnutls_x509_crt_t *certificate)
{
	gnutls_x509_crt_deinit(*certificate);
}

static int import(const char *pem, gnutls_x509_crt_t *ret)
{
	gnutls_datum_t datum = tls_datum(pem);
	int r = gnutls_x509_crt_init(ret);

	return r < 0 ? r : gnutls_x509_crt_import(*ret, &datum, GNUTLS_X509_FMT_PEM);
}

/* Name and period, as the certificate has them, and the CA's fingerprint. */
static int read_facts(struct tls_identity *identity, const char *ca_pem, const char *node_pem)
{
	CLEANUP(deinit_certificate) gnutls_x509_crt_t ca = NULL, node = NULL;
	gnutls_datum_t der = { 0 };
	int r;

	r = import(ca_pem, &ca);
	if (r >= 0)
		r = import(node_pem, &node);
	if (r >= 0)
		r = gnutls_x509_crt_export2(ca, GNUTLS_X509_FMT_DER, &der);
	if (r < 0)
		return r;
	tls_fingerprint(&der, identity->ca);
	gnutls_free(der.data);
	tls_common_name(node, identity->name);
	identity->from = gnutls_x509_crt_get_activation_time(node);
	identity->until = gnutls_x509_crt_get_expiration_time(node);
	return 0;
}

/* The CA goes along, so that one who knows only its fingerprint can check it. */
static int set_credentials(struct tls_identity *identity, const char *ca, const char *node)
{
	CLEANUP_FREE char *chain = xasprintf("%s\n%s", node, ca);
	gnutls_datum_t all = tls_datum(chain), key = tls_datum(node), trusted = tls_datum(ca);
	int r = gnutls_certificate_allocate_credentials(&identity->credentials);

	if (r >= 0)
		r = gnutls_certificate_set_x509_trust_mem(identity->credentials, &trusted,
							  GNUTLS_X509_FMT_PEM);
	if (r >= 0)
		r = gnutls_certificate_set_x509_key_mem2(identity->credentials, &all, &key,
							 GNUTLS_X509_FMT_PEM, NULL, 0);
	gnutls_memset(chain, 0, strlen(chain));
	return r;
}

int tls_identity_load(const char *dir, struct tls_identity **ret, struct error *err)
{
	CLEANUP(unrefp) struct tls_identity *identity = xcalloc(1, sizeof(*identity));
	CLEANUP_FREE char *ca = NULL, *node = NULL;
	int r;

	identity->refs = 1;
	r = tls_read_file(dir, NODE_FILE, true, &node, err);
	if (r == -ENOENT)
		return error_set_class(err, ERROR_REFUSED, -ENOENT,
				       "this node is in no cluster; 'drover cluster init' makes "
				       "one, 'drover cluster join' enters one");
	if (r >= 0)
		r = tls_read_file(dir, CA_FILE, false, &ca, err);
	if (r < 0)
		return r;
	r = read_facts(identity, ca, node);
	if (r >= 0)
		r = set_credentials(identity, ca, node);
	gnutls_memset(node, 0, strlen(node));
	if (r < 0)
		return error_bad_data(err, "the certificates in '%s' cannot be used: %s", dir,
				      gnutls_strerror(r));
	if (!identity->name[0])
		return error_bad_data(err, "the certificate in '%s' names no node", dir);
	*ret = TAKE_PTR(identity);
	return 0;
}

int tls_identity_write(const char *dir, const char *ca, const char *key, const char *certificate,
		       struct error *err)
{
	CLEANUP_FREE char *both = xasprintf("%s%s", key, certificate);
	int r = ca ? tls_write_file(dir, CA_FILE, false, ca, err) : 0;

	if (r >= 0)
		r = tls_write_file(dir, NODE_FILE, true, both, err);
	gnutls_memset(both, 0, strlen(both));
	return r;
}

int tls_identity_remove(const char *dir, struct error *err)
{
	return file_remove_tree(AT_FDCWD, dir, err);
}
