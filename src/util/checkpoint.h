/* SPDX-License-Identifier: Apache-2.0 */
/* Named steps at which a test build can be held, so that tests kill a party at exactly that step.
 * In other builds a checkpoint is nothing at all.
 *
 * Test build (-Dcheckpoints=true): when the file RUN/checkpoint holds this name on a line of its
 * own, the process appends "NAME PID" to RUN/checkpoint.reached and stops itself (SIGSTOP); after
 * SIGCONT it goes on.  A checkpoint fires once per process and name. */
#pragma once

#ifdef DROVER_CHECKPOINTS
void checkpoint_open(const char *run_dir);
void checkpoint(const char *name);
#else
static inline void checkpoint_open(const char *run_dir)
{
	(void)run_dir;
}
static inline void checkpoint(const char *name)
{
	(void)name;
}
#endif
