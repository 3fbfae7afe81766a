/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share.  Everything of a VM is in one directory of its own, 0700:
 *
 *	NAME.raw or NAME.qcow2	the volume
 *	.NAME.part		being made; nobody looks at it, the next attempt removes it
 *	NAME.claim		{"vm", "epoch", "node"}: who uses the volume
 *	.NAME.EPOCH.arriving.raw	being filled by a migration with that epoch (arrival.c)
 *	.NAME.EPOCH.gone.raw	the VM went away with its disks: what it left here */
#pragma once
#include "storage/storage.h"

struct storage {
	char *dir; /* absolute, without links */
	int dir_fd;
	sd_event *loop;
	struct volume_job *jobs;
};

/* Directory of a VM: -ENOENT when it has none (`make`: made instead). */
int storage_vm_dir(struct storage *storage, const char *vm, bool make, int *ret_fd,
		   struct error *err);
int storage_check_names(const char *vm, const char *name, struct error *err);

/* 1: claimed, 0: free.  A claim that cannot be understood is an error, never "free". */
int claim_read(int vm_fd, const char *name, struct volume_claim *ret_claim, struct error *err);
/* Refuses when somebody else's claim stands against (epoch, node). */
int claim_check(int vm_fd, const char *vm, const char *name, uint64_t epoch, const char *node,
		struct error *err);
int claim_write(int vm_fd, const char *vm, const char *name, uint64_t epoch, const char *node,
		struct error *err);
int claim_remove(int vm_fd, const char *name, struct error *err);

/* ".root.12.arriving.raw"; the caller frees it. */
char *arrival_file(const char *name, uint64_t epoch, enum volume_format format);

/* What the header of an image says, read by ourselves: no process is started and no file that the
 * header names is opened. */
struct image {
	uint64_t size;	    /* bytes that the guest sees */
	char *backing;	    /* as written in the header, or NULL */
	int backing_format; /* enum volume_format; -1: not written down or not one of ours */
};
void image_done(struct image *image);
int image_read(int fd, enum volume_format format, const char *path, struct image *ret_image,
	       struct error *err);
/* The format of an image that the operator named as a source, by its first bytes.  Never to be
 * asked about a disk that a guest writes to: it would answer what the guest likes. */
int image_detect(int fd, const char *path, enum volume_format *ret_format, struct error *err);

/* What the header of our own volume says against the definition; before anything else opens it. */
int chain_check_top(const struct volume_want *want, const char *path, const struct image *image,
		    struct error *err);
/* Opens what is asked for, and everything below it, comparing with what was asked.  `top` is
 * taken. */
int chain_open(const struct volume_want *want, int top, const char *top_path,
	       struct volume_open *ret_open, struct error *err);
/* A regular file or block device, opened without waiting for whatever else it may be. */
int chain_open_file(const char *path, bool writable, int *ret_fd, struct error *err);

/* For the `prepare` of a spawn: leaves the child in a root that holds the programs of the host and
 * these images, without a network, as `uid`. */
struct imagetool {
	int source_fd; /* read-only there; -1: none */
	int target_fd; /* must be open for writing; -1: none */
	uid_t uid;
};
#define IMAGETOOL_SOURCE "/images/source"
#define IMAGETOOL_TARGET "/images/target"
int imagetool_enter(void *ctx, struct error *err);
