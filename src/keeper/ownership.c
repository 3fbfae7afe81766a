/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/ownership.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/ownership.h"
#include "keeper/keeper.h"
#include "keeper/link.h"
#include "model/config.h"
#include "qemu/hardware.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"

/* An answer of the store takes milliseconds; what takes longer is asked again, so this bounds only
 * how long a dead agent is waited for. */
#define WRITE_TIMEOUT (5 * USEC_PER_SEC)

struct owner_write {
	json_t *args; /* the request, unchanged at each repetition */
	ownership_fn done;
	uint64_t asked_at; /* the last time */
	bool asked;	   /* on its way to the agent of now */
	bool unsure;	   /* a try went unanswered: it may have landed, or land yet */
	char trouble[256]; /* why it did; told once, not ten times a second */
	sd_event_source *retry;
};

static struct owner_write *owner_write_free(struct owner_write *write)
{
	if (!write)
		return NULL;
	sd_event_source_disable_unref(write->retry);
	json_decref(write->args);
	free(write);
	return NULL;
}

struct ownership *ownership_new(void)
{
	return xcalloc(1, sizeof(struct ownership));
}

struct ownership *ownership_free(struct ownership *ownership)
{
	if (!ownership)
		return NULL;
	owner_write_free(ownership->write);
	owner_done(&ownership->record);
	free(ownership);
	return NULL;
}

/* {"record": {...}, "version": N} or null. */
static int take_record(struct ownership *ownership, json_t *value, struct error *err)
{
	struct owner record = { 0 };
	int64_t version = 0;
	json_t *object;
	int r;

	if (value && !json_is_null(value)) {
		r = json_need_object(value, "record", &object, err);
		if (r < 0)
			return r;
		r = json_need_int(value, "version", &version, err);
		if (r < 0)
			return r;
		r = owner_parse(object, &record, err);
		if (r < 0)
			return r;
	}
	owner_done(&ownership->record);
	ownership->record = record;
	ownership->version = (uint64_t)version;
	ownership->exists = version != 0;
	ownership->known = true;
	return 0;
}

int ownership_told(struct keeper *keeper, json_t *owner, struct error *err)
{
	struct ownership *own = keeper->ownership;
	int64_t version = json_int_or(owner, "version", 0);
	bool newer = !own->known || !own->exists || (uint64_t)version > own->version;

	/* Versions only grow, so what our own write was answered is newer; unless the store was set
	 * back.  Agents are started anew then, and this keeper goes by their word like a new one.
	 */
	newer |= own->anew && !keeper->start && (uint64_t)version != own->version;
	own->anew = false;
	if (own->write || !newer)
		return 0;
	own->permitted = false; /* somebody else has written it */
	return take_record(own, owner, err);
}

void ownership_forget_permission(struct keeper *keeper)
{
	keeper->ownership->permitted = false;
}

bool ownership_held_here(const struct keeper *keeper)
{
	const struct ownership *own = keeper->ownership;

	return own->known && own->exists && own->record.phase == OWNER_HELD &&
	       strcmp(own->record.node, keeper->config->node) == 0;
}

bool ownership_held_elsewhere(const struct keeper *keeper)
{
	const struct ownership *own = keeper->ownership;

	return own->known && own->exists &&
	       owner_check_here(&own->record, keeper->config->node, NULL) < 0;
}

static void finish(struct keeper *keeper, int r, const struct error *err)
{
	struct owner_write *write = TAKE_PTR(keeper->ownership->write);
	ownership_fn done = write->done;

	owner_write_free(write);
	done(keeper, r, err);
}

static const char *words(const struct owner *record, const struct ownership *own)
{
	if (own->permitted)
		return "held here";
	return record->phase == OWNER_MOVING ? "moving"
	       : record->phase == OWNER_HELD ? "held elsewhere"
					     : "off";
}

static void on_done(struct keeper *keeper, json_t *answer)
{
	struct ownership *own = keeper->ownership;
	struct owner record = { 0 };
	struct error err = { 0 };

	if (owner_parse(json_object_get(own->write->args, "owner"), &record, &err) < 0)
		log_error("own request is not readable: %s", err.text);
	owner_done(&own->record);
	own->record = record;
	own->version = (uint64_t)json_int_or(answer, "version", 0);
	own->exists = own->known = true;
	own->won = own->write->asked_at;
	own->permitted = ownership_held_here(keeper);
	log_info("owner record: epoch %" PRIu64 ", %s", record.epoch, words(&record, own));
	checkpoint("keeper.owner.answered");
	finish(keeper, 0, NULL);
}

static void on_conflict(struct keeper *keeper, json_t *answer)
{
	struct ownership *own = keeper->ownership;
	CLEANUP(owner_done) struct owner asked = { 0 };
	json_auto_t *now = NULL;
	struct error err = { 0 };

	now = json_pack("{s:O?, s:I}", "record", json_object_get(answer, "owner"), "version",
			(json_int_t)json_int_or(answer, "version", 0));
	if (json_is_null(json_object_get(now, "record"))) {
		json_decref(now);
		now = json_null();
	}
	if (take_record(own, now, &err) < 0 ||
	    owner_parse(json_object_get(own->write->args, "owner"), &asked, &err) < 0) {
		finish(keeper, -ESTALE, &err);
		return;
	}
	if (own->exists && owner_won(&own->record, &asked)) {
		own->won = own->write->asked_at;
		own->permitted = ownership_held_here(keeper);
		finish(keeper, 0, NULL);
		return;
	}
	own->permitted = false;
	if (!own->exists)
		error_try_again(&err,
				"the owner record is gone: somebody removed it from the store");
	else
		error_try_again(&err, "the owner record was changed by '%s' (epoch %" PRIu64 ")",
				own->record.by, own->record.epoch);
	finish(keeper, -ESTALE, &err);
}

static void ask(struct keeper *keeper);

static int on_retry(sd_event_source *source, uint64_t usec, void *ctx)
{
	ask(ctx);
	return 0;
}

static void ask_later(struct keeper *keeper)
{
	struct owner_write *write = keeper->ownership->write;
	int r;

	write->asked = false;
	write->retry = sd_event_source_disable_unref(write->retry);
	r = sd_event_add_time_relative(keeper->loop, &write->retry, CLOCK_BOOTTIME,
				       keeper->config->timers.store_retry, 0, on_retry, keeper);
	if (r < 0)
		log_error("cannot set a timer: %s", strerror(-r));
}

static void note_unanswered(struct owner_write *write, const char *why)
{
	char before[sizeof(write->trouble)];

	memcpy(before, write->trouble, sizeof(before));
	(void)snprintf(write->trouble, sizeof(write->trouble), "%s", why);
	if (strcmp(before, write->trouble) != 0)
		log_warning("write of the owner record was not answered (%s); asking on", why);
	write->unsure = true;
}

static void on_answer(void *ctx, int r, json_t *value, const struct error *err)
{
	struct keeper *keeper = ctx;
	const char *outcome;

	if (!keeper->ownership->write)
		return;
	/* No answer from the store, or none from the agent: not a "no". Ask the very same again;
	 * and after that a refusal is none either, for the first try may have landed. */
	if (r < 0 && (r != -EREMOTEIO || err->class == ERROR_TRY_AGAIN ||
		      keeper->ownership->write->unsure)) {
		note_unanswered(keeper->ownership->write, err->text);
		ask_later(keeper);
		return;
	}
	if (r < 0) {
		finish(keeper, r, err);
		return;
	}
	outcome = json_string_or(value, "outcome", "");
	if (strcmp(outcome, "done") == 0)
		on_done(keeper, value);
	else
		on_conflict(keeper, value);
}

static void ask(struct keeper *keeper)
{
	struct owner_write *write = keeper->ownership->write;
	struct error err = { 0 };

	if (write->asked || !link_up(keeper->link))
		return; /* ownership_link_up() comes */
	write->retry = sd_event_source_disable_unref(write->retry);
	write->asked_at = clock_now(); /* before it is: an answer may be there before we go on */
	if (link_call(keeper->link, "owner-write", write->args, WRITE_TIMEOUT, on_answer, keeper,
		      &err) < 0) {
		log_warning("cannot ask the agent: %s; retrying", err.text);
		ask_later(keeper);
		return;
	}
	write->asked = true;
}

void ownership_link_up(struct keeper *keeper)
{
	struct owner_write *write = keeper->ownership->write;

	keeper->ownership->anew = true;
	if (!write)
		return;
	write->unsure |= write->asked; /* the agent that was asked is gone */
	write->asked = false;
	ask(keeper);
}

static int begin(struct keeper *keeper, struct owner *next, const struct hardware *hardware,
		 ownership_fn done, struct error *err)
{
	struct ownership *own = keeper->ownership;
	struct owner_write *write = xcalloc(1, sizeof(*write));

	write->done = done;
	write->args = json_build(err, "{s:I, s:o, s:o}", "expected", (json_int_t)own->version,
				 "owner", owner_json(next), "hardware",
				 hardware ? hardware_json(hardware) : json_null());
	owner_done(next);
	if (!write->args) {
		free(write);
		return -EINVAL;
	}
	own->write = write;
	checkpoint("keeper.owner.asking");
	ask(keeper);
	return 0;
}

static void make_writer(struct keeper *keeper, char *by, size_t size, struct writer *ret)
{
	(void)snprintf(by, size, "%s/%s/%u", keeper->config->node, keeper->life,
		       ++keeper->ownership->sequence);
	*ret = (struct writer){ .node = keeper->config->node, .boot = keeper->boot_id, .by = by };
}

int ownership_acquire(struct keeper *keeper, const struct definition *def,
		      const struct hardware *hardware, ownership_fn done, struct error *err)
{
	struct ownership *own = keeper->ownership;
	struct writer me;
	struct owner next;
	char by[160];
	int r;

	make_writer(keeper, by, sizeof(by), &me);
	/* Volumes of the file driver live on this node, so it is their home. */
	r = owner_acquire(own->exists ? &own->record : NULL, &me,
			  def->n_volumes > 0 && !keeper->config->storage_shared, def->lease, &next,
			  err);
	if (r < 0)
		return r;
	return begin(keeper, &next, hardware, done, err);
}

int ownership_renew(struct keeper *keeper, const char *lease, ownership_fn done, struct error *err)
{
	struct writer me;
	struct owner next;
	char by[160];
	int r;

	make_writer(keeper, by, sizeof(by), &me);
	r = owner_renew(&keeper->ownership->record, &me, lease, &next, err);
	if (r < 0)
		return r;
	return begin(keeper, &next, NULL, done, err);
}

enum lease_policy ownership_asked_policy(const struct keeper *keeper)
{
	const json_t *owner = json_object_get(keeper->ownership->write->args, "owner");

	return lease_policy_of(json_string_or(owner, "lease", NULL));
}

int ownership_release(struct keeper *keeper, ownership_fn done, struct error *err)
{
	struct ownership *own = keeper->ownership;
	struct writer me;
	struct owner next;
	char by[160];
	int r;

	make_writer(keeper, by, sizeof(by), &me);
	r = owner_release(&own->record, &me, &next, err);
	if (r < 0)
		return r;
	return begin(keeper, &next, NULL, done, err);
}

static int make_next(const struct owner *record, const struct writer *me, enum ownership_kind kind,
		     const char *node, const char *detail, struct owner *ret, struct error *err)
{
	switch (kind) {
	case OWNERSHIP_MOVE:
		return owner_move(record, me, node, detail, ret, err);
	case OWNERSHIP_BACK:
		return owner_back(record, me, ret, err);
	case OWNERSHIP_RENEW:
		return owner_renew(record, me, record->lease, ret, err);
	case OWNERSHIP_TAKE:
		return owner_take(record, me, ret, err);
	case OWNERSHIP_DECLINE:
		return owner_decline(record, me, ret, err);
	case OWNERSHIP_GIVE:
		return owner_give(record, me, node, detail, ret, err);
	case OWNERSHIP_SETTLE:
		return owner_settle(record, me, ret, err);
	}
	return error_set(err, -EINVAL, "no such write of the owner record");
}

int ownership_write(struct keeper *keeper, enum ownership_kind kind, const char *node,
		    const char *detail, ownership_fn done, struct error *err)
{
	struct writer me;
	struct owner next;
	char by[160];
	int r;

	make_writer(keeper, by, sizeof(by), &me);
	r = make_next(&keeper->ownership->record, &me, kind, node, detail, &next, err);
	return r < 0 ? r : begin(keeper, &next, NULL, done, err);
}
