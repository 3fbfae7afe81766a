/* SPDX-License-Identifier: Apache-2.0 */
/* Keys are ECDSA P-256: what every TLS library takes, QEMU's too.  A certificate of a node is good
 * for both roles, since each node is client and server of each other. */
#include "tls/authority.h"

#include <errno.h>
#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <string.h>
#include <unistd.h>

#include "tls/internal.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"

#define SERIAL_SIZE 16

struct pair {
	gnutls_x509_crt_t certificate;
	gnutls_x509_privkey_t key;
};

static void pair_done(struct pair *pair)
{
	gnutls_x509_crt_deinit(pair->certificate);
	gnutls_x509_privkey_deinit(pair->key);
}

static int pair_init(struct pair *pair, struct error *err)
{
	int r = gnutls_x509_crt_init(&pair->certificate);

	if (r >= 0)
		r = gnutls_x509_privkey_init(&pair->key);
	return r < 0 ? tls_error(err, r, "cannot make a certificate") : 0;
}

static int make_key(gnutls_x509_privkey_t key)
{
	return gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA,
					    GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);
}

/* What CA and node certificates have in common. */
static int set_frame(gnutls_x509_crt_t certificate, const char *name, const struct period *period)
{
	unsigned char serial[SERIAL_SIZE];
	int r = gnutls_rnd(GNUTLS_RND_NONCE, serial, sizeof(serial));

	serial[0] &= 0x7f; /* RFC 5280: positive */
	if (r >= 0)
		r = gnutls_x509_crt_set_version(certificate, 3);
	if (r >= 0)
		r = gnutls_x509_crt_set_serial(certificate, serial, sizeof(serial));
	if (r >= 0)
		r = gnutls_x509_crt_set_activation_time(certificate, period->from);
	if (r >= 0)
		r = gnutls_x509_crt_set_expiration_time(certificate, period->until);
	if (r >= 0)
		r = gnutls_x509_crt_set_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, name,
						  (unsigned)strlen(name));
	return r;
}

static int set_subject_id(gnutls_x509_crt_t certificate)
{
	unsigned char id[64];
	size_t size = sizeof(id);
	int r = gnutls_x509_crt_get_key_id(certificate, 0, id, &size);

	return r < 0 ? r : gnutls_x509_crt_set_subject_key_id(certificate, id, size);
}

static int fill_ca(struct pair *ca, const struct period *period)
{
	int r = make_key(ca->key);

	if (r >= 0)
		r = gnutls_x509_crt_set_key(ca->certificate, ca->key);
	if (r >= 0)
		r = set_frame(ca->certificate, "Drover cluster", period);
	if (r >= 0)
		r = gnutls_x509_crt_set_basic_constraints(ca->certificate, 1, 0);
	if (r >= 0)
		r = gnutls_x509_crt_set_key_usage(ca->certificate,
						  GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN);
	if (r >= 0)
		r = set_subject_id(ca->certificate);
	if (r >= 0)
		r = gnutls_x509_crt_sign2(ca->certificate, ca->certificate, ca->key,
					  GNUTLS_DIG_SHA256, 0);
	return r;
}

bool authority_here(const char *dir)
{
	CLEANUP_FREE char *path = xasprintf("%s/" CA_KEY_FILE, dir);

	return access(path, F_OK) == 0;
}

/* Wipes as well: the text was a key. */
static void free_key(char **text)
{
	if (*text)
		gnutls_memset(*text, 0, strlen(*text));
	free(*text);
}

static int export_key(gnutls_x509_privkey_t key, char **ret_pem)
{
	gnutls_datum_t datum = { 0 };
	int r = gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN,
						  &datum);

	if (r >= 0)
		*ret_pem = tls_take_text(&datum);
	return r;
}

static int export_certificate(gnutls_x509_crt_t certificate, char **ret_pem)
{
	gnutls_datum_t datum = { 0 };
	int r = gnutls_x509_crt_export2(certificate, GNUTLS_X509_FMT_PEM, &datum);

	if (r >= 0)
		*ret_pem = tls_take_text(&datum);
	return r;
}

int authority_make(const char *dir, const struct period *period, struct error *err)
{
	CLEANUP(free_key) char *key = NULL;
	CLEANUP_FREE char *certificate = NULL;
	CLEANUP(pair_done) struct pair ca = { 0 };
	int r;

	if (authority_here(dir))
		return error_refuse(err, "there is a certificate authority in '%s' already", dir);
	r = pair_init(&ca, err);
	if (r < 0)
		return r;
	r = fill_ca(&ca, period);
	if (r >= 0)
		r = export_key(ca.key, &key);
	if (r >= 0)
		r = export_certificate(ca.certificate, &certificate);
	if (r < 0)
		return tls_error(err, r, "cannot make a certificate authority");
	r = tls_write_file(dir, CA_FILE, false, certificate, err);
	/* The key last: it says that there is an authority. */
	return r < 0 ? r : tls_write_file(dir, CA_KEY_FILE, true, key, err);
}

int authority_certificate(const char *dir, char **ret_certificate, struct error *err)
{
	return tls_read_file(dir, CA_FILE, false, ret_certificate, err);
}

static int load_ca(const char *dir, struct pair *ca, struct error *err)
{
	CLEANUP(free_key) char *key = NULL;
	CLEANUP_FREE char *certificate = NULL;
	gnutls_datum_t datum;
	int r;

	r = tls_read_file(dir, CA_KEY_FILE, true, &key, err);
	if (r == -ENOENT)
		return error_refuse(err, "the key of the certificate authority is not on this "
					 "node; ask the node where 'drover cluster init' was run");
	if (r < 0)
		return r;
	r = authority_certificate(dir, &certificate, err);
	if (r < 0)
		return r;
	r = pair_init(ca, err);
	if (r < 0)
		return r;
	datum = tls_datum(key);
	r = gnutls_x509_privkey_import(ca->key, &datum, GNUTLS_X509_FMT_PEM);
	datum = tls_datum(certificate);
	if (r >= 0)
		r = gnutls_x509_crt_import(ca->certificate, &datum, GNUTLS_X509_FMT_PEM);
	return r < 0 ? tls_error(err, r, "the certificate authority cannot be read") : 0;
}

static void deinit_request(gnutls_x509_crq_t *request)
{
	gnutls_x509_crq_deinit(*request);
}

static void deinit_certificate(gnutls_x509_crt_t *certificate)
{
	gnutls_x509_crt_deinit(*certificate);
}

static void deinit_key(gnutls_x509_privkey_t *key)
{
	gnutls_x509_privkey_deinit(*key);
}

/* Its signature proves that who asks has the key. */
static int read_request(const char *pem, gnutls_x509_crq_t *ret, struct error *err)
{
	gnutls_datum_t datum = tls_datum(pem);
	int r = gnutls_x509_crq_init(ret);

	if (r >= 0)
		r = gnutls_x509_crq_import(*ret, &datum, GNUTLS_X509_FMT_PEM);
	if (r >= 0)
		r = gnutls_x509_crq_verify(*ret, 0);
	return r < 0 ? error_bad_data(err, "this is no request for a certificate: %s",
				      gnutls_strerror(r))
		     : 0;
}

static int fill_node(gnutls_x509_crt_t certificate, gnutls_x509_crq_t request, const char *node,
		     const struct period *period, const struct pair *ca)
{
	int r = gnutls_x509_crt_set_crq(certificate, request);

	if (r >= 0)
		r = set_frame(certificate, node, period);
	if (r >= 0)
		r = gnutls_x509_crt_set_basic_constraints(certificate, 0, -1);
	if (r >= 0)
		r = gnutls_x509_crt_set_key_usage(certificate, GNUTLS_KEY_DIGITAL_SIGNATURE |
								       GNUTLS_KEY_KEY_ENCIPHERMENT);
	if (r >= 0)
		r = gnutls_x509_crt_set_key_purpose_oid(certificate, GNUTLS_KP_TLS_WWW_SERVER, 0);
	if (r >= 0)
		r = gnutls_x509_crt_set_key_purpose_oid(certificate, GNUTLS_KP_TLS_WWW_CLIENT, 0);
	if (r >= 0)
		r = gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_DNSNAME, node,
							 (unsigned)strlen(node), GNUTLS_FSAN_SET);
	if (r >= 0)
		r = set_subject_id(certificate);
	if (r >= 0)
		r = gnutls_x509_crt_sign2(certificate, ca->certificate, ca->key, GNUTLS_DIG_SHA256,
					  0);
	return r;
}

int authority_sign(const char *dir, const char *request, const char *node,
		   const struct period *period, char **ret_certificate, struct error *err)
{
	CLEANUP(deinit_certificate) gnutls_x509_crt_t certificate = NULL;
	CLEANUP(deinit_request) gnutls_x509_crq_t wanted = NULL;
	CLEANUP(pair_done) struct pair ca = { 0 };
	int r;

	r = load_ca(dir, &ca, err);
	if (r < 0)
		return r;
	r = read_request(request, &wanted, err);
	if (r < 0)
		return r;
	r = gnutls_x509_crt_init(&certificate);
	if (r >= 0)
		r = fill_node(certificate, wanted, node, period, &ca);
	if (r >= 0)
		r = export_certificate(certificate, ret_certificate);
	return r < 0 ? tls_error(err, r, "cannot sign a certificate") : 0;
}

int authority_fingerprint(const char *dir, char buffer[TLS_FINGERPRINT_SIZE], struct error *err)
{
	CLEANUP(deinit_certificate) gnutls_x509_crt_t certificate = NULL;
	CLEANUP_FREE char *pem = NULL;
	gnutls_datum_t datum, der = { 0 };
	int r;

	r = authority_certificate(dir, &pem, err);
	if (r < 0)
		return r;
	datum = tls_datum(pem);
	r = gnutls_x509_crt_init(&certificate);
	if (r >= 0)
		r = gnutls_x509_crt_import(certificate, &datum, GNUTLS_X509_FMT_PEM);
	if (r >= 0)
		r = gnutls_x509_crt_export2(certificate, GNUTLS_X509_FMT_DER, &der);
	if (r < 0)
		return tls_error(err, r, "the certificate authority cannot be read");
	tls_fingerprint(&der, buffer);
	gnutls_free(der.data);
	return 0;
}

void authority_remove(const char *dir)
{
	CLEANUP_FREE char *key = xasprintf("%s/" CA_KEY_FILE, dir);
	CLEANUP_FREE char *certificate = xasprintf("%s/" CA_FILE, dir);

	(void)unlink(key);
	(void)unlink(certificate);
}

static int fill_request(gnutls_x509_crq_t request, gnutls_x509_privkey_t key, const char *node)
{
	int r = gnutls_x509_crq_set_version(request, 1);

	if (r >= 0)
		r = gnutls_x509_crq_set_dn_by_oid(request, GNUTLS_OID_X520_COMMON_NAME, 0, node,
						  (unsigned)strlen(node));
	if (r >= 0)
		r = gnutls_x509_crq_set_key(request, key);
	if (r >= 0)
		r = gnutls_x509_crq_sign2(request, key, GNUTLS_DIG_SHA256, 0);
	return r;
}

int request_make(const char *node, char **ret_key, char **ret_request, struct error *err)
{
	CLEANUP(deinit_key) gnutls_x509_privkey_t key = NULL;
	CLEANUP(deinit_request) gnutls_x509_crq_t request = NULL;
	CLEANUP(free_key) char *pem = NULL;
	gnutls_datum_t datum = { 0 };
	int r;

	r = gnutls_x509_privkey_init(&key);
	if (r >= 0)
		r = gnutls_x509_crq_init(&request);
	if (r >= 0)
		r = make_key(key);
	if (r >= 0)
		r = fill_request(request, key, node);
	if (r >= 0)
		r = export_key(key, &pem);
	if (r >= 0)
		r = gnutls_x509_crq_export2(request, GNUTLS_X509_FMT_PEM, &datum);
	if (r < 0)
		return tls_error(err, r, "cannot make a key");
	*ret_request = tls_take_text(&datum);
	*ret_key = TAKE_PTR(pem);
	return 0;
}

void secret_hash(const char *secret, char buffer[TLS_FINGERPRINT_SIZE])
{
	gnutls_datum_t datum = tls_datum(secret);

	tls_fingerprint(&datum, buffer);
}
