/* SPDX-License-Identifier: Apache-2.0 */
/* Mutual TLS 1.3 between the programs of a cluster.  Who has a certificate of the cluster's CA is
 * a member; its node name is the common name in there.  Files of a node, in LIB/tls:
 *
 *	ca.pem		certificate of the CA (several while one replaces another)
 *	node.pem	our key and our certificate, in one file so that they cannot differ; 0600
 *	ca-key.pem	key of the CA, only where the cluster was made; 0600 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct error;
struct tls_identity;
struct transport;

#define TLS_NAME_SIZE 64
#define TLS_FINGERPRINT_SIZE 65 /* SHA-256 of a certificate as hex, and NUL */

/* -ENOENT: this node is in no cluster yet. */
int tls_identity_load(const char *dir, struct tls_identity **ret, struct error *err);
struct tls_identity *tls_identity_ref(struct tls_identity *identity);
struct tls_identity *tls_identity_unref(struct tls_identity *identity); /* takes NULL, returns it */
const char *tls_identity_name(const struct tls_identity *identity);
const char *tls_identity_ca(const struct tls_identity *identity); /* fingerprint */
void tls_identity_period(const struct tls_identity *identity, time_t *ret_from, time_t *ret_until);
/* Writes key and certificate, and before that the CA's certificate unless NULL; all PEM. */
int tls_identity_write(const char *dir, const char *ca, const char *key, const char *certificate,
		       struct error *err);
/* Forgets who we are: removes all files of the directory. */
int tls_identity_remove(const char *dir, struct error *err);

/* Diffie-Hellman parameters of RFC 7919 (ffdhe2048) as PEM, owned by the caller: a server that is
 * given none makes some of its own, which takes seconds. */
int tls_dh_params(char **ret_text, struct error *err);

/* Each takes `fd`, connected or connecting, in every case; the transport is for
 * peer_open_transport() and friends.  What is said goes to nobody before both sides have proven who
 * they are. */
int tls_connect(int fd, struct tls_identity *identity, const char *node, struct transport **ret,
		struct error *err);
/* For one that has no certificate yet: the other side must show a CA with this fingerprint. */
int tls_connect_pinned(int fd, const char *fingerprint, struct transport **ret, struct error *err);
/* With `strangers` also those without any certificate, who then have no name. */
int tls_accept(int fd, struct tls_identity *identity, bool strangers, struct transport **ret,
	       struct error *err);
/* Name of the node at the other end, from its certificate; "" for a stranger and as long as the
 * transport has not begun. */
const char *tls_peer_name(const struct transport *transport);
/* The other side's first deadline; 10 s unless set. */
void tls_set_patience(struct transport *transport, uint64_t usec);
