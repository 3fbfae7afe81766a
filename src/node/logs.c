/* SPDX-License-Identifier: Apache-2.0 */
#include "node/logs.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "model/definition.h"
#include "node/node.h"
#include "node/tail.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/base64.h"
#include "wire/json.h"
#include "wire/peer.h"

#define LINES_DEFAULT 50
#define BYTES_MAX (4u * 1024 * 1024) /* in base64 well below one message of the wire */

static int log_path(const struct node *node, const char *vm, const char *which, char **ret,
		    struct error *err)
{
	static const char *const of_vm[] = { "keeper", "qemu", "serial" };
	const char *log = node->config->paths.log;

	if (strcmp(which, "agent") == 0) {
		*ret = xasprintf("%s/droverd.log", log);
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(of_vm); i++) {
		if (strcmp(of_vm[i], which) != 0)
			continue;
		if (!vm)
			return error_usage(err, "the log '%s' belongs to a VM: name one", which);
		if (definition_check_name(vm, err) < 0)
			return -EINVAL;
		*ret = xasprintf("%s/vms/%s/%s.log", log, vm, which);
		return 0;
	}
	return error_usage(err, "there is no log '%s'; there are agent, keeper, qemu and serial",
			   which);
}

static int read_log(const char *path, size_t lines, char **ret_text, size_t *ret_length,
		    struct error *err)
{
	CLEANUP_FREE char *older = xasprintf("%s.1", path), *before = NULL, *now = NULL;
	size_t n_before = 0, n_now = 0, have = 0;
	int r;

	r = tail_read(path, lines, BYTES_MAX, &now, &n_now, err);
	if (r == -ENOENT)
		return error_refuse(err, "there is no log '%s' (yet)", path);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n_now; i++)
		have += now[i] == '\n';
	/* Rotated a moment ago: the lines before are in the file beside it. */
	if (have < lines && n_now < BYTES_MAX)
		(void)tail_read(older, lines - have, BYTES_MAX - n_now, &before, &n_before, NULL);
	*ret_text = xcalloc(n_before + n_now + 1, 1);
	if (n_before)
		memcpy(*ret_text, before, n_before);
	memcpy(*ret_text + n_before, now, n_now);
	*ret_length = n_before + n_now;
	return 0;
}

void logs_request(struct node *node, struct request *request)
{
	json_t *args = request_args(request);
	const char *vm = json_string_or(args, "vm", NULL);
	const char *which = json_string_or(args, "which", vm ? "keeper" : "agent");
	int64_t lines = json_int_or(args, "lines", LINES_DEFAULT);
	CLEANUP_FREE char *path = NULL, *text = NULL, *encoded = NULL;
	json_auto_t *answer = NULL;
	struct error err = { 0 };
	size_t length = 0;
	int r;

	r = log_path(node, vm, which, &path, &err);
	if (r == 0)
		r = read_log(path, lines < 0 ? SIZE_MAX : (size_t)lines, &text, &length, &err);
	if (r < 0) {
		request_fail(request, &err);
		return;
	}
	encoded = base64_encode(text, length);
	answer = json_pack("{s:o, s:s}", "path", json_text(path, strlen(path)), "text", encoded);
	request_return(request, answer);
}
