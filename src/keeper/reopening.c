/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/reopening.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "keeper/keeper.h"
#include "keeper/migration.h"
#include "keeper/offer.h"
#include "keeper/private-run.h"
#include "keeper/relay.h"
#include "keeper/report.h"
#include "keeper/script.h"
#include "keeper/transfer.h"
#include "util/checkpoint.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/json.h"
#include "wire/peer.h"
#include "wire/sock.h"

#define STREAM_DIR "stream" /* in QEMU's /run */
#define STREAM_SOCKET "again.sock"

struct reopening {
	struct keeper *keeper;
	struct request *request; /* not answered yet */
	struct script *script;
	struct relay *relay;
	char ticket[33];
	bool open; /* the ticket is good */
};

struct reopening *reopening_free(struct reopening *reopening)
{
	struct error err = { 0 };

	if (!reopening)
		return NULL;
	(void)error_try_again(&err, "it was asked anew");
	if (reopening->request)
		request_fail(reopening->request, &err);
	script_cancel(reopening->script);
	relay_free(reopening->relay);
	free(reopening);
	return NULL;
}

static void refuse(struct reopening *reopening, const struct error *err)
{
	request_fail(TAKE_PTR(reopening->request), err);
}

static void on_listening(void *ctx, int r, const struct error *err)
{
	struct reopening *reopening = ctx;
	json_auto_t *answer = NULL;
	struct error why = { 0 };

	reopening->script = NULL;
	if (r < 0) {
		/* It may not have noticed yet that its stream is broken. */
		(void)error_try_again(&why, "%s", err->text);
		refuse(reopening, &why);
		return;
	}
	reopening->open = true;
	checkpoint("keeper.receive.reopened");
	answer = json_pack("{s:s}", "ticket", reopening->ticket);
	request_return(TAKE_PTR(reopening->request), answer);
}

struct reopening *reopening_begin(struct keeper *keeper, struct reopening *before,
				  struct request *request)
{
	struct reopening *reopening = xcalloc(1, sizeof(*reopening));
	CLEANUP_FD int dir = -1;
	struct error err = { 0 };
	int r = 0;

	reopening_free(before);
	reopening->keeper = keeper;
	reopening->request = request;
	file_random_id(reopening->ticket);
	if (!transfer_lacks_pages(keeper))
		r = error_refuse(&err, "all of its memory is here");
	if (r == 0)
		r = private_run_dir(keeper, STREAM_DIR, 0700, &dir, &err);
	if (r < 0) {
		refuse(reopening, &err);
		return reopening;
	}
	reopening->script = script_new(keeper);
	if (!transfer_is_broken(keeper))
		script_add_oob(reopening->script, "migrate-pause", NULL, true);
	script_add_oob(reopening->script, "migrate-recover",
		       json_pack("{s:s}", "uri", "unix:/run/" STREAM_DIR "/" STREAM_SOCKET), false);
	script_run(reopening->script, on_listening, reopening);
	return reopening;
}

static void on_relay_over(void *ctx)
{
	struct reopening *reopening = ctx;

	reopening->relay = relay_free(reopening->relay);
}

static int pass_on(struct reopening *reopening, int fd, struct error *err)
{
	struct keeper *keeper = reopening->keeper;
	CLEANUP_FD int dir = -1, theirs = fd, ours = -1;
	int r;

	r = private_run_dir(keeper, STREAM_DIR, 0700, &dir, err);
	if (r == 0)
		r = private_run_connect(keeper, dir, STREAM_SOCKET, &ours, err);
	if (r < 0)
		return r;
	return relay_new(keeper->loop, TAKE_FD(theirs), TAKE_FD(ours), on_relay_over, reopening,
			 &reopening->relay, err);
}

bool reopening_takes(struct reopening *reopening, const char *ticket, int fd)
{
	struct error err = { 0 };

	if (!reopening || !reopening->open || !offer_secret_equal(ticket, reopening->ticket))
		return false;
	reopening->open = false;
	if (pass_on(reopening, fd, &err) < 0)
		log_warning("passing the new stream on to QEMU: %s", err.text);
	return true;
}
