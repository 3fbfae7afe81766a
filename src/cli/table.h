/* SPDX-License-Identifier: Apache-2.0 */
/* A table for people: columns as wide as they need to be.  On a terminal the last one is cut at its
 * edge; what is piped is never cut. */
#pragma once
#include <stddef.h>

#define TABLE_COLUMNS_MAX 15

struct cli;

struct table {
	const char *const *headers; /* NULL-terminated, borrowed */
	size_t columns;
	size_t count; /* of cells, row by row */
	char **cells;
	const char *painted; /* header of the column that holds states, or NULL */
};

void table_init(struct table *table, const char *const *headers, const char *painted);
/* The next cell; NULL or "" is "-". */
void table_add(struct table *table, const char *value);
void table_print(const struct table *table, const struct cli *cli);
void table_done(struct table *table);
