/* SPDX-License-Identifier: Apache-2.0 */
/* What guest.c and exec.c share. */
#pragma once
#include "guest/guest.h"

/* A guest-exec that is being followed, so that the end of the conversation reaches it. */
struct follow {
	struct guest *guest;
	struct follow *previous, *next;
	/* Frees it and takes it off the list; answers with -ECONNRESET unless `why` is NULL. */
	void (*end)(struct follow *follow, const struct error *why);
};
void follow_add(struct guest *guest, struct follow *follow);
void follow_remove(struct follow *follow);
sd_event *guest_loop(const struct guest *guest); /* borrowed */
