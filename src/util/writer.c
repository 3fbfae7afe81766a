/* SPDX-License-Identifier: Apache-2.0 */
#include "util/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "util/thread.h"

#define PATIENCE (300 * USEC_PER_MSEC)
#define END_PATIENCE (2 * USEC_PER_SEC)
#define WAITING_MAX (1024u * 1024) /* bytes */
#define STACK_SIZE (128u * 1024)
#define SINKS 4

struct line {
	struct line *next;
	char *file, *text;
	mode_t mode;
	uint64_t max;
	size_t length;
};

/* A file stays open, so that lines can be written when descriptors have run out. */
struct sink {
	char *file;
	int fd;
	dev_t device;
	ino_t inode;
};

static struct {
	pid_t pid; /* whose thread it is; 0: nobody's */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t come, gone;
	struct line *first, **last;
	size_t waiting; /* bytes */
	uint64_t given, written;
	size_t lost;
	bool hangs, ends, ended;
	struct sink sinks[SINKS]; /* the thread's; without it, the caller's */
} writer = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void line_free(struct line *line)
{
	free(line->file);
	free(line->text);
	free(line);
}

static struct sink *sink_of(const char *file)
{
	size_t i;

	for (i = 0; i < SINKS - 1 && writer.sinks[i].file; i++)
		if (strcmp(writer.sinks[i].file, file) == 0)
			return &writer.sinks[i];
	/* More files than places: the last place changes hands. */
	if (writer.sinks[i].file && strcmp(writer.sinks[i].file, file) != 0) {
		free(writer.sinks[i].file);
		if (writer.sinks[i].fd >= 0)
			(void)close(writer.sinks[i].fd);
		writer.sinks[i].file = NULL;
	}
	if (!writer.sinks[i].file)
		writer.sinks[i] = (struct sink){ .file = xstrdup(file), .fd = -1 };
	return &writer.sinks[i];
}

static void sink_open(struct sink *sink, mode_t mode)
{
	struct stat st;

	if (sink->fd >= 0)
		(void)close(sink->fd);
	sink->fd = open(sink->file,
			O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, mode);
	if (sink->fd >= 0 && fstat(sink->fd, &st) == 0) {
		sink->device = st.st_dev;
		sink->inode = st.st_ino;
	}
}

static void write_out(const struct line *line)
{
	struct sink *sink = sink_of(line->file);
	CLEANUP_FREE char *older = xasprintf("%s.1", line->file);
	struct stat st;

	if (sink->fd < 0 || stat(sink->file, &st) < 0 || st.st_ino != sink->inode ||
	    st.st_dev != sink->device)
		sink_open(sink, line->mode);
	/* One that cannot be written loses the line: that is no reason for anything to fail. */
	if (sink->fd < 0 || write(sink->fd, line->text, line->length) < 0)
		return;
	if (line->max > 0 && fstat(sink->fd, &st) == 0 && (uint64_t)st.st_size > line->max)
		(void)rename(line->file, older);
}

static void *run(void *unused)
{
	(void)pthread_mutex_lock(&writer.lock);
	while (writer.first || !writer.ends) {
		struct line *line = writer.first;

		if (!line) {
			(void)pthread_cond_wait(&writer.come, &writer.lock);
			continue;
		}
		writer.first = line->next;
		if (!writer.first)
			writer.last = &writer.first;
		(void)pthread_mutex_unlock(&writer.lock);
		write_out(line);
		(void)pthread_mutex_lock(&writer.lock);
		writer.waiting -= line->length;
		writer.written++;
		writer.hangs = false;
		line_free(line);
		(void)pthread_cond_broadcast(&writer.gone);
	}
	writer.ended = true;
	(void)pthread_cond_broadcast(&writer.gone);
	(void)pthread_mutex_unlock(&writer.lock);
	return NULL;
}

bool writer_runs(void)
{
	return writer.pid != 0 && writer.pid == getpid();
}

int writer_start(struct error *err)
{
	int r;

	if (writer_runs())
		return 0;
	thread_cond_init(&writer.come);
	thread_cond_init(&writer.gone);
	writer.last = &writer.first;
	r = thread_start(run, NULL, STACK_SIZE, &writer.thread);
	if (r < 0)
		return error_set(err, r, "cannot start a thread for the logs: %s", strerror(-r));
	writer.pid = getpid();
	return 0;
}

static void sinks_close(void)
{
	for (size_t i = 0; i < SINKS; i++) {
		if (writer.sinks[i].file && writer.sinks[i].fd >= 0)
			(void)close(writer.sinks[i].fd);
		free(writer.sinks[i].file);
		writer.sinks[i] = (struct sink){ .fd = -1 };
	}
}

void writer_stop(void)
{
	const struct timespec end = thread_in(END_PATIENCE);
	bool ended;

	if (!writer_runs())
		return;
	(void)pthread_mutex_lock(&writer.lock);
	writer.ends = true;
	(void)pthread_cond_signal(&writer.come);
	while (!writer.ended &&
	       pthread_cond_timedwait(&writer.gone, &writer.lock, &end) != ETIMEDOUT)
		;
	ended = writer.ended;
	(void)pthread_mutex_unlock(&writer.lock);
	writer.pid = 0;
	if (!ended)
		return; /* it goes with the process, as soon as the disk lets it */
	(void)pthread_join(writer.thread, NULL);
	writer.ends = writer.ended = false;
	sinks_close();
}

static struct line *line_new(const char *file, mode_t mode, uint64_t max, const char *text,
			     size_t length)
{
	struct line *line = xcalloc(1, sizeof(*line));

	line->file = xstrdup(file);
	line->mode = mode;
	line->max = max;
	line->text = xcalloc(1, length + 1);
	memcpy(line->text, text, length);
	line->length = length;
	return line;
}

/* With the lock; takes the line. */
static void give(struct line *line)
{
	const struct timespec end = thread_in(PATIENCE);
	uint64_t number;

	if (writer.waiting + line->length > WAITING_MAX) {
		writer.lost++;
		line_free(line);
		return;
	}
	writer.waiting += line->length;
	*writer.last = line;
	writer.last = &line->next;
	number = ++writer.given;
	(void)pthread_cond_signal(&writer.come);
	while (!writer.hangs && writer.written < number)
		if (pthread_cond_timedwait(&writer.gone, &writer.lock, &end) == ETIMEDOUT)
			writer.hangs = writer.written < number;
}

void writer_append(const char *file, mode_t mode, uint64_t max, const char *text, size_t length)
{
	struct line *line = line_new(file, mode, max, text, length);

	if (!writer_runs()) {
		write_out(line);
		line_free(line);
		return;
	}
	(void)pthread_mutex_lock(&writer.lock);
	give(line);
	(void)pthread_mutex_unlock(&writer.lock);
}

size_t writer_lost(void)
{
	size_t lost;

	if (!writer_runs())
		return 0;
	(void)pthread_mutex_lock(&writer.lock);
	lost = writer.hangs ? 0 : writer.lost;
	writer.lost -= lost;
	(void)pthread_mutex_unlock(&writer.lock);
	return lost;
}
