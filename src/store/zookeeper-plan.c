/* SPDX-License-Identifier: Apache-2.0 */
/* The multi request of a transaction: what is expected, as checks that only hold if each key is
 * still the very one that was read; what is to be done; and the bells. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "store/zookeeper.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/mem.h"

/* jute.maxbuffer of the servers is 1 MiB less one byte; what is not counted here is little. */
#define REQUEST_MAX (1000u * 1024)
#define HEAD 64 /* of one operation: types, versions, lengths, the ACL */

static zoo_op_t *op_add(struct zk_plan *plan, char *path, size_t data)
{
	if (plan->count == plan->room) {
		plan->room = plan->room ? 2 * plan->room : 16;
		plan->ops = xrealloc(plan->ops, plan->room, sizeof(*plan->ops));
	}
	strv_add(&plan->paths, path);
	free(path);
	plan->bytes += HEAD + strlen(plan->paths.items[plan->paths.count - 1]) + data;
	return &plan->ops[plan->count++];
}

static const char *path_last(const struct zk_plan *plan)
{
	return plan->paths.items[plan->paths.count - 1];
}

static void add_create(struct zk_plan *plan, char *path, const char *text, bool ephemeral)
{
	zoo_op_t *op = op_add(plan, path, text ? strlen(text) : 0);

	zoo_create_op_init(op, path_last(plan), text, text ? (int)strlen(text) : -1,
			   &ZOO_OPEN_ACL_UNSAFE, ephemeral ? ZOO_EPHEMERAL : 0, NULL, 0);
}

static void add_delete(struct zk_plan *plan, char *path, int version)
{
	zoo_op_t *op = op_add(plan, path, 0);

	zoo_delete_op_init(op, path_last(plan), version);
}

static void add_check(struct zk_plan *plan, char *path, int version)
{
	zoo_op_t *op = op_add(plan, path, 0);

	zoo_check_op_init(op, path_last(plan), version);
}

static void add_set(struct zk_plan *plan, char *path, const char *text, int version)
{
	zoo_op_t *op = op_add(plan, path, text ? strlen(text) : 0);

	zoo_set_op_init(op, path_last(plan), text, text ? (int)strlen(text) : -1, version, NULL);
}

/* The shadows of an ephemeral key: one in each directory above it. */
static void add_shadows(struct zk *zk, struct zk_plan *plan, const char *key, const char *uid,
			bool create)
{
	size_t length = strlen(key);

	while (length > 0) {
		CLEANUP_FREE char *dir = NULL;
		CLEANUP_FREE char *shadows = NULL;

		length = zk_parent(key, length);
		dir = zk_dir(zk, key, length);
		shadows = zk_shadow_dir(dir);

		if (create)
			add_create(plan, zk_join(shadows, uid), NULL, true);
		else
			add_delete(plan, zk_join(shadows, uid), -1);
	}
}

static void plan_create(struct zk *zk, struct zk_plan *plan, struct zk_op *op)
{
	op->made = true;
	add_create(plan, xstrdup(op->path), op->text, op->ephemeral);
	add_create(plan, zk_mark_path(zk, op->key, op->uid), NULL, op->ephemeral);
	if (op->ephemeral)
		add_shadows(zk, plan, op->key, op->uid, true);
}

static void plan_delete(struct zk *zk, struct zk_plan *plan, struct zk_op *op)
{
	add_delete(plan, xstrdup(op->path), op->node.count);
	add_delete(plan, zk_mark_path(zk, op->key, op->node.uid), -1);
	if (op->node.owner)
		add_shadows(zk, plan, op->key, op->node.uid, false);
}

/* A key that is there keeps its uid, unless it has to become another session's or nobody's. */
static void plan_put(struct zk *zk, struct zk_plan *plan, struct zk_op *op, int64_t session)
{
	op->made = false;
	if (op->node.version > 0 && op->node.owner == (op->ephemeral ? session : 0)) {
		memcpy(op->text + strlen(op->text) - strlen(op->node.uid), op->node.uid,
		       strlen(op->node.uid));
		add_check(plan, zk_mark_path(zk, op->key, op->node.uid), -1);
		add_set(plan, xstrdup(op->path), op->text, op->node.count);
		return;
	}
	if (op->node.version > 0)
		plan_delete(zk, plan, op);
	file_random_id(op->uid);
	memcpy(op->text + strlen(op->text) - strlen(op->uid), op->uid, strlen(op->uid));
	plan_create(zk, plan, op);
}

static void plan_check(struct zk *zk, struct zk_plan *plan, const struct zk_op *op)
{
	if (op->node.version > 0) {
		add_check(plan, zk_mark_path(zk, op->key, op->node.uid), -1);
		add_check(plan, xstrdup(op->path), op->node.count);
	} else {
		/* There is no check for absence: what can be made was not there. */
		add_create(plan, xstrdup(op->path), NULL, false);
		add_delete(plan, xstrdup(op->path), -1);
	}
}

static void key_bells(struct zk *zk, const char *key, json_t *dirs)
{
	size_t length = strlen(key);

	while (length > 0) {
		CLEANUP_FREE char *dir = NULL;

		length = zk_parent(key, length);
		dir = zk_dir(zk, key, length);
		(void)json_object_set_new(dirs, dir, json_true());
	}
}

static void plan_bells(struct zk *zk, const struct zk_op *ops, size_t count, struct zk_plan *plan)
{
	json_auto_t *dirs = json_object();
	const char *path;
	json_t *unused;

	for (size_t i = 0; i < count; i++)
		if (ops[i].kind == STORE_PUT ||
		    (ops[i].kind == STORE_DELETE && ops[i].node.version > 0))
			key_bells(zk, ops[i].key, dirs);
	json_object_foreach(dirs, path, unused)
	{
		add_set(plan, xstrdup(path), NULL, -1);
	}
}

int zk_plan_make(struct zk *zk, struct zk_op *ops, size_t count, struct zk_plan *plan,
		 struct error *err)
{
	int64_t session = zk->link.handle ? zoo_client_id(zk->link.handle)->client_id : 0;

	for (size_t i = 0; i < count; i++) {
		if (ops[i].kind == STORE_PUT)
			plan_put(zk, plan, &ops[i], session);
		else if (ops[i].kind == STORE_DELETE && ops[i].node.version > 0)
			plan_delete(zk, plan, &ops[i]);
		else if (ops[i].kind == STORE_CHECK && ops[i].expected != STORE_ANY)
			plan_check(zk, plan, &ops[i]);
	}
	plan_bells(zk, ops, count, plan);
	if (plan->bytes > REQUEST_MAX)
		return error_set_class(err, ERROR_REFUSED, -E2BIG,
				       "a transaction of %zu operations would need a request of "
				       "%zu bytes, and ZooKeeper takes %u: write less at once",
				       count, plan->bytes, REQUEST_MAX);
	return 0;
}

void zk_plan_done(struct zk_plan *plan)
{
	free(plan->ops);
	strv_done(&plan->paths);
}
