/* SPDX-License-Identifier: Apache-2.0 */
/* The request `apply`: definitions as they were given, all of them in one transaction or none. */
#pragma once

struct node;
struct request;

void apply_request(struct node *node, struct request *request);
