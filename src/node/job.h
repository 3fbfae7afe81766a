/* SPDX-License-Identifier: Apache-2.0 */
/* What waits for an answer of the store, a keeper or a tool.  Each is known to the node from its
 * first to its last moment, so that an agent that ends in the middle leaves nothing behind. */
#pragma once

struct node;

struct job { /* embedded, first, by each kind; from xcalloc() */
	struct node *node;
	struct job *next, **link;
	void (*done)(struct job *job); /* drops what it holds, not the job itself; may be NULL */
};

void job_begin(struct job *job, struct node *node, void (*done)(struct job *job));
void job_end(struct job *job); /* frees it */
void jobs_end(struct node *node);
