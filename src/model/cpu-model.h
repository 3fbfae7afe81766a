/* SPDX-License-Identifier: Apache-2.0 */
/* A CPU model with flags, as QEMU takes it: "EPYC-v3,ibpb,+pdpe1gb,-svm,x2apic=off". */
#pragma once
#include <jansson.h>
#include <stddef.h>

struct error;
struct key_place;
struct key_reader;

/* The one form of all that mean the same: the name, then each flag as FLAG=VALUE, in order of their
 * names, with '-' where QEMU also takes '_'.  -EBADMSG: it is none, and why. */
int cpu_model_canonical(const char *text, char **ret, struct error *err);
/* Length of the name at the beginning. */
size_t cpu_model_name_length(const char *text);

/* For tables of keys: the same check. */
int cpu_model_check_key(const struct key_reader *reader, const struct key_place *place,
			json_t *value, void *target, struct error *err);
