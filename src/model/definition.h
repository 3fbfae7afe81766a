/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of a VM as its user writes it: fc.qemu's format (`name`, `parameters`), extended.
 * One table in definition.c names every key, its type, its limits and what would be right; the
 * parser, the messages, docs/DEFINITION.md and docs/definition.schema.json come from it.
 *
 * Unknown keys are kept and warned about; wrong values are refused with FILE:LINE:COLUMN.  A
 * `struct definition` borrows nothing: all strings live in its own copy of the JSON tree. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct document;
struct error;
struct text;

#define VM_NAME_MAX 63
#define DEFINITION_VOLUMES_MAX 16
#define DEFINITION_NICS_MAX 16

enum accelerator { ACCEL_AUTO, ACCEL_KVM, ACCEL_TCG };
enum firmware_kind {
	FIRMWARE_BIOS,
	FIRMWARE_PATH
}; /* SeaBIOS, or a ROM image by path (`firmware:
    * /usr/share/qemu/qboot.rom`) */
enum panic_policy { PANIC_REPORT, PANIC_RESTART, PANIC_OFF }; /* default: report, keep for a look */
/* How a VM gets to another node: DEFAULT and LIVE with its memory; LIVE refuses all else. */
enum migration_method { MIGRATE_DEFAULT, MIGRATE_LIVE, MIGRATE_SHUTDOWN };
enum nic_mode {
	NIC_BRIDGE,
	NIC_USER,
	NIC_NONE
}; /* `network: user` = QEMU's own NAT; NONE: a card
    * without a cable (network without a bridge) */

struct definition_volume {
	const char *name;
	uint64_t size; /* bytes; 0: that of `source` or `path` */
	int format;    /* enum volume_format of storage/storage.h, which has the same order */
	const char *source, *path; /* or NULL */
	bool overlay, read_only;
	const char *cache, *aio; /* "none", "threads" by default */
};

struct definition_nic {
	const char *name;    /* id of the card: the network's name, made unique ("srv", "srv-1") */
	const char *network; /* as written */
	char mac[18];	     /* lower case, colons; dashed input is taken */
	enum nic_mode mode;
	bool mode_given;    /* else the node's configuration may map the network to another mode */
	const char *bridge; /* `bridge:` of the nic, or NULL: config_nic() knows */
	const char *model;  /* "virtio-net-pci" by default */
};

struct definition {
	json_t *tree; /* the whole of it, as written, unknown keys included; owned */
	json_t *made; /* texts that were made from it; owned */

	const char *name;
	int64_t id;	      /* -1: none */
	bool online;	      /* true by default */
	bool kvm_host_given;  /* the key is there */
	const char *kvm_host; /* "" when empty or absent */
	uint64_t memory_mib, memory_max_mib;
	unsigned cores, cores_max;
	const char *cpu_model;	  /* NULL: the node's default */
	const char *machine_type; /* "q35", "pc", or a full name; NULL: the node's default */
	enum accelerator accelerator;
	const char *uuid; /* lower case; NULL: made at the first start */
	enum firmware_kind firmware;
	const char *firmware_path;
	const char *kernel, *initrd, *kernel_args; /* or NULL */
	const char *boot;			   /* volume to boot from first, or NULL */
	const char *vga;			   /* "std", "none", "virtio" ... */
	enum panic_policy on_panic;
	bool acpi_shutdown;	/* false: ctrl-alt-del (environment_class Puppet) */
	bool memory_private;	/* `memory_backend: private` instead of shared memfd */
	uint64_t graceful_usec; /* 0: the node's default */
	const char *lease;	/* "keep", "stop", "pause"; NULL: keep */
	enum migration_method migration_method;
	uint64_t migration_max_downtime; /* usec; this and the next: 0 = QEMU's own */
	uint64_t migration_bandwidth;	 /* bytes a second */
	bool migration_postcopy;	 /* it may run there before all of its memory is */

	struct definition_volume volumes[DEFINITION_VOLUMES_MAX];
	size_t n_volumes; /* `disk: N` alone is one volume "root" of N GiB */
	struct definition_nic nics[DEFINITION_NICS_MAX];
	size_t n_nics;
};

/* What a reader of the definition should know, without stopping it: unknown keys ("did you
 * mean"), keys whose feature comes later. One line each, with FILE:LINE:COLUMN. */
struct definition_notes {
	char **lines;
	size_t count;
};
void definition_notes_done(struct definition_notes *notes);

/* -EBADMSG with "FILE:LINE:COLUMN: what is wrong; what would be right". */
int definition_parse(const struct document *document, struct definition **ret_definition,
		     struct definition_notes *ret_notes, struct error *err);
/* From a record of the store: no positions. */
int definition_from_json(json_t *tree, struct definition **ret_definition, struct error *err);
struct definition *definition_free(struct definition *definition);

/* 0 when the name of a VM is good: [a-z0-9] first, then [a-z0-9._-], at most VM_NAME_MAX. */
int definition_check_name(const char *name, struct error *err);

/* "parameters.memory: 512 -> 1024" lines of what differs, unknown keys too; empty when equal. */
void definition_diff(json_t *before, json_t *after, struct text *ret);

/* JSON schema (draft 2020-12) of the format, and its reference as Markdown. */
json_t *definition_schema(void);
void definition_reference(struct text *ret);
