/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes from each of two sockets to the other, until both have ended. */
#pragma once
#include <systemd/sd-event.h>

struct error;
struct relay;

/* Both ways have ended, or one broke; the owner frees it then or later. */
typedef void (*relay_over_fn)(void *ctx);
/* Takes both descriptors in every case. */
int relay_new(sd_event *loop, int a, int b, relay_over_fn over, void *ctx, struct relay **ret_relay,
	      struct error *err);
struct relay *relay_free(struct relay *relay); /* takes NULL, returns NULL */
