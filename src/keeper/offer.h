/* SPDX-License-Identifier: Apache-2.0 */
/* That a receiver waits here, and where: told to the source through the store, for as long as this
 * node's session lives, and to the keeper after this one through receive.json. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "model/records.h"

struct error;
struct keeper;

struct offer {
	struct keeper *keeper;
	uint64_t epoch;		       /* of the move that is waited for */
	char source[RECORD_NAME_SIZE]; /* the node that has the VM */
	char secret[33];	       /* who comes in must know it */
	bool postcopy;		       /* was agreed upon, and not called off (R7) */
	unsigned port;		       /* of the door */
	bool published;
};

void offer_init(struct offer *offer, struct keeper *keeper, uint64_t epoch, const char *source);
/* What a keeper before this one offered.  -ESTALE: that was for another epoch. */
int offer_load(struct offer *offer, struct keeper *keeper, uint64_t epoch, struct error *err);
int offer_save(const struct offer *offer, struct error *err);

/* Asks the agent to write it; again when it was not answered.  `refused` is told of a "no". */
void offer_publish(struct offer *offer);
void offer_withdraw(struct keeper *keeper);
/* An offer of this node that nobody can come to keeps others from offering: withdrawing it may not
 * have reached an agent. */
void offer_look(struct keeper *keeper);

/* "10.0.0.1:PORT", "[fd00::1]:PORT"; the caller frees it. */
char *offer_address(const struct keeper *keeper, unsigned port);
/* Takes as long whatever differs. */
bool offer_secret_equal(const char *a, const char *b);
