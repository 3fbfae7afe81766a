/* SPDX-License-Identifier: Apache-2.0 */
#include "node/credentials.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "node/disks.h"
#include "node/membership.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/json.h"

/* Copies of what is asked, and the answer: nothing else is touched from the thread. */
struct work {
	char *dir, *path;
	char *text[3]; /* of the question; may be NULL, may be secret */
	struct period period;
	struct tls_identity *identity;
	json_t *value;
	char *certificate, *ca;
	char fingerprint[TLS_FINGERPRINT_SIZE];
	int r;
	struct error err;
};

static void drop(void *ctx)
{
	struct work *work = ctx;

	for (size_t i = 0; i < ARRAY_SIZE(work->text); i++) {
		if (work->text[i])
			explicit_bzero(work->text[i], strlen(work->text[i]));
		free(work->text[i]);
	}
	tls_identity_unref(work->identity);
	json_decref(work->value);
	free(work->certificate);
	free(work->ca);
	free(work->dir);
	free(work->path);
	free(work);
}

static void dropp(struct work **work)
{
	if (*work)
		drop(*work);
}

static struct work *work_new(const struct node *node, const char *a, const char *b, const char *c)
{
	const char *const text[] = { a, b, c };
	struct work *work = xcalloc(1, sizeof(*work));

	work->dir = xstrdup(membership_dir(node));
	for (size_t i = 0; i < ARRAY_SIZE(text); i++)
		work->text[i] = text[i] ? xstrdup(text[i]) : NULL;
	return work;
}

/* When the disk hangs the work is not ours any more, and `*work` NULL. */
static int run(struct work **work, void (*fn)(void *work), struct error *err)
{
	int r = disk_run(&disk_credentials, fn, drop, *work, err);

	if (r < 0) {
		*work = NULL;
		return r;
	}
	if ((*work)->r < 0 && err)
		*err = (*work)->err;
	return (*work)->r;
}

/* ---- this node ---- */

static void do_load(void *ctx)
{
	struct work *work = ctx;

	work->r = tls_identity_load(work->dir, &work->identity, &work->err);
}

int credentials_load(const struct node *node, struct tls_identity **ret, struct error *err)
{
	CLEANUP(dropp) struct work *work = work_new(node, NULL, NULL, NULL);
	int r = run(&work, do_load, err);

	if (r >= 0)
		*ret = TAKE_PTR(work->identity);
	return r;
}

static void do_write(void *ctx)
{
	struct work *work = ctx;

	work->r = tls_identity_write(work->dir, work->text[0], work->text[1], work->text[2],
				     &work->err);
}

int credentials_write(const struct node *node, const char *ca, const char *key,
		      const char *certificate, struct error *err)
{
	CLEANUP(dropp) struct work *work = work_new(node, ca, key, certificate);

	return run(&work, do_write, err);
}

static void do_remove(void *ctx)
{
	struct work *work = ctx;

	work->r = tls_identity_remove(work->dir, &work->err);
}

int credentials_remove(const struct node *node, struct error *err)
{
	CLEANUP(dropp) struct work *work = work_new(node, NULL, NULL, NULL);

	return run(&work, do_remove, err);
}

/* ---- the authority ---- */

static void do_look(void *ctx)
{
	struct work *work = ctx;

	work->r = authority_here(work->dir);
}

int credentials_authority(const struct node *node, struct error *err)
{
	CLEANUP(dropp) struct work *work = work_new(node, NULL, NULL, NULL);

	return run(&work, do_look, err);
}

static void do_make(void *ctx)
{
	struct work *work = ctx;

	work->r = authority_make(work->dir, &work->period, &work->err);
}

int credentials_make_authority(const struct node *node, const struct period *period,
			       struct error *err)
{
	CLEANUP(dropp) struct work *work = work_new(node, NULL, NULL, NULL);

	work->period = *period;
	return run(&work, do_make, err);
}

static void do_unmake(void *ctx)
{
	const struct work *work = ctx;

	authority_remove(work->dir);
}

int credentials_remove_authority(const struct node *node, struct error *err)
{
	CLEANUP(dropp) struct work *work = work_new(node, NULL, NULL, NULL);

	return run(&work, do_unmake, err);
}

static void do_fingerprint(void *ctx)
{
	struct work *work = ctx;

	work->r = authority_fingerprint(work->dir, work->fingerprint, &work->err);
}

int credentials_fingerprint(const struct node *node, char buffer[TLS_FINGERPRINT_SIZE],
			    struct error *err)
{
	CLEANUP(dropp) struct work *work = work_new(node, NULL, NULL, NULL);
	int r = run(&work, do_fingerprint, err);

	if (r >= 0)
		memcpy(buffer, work->fingerprint, TLS_FINGERPRINT_SIZE);
	return r;
}

static void do_sign(void *ctx)
{
	struct work *work = ctx;

	work->r = authority_sign(work->dir, work->text[0], work->text[1], &work->period,
				 &work->certificate, &work->err);
	if (work->r >= 0)
		work->r = authority_certificate(work->dir, &work->ca, &work->err);
}

int credentials_sign(const struct node *node, const char *request, const char *member,
		     const struct period *period, char **ret_certificate, char **ret_ca,
		     struct error *err)
{
	CLEANUP(dropp) struct work *work = work_new(node, request, member, NULL);
	int r;

	work->period = *period;
	r = run(&work, do_sign, err);
	if (r < 0)
		return r;
	*ret_certificate = TAKE_PTR(work->certificate);
	if (ret_ca)
		*ret_ca = TAKE_PTR(work->ca);
	return 0;
}

/* ---- files beside them ---- */

static void do_read_file(void *ctx)
{
	struct work *work = ctx;

	work->r = json_read_file(AT_FDCWD, work->path, &work->value, &work->err);
}

int credentials_read_file(const struct node *node, const char *name, json_t **ret,
			  struct error *err)
{
	CLEANUP(dropp) struct work *work = work_new(node, NULL, NULL, NULL);
	int r;

	work->path = xasprintf("%s/%s", work->dir, name);
	r = run(&work, do_read_file, err);
	if (r >= 0)
		*ret = TAKE_PTR(work->value);
	return r;
}

static void do_write_file(void *ctx)
{
	struct work *work = ctx;

	work->r = json_write_file(AT_FDCWD, work->path, work->value, 0600, &work->err);
}

int credentials_write_file(const struct node *node, const char *name, const json_t *value,
			   struct error *err)
{
	CLEANUP(dropp) struct work *work = work_new(node, NULL, NULL, NULL);

	work->path = xasprintf("%s/%s", work->dir, name);
	work->value = json_deep_copy(value);
	return run(&work, do_write_file, err);
}
