/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes: the disks of a VM.  Data only grows: nothing here shrinks, reformats or removes a volume
 * that was not named for exactly that (I7).  What blocks (image conversion) is a child process. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

struct error;
struct storage;

enum volume_format { VOLUME_RAW, VOLUME_QCOW2, VOLUME_FORMATS };
const char *volume_format_name(enum volume_format format);
int volume_format_of(const char *name); /* -1: none */

/* For a VM that starts here, or for one that is about to come by migration. */
enum volume_use {
	VOLUME_USE,	 /* made if absent, grown, claimed */
	VOLUME_SHARED,	 /* of a VM that runs elsewhere on this very storage: opened as it is */
	VOLUME_ARRIVING, /* an empty one of `size` that a mirror fills; volume_arrived() names it */
};

/* What the definition asks for. Borrowed strings. */
struct volume_want {
	enum volume_use use;
	const char *vm;
	const char *name; /* "root", "data": [a-z0-9][a-z0-9_-]{0,31} */
	uint64_t size;	  /* bytes; a minimum, never shrunk */
	enum volume_format format;
	const char *source; /* image to start from, absolute path; NULL: empty */
	bool overlay;	    /* qcow2 on top of `source` instead of a copy */
	bool read_only;
	const char *path; /* an existing file or block device to use as it is; NULL: ours */
	uid_t uid;	  /* whom qemu-img runs as: the VM's own user; 0: nobody (65534) */
};

/* One file of a chain, ready to be handed to QEMU: top first, then what lies below it. */
struct volume_layer {
	int fd; /* owned; O_RDWR for a writable top, else O_RDONLY */
	enum volume_format format;
	char *path;
};
#define VOLUME_LAYERS_MAX 8
struct volume_open {
	struct volume_layer layers[VOLUME_LAYERS_MAX];
	size_t n_layers;
	uint64_t size; /* bytes that the guest sees */
};
void volume_open_done(struct volume_open *open);
/* Past the cache of the host, as far as the file system can do that. */
void volume_open_direct(const struct volume_open *open);

/* What is there: for `drover volume ls`. */
struct volume_info {
	char *vm, *name, *path;
	enum volume_format format;
	uint64_t size, allocated; /* bytes */
	char *claimed_by;	  /* node, or NULL: free */
	uint64_t claim_epoch;
};
void volume_info_done(struct volume_info *info);

/* `dir`: where the volumes live (LIB/volumes), one directory per VM. */
int storage_open(const char *dir, sd_event *loop, struct storage **ret_storage, struct error *err);
struct storage *storage_close(struct storage *storage);

/* Makes it (if absent: beside, fsync, rename), grows it (if smaller), opens the chain, writes the
 * claim {vm, epoch, node} beside it.  A failure leaves no claim.  Refused: a claim of a higher
 * epoch, a chain deeper than VOLUME_LAYERS_MAX, a header that names files outside of the chain that
 * was asked for (a guest can write its own qcow2 header into a raw disk: the format comes from the
 * definition, never from looking).  Asynchronous, since copying an image takes time; the answer
 * carries open descriptors, which the callee owns (TAKE them, or volume_open_done). Smaller than
 * what is there: kept as it is, `note` says so; NULL: nothing to say.
 *
 * `reply` comes exactly once, from the loop, never from inside this call; the job is gone then.  A
 * negative result: what is asked for makes no sense, nothing was begun and `reply` will not come.
 * A raw volume that is there already starts no process and is answered in the next turn of the
 * loop; qcow2 neither, unless it has to grow. */
typedef void (*volume_prepared_fn)(void *ctx, int r, struct volume_open *open, const char *note,
				   const struct error *err);
struct volume_job;
int volume_prepare(struct storage *storage, const struct volume_want *want, uint64_t epoch,
		   const char *node, uint64_t timeout_usec, volume_prepared_fn reply, void *ctx,
		   struct volume_job **ret_job, struct error *err);
struct volume_job *volume_cancel(struct volume_job *job); /* half-made files go; no reply */

/* The VM has come here under `epoch` of its record (that of the move): what was filled for it takes
 * the volume's name; what had the name before is kept aside, see volume_leave().  Nothing that
 * arrived under this epoch: nothing is done, for it was done before. */
int volume_arrived(struct storage *storage, const char *vm, const char *name, uint64_t epoch,
		   struct error *err);
/* The VM has gone, with its disks: the volume of that name is old from now on.  It is kept as
 * .NAME.EPOCH.gone.FORMAT, the newest only; nothing is ever started from it. */
int volume_leave(struct storage *storage, const char *vm, const char *name, uint64_t epoch,
		 struct error *err);
/* Removes what was being filled for moves of this VM that came to nothing: all but those of
 * `except_epoch`. */
int volume_forget_arrivals(struct storage *storage, const char *vm, uint64_t except_epoch,
			   struct error *err);
/* Who says that it uses the volume, and under which epoch of the record: 1, or 0: nobody. */
struct volume_claim {
	char *node; /* owned */
	uint64_t epoch;
};
void volume_claim_done(struct volume_claim *claim);
int volume_claimed(struct storage *storage, const char *vm, const char *name,
		   struct volume_claim *ret, struct error *err);
/* The epoch of the record when the disk of that name last left this node with its VM; 0: never. */
int volume_left(struct storage *storage, const char *vm, const char *name, uint64_t *ret_epoch,
		struct error *err);
/* It was another VM of that name: what it left is kept and says 0. */
int volume_left_before(struct storage *storage, const char *vm, const char *name,
		       struct error *err);
/* 1: something was being filled for a move of this VM with that epoch or an older one; 0: no. */
int volume_arriving(struct storage *storage, const char *vm, uint64_t last_epoch,
		    struct error *err);
/* Adds the names of all VMs with such a file to the array. */
int volume_arriving_vms(struct storage *storage, json_t *list, struct error *err);
/* Claims a volume that is open already, as volume_prepare() does at a start. */
int volume_claim(struct storage *storage, const char *vm, const char *name, uint64_t epoch,
		 const char *node, struct error *err);

/* Frees the claim; absent is success.  Refused: a claim of a higher epoch, or of the same epoch by
 * another node. */
int volume_release(struct storage *storage, const char *vm, const char *name, uint64_t epoch,
		   const char *node, struct error *err);
/* Removes exactly this volume; refused while claimed, open in a QEMU, or under an overlay of
 * another volume.  No such volume: -ENOENT. */
int volume_remove(struct storage *storage, const char *vm, const char *name, struct error *err);
/* All volumes, sorted by VM and name.  Caller frees each and the array. */
int volume_list(struct storage *storage, struct volume_info **ret_infos, size_t *ret_count,
		struct error *err);
