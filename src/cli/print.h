/* SPDX-License-Identifier: Apache-2.0 */
/* What goes to the terminal.  Names and reasons come from files, guests and QEMU: a control
 * character in them must not reach the terminal as one. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct cli;
struct error;
struct text;

/* Columns that the text takes, counting characters. */
size_t print_width(const char *text);
/* A copy with control characters as '?', owned by the caller. */
char *print_clean(const char *text);
/* Text of several lines that a guest, QEMU or a log brought.  On a terminal it could make that
 * answer, or hide things: there, control characters and what is no UTF-8 are shown as "^[" or
 * "<9b>".  Elsewhere every byte goes out as it is. */
void print_untrusted(FILE *out, const char *bytes, size_t length);
/* "drover: what went wrong"; QEMU's and the guest agent's own words may be in it. */
void print_error(const struct error *err);
/* At most `width` columns of it, with an ellipsis where it was cut. */
void print_cut(struct text *ret, const char *text, size_t width);

/* Escape sequences around a state, "" without colours. */
const char *print_paint(const struct cli *cli, const char *state);
const char *print_unpaint(const struct cli *cli);

void print_json(const json_t *value);
/* "web01: running: reason" with what is empty left out. */
void print_vm(const struct cli *cli, const json_t *vm);
/* After a wait: true when the VM should run and does not; why goes to stderr. */
bool print_failure(const json_t *vm);
/* Over the line before, on stderr, which is a terminal. */
void print_progress(const char *text);
/* "name   text", the lines of a block about one thing; NULL or "" is "-". */
void print_field(const char *name, const char *value);
/* Unknown numbers are "-". */
#define QUANTITY_SIZE 32
const char *print_bytes(const json_t *bytes, char buffer[QUANTITY_SIZE]);
const char *print_mib(const json_t *mib, char buffer[QUANTITY_SIZE]);
const char *print_seconds(const json_t *seconds, char buffer[QUANTITY_SIZE]);
const char *print_number(const json_t *number, char buffer[QUANTITY_SIZE]);
/* A line of the event log: time, VM, what, why. */
void print_event(const struct cli *cli, const json_t *event);
