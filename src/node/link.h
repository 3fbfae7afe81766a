/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper of one VM, seen from the agent: a process that outlives us.  A keeper is found at its
 * socket, or started; it is told the wish, newest wins; one that does not answer is ended by pidfd
 * after its identity was proven, and the next one adopts what it kept. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "core/backoff.h"
#include "node/wish.h"
#include "wire/peer.h"

struct error;
struct node_vm;

enum link_state {
	LINK_NONE,     /* no keeper, none needed */
	LINK_STARTING, /* a keeper was started and does not listen yet */
	LINK_UP,       /* connected */
	LINK_KILLING,  /* it hung and got SIGKILL; not gone yet */
	LINK_WAITING,  /* back-off before the next try */
};

struct link {
	enum link_state state;
	struct peer *peer;
	int pidfd;		  /* of the connected keeper, proven; or -1 */
	pid_t pid;		  /* for people */
	sd_event_source *timer;	  /* next ping, deadline of a start, end of a back-off */
	sd_event_source *arrival; /* inotify on the run directory, while starting */
	sd_event_source *child;	  /* the keeper that we started, until it is reaped */
	sd_event_source *death;	  /* pidfd of a keeper that was killed */
	struct backoff backoff;
	uint64_t up_since, ping_sent;
	bool pinging, dismissing, dismissed;
	bool outdated;	   /* it is of another program than the one that is installed */
	bool replacing;	   /* it was asked to make way for one that is not */
	bool busy;	   /* it could not, a moment ago */
	char trouble[256]; /* why there is no connection; "" */

	struct wish_sent sent;
	unsigned telling;  /* wishes that the keeper has not answered yet */
	char refusal[256]; /* why the keeper does not take that wish; "" */
};

void link_init(struct link *link);
void link_done(struct link *link);

/* Makes what is true fit what is needed: connect, start, tell, dismiss. */
void link_look(struct node_vm *vm);

/* At the start of the agent: connects to a keeper that is there, starts none. */
void link_adopt(struct node_vm *vm);

/* Passes a request on to the keeper.  Not connected: -EAGAIN, class try-again. */
int link_call(struct node_vm *vm, const char *command, json_t *args, uint64_t timeout_usec,
	      peer_reply_fn reply, void *ctx, struct error *err);

/* A keeper is about to be there. */
bool link_coming(const struct link *link);
/* In words, or NULL when all is well. */
const char *link_words(const struct link *link);
