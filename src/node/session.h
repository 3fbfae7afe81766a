/* SPDX-License-Identifier: Apache-2.0 */
/* This node in the cluster: its life record, raised by one each time we join, and the ephemeral
 * session key by which others notice that we are gone (ownership protocol, sections 2 and 7).  The
 * agent serves without a session too; only writes of owner records need one. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct error;
struct node;
struct session;

int session_open(struct node *node, struct error *err);
struct session *session_close(struct session *session);

/* The life record may have changed under us: look, and join anew when it has. */
void session_renew(struct node *node);
/* 0: joined.  -EAGAIN with the reason. */
int session_check(const struct node *node, struct error *err);
uint64_t session_life_version(const struct node *node);
const char *session_words(const struct node *node); /* "connected", "suspended", ... */
