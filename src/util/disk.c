/* SPDX-License-Identifier: Apache-2.0 */
#include "util/disk.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "util/thread.h"

#define PATIENCE (2 * USEC_PER_SEC) /* far less than a session of the store */
#define STACK_SIZE (256u * 1024)

struct call {
	struct disk *disk;
	void (*fn)(void *work);
	void (*drop)(void *work);
	void *work;
	pthread_mutex_t lock;
	pthread_cond_t ended;
	bool done, left; /* left: nobody waits any more */
};

static void call_free(struct call *call)
{
	(void)pthread_cond_destroy(&call->ended);
	(void)pthread_mutex_destroy(&call->lock);
	free(call);
}

static void *run(void *ctx)
{
	struct call *call = ctx;
	struct disk *disk = call->disk;
	bool left;

	call->fn(call->work);
	(void)pthread_mutex_lock(&call->lock);
	call->done = true;
	left = call->left;
	(void)pthread_cond_signal(&call->ended);
	(void)pthread_mutex_unlock(&call->lock);
	if (!left)
		return NULL; /* it is the caller's */
	call->drop(call->work);
	call_free(call);
	atomic_store(&disk->hangs, false);
	return NULL;
}

static struct call *call_new(struct disk *disk, void (*fn)(void *work), void (*drop)(void *work),
			     void *work)
{
	struct call *call = xcalloc(1, sizeof(*call));

	*call = (struct call){ .disk = disk, .fn = fn, .drop = drop, .work = work };
	(void)pthread_mutex_init(&call->lock, NULL);
	thread_cond_init(&call->ended);
	return call;
}

/* True: it is done.  False: it is left alone, and ends by itself. */
static bool wait_for(struct call *call)
{
	const struct timespec end = thread_in(PATIENCE);
	bool done;

	(void)pthread_mutex_lock(&call->lock);
	while (!call->done && pthread_cond_timedwait(&call->ended, &call->lock, &end) != ETIMEDOUT)
		;
	done = call->done;
	call->left = !done;
	if (!done)
		atomic_store(&call->disk->hangs, true);
	(void)pthread_mutex_unlock(&call->lock);
	return done;
}

int disk_run(struct disk *disk, void (*fn)(void *work), void (*drop)(void *work), void *work,
	     struct error *err)
{
	struct call *call;
	int r;

	if (atomic_load(&disk->hangs)) {
		drop(work);
		return error_set(err, -ETIMEDOUT, "%s does not answer: its disk hangs", disk->what);
	}
	call = call_new(disk, fn, drop, work);
	r = thread_start(run, call, STACK_SIZE, NULL);
	if (r < 0) { /* no thread: then without one */
		fn(work);
		call_free(call);
		return 0;
	}
	if (!wait_for(call))
		return error_set(err, -ETIMEDOUT, "%s does not answer: its disk hangs", disk->what);
	call_free(call);
	return 0;
}
