/* SPDX-License-Identifier: Apache-2.0 */
/* Our own watch of Consul's keys `node/` and `snapshot/` (`consul.address`), for sites that do not
 * let `consul watch` run `drover handle-consul-event`. */
#pragma once

struct consul_feed;
struct error;
struct node;

int consul_feed_open(struct node *node, struct error *err);
struct consul_feed *consul_feed_close(struct consul_feed *consul);
