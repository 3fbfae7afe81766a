/* SPDX-License-Identifier: Apache-2.0 */
#include "util/thread.h"

#include <signal.h>

#include "util/clock.h"

int thread_start(void *(*run)(void *ctx), void *ctx, size_t stack_size, pthread_t *ret)
{
	sigset_t all, before;
	pthread_attr_t attr;
	pthread_t thread;
	int r;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	(void)pthread_attr_init(&attr);
	(void)pthread_attr_setstacksize(&attr, stack_size);
	if (!ret)
		(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	r = pthread_create(ret ? ret : &thread, &attr, run, ctx);
	(void)pthread_attr_destroy(&attr);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -r;
}

void thread_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(cond, &attr);
	(void)pthread_condattr_destroy(&attr);
}

struct timespec thread_in(uint64_t usec)
{
	uint64_t when;
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	when = (uint64_t)now.tv_nsec / 1000 + usec;
	return (struct timespec){ .tv_sec = now.tv_sec + (time_t)(when / USEC_PER_SEC),
				  .tv_nsec = (long)(when % USEC_PER_SEC) * 1000 };
}
