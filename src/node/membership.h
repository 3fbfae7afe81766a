/* SPDX-License-Identifier: Apache-2.0 */
/* This node as a member of the cluster: its certificate, renewed in time, and the list of members
 * in the store.  A certificate alone makes no member: one that has left still has its own. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "model/records.h"

struct error;
struct membership;
struct node;
struct tls_identity;

#define KEY_CLUSTER "/drover/cluster/"
#define KEY_AUTHORITY KEY_CLUSTER "authority"
#define KEY_MEMBERS KEY_CLUSTER "members/"
const char *key_member(char buffer[RECORD_KEY_SIZE], const char *node);

int membership_open(struct node *node, struct error *err);
struct membership *membership_close(struct membership *membership);

const char *membership_dir(const struct node *node); /* LIB/tls */
/* Borrowed; NULL: this node is in no cluster, or its files cannot be read. */
struct tls_identity *membership_identity(const struct node *node);
/* Why its files cannot be used, or why they are not renewed; NULL: nothing is wrong. */
const char *membership_trouble(const struct node *node);
/* The files have changed; the new certificate counts from now on. */
int membership_reload(struct node *node, struct error *err);
/* Is that node in the cluster?  False as long as the list was never read. */
bool membership_has(const struct node *node, const char *name);
/* A guest that runs moves only between members: are this node and `target`? */
int membership_check_move(const struct node *node, const char *target, struct error *err);
/* How many there are; 0 as long as the list was never read. */
size_t membership_count(const struct node *node);
/* That node is one from now on, also before the list in the store was read again. */
void membership_add(struct node *node, const char *name);
/* Where that node was reached last, for when the store cannot be asked; NULL: not known. */
void membership_note_address(struct node *node, const char *name, const char *address);
const char *membership_last_address(const struct node *node, const char *name);
/* "192.0.2.7:8441", or "" without cluster.address. */
const char *membership_address(const struct node *node);
