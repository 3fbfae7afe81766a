/* SPDX-License-Identifier: Apache-2.0 */
/* For implementations of the store; callers include store/store.h only.  store.c checks keys,
 * sizes and counts once for all of them. */
#pragma once
#include "store/store.h"

struct store_ops {
	const char *scheme;
	int (*open)(const char *address, const char *base_dir, sd_event *loop,
		    struct store **ret_store, struct error *err);
	void (*close)(struct store *store);
	int (*get)(struct store *store, const char *key, store_get_fn reply, void *ctx,
		   struct error *err);
	int (*list)(struct store *store, const char *prefix, store_list_fn reply, void *ctx,
		    struct error *err);
	int (*write)(struct store *store, const struct store_op *ops, size_t count,
		     store_write_fn reply, void *ctx, struct error *err);
	int (*watch)(struct store *store, const char *prefix, store_look_fn look, void *ctx,
		     struct store_watch **ret_watch, struct error *err);
	void (*unwatch)(struct store_watch *watch);
	int (*session_open)(struct store *store, const char *resume, uint64_t timeout_usec,
			    store_session_fn changed, void *ctx, struct error *err);
	int (*session_close)(struct store *store, struct error *err);
	const char *(*session_id)(const struct store *store);
	int (*session_timing)(const struct store *store, struct store_timing *ret_timing);
	int (*session_renew)(struct store *store, store_renew_fn reply, void *ctx,
			     struct error *err);
	struct store_limits (*limits)(const struct store *store);
};

struct store { /* embedded, first, by each implementation */
	const struct store_ops *ops;
	char *address;
};
struct store_watch { /* embedded likewise */
	struct store *store;
};

extern const struct store_ops store_local;
extern const struct store_ops store_zookeeper;
extern const struct store_ops store_consul;
extern const struct store_ops store_fault;
