/* SPDX-License-Identifier: Apache-2.0 */
/* The claim beside a volume: a copy of the epoch under which it is used.  It fences nobody; it
 * stops a keeper with an old record from opening what a newer one uses.
 *
 * It is renamed into place but not flushed: after a power cut the old claim or an empty file may
 * be found, and both are harmless, since nothing that could be protected against survives the
 * power cut either.  A flush would cost each start some milliseconds. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "storage/internal.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"
#include "util/mem.h"
#include "wire/json.h"

#define CLAIM_SIZE_MAX 4096

void volume_claim_done(struct volume_claim *claim)
{
	free(claim->node);
	claim->node = NULL;
}

static int claim_parse(const char *file, const char *text, size_t length,
		       struct volume_claim *ret_claim, struct error *err)
{
	json_auto_t *tree = NULL;
	const char *node = NULL;
	int64_t epoch = 0;
	int r;

	r = json_parse(text, length, &tree, err);
	if (r == 0)
		r = json_need_string(tree, "node", &node, err);
	if (r == 0)
		r = json_need_int(tree, "epoch", &epoch, err);
	if (r == 0 && epoch < 0)
		r = error_bad_data(err, "epoch is negative");
	if (r < 0)
		return error_prefix(err, r,
				    "cannot tell who uses the volume: claim '%s' is damaged "
				    "(remove that file once you know that no host uses it)",
				    file);
	*ret_claim = (struct volume_claim){ .node = xstrdup(node), .epoch = (uint64_t)epoch };
	return 1;
}

int claim_read(int vm_fd, const char *name, struct volume_claim *ret_claim, struct error *err)
{
	CLEANUP_FREE char *file = xasprintf("%s.claim", name);
	CLEANUP_FREE char *text = NULL;
	size_t length = 0;
	int r;

	r = file_read(vm_fd, file, CLAIM_SIZE_MAX, &text, &length, err);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return error_prefix(err, r, "cannot tell who uses the volume");
	/* See the top: what a power cut may leave. */
	if (length == 0)
		return 0;
	return claim_parse(file, text, length, ret_claim, err);
}

int claim_check(int vm_fd, const char *vm, const char *name, uint64_t epoch, const char *node,
		struct error *err)
{
	CLEANUP(volume_claim_done) struct volume_claim claim = { 0 };
	int r;

	r = claim_read(vm_fd, name, &claim, err);
	if (r <= 0)
		return r;
	if (claim.epoch < epoch || (claim.epoch == epoch && !strcmp(claim.node, node)))
		return 0;
	return error_refuse(err,
			    "volume '%s' of VM %s is claimed by node '%s' with epoch %llu, newer "
			    "than epoch %llu of node '%s'; 'drover status %s' tells where it runs",
			    name, vm, claim.node, (unsigned long long)claim.epoch,
			    (unsigned long long)epoch, node, vm);
}

int claim_write(int vm_fd, const char *vm, const char *name, uint64_t epoch, const char *node,
		struct error *err)
{
	CLEANUP_FREE char *file = xasprintf("%s.claim", name);
	CLEANUP_FREE char *part = xasprintf(".%s.claim.part", name);
	CLEANUP_FREE char *text = NULL;
	CLEANUP_FD int fd = -1;
	json_auto_t *tree = NULL;
	ssize_t n;
	int r;

	tree = json_build(err, "{s:s, s:I, s:s}", "vm", vm, "epoch", (json_int_t)epoch, "node",
			  node);
	if (!tree)
		return -EINVAL;
	text = json_print(tree);
	(void)unlinkat(vm_fd, part, 0);
	fd = openat(vm_fd, part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return error_set(err, -errno, "cannot write claim '%s': %m", file);
	n = write(fd, text, strlen(text));
	if (n < 0 || (size_t)n != strlen(text) || renameat(vm_fd, part, vm_fd, file) < 0) {
		r = n >= 0 && (size_t)n != strlen(text) ? -ENOSPC : -errno;
		(void)unlinkat(vm_fd, part, 0);
		return error_set(err, r, "cannot write claim '%s': %m", file);
	}
	return 0;
}

int claim_remove(int vm_fd, const char *name, struct error *err)
{
	CLEANUP_FREE char *file = xasprintf("%s.claim", name);

	if (unlinkat(vm_fd, file, 0) < 0 && errno != ENOENT)
		return error_set(err, -errno, "cannot remove claim '%s': %m", file);
	return 0;
}
