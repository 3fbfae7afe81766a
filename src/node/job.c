/* SPDX-License-Identifier: Apache-2.0 */
#include "node/job.h"

#include <stdlib.h>

#include "node/node.h"
#include "node/reexec.h"

void job_begin(struct job *job, struct node *node, void (*done)(struct job *job))
{
	job->node = node;
	job->done = done;
	job->next = node->jobs;
	job->link = &node->jobs;
	if (job->next)
		job->next->link = &job->next;
	node->jobs = job;
}

void job_end(struct job *job)
{
	struct node *node = job->node;

	*job->link = job->next;
	if (job->next)
		job->next->link = job->link;
	if (job->done)
		job->done(job);
	free(job);
	reexec_look(node);
}

void jobs_end(struct node *node)
{
	while (node->jobs)
		job_end(node->jobs);
}
