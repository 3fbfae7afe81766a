/* SPDX-License-Identifier: Apache-2.0 */
/* A node becomes a member: it asks, with a token, the node where the authority is, over TLS pinned
 * to the fingerprint in the token; its key never leaves it. */
#pragma once
struct node;
struct request;

/* The request `cluster-join` on control.sock. */
void enrol_join(struct node *node, struct request *request);
/* The request `join` of a stranger. */
void enrol_serve(struct node *node, struct request *request, const char *member);
