/* SPDX-License-Identifier: Apache-2.0 */
/* TLS as a transport: GnuTLS reads and writes the socket when the stream asks for it, and never
 * waits.  The name of the other side is checked inside the handshake, so that a wrong one is told
 * why and hears nothing else. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tls/internal.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/transport.h"

#define PATIENCE (10 * USEC_PER_SEC)
#define PRIORITY "NORMAL:-VERS-ALL:+VERS-TLS1.3"

struct session {
	struct transport transport;
	gnutls_session_t tls;
	struct tls_identity *identity;	       /* NULL: pinned */
	gnutls_certificate_credentials_t bare; /* pinned: without a certificate of ours */
	char expected[TLS_NAME_SIZE];	       /* node, or "" for any */
	char pin[TLS_FINGERPRINT_SIZE];	       /* or "" */
	char peer[TLS_NAME_SIZE];
	bool client, begun;
	size_t unfinished; /* bytes that GnuTLS has taken and not yet got rid of */
	int failed;	   /* first errno of the socket, which GnuTLS does not pass on */
	struct error why;  /* of the verification */
};

static struct session *session_of(struct transport *transport)
{
	return container_of(transport, struct session, transport);
}

/* ---- the socket ---- */

static ssize_t pull(gnutls_transport_ptr_t ptr, void *bytes, size_t size)
{
	struct session *session = ptr;
	ssize_t n = recv(session->transport.fd, bytes, size, MSG_DONTWAIT);

	if (n < 0 && errno != EAGAIN && errno != EINTR && !session->failed)
		session->failed = errno;
	return n;
}

static ssize_t push(gnutls_transport_ptr_t ptr, const void *bytes, size_t length)
{
	struct session *session = ptr;
	ssize_t n = send(session->transport.fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN && errno != EINTR && !session->failed)
		session->failed = errno;
	return n;
}

/* The stream waits, GnuTLS never does. */
static int pull_timeout(gnutls_transport_ptr_t ptr, unsigned msec)
{
	return 1;
}

/* ---- who is at the other end ---- */

static int import_peer(const gnutls_datum_t *der, gnutls_x509_crt_t *ret)
{
	int r = gnutls_x509_crt_init(ret);

	return r < 0 ? r : gnutls_x509_crt_import(*ret, der, GNUTLS_X509_FMT_DER);
}

static void deinit_certificate(gnutls_x509_crt_t *certificate)
{
	gnutls_x509_crt_deinit(*certificate);
}

static int reject(struct session *session, unsigned status)
{
	const char *problem = "is not of this cluster's certificate authority";

	if (status & GNUTLS_CERT_EXPIRED)
		problem = "has expired";
	else if (status & GNUTLS_CERT_NOT_ACTIVATED)
		problem = "is not valid yet: compare the clocks of both hosts";
	else if (status & GNUTLS_CERT_PURPOSE_MISMATCH)
		problem = "is not meant for this";
	(void)error_refuse(&session->why, "the certificate of the other side %s", problem);
	return GNUTLS_E_CERTIFICATE_ERROR;
}

/* A chain against the CA that is in it, once that is the one we were told of. */
static int verify_pinned(struct session *session, const gnutls_datum_t *list, unsigned count)
{
	CLEANUP(deinit_certificate) gnutls_x509_crt_t node = NULL, ca = NULL;
	char fingerprint[TLS_FINGERPRINT_SIZE];
	gnutls_x509_trust_list_t trusted;
	unsigned status = GNUTLS_CERT_INVALID;

	tls_fingerprint(&list[count - 1], fingerprint);
	if (count != 2 || strcmp(fingerprint, session->pin) != 0) {
		(void)error_refuse(&session->why,
				   "the other side is of another cluster than the token");
		return GNUTLS_E_CERTIFICATE_ERROR;
	}
	if (import_peer(&list[0], &node) < 0 || import_peer(&list[1], &ca) < 0 ||
	    gnutls_x509_trust_list_init(&trusted, 0) < 0)
		return reject(session, status);
	if (gnutls_x509_trust_list_add_cas(trusted, &ca, 1, 0) == 1)
		(void)gnutls_x509_trust_list_verify_crt(trusted, &node, 1, 0, &status, NULL);
	gnutls_x509_trust_list_deinit(trusted, 0);
	return status ? reject(session, status) : 0;
}

static int verify_member(struct session *session, bool client)
{
	gnutls_typed_vdata_st purpose = {
		.type = GNUTLS_DT_KEY_PURPOSE_OID,
		.data = (unsigned char *)(client ? GNUTLS_KP_TLS_WWW_SERVER
						 : GNUTLS_KP_TLS_WWW_CLIENT),
	};
	unsigned status = 0;

	if (gnutls_certificate_verify_peers(session->tls, &purpose, 1, &status) < 0)
		status = GNUTLS_CERT_INVALID;
	return status ? reject(session, status) : 0;
}

/* GnuTLS asks once it has the certificates, before it says that it is content. */
static int on_certificate(gnutls_session_t tls)
{
	struct session *session = gnutls_session_get_ptr(tls);
	CLEANUP(deinit_certificate) gnutls_x509_crt_t node = NULL;
	const gnutls_datum_t *list;
	unsigned count = 0;
	int r;

	list = gnutls_certificate_get_peers(tls, &count);
	if (!list || count == 0)
		return 0; /* a stranger: one who must not be here has been sent away already */
	r = session->pin[0] ? verify_pinned(session, list, count)
			    : verify_member(session, session->client);
	if (r < 0)
		return r;
	if (import_peer(&list[0], &node) < 0)
		return reject(session, GNUTLS_CERT_INVALID);
	tls_common_name(node, session->peer);
	if (session->peer[0] == '\0')
		return reject(session, GNUTLS_CERT_INVALID);
	if (session->expected[0] && strcmp(session->expected, session->peer) != 0) {
		(void)error_refuse(&session->why, "the other side is node '%s' and not '%s'",
				   session->peer, session->expected);
		return GNUTLS_E_CERTIFICATE_ERROR;
	}
	return 0;
}

const char *tls_peer_name(const struct transport *transport)
{
	const struct session *session = container_of(transport, struct session, transport);

	return session->begun ? session->peer : "";
}

/* ---- the transport ---- */

static int explain_socket(int code, struct error *err)
{
	if (code == EPIPE || code == ECONNRESET)
		return error_set_class(err, ERROR_TRY_AGAIN, -ECONNRESET,
				       "the other side closed the connection");
	if (code == ECONNREFUSED)
		return error_set_class(err, ERROR_TRY_AGAIN, -code, "nobody listens there");
	return error_set_class(err, ERROR_TRY_AGAIN, -code, "the connection failed: %m");
}

static int explain_alert(const struct session *session, struct error *err)
{
	gnutls_alert_description_t alert = gnutls_alert_get(session->tls);
	const char *name = gnutls_alert_get_name(alert);

	return error_refuse(err, "the other side did not accept us: %s",
			    name ? name : "without a word");
}

static int explain(const struct session *session, int code, struct error *err)
{
	switch (code) {
	case GNUTLS_E_AGAIN:
		return -EAGAIN;
	case GNUTLS_E_INTERRUPTED:
		return -EINTR;
	case GNUTLS_E_PREMATURE_TERMINATION:
		return explain_socket(session->failed ? session->failed : ECONNRESET, err);
	case GNUTLS_E_PUSH_ERROR:
	case GNUTLS_E_PULL_ERROR:
		return explain_socket(session->failed ? session->failed : EIO, err);
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		return explain_alert(session, err);
	default:
		break;
	}
	if (session->why.text[0])
		return error_set_class(err, session->why.class, -EPERM, "%s", session->why.text);
	return error_set(err, -EPROTO, "the other side does not speak our TLS: %s",
			 gnutls_strerror(code));
}

static int transport_begin(struct transport *transport, uint32_t *ret_events, struct error *err)
{
	struct session *session = session_of(transport);
	int r;

	do
		r = gnutls_handshake(session->tls);
	while (r < 0 && r != GNUTLS_E_AGAIN && !gnutls_error_is_fatal(r));
	if (r == GNUTLS_E_AGAIN) {
		*ret_events = gnutls_record_get_direction(session->tls) ? EPOLLOUT : EPOLLIN;
		return -EAGAIN;
	}
	if (r < 0) {
		(void)gnutls_alert_send_appropriate(session->tls, r);
		return explain(session, r, err);
	}
	session->begun = true;
	return 0;
}

static ssize_t transport_read(struct transport *transport, void *bytes, size_t size,
			      struct error *err)
{
	struct session *session = session_of(transport);
	ssize_t n = gnutls_record_recv(session->tls, bytes, size);

	return n < 0 ? explain(session, (int)n, err) : n;
}

/* What was not got rid of has to be offered again, with the same length. */
static ssize_t transport_write(struct transport *transport, const void *bytes, size_t length,
			       struct error *err)
{
	struct session *session = session_of(transport);
	size_t offered = session->unfinished ? session->unfinished : length;
	ssize_t n;

	do
		n = gnutls_record_send(session->tls, bytes, offered);
	while (n == GNUTLS_E_INTERRUPTED);
	session->unfinished = n == GNUTLS_E_AGAIN ? offered : 0;
	return n < 0 ? explain(session, (int)n, err) : n;
}

static bool transport_more(const struct transport *transport)
{
	const struct session *session = container_of(transport, struct session, transport);

	return gnutls_record_check_pending(session->tls) > 0;
}

static void transport_close(struct transport *transport)
{
	struct session *session = session_of(transport);

	if (session->tls) {
		if (session->begun && !session->unfinished)
			(void)gnutls_bye(session->tls, GNUTLS_SHUT_WR);
		gnutls_deinit(session->tls);
	}
	if (session->bare)
		gnutls_certificate_free_credentials(session->bare);
	tls_identity_unref(session->identity);
	(void)close(transport->fd);
	free(session);
}

static const struct transport_ops session_ops = {
	.begin = transport_begin,
	.read = transport_read,
	.write = transport_write,
	.more = transport_more,
	.close = transport_close,
};

/* ---- making one ---- */

/* Takes `fd`.  `identity` NULL: without a certificate of ours. */
static int session_new(int fd, bool client, struct tls_identity *identity, struct session **ret,
		       struct error *err)
{
	unsigned flags = (client ? GNUTLS_CLIENT : GNUTLS_SERVER) | GNUTLS_NONBLOCK |
			 GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS;
	struct session *session = xcalloc(1, sizeof(*session));
	gnutls_certificate_credentials_t credentials = identity ? identity->credentials : NULL;
	int r = 0;

	session->transport =
		(struct transport){ .ops = &session_ops, .fd = fd, .patience = PATIENCE };
	session->client = client;
	if (identity)
		session->identity = tls_identity_ref(identity);
	else
		r = gnutls_certificate_allocate_credentials(&session->bare);
	if (r >= 0)
		r = gnutls_init(&session->tls, flags);
	if (r >= 0)
		r = gnutls_priority_set_direct(session->tls, PRIORITY, NULL);
	if (r >= 0)
		r = gnutls_credentials_set(session->tls, GNUTLS_CRD_CERTIFICATE,
					   credentials ? credentials : session->bare);
	if (r < 0) {
		transport_close(&session->transport);
		return tls_error(err, r, "cannot prepare TLS");
	}
	gnutls_session_set_ptr(session->tls, session);
	gnutls_session_set_verify_function(session->tls, on_certificate);
	gnutls_handshake_set_timeout(session->tls, GNUTLS_INDEFINITE_TIMEOUT);
	gnutls_transport_set_ptr(session->tls, session);
	gnutls_transport_set_push_function(session->tls, push);
	gnutls_transport_set_pull_function(session->tls, pull);
	gnutls_transport_set_pull_timeout_function(session->tls, pull_timeout);
	*ret = session;
	return 0;
}

int tls_connect(int fd, struct tls_identity *identity, const char *node, struct transport **ret,
		struct error *err)
{
	struct session *session;
	int r = session_new(fd, true, identity, &session, err);

	if (r < 0)
		return r;
	(void)snprintf(session->expected, sizeof(session->expected), "%s", node);
	*ret = &session->transport;
	return 0;
}

int tls_connect_pinned(int fd, const char *fingerprint, struct transport **ret, struct error *err)
{
	struct session *session;
	int r = session_new(fd, true, NULL, &session, err);

	if (r < 0)
		return r;
	(void)snprintf(session->pin, sizeof(session->pin), "%s", fingerprint);
	*ret = &session->transport;
	return 0;
}

int tls_accept(int fd, struct tls_identity *identity, bool strangers, struct transport **ret,
	       struct error *err)
{
	struct session *session;
	int r = session_new(fd, false, identity, &session, err);

	if (r < 0)
		return r;
	gnutls_certificate_server_set_request(session->tls, strangers ? GNUTLS_CERT_REQUEST
								      : GNUTLS_CERT_REQUIRE);
	*ret = &session->transport;
	return 0;
}

void tls_set_patience(struct transport *transport, uint64_t usec)
{
	transport->patience = usec;
}
