/* SPDX-License-Identifier: Apache-2.0 */
/* The request `rm`: forgets a VM, or removes one volume by name.  Never both: volumes outlive the
 * definition that made them until somebody names them (I7). */
#pragma once

struct node;
struct request;

void removal_request(struct node *node, struct request *request, const char *by);
