/* SPDX-License-Identifier: Apache-2.0 */
/* This node's lease: renewed at the store by real requests out of the agent's own loop, in which
 * nothing may block, and told to the keepers in RUN/lease (ownership protocol, section 7.1).  It is
 * never taken back: an agent that cannot renew it lets it run out. */
#pragma once
#include <stdbool.h>

struct error;
struct lease_renewal;
struct node;

int lease_open(struct node *node, struct error *err);
struct lease_renewal *lease_close(struct lease_renewal *renewal); /* NULL allowed */

/* There is a session; another than the one before: then what was won under that one's lease is not
 * won under this one's. */
void lease_session(struct node *node, bool another);
void lease_session_lost(struct node *node);
