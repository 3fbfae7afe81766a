/* SPDX-License-Identifier: Apache-2.0 */
#include "node/apply.h"

#include <errno.h>
#include <string.h>

#include "model/definition.h"
#include "node/definitions.h"
#include "node/job.h"
#include "node/near.h"
#include "node/node.h"
#include "node/records.h"
#include "node/reread.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/document.h"
#include "wire/json.h"
#include "wire/peer.h"

#define DOCUMENTS_MAX 10000
#define TRIES 5

struct apply {
	struct job job;
	struct request *request;
	json_t *results; /* of the plan that is being written */
	bool fresh;	 /* what is far was read */
	int tries;
};

static void apply_done(struct job *job)
{
	json_decref(container_of(job, struct apply, job)->results);
}

static int plan_document(struct plan *plan, const struct node *node,
			 const struct document *document, struct error *err)
{
	static const struct source apply = { 0 };
	struct definition_notes notes = { 0 };
	struct definition *definition = NULL;
	int r;

	r = definition_parse(document, &definition, &notes, err);
	for (size_t i = 0; r == 0 && i < plan->count; i++)
		if (strcmp(plan->items[i].name, definition->name) == 0)
			r = error_bad_data(err,
					   "%s: VM '%s' is defined twice in what was given; keep "
					   "one",
					   document_label(document), definition->name);
	if (r == 0)
		r = plan_add(plan, node, &apply, definition, &notes, err);
	definition_notes_done(&notes);
	definition_free(definition);
	return r;
}

static int plan_text(struct plan *plan, const struct node *node, json_t *given, struct error *err)
{
	const char *label = json_string_or(given, "label", "-");
	struct document **documents = NULL;
	const char *text;
	size_t count = 0;
	int r;

	r = json_need_string(given, "text", &text, err);
	if (r < 0)
		return r;
	r = documents_parse(label, text, strlen(text), &documents, &count, err);
	if (r < 0)
		return r;
	if (count == 0)
		r = error_bad_data(err, "%s: there is no definition in it", label);
	for (size_t i = 0; r == 0 && i < count; i++)
		r = plan_document(plan, node, documents[i], err);
	documents_free(documents, count);
	return r;
}

static int plan_request(struct plan *plan, const struct node *node, json_t *args, struct error *err)
{
	json_t *documents = json_object_get(args, "documents"), *given;
	size_t i;
	int r;

	if (records_trouble(node))
		return error_try_again(err, "nothing can be applied now: %s",
				       records_trouble(node));
	if (!json_is_array(documents) || json_array_size(documents) == 0)
		return error_usage(err, "no documents were given");
	if (json_array_size(documents) > DOCUMENTS_MAX)
		return error_usage(err, "more than %d documents at once", DOCUMENTS_MAX);
	json_array_foreach(documents, i, given)
	{
		r = plan_text(plan, node, given, err);
		if (r < 0)
			return r;
	}
	return plan_fits(plan, node, err);
}

static json_t *plan_results(const struct plan *plan)
{
	json_t *list = json_array();

	for (size_t i = 0; i < plan->count; i++) {
		const struct plan_item *item = &plan->items[i];

		json_array_append_new(
			list, json_pack("{s:s, s:s, s:o, s:O}", "name", item->name, "result",
					change_name(item->change), "diff",
					item->diff ? json_text(item->diff, strlen(item->diff))
						   : json_null(),
					"notes", item->notes));
	}
	return list;
}

static void apply_answer(struct apply *apply)
{
	json_auto_t *answer = json_pack("{s:O}", "results", apply->results);

	request_return(apply->request, answer);
	job_end(&apply->job);
}

static void apply_fail(struct apply *apply, const struct error *err)
{
	request_fail(apply->request, err);
	job_end(&apply->job);
}

static void apply_try(void *ctx);

static void read_again(struct apply *apply)
{
	size_t count = json_array_size(apply->results);
	CLEANUP_FREE const char **names = xcalloc(count + 1, sizeof(*names));

	for (size_t i = 0; i < count; i++)
		names[i] = json_string_or(json_array_get(apply->results, i), "name", "");
	reread(apply->job.node, names, count, apply_try, apply);
}

static void on_applied(void *ctx, int r, const struct error *err)
{
	struct apply *apply = ctx;

	if (r == 0)
		apply_answer(apply);
	else if (r == -ESTALE && ++apply->tries < TRIES)
		read_again(apply);
	else
		apply_fail(apply, err);
}

/* What is far is known as it was when all were listed last: neither "unchanged" nor a refusal can
 * be said of it before it was read. */
static bool read_first(struct apply *apply, int r)
{
	struct node *node = apply->job.node;

	if (apply->fresh || !near_is_on(node) || (r < 0 && r != -EPERM))
		return false;
	apply->fresh = true;
	if (r < 0)
		records_after_refresh(node, apply_try, apply);
	else
		read_again(apply);
	return true;
}

static void apply_try(void *ctx)
{
	struct apply *apply = ctx;
	json_t *args = request_args(apply->request);
	struct plan plan = { 0 };
	struct error err = { 0 };
	int r = plan_request(&plan, apply->job.node, args, &err);

	json_decref(apply->results);
	apply->results = plan_results(&plan);
	if (read_first(apply, r)) {
		plan_done(&plan);
		return;
	}
	if (r < 0) {
		plan_done(&plan);
		apply_fail(apply, &err);
		return;
	}
	if (json_bool_or(args, "dry_run", false)) {
		plan_done(&plan);
		apply_answer(apply);
		return;
	}
	plan_write(apply->job.node, &plan, on_applied, apply);
}

void apply_request(struct node *node, struct request *request)
{
	struct apply *apply = xcalloc(1, sizeof(*apply));

	apply->request = request;
	job_begin(&apply->job, node, apply_done);
	apply_try(apply);
}
