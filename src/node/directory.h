/* SPDX-License-Identifier: Apache-2.0 */
/* etc/drover/vms: one file, one VM.  Watched; read again after a moment of quiet.  What matters is
 * the content, never a time stamp.  A broken file changes nothing, a file that is gone makes its VM
 * hands-off, a directory that cannot be read says nothing at all. */
#pragma once

struct directory;
struct node;

void directory_open(struct node *node);
struct directory *directory_close(struct directory *directory);

/* The records may have changed: compare with the files (again). */
void directory_look(struct node *node);
/* Somebody removed a VM or a source: files that were refused may count now. */
void directory_rescan(struct node *node);
