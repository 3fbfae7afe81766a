/* SPDX-License-Identifier: Apache-2.0 */
#include "node/offer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "node/ask.h"
#include "node/job.h"
#include "node/node.h"
#include "node/session.h"
#include "node/vm.h"
#include "store/store.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"

struct offering {
	struct job job;
	struct request *request; /* NULL: its time was up */
	sd_event_source *deadline;
	char *vm;
	json_t *offer; /* NULL: withdrawn */
};

static void offering_done(struct job *job)
{
	struct offering *offering = container_of(job, struct offering, job);

	sd_event_source_disable_unref(offering->deadline);
	json_decref(offering->offer);
	free(offering->vm);
}

static struct offering *offering_new(struct node_vm *vm, struct request *request)
{
	struct offering *offering = xcalloc(1, sizeof(*offering));

	offering->request = request;
	offering->vm = xstrdup(vm->name);
	job_begin(&offering->job, vm->node, offering_done);
	return offering;
}

static void offering_end(struct offering *offering, int r, const struct error *err)
{
	if (offering->request && r < 0)
		request_fail(offering->request, err);
	else if (offering->request)
		request_return(offering->request, NULL);
	job_end(&offering->job);
}

/* ---- offers ---- */

static int check_offer(const struct node_vm *vm, const json_t *offer, struct error *err)
{
	const char *node = vm->node->config->node;
	const char *there = json_string_or(vm->offer, "node", node);

	if (offer && strcmp(json_string_or(offer, "node", ""), node) != 0)
		return error_usage(err, "the agent of node '%s' offers nothing for another", node);
	if (strcmp(there, node) != 0)
		return error_try_again(err, "the receiver of node '%s' is still offered", there);
	return session_check(vm->node, err);
}

static void on_offer_written(void *ctx, int r, const uint64_t *versions, const struct error *err)
{
	struct offering *offering = ctx;
	struct node *node = offering->job.node;
	struct node_vm *vm = vm_find(node, offering->vm);
	struct error again = { 0 };

	checkpoint("agent.offer-written");
	if (r == -ESTALE) {
		session_renew(node);
		(void)error_try_again(&again, "the offer was changed by others");
		err = &again;
	} else if (r == 0 && vm) {
		vm->written = ++node->written;
		vm_set_record(vm, VM_OFFER, offering->offer, versions[1]);
	}
	offering_end(offering, r, err);
}

static int write_offer(struct node_vm *vm, struct offering *offering, struct error *err)
{
	const char *node = vm->node->config->node;
	char life[RECORD_KEY_SIZE], key[RECORD_KEY_SIZE];
	const struct store_op ops[] = {
		{ .kind = STORE_CHECK,
		  .key = key_node(life, node, "life"),
		  .expected = session_life_version(vm->node) },
		{ .kind = offering->offer ? STORE_PUT : STORE_DELETE,
		  .key = key_vm(key, vm->name, "offer"),
		  .expected = vm->version[VM_OFFER],
		  .value = offering->offer,
		  .ephemeral = offering->offer != NULL },
	};

	return ask_write(vm->node, ops, ARRAY_SIZE(ops), vm->node->config->timers.session,
			 on_offer_written, offering, err);
}

void offer_write(struct node_vm *vm, struct request *request)
{
	json_t *offer = json_object_get(request_args(request), "offer");
	struct offering *offering = offering_new(vm, request);
	struct error err = { 0 };
	int r;

	offer = json_is_object(offer) ? offer : NULL;
	offering->offer = json_incref(offer);
	if (!offer && !vm->version[VM_OFFER]) {
		offering_end(offering, 0, NULL);
		return;
	}
	r = check_offer(vm, offer, &err);
	if (r == 0)
		r = write_offer(vm, offering, &err);
	if (r < 0)
		offering_end(offering, r, &err);
}

/* ---- is the store there? ---- */

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct offering *offering = userdata;
	struct error err = { 0 };

	(void)error_try_again(&err, "the store does not answer");
	request_fail(offering->request, &err);
	offering->request = NULL;
	return 0;
}

static void on_read(void *ctx, int r, const struct store_entry *entry, const struct error *err)
{
	offering_end(ctx, r == -ENOENT ? 0 : r, err);
}

void offer_store_fresh(struct node_vm *vm, struct request *request)
{
	struct offering *offering = offering_new(vm, request);
	struct node *node = vm->node;
	char key[RECORD_KEY_SIZE];
	struct error err = { 0 };
	int r;

	node_timer(node, &offering->deadline, node->config->timers.migration_switch, on_deadline,
		   offering);
	r = session_check(node, &err);
	if (r == 0)
		r = store_get(node->store, key_vm(key, vm->name, "owner"), on_read, offering, &err);
	if (r < 0)
		offering_end(offering, r, &err);
}
