/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/table.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/print.h"
#include "util/cleanup.h"
#include "util/mem.h"

#define GAP 2
#define LAST_MIN 12 /* narrower than this a cut column says nothing: let the terminal wrap it */

void table_init(struct table *table, const char *const *headers, const char *painted)
{
	*table = (struct table){ .headers = headers, .painted = painted };
	while (headers[table->columns])
		table->columns++;
	assert(table->columns <= TABLE_COLUMNS_MAX);
}

void table_add(struct table *table, const char *value)
{
	table->cells = xrealloc(table->cells, table->count + 1, sizeof(*table->cells));
	table->cells[table->count++] = print_clean(value && *value ? value : "-");
}

static size_t column_width(const struct table *table, size_t column)
{
	size_t width = print_width(table->headers[column]);

	for (size_t i = column; i < table->count; i += table->columns) {
		size_t cell = print_width(table->cells[i]);

		width = cell > width ? cell : width;
	}
	return width;
}

static void print_row(const struct table *table, const struct cli *cli, const size_t *widths,
		      size_t last_width, const char *const *cells)
{
	for (size_t i = 0; i < table->columns; i++) {
		bool last = i + 1 == table->columns;
		const char *header = table->headers[i];
		bool paint = table->painted && cells != table->headers &&
			     strcmp(header, table->painted) == 0;
		CLEANUP(text_done) struct text cell = { 0 };

		print_cut(&cell, cells[i], last ? last_width : SIZE_MAX);
		printf("%s%s%s%*s", paint ? print_paint(cli, cells[i]) : "", cell.text,
		       paint ? print_unpaint(cli) : "",
		       last ? 0 : (int)(widths[i] - print_width(cells[i]) + GAP), "");
	}
	printf("\n");
}

void table_print(const struct table *table, const struct cli *cli)
{
	size_t widths[TABLE_COLUMNS_MAX], before = 0, last = SIZE_MAX;

	for (size_t i = 0; i < table->columns; i++) {
		widths[i] = column_width(table, i);
		if (i + 1 < table->columns)
			before += widths[i] + GAP;
	}
	if (cli->width >= before + LAST_MIN)
		last = cli->width - before;
	print_row(table, cli, widths, last, table->headers);
	for (size_t i = 0; i + table->columns <= table->count; i += table->columns)
		print_row(table, cli, widths, last, (const char *const *)table->cells + i);
}

void table_done(struct table *table)
{
	for (size_t i = 0; i < table->count; i++)
		free(table->cells[i]);
	free(table->cells);
}
