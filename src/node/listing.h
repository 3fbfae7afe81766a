/* SPDX-License-Identifier: Apache-2.0 */
/* The request `ls`.  What a node told last of its VMs holds as long as it is in the cluster; when
 * it is not, nobody knows.  Who takes it in parts gets them one in each turn of the loop: of twenty
 * thousand VMs no message could hold the whole, and it takes seconds to put together. */
#pragma once

struct node;
struct request;

void listing_begin(struct node *node, struct request *request);
