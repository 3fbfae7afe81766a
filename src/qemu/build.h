/* SPDX-License-Identifier: Apache-2.0 */
/* What one QEMU binary can do, asked of the binary itself over QMP (`-machine none`) and cached by
 * file identity (device, inode, size, mtime, ctime) in LIB/qemu/, so that a start pays nothing. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct error;

struct qemu_build {
	char *binary;	    /* absolute */
	char *version;	    /* "7.2.22" */
	char *package;	    /* "Debian 1:7.2+dfsg-7+deb12u18+b3" or "" */
	char *identity;	    /* of the file; equal text = same build */
	json_t *machines;   /* as query-machines answers */
	json_t *cpu_models; /* names, from query-cpu-definitions */
	json_t *commands;   /* names, from query-commands */
};

/* `cache_dir` may be NULL (always ask).  A binary that is missing is an error that names the Debian
 * package; one that cannot be asked shows its own last words. */
int qemu_build_probe(const char *binary, const char *data_dir, const char *cache_dir,
		     struct qemu_build **ret_build, struct error *err);
/* Would it be answered from the cache, without running anything? */
bool qemu_build_known(const char *binary, const char *cache_dir);
struct qemu_build *qemu_build_free(struct qemu_build *build);
bool qemu_build_has_cpu_model(const struct qemu_build *build, const char *model);
bool qemu_build_has_command(const struct qemu_build *build, const char *command);

/* Names of the CPU models that lack nothing here under this accelerator ("kvm", "tcg"), sorted; a
 * new reference.  Cached with the build, the kernel's boot id and the identity of /dev/kvm. */
int qemu_build_cpus(const struct qemu_build *build, const char *data_dir, const char *accel,
		    const char *cache_dir, json_t **ret_names, struct error *err);

/* Newest machine type of a family ("q35", "pc", "pc-q35", "pc-i440fx", "microvm"), by version
 * order, not by list order: 10.0 is newer than 9.2.  A full name is checked and answered as it is;
 * "pc-q35-7" style prefixes work as in fc.qemu.  Refused: none such, naming what there is. */
int qemu_machine_resolve(const struct qemu_build *build, const char *asked, const char **ret_type,
			 struct error *err);
/* Does the type answer what was asked: "q35" and "pc-q35-7" are answered by "pc-q35-7.2"? */
bool qemu_machine_matches(const char *asked, const char *type);
/* Orders two machine type names: <0, 0, >0 by family, then numerically by version. */
int qemu_machine_compare(const char *a, const char *b);

/* Else it is whatever the host has ("host", "max"), and there is nothing to insist on. */
bool qemu_cpu_is_named(const char *model);

/* Does this accelerator really run a guest with this CPU model here?  Runs the probe ROM, with a
 * CPU as guests get it, under a deadline: there are KVMs under which QEMU aborts with `host` and
 * runs named models, and others that lack what a named model has.  `ret_why` (owned) is one
 * sentence either way: "kvm: ran the probe guest in 61 ms", "kvm: the probe guest died at int3
 * (internal-error)", "kvm: cannot open /dev/kvm: No such file or directory".  Cached with the
 * build, the kernel's boot id and the identity of /dev/kvm; a guest that was only slow (deadline)
 * is asked anew each time. */
int qemu_accel_probe(const struct qemu_build *build, const char *accel, const char *cpu_model,
		     const char *probe_rom, uint64_t timeout_usec, const char *cache_dir,
		     bool *ret_works, char **ret_why, struct error *err);
