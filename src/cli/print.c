/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/print.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/cli.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"
#include "util/utf8.h"
#include "wire/json.h"

size_t print_width(const char *text)
{
	size_t width = 0;

	for (size_t length; *text; text += length ? length : 1, width++)
		length = utf8_length(text, strlen(text));
	return width;
}

char *print_clean(const char *text)
{
	char *clean = xstrdup(text);

	for (unsigned char *c = (unsigned char *)clean; *c; c++) {
		/* C0, DEL, and C1 as UTF-8: U+0080 to U+009F are 0xC2 0x80 to 0x9F. */
		if (*c < 0x20 || *c == 0x7f)
			*c = '?';
		else if (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0)
			c[0] = c[1] = '?';
	}
	return clean;
}

/* Bytes of a harmless character at `bytes`; else 0, and what it is in `ret_shown`. */
static size_t printable(const char *bytes, size_t length, char ret_shown[8])
{
	size_t size = utf8_length(bytes, length);
	unsigned char first = (unsigned char)*bytes;

	if (size == 1 && (first < ' ' || first == 0x7f) && first != '\n' && first != '\t')
		(void)snprintf(ret_shown, 8, "^%c", first ^ 0x40);
	else if (size == 2 && first == 0xc2 && (unsigned char)bytes[1] < 0xa0)
		(void)snprintf(ret_shown, 8, "<%02x>", (unsigned char)bytes[1]);
	else if (size == 0)
		(void)snprintf(ret_shown, 8, "<%02x>", first);
	else
		return size;
	return 0;
}

void print_untrusted(FILE *out, const char *bytes, size_t length)
{
	if (!isatty(fileno(out))) {
		(void)fwrite(bytes, 1, length, out);
		return;
	}
	while (length > 0) {
		char shown[8];
		size_t size = printable(bytes, length, shown);

		if (size > 0) {
			(void)fwrite(bytes, 1, size, out);
		} else {
			/* A serial line ends with both. */
			if (length < 2 || bytes[0] != '\r' || bytes[1] != '\n')
				fputs(shown, out);
			size = utf8_length(bytes, length);
			size = size ? size : 1;
		}
		bytes += size;
		length -= size;
	}
}

void print_error(const struct error *err)
{
	fputs("drover: ", stderr);
	print_untrusted(stderr, err->text, strlen(err->text));
	fputs("\n", stderr);
}

void print_cut(struct text *ret, const char *text, size_t width)
{
	if (print_width(text) <= width) {
		text_add(ret, text, strlen(text));
		return;
	}
	for (size_t used = 0; used + 1 < width; used++) {
		size_t length = utf8_length(text, strlen(text));

		length = length ? length : 1;
		text_add(ret, text, length);
		text += length;
	}
	text_addf(ret, "…");
}

const char *print_paint(const struct cli *cli, const char *state)
{
	static const char *const bad[] = { "failed", "panicked", "io-error", "internal-error",
					   "unresponsive" };

	if (!cli->color || strcmp(state, "off") == 0)
		return "";
	if (strcmp(state, "running") == 0)
		return "\033[32m";
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (strcmp(state, bad[i]) == 0)
			return "\033[31m";
	return "\033[33m";
}

const char *print_unpaint(const struct cli *cli)
{
	return cli->color ? "\033[0m" : "";
}

void print_json(const json_t *value)
{
	CLEANUP_FREE char *text = value ? json_print_pretty(value) : xstrdup("null");

	printf("%s\n", text);
}

void print_vm(const struct cli *cli, const json_t *vm)
{
	CLEANUP_FREE char *reason = print_clean(json_string_or(vm, "reason", ""));
	CLEANUP_FREE char *name = print_clean(json_string_or(vm, "name", "?"));
	const char *state = json_string_or(vm, "state", "unknown");

	printf("%s: %s%s%s%s%s\n", name, print_paint(cli, state), state, print_unpaint(cli),
	       *reason ? ": " : "", reason);
}

bool print_failure(const json_t *vm)
{
	CLEANUP_FREE char *reason = print_clean(json_string_or(vm, "reason", ""));
	CLEANUP_FREE char *name = print_clean(json_string_or(vm, "name", "?"));
	const char *state = json_string_or(vm, "state", "unknown");

	if (strcmp(json_string_or(vm, "wish", "run"), "run") != 0 ||
	    (strcmp(state, "failed") != 0 && strcmp(state, "unknown") != 0))
		return false;
	fprintf(stderr, "drover: %s: %s: %s\n", name, state,
		*reason ? reason : "'drover explain' may tell why");
	return true;
}

void print_progress(const char *text)
{
	CLEANUP_FREE char *clean = print_clean(text);
	CLEANUP(text_done) struct text line = { 0 };
	struct winsize size;
	size_t width = 80;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1)
		width = size.ws_col;
	print_cut(&line, clean, width - 1);
	fprintf(stderr, "\r\033[K%s", line.text);
}

void print_field(const char *name, const char *value)
{
	CLEANUP_FREE char *clean = print_clean(value && *value ? value : "-");

	printf("  %-14s %s\n", name, clean);
}

const char *print_bytes(const json_t *bytes, char buffer[QUANTITY_SIZE])
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
	double number = (double)json_integer_value(bytes);
	size_t unit = 0;

	if (!json_is_integer(bytes))
		return "-";
	for (; number >= 1024 && unit + 1 < ARRAY_SIZE(units); unit++)
		number /= 1024;
	/* A whole number stays one; 1.5 is told from 1 and 2. */
	(void)snprintf(buffer, QUANTITY_SIZE, "%.*f %s", number == (double)(int64_t)number ? 0 : 1,
		       number, units[unit]);
	return buffer;
}

const char *print_mib(const json_t *mib, char buffer[QUANTITY_SIZE])
{
	json_auto_t *bytes = NULL;

	if (!json_is_integer(mib))
		return "-";
	bytes = json_integer(json_integer_value(mib) * 1024 * 1024);
	return print_bytes(bytes, buffer);
}

const char *print_seconds(const json_t *seconds, char buffer[QUANTITY_SIZE])
{
	long long s = json_integer_value(seconds);

	if (!json_is_integer(seconds) || s < 0)
		return "-";
	if (s < 60)
		(void)snprintf(buffer, QUANTITY_SIZE, "%llds", s);
	else if (s < 3600)
		(void)snprintf(buffer, QUANTITY_SIZE, "%lldm %llds", s / 60, s % 60);
	else if (s < 86400)
		(void)snprintf(buffer, QUANTITY_SIZE, "%lldh %lldm", s / 3600, s / 60 % 60);
	else
		(void)snprintf(buffer, QUANTITY_SIZE, "%lldd %lldh", s / 86400, s / 3600 % 24);
	return buffer;
}

const char *print_number(const json_t *number, char buffer[QUANTITY_SIZE])
{
	if (json_is_integer(number))
		(void)snprintf(buffer, QUANTITY_SIZE, "%lld",
			       (long long)json_integer_value(number));
	else if (json_is_real(number))
		(void)snprintf(buffer, QUANTITY_SIZE, "%.2f", json_real_value(number));
	else
		return "-";
	return buffer;
}

void print_event(const struct cli *cli, const json_t *event)
{
	CLEANUP_FREE char *reason = print_clean(json_string_or(event, "reason", ""));
	CLEANUP_FREE char *name = print_clean(json_string_or(event, "vm", "-"));
	CLEANUP_FREE char *what = print_clean(json_string_or(event, "event", "?"));

	printf("%s  %-12s  %s%s%s\n", json_string_or(event, "time", "-"), name, what,
	       *reason ? ": " : "", reason);
}
