/* SPDX-License-Identifier: Apache-2.0 */
/* Commands for QEMU's monitor, one after another, each once the one before was answered. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

struct error;
struct keeper;
struct script;

struct script *script_new(struct keeper *keeper);
/* Takes `args` (may be NULL). */
void script_add(struct script *script, const char *command, json_t *args);
/* With a descriptor for `getfd`, which is taken. */
void script_add_fd(struct script *script, const char *name, int fd);
/* One that may be refused: then the next follows all the same. */
void script_add_optional(struct script *script, const char *command, json_t *args);

/* Out of band (monitor_call_oob()). */
void script_add_oob(struct script *script, const char *command, json_t *args, bool optional);

/* `r` 0, or what the first command that failed was answered.  Called exactly once, from the loop;
 * the script is gone then. */
typedef void (*script_done_fn)(void *ctx, int r, const struct error *err);
void script_run(struct script *script, script_done_fn done, void *ctx);
/* `done` is never called; what was sent is sent.  Takes NULL, returns NULL. */
struct script *script_cancel(struct script *script);
