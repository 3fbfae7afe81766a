/* SPDX-License-Identifier: Apache-2.0 */
/* Two clocks: one that decides (boot time) and one for people (wall time). */
#include "util/clock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "util/cleanup.h"
#include "util/file.h"

static uint64_t now(clockid_t clock)
{
	struct timespec at = { 0 };

	(void)clock_gettime(clock, &at);
	return (uint64_t)at.tv_sec * USEC_PER_SEC + (uint64_t)at.tv_nsec / 1000;
}

uint64_t clock_now(void)
{
	return now(CLOCK_BOOTTIME);
}

uint64_t clock_wall(void)
{
	return now(CLOCK_REALTIME);
}

const char *clock_text(uint64_t wall_usec, char buffer[CLOCK_TEXT_SIZE])
{
	time_t seconds = (time_t)(wall_usec / USEC_PER_SEC);
	struct tm tm;

	if (!gmtime_r(&seconds, &tm) ||
	    strftime(buffer, CLOCK_TEXT_SIZE, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		strcpy(buffer, "1970-01-01T00:00:00Z");
	return buffer;
}

/* Exactly `digits` digits, then moves on. */
static int take_number(const char **text, unsigned digits, int *ret)
{
	int value = 0;

	for (; digits > 0; digits--, (*text)++) {
		if (**text < '0' || **text > '9')
			return -EINVAL;
		value = value * 10 + (**text - '0');
	}
	*ret = value;
	return 0;
}

static int take_character(const char **text, char wanted)
{
	char at = **text;

	if (at >= 'A' && at <= 'Z')
		at += 0x20;
	if (at != wanted)
		return -EINVAL;
	(*text)++;
	return 0;
}

/* ".25" and the like; what is finer than a microsecond is dropped. */
static int take_fraction(const char **text, uint64_t *ret_usec)
{
	uint64_t unit = USEC_PER_SEC;
	uint64_t usec = 0;

	if (**text == '.') {
		const char *first = ++*text;

		for (; **text >= '0' && **text <= '9'; (*text)++) {
			unit /= 10;
			usec += (uint64_t)(**text - '0') * unit;
		}
		if (*text == first)
			return -EINVAL;
	}
	*ret_usec = usec;
	return 0;
}

static int take_offset(const char **text, int *ret_seconds)
{
	char sign = **text;
	int hours, minutes;

	if (sign == 'Z' || sign == 'z') {
		(*text)++;
		*ret_seconds = 0;
		return 0;
	}
	if (sign != '+' && sign != '-')
		return -EINVAL;
	(*text)++;
	if (take_number(text, 2, &hours) < 0 || take_character(text, ':') < 0 ||
	    take_number(text, 2, &minutes) < 0 || hours > 23 || minutes > 59)
		return -EINVAL;
	*ret_seconds = (hours * 60 + minutes) * (sign == '-' ? -60 : 60);
	return 0;
}

int clock_parse(const char *text, uint64_t *ret_wall_usec)
{
	struct tm tm = { 0 };
	uint64_t fraction;
	int64_t seconds;
	struct tm wanted;
	int offset;

	if (take_number(&text, 4, &tm.tm_year) < 0 || take_character(&text, '-') < 0 ||
	    take_number(&text, 2, &tm.tm_mon) < 0 || take_character(&text, '-') < 0 ||
	    take_number(&text, 2, &tm.tm_mday) < 0 || take_character(&text, 't') < 0 ||
	    take_number(&text, 2, &tm.tm_hour) < 0 || take_character(&text, ':') < 0 ||
	    take_number(&text, 2, &tm.tm_min) < 0 || take_character(&text, ':') < 0 ||
	    take_number(&text, 2, &tm.tm_sec) < 0 || take_fraction(&text, &fraction) < 0 ||
	    take_offset(&text, &offset) < 0 || *text != '\0')
		return -EINVAL;
	if (tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60 || tm.tm_year < 1970 ||
	    tm.tm_mon < 1 || tm.tm_mon > 12)
		return -EINVAL;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	wanted = tm;
	seconds = timegm(&tm);
	/* timegm() makes March of 30 February; such a day is an error here.  (A leap second does
	 * end in the next day.) */
	if ((tm.tm_mday != wanted.tm_mday || tm.tm_mon != wanted.tm_mon) && wanted.tm_sec < 60)
		return -EINVAL;
	if (seconds - offset < 0)
		return -EINVAL;
	*ret_wall_usec = (uint64_t)(seconds - offset) * USEC_PER_SEC + fraction;
	return 0;
}

const char *clock_boot_id(char buffer[BOOT_ID_SIZE])
{
	CLEANUP_FREE char *text = NULL;
	size_t n = 0;

	buffer[0] = '\0';
	if (file_read(-1, "/proc/sys/kernel/random/boot_id", 128, &text, NULL, NULL) < 0)
		return buffer;
	for (const char *at = text; *at && *at != '\n' && n < BOOT_ID_SIZE - 1; at++)
		if (*at != '-')
			buffer[n++] = *at;
	buffer[n] = '\0';
	return buffer;
}
