/* SPDX-License-Identifier: Apache-2.0 */
/* The request `logs`: last lines of the files that programs and guests write. */
#pragma once

struct node;
struct request;

void logs_request(struct node *node, struct request *request);
