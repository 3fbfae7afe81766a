/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the receiving side share: receive.c the door, the offer and the stream,
 * caller.c the conversations with the source's keepers. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "keeper/offer.h"
#include "keeper/psk.h"
#include "keeper/receive.h"

struct door;
struct export;
struct peer;
struct reopening;
struct request;
struct script;
struct tls_identity;

#define CALLERS_MAX 4

/* A conversation; at most one of them has said the secret. */
struct caller {
	struct receive *receive;
	struct peer *peer;
	bool accepted;
	uint64_t since;
};

struct receive {
	struct keeper *keeper;
	struct offer offer;
	char ticket[33], key[PSK_SIZE];
	struct tls_identity *identity;
	struct door *door;
	struct caller callers[CALLERS_MAX];
	struct request *preparing; /* of the source's, not answered yet */
	struct script *script;
	struct export *export; /* disks that are being filled */
	int stream;	       /* on its way to QEMU; -1 */
	bool expected;	       /* the stream: `ticket` is good */
	uint64_t prepared;     /* since when; clock_now() */
	bool streaming, stopped, running, failed;
	bool lost; /* the source's copy, with pages that are not here */
	struct reopening *reopening;
	uint64_t stopped_usec, running_usec;
	sd_event_source *deadline, *fresh;
};

void receive_arm(struct receive *receive, sd_event_source **source, uint64_t usec,
		 sd_event_time_handler_t handler);
int receive_on_deadline(sd_event_source *source, uint64_t usec, void *ctx);
int receive_on_fresh_due(sd_event_source *source, uint64_t usec, void *ctx);

/* A connection to the door; takes `fd`. */
void caller_let_in(struct receive *receive, int fd);
struct caller *caller_accepted(struct receive *receive); /* NULL: nobody is */
/* To the one that was accepted, if there is one. */
void caller_tell(struct receive *receive, const char *event, json_t *data);
void caller_say_running(struct receive *receive);
