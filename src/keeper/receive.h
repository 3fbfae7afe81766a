/* SPDX-License-Identifier: Apache-2.0 */
/* The side that a guest comes to.  A QEMU that waits is there (keeper/start.c launched it); now a
 * door is opened and offered under exactly one epoch of the record, the source's keeper comes in,
 * its guest is let in, and when all of it is here and the source has said `stopped`, core/migration
 * takes it.  What a later keeper needs to go on is in receive.json. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct error;
struct keeper;
struct offer;
struct receive;

/* Can anything be let in here?  Asked before a QEMU is started for it. */
int receive_check(const struct keeper *keeper, struct error *err);
void receive_begin(struct keeper *keeper);
/* A keeper before this one began it: the same door, the same secret. */
void receive_resume(struct keeper *keeper);
/* Says why to the source, withdraws the offer.  Takes NULL, returns NULL. */
struct receive *receive_end(struct receive *receive, const char *why);
/* This process ends; the offer stands. */
struct receive *receive_free(struct receive *receive);

/* It comes to nothing: the reason, for people. */
void receive_give_up(struct receive *receive, const char *why);

struct offer *receive_offer(struct receive *receive); /* takes NULL */
bool receive_stopped_heard(const struct receive *receive);
bool receive_failed(const struct receive *receive);
/* Postcopy was agreed upon with this very receiver. */
bool receive_postcopy(const struct receive *receive);
/* Postcopy: the source's keeper said that its copy is gone. */
bool receive_lost_heard(const struct receive *receive);
/* Vcpus run here now, since `usec` of QEMU's clock. */
void receive_running(struct receive *receive, uint64_t usec);
/* All of it is here: nobody needs to come in any more. */
void receive_over(struct keeper *keeper);
void receive_link_up(struct receive *receive);
/* For the state of the VM. */
const char *receive_phase(const struct receive *receive);
const char *receive_source(const struct receive *receive);
uint64_t receive_stopped_usec(const struct receive *receive); /* by the source's QEMU; 0 */
