/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/console.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "keeper/keeper.h"
#include "keeper/logfile.h"
#include "model/config.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/mem.h"
#include "wire/sock.h"

#define CLIENTS_MAX 16
/* How often the sizes of the logs are looked at. */
#define ROTATE_EVERY (5 * USEC_PER_SEC)
#define LOG_MAX (UINT64_C(4) << 20) /* of qemu.log and keeper.log */

struct console {
	struct keeper *keeper;
	int listener;
	int serial; /* to QEMU; -1 while nobody is attached: a guest must not wait for a reader */
	int clients[CLIENTS_MAX];
	size_t n_clients;
	sd_event_source *accept, *serial_source, *client_sources[CLIENTS_MAX], *rotate;
};

static void drop_serial(struct console *console)
{
	console->serial_source = sd_event_source_disable_unref(console->serial_source);
	cleanup_closep(&console->serial);
	console->serial = -1;
}

static void drop_client(struct console *console, size_t i)
{
	sd_event_source_disable_unref(console->client_sources[i]);
	(void)close(console->clients[i]);
	console->n_clients--;
	console->clients[i] = console->clients[console->n_clients];
	console->client_sources[i] = console->client_sources[console->n_clients];
	if (console->n_clients == 0)
		drop_serial(console);
}

/* From the guest to everybody.  Who does not read in time misses some: the log has it all. */
static int on_serial(sd_event_source *source, int fd, uint32_t revents, void *ctx)
{
	struct console *console = ctx;
	char bytes[16384];
	ssize_t length = read(fd, bytes, sizeof(bytes));

	if (length < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (length <= 0) {
		drop_serial(console);
		return 0;
	}
	for (size_t i = 0; i < console->n_clients; i++)
		(void)send(console->clients[i], bytes, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT);
	return 0;
}

static int attach_serial(struct console *console, struct error *err)
{
	int r;

	if (console->serial >= 0)
		return 0;
	r = sock_connect(console->keeper->run_fd, "serial.sock", err);
	if (r < 0)
		return r;
	console->serial = r;
	return sd_event_add_io(console->keeper->loop, &console->serial_source, console->serial,
			       EPOLLIN, on_serial, console);
}

/* From one client to the guest.  A guest that does not read loses input, as on a real line. */
static int on_client(sd_event_source *source, int fd, uint32_t revents, void *ctx)
{
	struct console *console = ctx;
	struct error err = { 0 };
	char bytes[4096];
	ssize_t length = read(fd, bytes, sizeof(bytes));

	if (length < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (length > 0 && attach_serial(console, &err) == 0) {
		(void)send(console->serial, bytes, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT);
		return 0;
	}
	for (size_t i = 0; i < console->n_clients; i++) {
		if (console->clients[i] != fd)
			continue;
		drop_client(console, i);
		break;
	}
	return 0;
}

static int on_accept(sd_event_source *source, int fd, uint32_t revents, void *ctx)
{
	struct console *console = ctx;
	struct error err = { 0 };
	int client = sock_accept(fd, &err);
	size_t i = console->n_clients;

	if (client < 0)
		return 0;
	if (i == CLIENTS_MAX || attach_serial(console, &err) < 0 ||
	    sd_event_add_io(console->keeper->loop, &console->client_sources[i], client, EPOLLIN,
			    on_client, console) < 0) {
		log_warning("console: %s", i == CLIENTS_MAX ? "too many clients" : err.text);
		(void)close(client);
		return 0;
	}
	console->clients[i] = client;
	console->n_clients++;
	return 0;
}

static void shorten(const struct keeper *keeper, const char *name, uint64_t max)
{
	struct error err = { 0 };
	uint64_t dropped = 0;

	if (logfile_shorten(keeper->log_fd, name, max, &dropped, &err) < 0)
		log_warning("%s", err.text);
	else if (dropped)
		log_warning("%s grew too fast: %llu bytes of it are not kept%s%s", name,
			    (unsigned long long)dropped, err.text[0] ? ": " : "", err.text);
}

static int on_rotate(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct console *console = ctx;

	shorten(console->keeper, "serial.log", console->keeper->config->serial_log_max);
	shorten(console->keeper, "qemu.log", LOG_MAX);
	shorten(console->keeper, "keeper.log", LOG_MAX);
	(void)sd_event_source_set_time_relative(source, ROTATE_EVERY);
	(void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

void console_next(struct console *console)
{
	struct error err = { 0 };

	if (console->n_clients && attach_serial(console, &err) < 0)
		log_warning("console: %s", err.text);
}

int console_open(struct keeper *keeper, struct console **ret_console, struct error *err)
{
	struct console *console = xcalloc(1, sizeof(*console));
	int r;

	console->keeper = keeper;
	console->serial = console->listener = -1;
	r = sock_listen(keeper->run_fd, "console.sock", 0600, err);
	if (r >= 0) {
		console->listener = r;
		r = sd_event_add_io(keeper->loop, &console->accept, console->listener, EPOLLIN,
				    on_accept, console);
	}
	if (r >= 0)
		r = sd_event_add_time_relative(keeper->loop, &console->rotate, CLOCK_BOOTTIME, 0,
					       USEC_PER_SEC, on_rotate, console);
	if (r < 0) {
		console_close(console);
		return error_prefix(err, r, "console");
	}
	*ret_console = console;
	return 0;
}

struct console *console_close(struct console *console)
{
	if (!console)
		return NULL;
	while (console->n_clients)
		drop_client(console, 0);
	drop_serial(console);
	sd_event_source_disable_unref(console->accept);
	sd_event_source_disable_unref(console->rotate);
	cleanup_closep(&console->listener);
	free(console);
	return NULL;
}
