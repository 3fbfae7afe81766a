/* SPDX-License-Identifier: Apache-2.0 */
/* Files and texts of certificates, and GnuTLS's errors in our words. */
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "tls/internal.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"
#include "util/mem.h"

int tls_error(struct error *err, int code, const char *what)
{
	return error_set(err, -EIO, "%s: %s", what, gnutls_strerror(code));
}

gnutls_datum_t tls_datum(const char *text)
{
	return (gnutls_datum_t){ .data = (unsigned char *)text, .size = (unsigned)strlen(text) };
}

char *tls_take_text(gnutls_datum_t *datum)
{
	char *text = xasprintf("%.*s", (int)datum->size, (const char *)datum->data);

	gnutls_memset(datum->data, 0, datum->size);
	gnutls_free(datum->data);
	datum->data = NULL;
	return text;
}

void tls_fingerprint(const gnutls_datum_t *der, char buffer[TLS_FINGERPRINT_SIZE])
{
	unsigned char digest[32];
	size_t size = sizeof(digest);

	buffer[0] = '\0';
	if (gnutls_fingerprint(GNUTLS_DIG_SHA256, der, digest, &size) < 0)
		return;
	for (size_t i = 0; i < size; i++)
		(void)snprintf(buffer + 2 * i, 3, "%02x", digest[i]);
}

void tls_common_name(gnutls_x509_crt_t certificate, char buffer[TLS_NAME_SIZE])
{
	size_t size = TLS_NAME_SIZE;

	if (gnutls_x509_crt_get_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, 0, buffer,
					  &size) < 0)
		buffer[0] = '\0';
}

int tls_read_file(const char *dir, const char *name, bool secret, char **ret_text,
		  struct error *err)
{
	CLEANUP_FREE char *path = xasprintf("%s/%s", dir, name);
	struct stat info;

	if (secret && stat(path, &info) == 0 && (info.st_mode & 077) != 0)
		return error_bad_data(err,
				      "others may read the key in '%s': chmod 600 it, and think of "
				      "it as known to them",
				      path);
	return file_read(AT_FDCWD, path, PEM_SIZE_MAX, ret_text, NULL, err);
}

int tls_write_file(const char *dir, const char *name, bool secret, const char *text,
		   struct error *err)
{
	CLEANUP_FREE char *path = xasprintf("%s/%s", dir, name);
	int r;

	r = file_make_dirs(AT_FDCWD, dir, 0700, err);
	if (r < 0)
		return r;
	return file_write(AT_FDCWD, path, text, strlen(text), secret ? 0600 : 0644, err);
}

int tls_dh_params(char **ret_text, struct error *err)
{
	gnutls_dh_params_t params;
	gnutls_datum_t pem = { 0 };
	int r = gnutls_dh_params_init(&params);

	if (r < 0)
		return tls_error(err, r, "Diffie-Hellman parameters");
	r = gnutls_dh_params_import_raw(params, &gnutls_ffdhe_2048_group_prime,
					&gnutls_ffdhe_2048_group_generator);
	if (r >= 0)
		r = gnutls_dh_params_export2_pkcs3(params, GNUTLS_X509_FMT_PEM, &pem);
	gnutls_dh_params_deinit(params);
	if (r < 0)
		return tls_error(err, r, "Diffie-Hellman parameters");
	*ret_text = tls_take_text(&pem);
	return 0;
}
