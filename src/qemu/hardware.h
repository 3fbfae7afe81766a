/* SPDX-License-Identifier: Apache-2.0 */
/* The hardware record: everything that the guest can see, frozen at cold start (DESIGN 1.3).
 *
 * hardware_plan() makes the record of the next cold start out of the definition and the record of
 * the last one: what a guest remembers of its machine (uuid, machine type while the same family is
 * asked, accelerator, maxima of memory and cpus, the PCI address of each device by id) stays.  So
 * does what the definition leaves open: the defaults of a node are for new VMs.
 * binding_plan() makes what only this host sees.  Command line = hardware + binding. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "qemu/section.h"

struct config;
struct definition;
struct error;
struct qemu_build;
struct qmp;
struct text;

struct hardware {
	char *machine_type;  /* versioned: "pc-q35-7.2" */
	char *machine_asked; /* what the definition said then: "q35" */
	char *accelerator;   /* "kvm" or "tcg" */
	char *cpu_model;
	char *uuid;
	uint64_t memory_mib, memory_max_mib;
	unsigned cores, cores_max;
	char *qemu_version, *qemu_package; /* the build it was born on */
	char *born;			   /* RFC 3339 */
	uint64_t generation;		   /* of the definition it was made from */
	struct sections sections;	   /* hardware groups only */
	json_t *rest;
};
struct hardware *hardware_free(struct hardware *hardware);
json_t *hardware_json(const struct hardware *hardware);
int hardware_parse(json_t *value, struct hardware **ret, struct error *err);

struct hardware_input {
	const struct definition *definition;
	const struct hardware *last; /* NULL: never started */
	const struct qemu_build *build;
	const struct config *config;
	const char *accelerator; /* what `auto` came to: "kvm" or "tcg" */
	uint64_t generation;
	const char *template_text; /* etc/drover/qemu.cfg.in, or NULL */
	const char *template_label;
	/* Host sections of the template end up here, for the binding; also when the plan fails:
	 * sections_done(). */
	struct sections *ret_template_binding;
};
/* Pure but for the new uuid of a first start.  `notes` (may be NULL) gets a line for each thing
 * that changed against `last`. */
int hardware_plan(const struct hardware_input *input, struct hardware **ret, struct text *notes,
		  struct error *err);

/* Descriptors are numbers as QEMU will see them. */
struct binding_volume {
	const char *name; /* of the definition */
	int fds[8];	  /* layer by layer, top first */
	const char *formats[8];
	size_t n_layers;
	bool read_only;
	const char *cache, *aio;
};
/* Is it read and written past the cache of the host? */
bool binding_is_direct(const struct binding_volume *volume);
struct binding_nic {
	const char *name;
	int tap_fd; /* -1: user mode or no cable */
	bool user;
};
struct binding_input {
	const struct hardware *hardware;
	const struct definition *definition;
	const char *binary;
	const char *data_dir; /* -L, or "" */
	const char *vm;
	const char *token; /* instance token, whole: the `opaque` of each add-fd */
	/* Listening sockets, and a log opened with exactly O_WRONLY | O_APPEND. */
	int monitor_fd, agent_fd, serial_fd, serial_log_fd;
	const char *kernel_path, *initrd_path, *firmware_path; /* as QEMU sees them, or NULL */
	const struct binding_volume *volumes;
	size_t n_volumes;
	const struct binding_nic *nics;
	size_t n_nics;
	const struct sections *template_binding;
	bool incoming; /* waits for `migrate-incoming` */
};
/* The whole argument vector, argv[0] = binary. */
int qemu_command_line(const struct binding_input *input, struct strv *ret_argv, struct error *err);

/* Compares what QEMU built with the record, before vcpus run: machine type, uuid, accelerator, cpu
 * type and count, memory size, every device by id with type, bus, address and each property that
 * QEMU shows (MAC and serial among them).  Asks all at once over QMP.  `reply`: 0 equal; -EBADE
 * with the first difference in words.  The check is gone once `reply` was called; `hardware` is
 * borrowed until then. */
typedef void (*hardware_verified_fn)(void *ctx, int r, const struct error *err);
struct hardware_check;
int hardware_verify(struct qmp *qmp, const struct hardware *hardware, uint64_t timeout_usec,
		    hardware_verified_fn reply, void *ctx, struct hardware_check **ret_check,
		    struct error *err);
/* `reply` is never called.  Takes NULL, returns NULL.  What was asked already is forgotten with its
 * last answer: cancel while the monitor is open, and let it end (qmp's `gone`) before qmp_close().
 */
struct hardware_check *hardware_verify_cancel(struct hardware_check *check);

/* For `drover hardware VM`: a table of id, device, address, properties. */
void hardware_print(const struct hardware *hardware, struct text *ret);
