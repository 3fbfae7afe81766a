/* SPDX-License-Identifier: Apache-2.0 */
/* One request to the server.  The library calls back exactly once for each that it took, with an
 * error when the connection ends; what it refuses at once is answered here in the same way. */
#include <errno.h>

#include "store/zookeeper.h"
#include "util/cleanup.h"
#include "util/mem.h"

bool zk_lost(int rc)
{
	switch (rc) {
	case ZCONNECTIONLOSS:
	case ZOPERATIONTIMEOUT:
	case ZSESSIONEXPIRED:
	case ZSESSIONMOVED:
	case ZCLOSING:
	case ZINVALIDSTATE:
	case ZMARSHALLINGERROR:
		return true;
	default:
		return false;
	}
}

int zk_fail(int rc, struct error *err, const char *what)
{
	if (zk_lost(rc))
		return error_try_again(err, "%s: ZooKeeper did not answer (%s)", what, zerror(rc));
	if (rc == ZNOAUTH)
		return error_set(err, -EACCES,
				 "%s: ZooKeeper does not allow it: see the ACL of the znodes with "
				 "'getAcl' of zkCli",
				 what);
	return error_set(err, -EIO, "%s: ZooKeeper says: %s", what, zerror(rc));
}

static struct zk_request *request_new(struct zk *zk, struct zk_call *call, void *subject,
				      zk_reply_fn done)
{
	struct zk_request *request = xcalloc(1, sizeof(*request));

	request->zk = zk;
	request->call = call;
	request->subject = subject;
	request->done = done;
	request->sent = clock_now();
	request->next = zk->link.requests;
	request->at = &zk->link.requests;
	if (request->next)
		request->next->at = &request->next;
	zk->link.requests = request;
	if (call)
		call->waiting++;
	return request;
}

static void request_free(struct zk_request *request)
{
	*request->at = request->next;
	if (request->next)
		request->next->at = request->at;
	free(request->results);
	free(request);
}

static void request_done(struct zk_request *request, const struct zk_reply *reply)
{
	struct zk_call *call = request->call;
	struct zk *zk = request->zk;

	if (request->proves && !zk_lost(reply->rc))
		zk_session_acked(zk, request->sent);
	if (call && zk_lost(reply->rc))
		call->lost = true;
	if (request->done)
		request->done(request, reply);
	if (call && --call->waiting == 0)
		zk_turn(zk);
	request_free(request);
}

static void on_data(int rc, const char *value, int length, const struct Stat *stat,
		    const void *data)
{
	request_done((void *)(uintptr_t)data,
		     &(struct zk_reply){ .rc = rc, .data = value, .length = length, .stat = stat });
}

static void on_names(int rc, const struct String_vector *names, const void *data)
{
	request_done((void *)(uintptr_t)data, &(struct zk_reply){ .rc = rc, .names = names });
}

static void on_names_stat(int rc, const struct String_vector *names, const struct Stat *stat,
			  const void *data)
{
	request_done((void *)(uintptr_t)data,
		     &(struct zk_reply){ .rc = rc, .names = names, .stat = stat });
}

static void on_stat(int rc, const struct Stat *stat, const void *data)
{
	request_done((void *)(uintptr_t)data, &(struct zk_reply){ .rc = rc, .stat = stat });
}

static void on_text(int rc, const char *value, const void *data)
{
	request_done((void *)(uintptr_t)data, &(struct zk_reply){ .rc = rc });
}

static void on_void(int rc, const void *data)
{
	struct zk_request *request = (void *)(uintptr_t)data;

	request_done(request, &(struct zk_reply){ .rc = rc, .stat = &request->stat });
}

/* `rc`: what the library said when it was asked. */
static void request_begun(struct zk_request *request, int rc)
{
	if (rc != ZOK)
		request_done(request, &(struct zk_reply){ .rc = rc });
}

void zk_sync(struct zk *zk, struct zk_call *call, void *subject, zk_reply_fn done)
{
	struct zk_request *request = request_new(zk, call, subject, done);
	int rc = ZINVALIDSTATE;

	request->proves = true;
	if (zk->link.handle)
		rc = zoo_async(zk->link.handle, "/", on_text, request);
	request_begun(request, rc);
}

void zk_get(struct zk *zk, struct zk_call *call, void *subject, const char *path, zk_reply_fn done)
{
	struct zk_request *request = request_new(zk, call, subject, done);
	int rc = ZINVALIDSTATE;

	if (zk->link.handle)
		rc = zoo_aget(zk->link.handle, path, 0, on_data, request);
	request_begun(request, rc);
}

void zk_children(struct zk *zk, struct zk_call *call, void *subject, const char *path,
		 zk_reply_fn done)
{
	struct zk_request *request = request_new(zk, call, subject, done);
	int rc = ZINVALIDSTATE;

	if (zk->link.handle)
		rc = zoo_aget_children2(zk->link.handle, path, 0, on_names_stat, request);
	request_begun(request, rc);
}

void zk_exists(struct zk *zk, struct zk_call *call, void *subject, const char *path,
	       zk_reply_fn done)
{
	struct zk_request *request = request_new(zk, call, subject, done);
	int rc = ZINVALIDSTATE;

	if (zk->link.handle)
		rc = zoo_aexists(zk->link.handle, path, 0, on_stat, request);
	request_begun(request, rc);
}

/* A directory: ZooKeeper removes it some time after its last child has gone. */
void zk_make(struct zk *zk, struct zk_call *call, const char *path, zk_reply_fn done)
{
	struct zk_request *request = request_new(zk, call, NULL, done);
	int rc = ZINVALIDSTATE;

	if (zk->link.handle)
		rc = zoo_acreate(zk->link.handle, path, NULL, -1, &ZOO_OPEN_ACL_UNSAFE,
				 ZOO_CONTAINER, on_text, request);
	request_begun(request, rc);
}

void zk_multi(struct zk *zk, struct zk_call *call, zoo_op_t *ops, size_t count, zk_reply_fn done)
{
	struct zk_request *request = request_new(zk, call, NULL, done);
	int rc = ZINVALIDSTATE;

	request->proves = true;
	request->results = xcalloc(count, sizeof(*request->results));
	for (size_t i = 0; i < count; i++)
		if (ops[i].type == ZOO_SETDATA_OP) {
			ops[i].set_op.stat = &request->stat; /* all have the same zxid */
			break;
		}
	if (zk->link.handle)
		rc = zoo_amulti(zk->link.handle, (int)count, ops, request->results, on_void,
				request);
	request_begun(request, rc);
}

void zk_watch_node(struct zk *zk, void *subject, const char *path, watcher_fn heard,
		   zk_reply_fn done)
{
	struct zk_request *request = request_new(zk, NULL, subject, done);
	int rc = ZINVALIDSTATE;

	if (zk->link.handle)
		rc = zoo_awexists(zk->link.handle, path, heard, zk, on_stat, request);
	request_begun(request, rc);
}

void zk_watch_children(struct zk *zk, void *subject, const char *path, watcher_fn heard,
		       zk_reply_fn done)
{
	struct zk_request *request = request_new(zk, NULL, subject, done);
	int rc = ZINVALIDSTATE;

	if (zk->link.handle)
		rc = zoo_awget_children(zk->link.handle, path, heard, zk, on_names, request);
	request_begun(request, rc);
}

void zk_forget(struct zk *zk, const void *subject)
{
	for (struct zk_request *request = zk->link.requests; request; request = request->next)
		if (request->subject == subject || request->call == subject) {
			request->call = NULL;
			request->done = NULL;
		}
}
