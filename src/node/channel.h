/* SPDX-License-Identifier: Apache-2.0 */
/* Where the agents of other nodes ask: mutual TLS on cluster.address, the same JSON lines as on
 * control.sock.  A table says who may ask what: a member of the cluster, or, where the authority
 * is, a stranger who has a token. */
#pragma once
struct channel;
struct node;

/* Listens once there is an identity and an address, and not any more without. */
void channel_look(struct node *node);
/* The list of members is another one: who is not in it is sent away. */
void channel_sift(struct node *node);
const char *channel_trouble(const struct node *node); /* why it does not listen; NULL: it does */
struct channel *channel_close(struct channel *channel);
