/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/offer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "keeper/copy.h"
#include "keeper/keeper.h"
#include "keeper/link.h"
#include "keeper/migration.h"
#include "keeper/ownership.h"
#include "keeper/receive.h"
#include "keeper/transfer.h"
#include "model/config.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/mem.h"
#include "wire/json.h"

#define OFFER_FILE "receive.json"
#define PATIENCE (5 * USEC_PER_SEC)

void offer_init(struct offer *offer, struct keeper *keeper, uint64_t epoch, const char *source)
{
	*offer = (struct offer){ .keeper = keeper, .epoch = epoch };
	(void)snprintf(offer->source, sizeof(offer->source), "%s", source);
	file_random_id(offer->secret);
}

int offer_load(struct offer *offer, struct keeper *keeper, uint64_t epoch, struct error *err)
{
	json_auto_t *value = NULL;
	int r;

	offer_init(offer, keeper, epoch, "");
	r = json_read_file(keeper->run_fd, OFFER_FILE, &value, err);
	if (r < 0)
		return r;
	if ((uint64_t)json_int_or(value, "epoch", 0) != epoch)
		return error_set(err, -ESTALE, "it was prepared for another move");
	(void)snprintf(offer->source, sizeof(offer->source), "%s",
		       json_string_or(value, "source", ""));
	(void)snprintf(offer->secret, sizeof(offer->secret), "%s",
		       json_string_or(value, "secret", ""));
	offer->port = (unsigned)json_int_or(value, "port", 0);
	offer->postcopy = json_bool_or(value, "postcopy", false);
	return 0;
}

int offer_save(const struct offer *offer, struct error *err)
{
	json_auto_t *value = json_build(err, "{s:i, s:I, s:s, s:s, s:i, s:b}", "v", 1, "epoch",
					(json_int_t)offer->epoch, "source", offer->source, "secret",
					offer->secret, "port", (int)offer->port, "postcopy",
					(int)offer->postcopy);

	return value ? json_write_file(offer->keeper->run_fd, OFFER_FILE, value, 0600, err)
		     : -EINVAL;
}

/* The receiver may be gone by now. */
static void on_published(void *ctx, int r, json_t *value, const struct error *err)
{
	struct keeper *keeper = ctx;
	struct offer *offer = receive_offer(keeper->migration->receive);

	if (!offer)
		return;
	offer->published = r == 0;
	if (r == -EREMOTEIO && err->class != ERROR_TRY_AGAIN)
		receive_give_up(keeper->migration->receive, err->text);
	else if (r < 0)
		keeper_look_in(keeper, keeper->config->timers.store_retry);
}

void offer_publish(struct offer *offer)
{
	struct keeper *keeper = offer->keeper;
	CLEANUP_FREE char *address = offer_address(keeper, offer->port);
	json_auto_t *args =
		json_pack("{s:{s:i, s:s, s:s, s:I, s:s, s:s}}", "offer", "v", 1, "node",
			  keeper->config->node, "from", offer->source, "epoch",
			  (json_int_t)offer->epoch, "address", address, "secret", offer->secret);

	if (link_up(keeper->link) &&
	    link_call(keeper->link, "offer-write", args, PATIENCE, on_published, keeper, NULL) == 0)
		offer->published = true;
}

void offer_withdraw(struct keeper *keeper)
{
	json_auto_t *args = json_pack("{s:n}", "offer");

	(void)unlinkat(keeper->run_fd, OFFER_FILE, 0);
	if (link_up(keeper->link))
		(void)link_call(keeper->link, "offer-write", args, PATIENCE, NULL, NULL, NULL);
}

static void on_withdrawn(void *ctx, int r, json_t *value, const struct error *err)
{
	struct keeper *keeper = ctx;

	keeper->migration->withdrawing = false;
	if (r < 0)
		keeper_look_in(keeper, keeper->config->timers.store_retry);
}

void offer_look(struct keeper *keeper)
{
	struct migration *migration = keeper->migration;
	const json_t *offer = keeper->want.move.offer;
	bool receives = migration->receive || (keeper->copy && keeper->copy->incoming);
	bool over = (uint64_t)json_int_or(offer, "epoch", 0) < keeper->ownership->record.epoch &&
		    !transfer_lacks_pages(keeper);
	json_auto_t *args = NULL;

	if (strcmp(json_string_or(offer, "node", ""), keeper->config->node) != 0 ||
	    (receives && !over) || migration->withdrawing || !link_up(keeper->link))
		return;
	args = json_pack("{s:n}", "offer");
	migration->withdrawing = link_call(keeper->link, "offer-write", args, PATIENCE,
					   on_withdrawn, keeper, NULL) == 0;
}

char *offer_address(const struct keeper *keeper, unsigned port)
{
	const char *host = keeper->config->migration_address;

	return strchr(host, ':') ? xasprintf("[%s]:%u", host, port)
				 : xasprintf("%s:%u", host, port);
}

bool offer_secret_equal(const char *a, const char *b)
{
	unsigned difference = strlen(a) != strlen(b);

	for (size_t i = 0; !difference && i < strlen(b); i++)
		difference |= (unsigned)(a[i] ^ b[i]);
	return difference == 0;
}
