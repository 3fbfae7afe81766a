/* SPDX-License-Identifier: Apache-2.0 */
/* A thread beside the loop, for what may hang in the kernel.  Signals are the loop's: all of them
 * are blocked in it.  Waiting goes by CLOCK_MONOTONIC. */
#pragma once
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* `ret` NULL: nobody joins it.  Negative: an errno. */
int thread_start(void *(*run)(void *ctx), void *ctx, size_t stack_size, pthread_t *ret);
void thread_cond_init(pthread_cond_t *cond);
/* The moment for pthread_cond_timedwait() with such a condition: that long from now. */
struct timespec thread_in(uint64_t usec);
