/* SPDX-License-Identifier: Apache-2.0 */
/* The sentences of `explain`: what a VM is, why, and what to do next. */
#pragma once

struct node;
struct request;

/* Of a VM of this node, or of nobody's. */
void explain_request(struct node *node, struct request *request);
/* Node `to` has it, or would, and does not answer, since `why`: what is known here, and what is
 * not. */
void explain_from_here(struct node *node, struct request *request, const char *to, const char *why);
