/* SPDX-License-Identifier: Apache-2.0 */
/* What a plain (unquoted) YAML scalar means: the core schema of YAML 1.2, section 10.3.2. */
#pragma once
#include <jansson.h>

/* A new reference.  NULL when it is a number that JSON or 64 bits cannot hold; `ret_problem` then
 * says so and what would be right. */
json_t *scalar_value(const char *text, size_t length, const char **ret_problem);
