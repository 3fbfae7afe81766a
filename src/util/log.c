/* SPDX-License-Identifier: Apache-2.0 */
/* One line per fact, one system call per line.  Nothing here may block, fail or kill: a sink that
 * does not take the line at once loses it, and what a guest or user put into a name cannot forge a
 * second line. */
#include "util/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/mem.h"
#include "util/utf8.h"
#include "util/writer.h"

#define LINE_MAX_BYTES 8192

static struct {
	enum log_level max;
	char *program;
	char *vm;
	char *file;
	int fd; /* of `file` or of the journal's socket; -1: stderr */
	bool journal;
	dev_t device; /* of `file` as it was opened */
	ino_t inode;
} state = { .max = LOG_LEVEL_INFO, .fd = -1 };

/* clang-format off */
static const struct {
	const char *name;
	char letter;
	char priority; /* of syslog(3), for the journal */
} levels[] = {
	[LOG_LEVEL_ERROR]   = { "error",   'E', '3' },
	[LOG_LEVEL_WARNING] = { "warning", 'W', '4' },
	[LOG_LEVEL_INFO]    = { "info",	   'I', '6' },
	[LOG_LEVEL_DEBUG]   = { "debug",   'D', '7' },
};
/* clang-format on */

/* JOURNAL_STREAM names the device and inode that stderr had when systemd started us;
 * systemd.exec(5). */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
	       fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

static int open_journal(void)
{
	static const struct sockaddr_un address = { .sun_family = AF_UNIX,
						    .sun_path = "/run/systemd/journal/socket" };
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return -1;
	return TAKE_FD(fd);
}

static void open_file(void)
{
	struct stat st;

	if (state.fd >= 0)
		(void)close(state.fd);
	state.fd = open(state.file,
			O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);
	if (state.fd >= 0 && fstat(state.fd, &st) == 0) {
		state.device = st.st_dev;
		state.inode = st.st_ino;
	}
}

void log_open(const char *program, const char *vm, const char *file, enum log_level max)
{
	if (state.fd >= 0)
		(void)close(state.fd);
	free(state.program);
	free(state.vm);
	free(state.file);
	state.fd = -1;
	state.max = max;
	state.program = xstrdup_or_null(program);
	state.vm = xstrdup_or_null(vm);
	state.file = xstrdup_or_null(file);
	state.journal = !file && stderr_is_journal();
	if (state.file)
		open_file();
	else if (state.journal)
		state.fd = open_journal();
}

/* Appends what can be shown; control characters (C0, DEL, C1) and bytes that are no UTF-8 as
 * \xNN. */
static void add_escaped(char *line, size_t size, size_t *at, const char *bytes)
{
	size_t left = strlen(bytes);

	while (left > 0 && *at + 5 < size) {
		const unsigned char *byte = (const unsigned char *)bytes;
		size_t n = utf8_length(bytes, left);

		if (n == 0 || byte[0] < 0x20 || byte[0] == 0x7f ||
		    (byte[0] == 0xc2 && byte[1] < 0xa0)) {
			*at += (size_t)snprintf(line + *at, size - *at, "\\x%02x", byte[0]);
			n = 1;
		} else {
			memcpy(line + *at, bytes, n);
			*at += n;
		}
		bytes += n;
		left -= n;
	}
	line[*at] = '\0';
}

/* 2026-11-20T10:15:03.123+01:00 */
static size_t add_time(char *line, size_t size)
{
	uint64_t wall = clock_wall();
	time_t seconds = (time_t)(wall / USEC_PER_SEC);
	char day[32] = "";
	char zone[8] = "";
	struct tm tm;

	if (localtime_r(&seconds, &tm)) {
		(void)strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
		(void)strftime(zone, sizeof(zone), "%z", &tm);
	}
	return (size_t)snprintf(line, size, "%s.%03u%.3s:%s", day,
				(unsigned)(wall % USEC_PER_SEC / USEC_PER_MSEC), zone,
				zone[0] ? zone + 3 : "");
}

/* The journal's native protocol: fields as lines; systemd.journal-fields(7). */
static void to_journal(enum log_level level, const char *vm, const char *words)
{
	char packet[LINE_MAX_BYTES + 1024];
	size_t at =
		(size_t)snprintf(packet, 256, "PRIORITY=%c\nSYSLOG_IDENTIFIER=%.100s\n",
				 levels[level].priority, state.program ? state.program : "drover");

	if (vm && vm[0]) {
		at += (size_t)snprintf(packet + at, 8, "VM=");
		add_escaped(packet, at + 512, &at, vm);
		packet[at++] = '\n';
	}
	at += (size_t)snprintf(packet + at, 16, "MESSAGE=");
	add_escaped(packet, sizeof(packet) - 1, &at, words);
	packet[at++] = '\n';
	if (state.fd < 0)
		state.fd = open_journal();
	if (send(state.fd, packet, at, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
		if (state.fd >= 0)
			(void)close(state.fd);
		state.fd = -1; /* journald was restarted, perhaps: next line connects anew */
	}
}

static size_t make_line(char *line, size_t size, enum log_level level, const char *vm,
			const char *words)
{
	size_t at = add_time(line, 64);

	at += (size_t)snprintf(line + at, 32, " %d %c ", (int)getpid(), levels[level].letter);
	add_escaped(line, at + 256, &at, vm && vm[0] ? vm : "-");
	line[at++] = ' ';
	add_escaped(line, size - 1, &at, words);
	line[at++] = '\n';
	return at;
}

/* A terminal that is stopped or a pipe that nobody reads must not stop us, a closed one must not
 * kill us. */
static void write_line(int fd, const char *line, size_t length)
{
	struct pollfd writable = { .fd = fd, .events = POLLOUT };
	static const struct timespec at_once = { 0 };
	sigset_t pipe_signal, pending, before;

	if (poll(&writable, 1, 0) <= 0 || !(writable.revents & POLLOUT))
		return;
	sigemptyset(&pipe_signal);
	sigaddset(&pipe_signal, SIGPIPE);
	sigpending(&pending);
	(void)sigprocmask(SIG_BLOCK, &pipe_signal, &before);
	if (write(fd, line, length) < 0 && !sigismember(&pending, SIGPIPE))
		(void)sigtimedwait(&pipe_signal, NULL, &at_once);
	(void)sigprocmask(SIG_SETMASK, &before, NULL);
}

/* By the thread that writes, where there is one: a disk may hang. */
static void hand_over(const char *line, size_t length)
{
	size_t lost = writer_lost();

	if (lost > 0) {
		char words[64], note[512];

		(void)snprintf(words, sizeof(words), "%zu lines were lost: the disk hung", lost);
		writer_append(state.file, 0640, 0, note,
			      make_line(note, sizeof(note), LOG_LEVEL_WARNING, NULL, words));
	}
	writer_append(state.file, 0640, 0, line, length);
}

static void to_file(const char *line, size_t length)
{
	struct stat st;

	if (writer_runs()) {
		hand_over(line, length);
		return;
	}
	if (state.fd < 0 || stat(state.file, &st) < 0 || st.st_ino != state.inode ||
	    st.st_dev != state.device)
		open_file();
	if (state.fd >= 0)
		write_line(state.fd, line, length);
}

static void log_line(enum log_level level, const char *vm, const char *fmt, va_list args)
	__attribute__((format(printf, 3, 0)));
static void log_line(enum log_level level, const char *vm, const char *fmt, va_list args)
{
	char words[LINE_MAX_BYTES / 2];
	char line[LINE_MAX_BYTES];
	int saved = errno;

	if (level > state.max)
		return;
	if (vsnprintf(words, sizeof(words), fmt, args) >= 0) {
		if (state.journal) {
			to_journal(level, vm, words);
		} else {
			size_t length = make_line(line, sizeof(line), level, vm, words);

			if (state.file)
				to_file(line, length);
			else
				write_line(STDERR_FILENO, line, length);
		}
	}
	errno = saved;
}

void log_error(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	log_line(LOG_LEVEL_ERROR, state.vm, fmt, args);
	va_end(args);
}

void log_warning(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	log_line(LOG_LEVEL_WARNING, state.vm, fmt, args);
	va_end(args);
}

void log_info(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	log_line(LOG_LEVEL_INFO, state.vm, fmt, args);
	va_end(args);
}

void log_debug(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	log_line(LOG_LEVEL_DEBUG, state.vm, fmt, args);
	va_end(args);
}

void log_vm(enum log_level level, const char *vm, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	log_line(level, vm, fmt, args);
	va_end(args);
}

int log_level_of(const char *name)
{
	for (size_t i = 0; name && i < ARRAY_SIZE(levels); i++)
		if (strcmp(levels[i].name, name) == 0)
			return (int)i;
	return -1;
}
