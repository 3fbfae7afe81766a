/* SPDX-License-Identifier: Apache-2.0 */
/* Our certificate is renewed after two thirds of its life, by ourselves where the key of the
 * authority is, else by the node that has it. */
#pragma once
#include <time.h>

struct error;
struct node;
struct period;
struct renewal;
struct request;

/* There is another certificate, or none. */
void renewal_look(struct node *node);
struct renewal *renewal_close(struct renewal *renewal);
const char *renewal_trouble(const struct node *node); /* why it is late; or NULL */
time_t renewal_due(const struct node *node);	      /* 0: in no cluster */

/* What a certificate gets that this node signs now. */
struct period renewal_period(const struct node *node);

/* The request `renew` of a member. */
void renewal_serve(struct node *node, struct request *request, const char *member);
