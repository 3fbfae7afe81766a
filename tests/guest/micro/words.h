/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel command line: words `name=value`, separated by spaces. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* The decimal number of word `name`, or `fallback` if there is no such word. */
uint32_t words_number(const char *line, const char *name, uint32_t fallback);

/* Whether word `name` is there and says `value`. */
bool words_say(const char *line, const char *name, const char *value);
