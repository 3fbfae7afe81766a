/* SPDX-License-Identifier: Apache-2.0 */
/* libcurl tells which descriptors and which timer it waits for; the loop tells libcurl what came.
 * What is finished is answered from a source of its own, when no call of libcurl's is below us. */
#include "store/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"

#define CONNECT_MSEC 2000L
/* A peer that is silent for so long, with data or a probe under way, is gone: a cut link is never
 * told. */
#define SILENCE_MSEC 6000

struct http_transfer {
	struct http *http;
	struct http_transfer *next, **self;
	CURL *easy;
	struct curl_slist *headers;
	char *request_body;
	size_t request_length, request_sent;
	http_answer_fn answer;
	void *ctx;

	struct text body;
	size_t limit;
	uint64_t index;
	char trouble[CURL_ERROR_SIZE];
};

struct http {
	sd_event *loop;
	CURLM *multi;
	sd_event_source *timer; /* libcurl's */
	sd_event_source *finished;
	struct http_transfer *transfers;
};

static void finished_look(struct http *http)
{
	(void)sd_event_source_set_enabled(http->finished, SD_EVENT_ONESHOT);
}

static int socket_ready(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct http *http = userdata;
	int what = 0, running;

	if (revents & EPOLLIN)
		what |= CURL_CSELECT_IN;
	if (revents & EPOLLOUT)
		what |= CURL_CSELECT_OUT;
	if (revents & (EPOLLERR | EPOLLHUP))
		what |= CURL_CSELECT_ERR;
	(void)curl_multi_socket_action(http->multi, fd, what, &running);
	finished_look(http);
	return 0;
}

static int timer_due(sd_event_source *timer, uint64_t usec, void *userdata)
{
	struct http *http = userdata;
	int running;

	(void)curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	finished_look(http);
	return 0;
}

static int on_timer(CURLM *multi, long msec, void *userdata)
{
	struct http *http = userdata;

	if (msec < 0) {
		(void)sd_event_source_set_enabled(http->timer, SD_EVENT_OFF);
		return 0;
	}
	(void)sd_event_source_set_time_relative(http->timer, (uint64_t)msec * USEC_PER_MSEC);
	(void)sd_event_source_set_enabled(http->timer, SD_EVENT_ONESHOT);
	return 0;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *userdata, void *of_socket)
{
	struct http *http = userdata;
	sd_event_source *source = of_socket;
	uint32_t events = 0;
	int r;

	if (what == CURL_POLL_REMOVE) {
		(void)sd_event_source_disable_unref(source);
		(void)curl_multi_assign(http->multi, fd, NULL);
		return 0;
	}
	if (what & CURL_POLL_IN)
		events |= EPOLLIN;
	if (what & CURL_POLL_OUT)
		events |= EPOLLOUT;
	if (source)
		return sd_event_source_set_io_events(source, events) < 0 ? -1 : 0;
	r = sd_event_add_io(http->loop, &source, fd, events, socket_ready, http);
	if (r < 0)
		return -1;
	(void)curl_multi_assign(http->multi, fd, source);
	return 0;
}

static void transfer_free(struct http_transfer *transfer)
{
	*transfer->self = transfer->next;
	if (transfer->next)
		transfer->next->self = transfer->self;
	if (transfer->easy) {
		(void)curl_multi_remove_handle(transfer->http->multi, transfer->easy);
		curl_easy_cleanup(transfer->easy);
	}
	curl_slist_free_all(transfer->headers);
	text_done(&transfer->body);
	free(transfer->request_body);
	free(transfer);
}

static void transfer_finish(struct http_transfer *transfer, CURLcode code)
{
	struct http_answer answer = { .index = transfer->index,
				      .body = transfer->body.text ? transfer->body.text : "",
				      .length = transfer->body.length };
	long status = 0;

	if (code == CURLE_OK)
		(void)curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
	/* Now its connection serves what the answer makes us ask. */
	(void)curl_multi_remove_handle(transfer->http->multi, transfer->easy);
	answer.status = (int)status;
	answer.unsent = code == CURLE_COULDNT_CONNECT && transfer->request_sent == 0;
	answer.trouble = transfer->trouble[0] ? transfer->trouble : curl_easy_strerror(code);
	transfer->answer(transfer->ctx, &answer);
}

static int finished_due(sd_event_source *source, void *userdata)
{
	struct http *http = userdata;
	struct CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(http->multi, &left))) {
		struct http_transfer *transfer = NULL;
		CURLcode code = message->data.result;

		if (message->msg != CURLMSG_DONE)
			continue;
		(void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
		transfer_finish(transfer, code);
		transfer_free(transfer);
	}
	return 0;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *userdata)
{
	struct http_transfer *transfer = userdata;

	if (transfer->limit == 0)
		return size * count;
	if (size * count > transfer->limit - transfer->body.length) {
		(void)snprintf(transfer->trouble, sizeof(transfer->trouble),
			       "the answer has more than %zu bytes", transfer->limit);
		return 0;
	}
	text_add(&transfer->body, bytes, size * count);
	return size * count;
}

/* The body of a request.  Nobody can take it back to its beginning, so libcurl, which would repeat
 * a request on another connection when a kept one breaks, does not repeat one whose body was sent:
 * it may have been carried out. */
static size_t on_request_body(char *bytes, size_t size, size_t count, void *userdata)
{
	struct http_transfer *transfer = userdata;
	size_t length = transfer->request_length - transfer->request_sent;

	if (length > size * count)
		length = size * count;
	memcpy(bytes, transfer->request_body + transfer->request_sent, length);
	transfer->request_sent += length;
	return length;
}

static size_t on_header(char *bytes, size_t size, size_t count, void *userdata)
{
	static const char name[] = "X-Consul-Index:";
	struct http_transfer *transfer = userdata;
	char text[64];

	if (size * count > sizeof(name) && size * count < sizeof(text) &&
	    strncasecmp(bytes, name, sizeof(name) - 1) == 0) {
		memcpy(text, bytes, size * count);
		text[size * count] = '\0';
		transfer->index = strtoull(text + sizeof(name) - 1, NULL, 10);
	}
	return size * count;
}

static int on_new_socket(void *userdata, curl_socket_t fd, curlsocktype purpose)
{
	unsigned silence = SILENCE_MSEC;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence, sizeof(silence));
	return CURL_SOCKOPT_OK;
}

static bool headers_set(struct http_transfer *transfer, const char *header)
{
	/* Without it libcurl waits a second for "100 Continue" before it sends a large body. */
	struct curl_slist *list = curl_slist_append(NULL, "Expect:"), *more;

	if (!list)
		return false;
	transfer->headers = list;
	if (!header)
		return true;
	more = curl_slist_append(list, header);
	if (more)
		transfer->headers = more;
	return more != NULL;
}

/* Options that libcurl does not take are our own bugs, but one that it was built without (TLS) is
 * told when the transfer is tried. */
static void transfer_set_up(struct http_transfer *transfer, const struct http_request *request)
{
	CURL *easy = transfer->easy;

	(void)curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
	(void)curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->trouble);
	(void)curl_easy_setopt(easy, CURLOPT_URL, request->url);
	(void)curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
	(void)curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer->headers);
	(void)curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	(void)curl_easy_setopt(easy, CURLOPT_PROXY, "");
	(void)curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MSEC);
	(void)curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS,
			       (long)(request->timeout_usec / USEC_PER_MSEC));
	(void)curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 3L);
	(void)curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, on_new_socket);
	(void)curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	(void)curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
	(void)curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	(void)curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
	if (request->ca_file)
		(void)curl_easy_setopt(easy, CURLOPT_CAINFO, request->ca_file);
	if (transfer->request_body) {
		(void)curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
		(void)curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE,
				       (curl_off_t)transfer->request_length);
		(void)curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_request_body);
		(void)curl_easy_setopt(easy, CURLOPT_READDATA, transfer);
	}
}

int http_send(struct http *http, const struct http_request *request, http_answer_fn answer,
	      void *ctx, struct http_transfer **ret_transfer, struct error *err)
{
	struct http_transfer *transfer = xcalloc(1, sizeof(*transfer));

	*transfer = (struct http_transfer){
		.http = http,
		.next = http->transfers,
		.self = &http->transfers,
		.easy = curl_easy_init(),
		.answer = answer,
		.ctx = ctx,
		.limit = request->limit,
	};
	if (transfer->next)
		transfer->next->self = &transfer->next;
	http->transfers = transfer;
	if (request->body) {
		transfer->request_body = xcalloc(1, request->length + 1);
		memcpy(transfer->request_body, request->body, request->length);
		transfer->request_length = request->length;
	}
	if (!transfer->easy || !headers_set(transfer, request->header)) {
		transfer_free(transfer);
		return error_set(err, -ENOMEM, "cannot make an HTTP request: %m");
	}
	transfer_set_up(transfer, request);
	if (curl_multi_add_handle(http->multi, transfer->easy) != CURLM_OK) {
		transfer_free(transfer);
		return error_set(err, -ENOMEM, "cannot send an HTTP request: %m");
	}
	*ret_transfer = transfer;
	return 0;
}

struct http_transfer *http_cancel(struct http_transfer *transfer)
{
	if (transfer)
		transfer_free(transfer);
	return NULL;
}

struct http *http_close(struct http *http)
{
	if (!http)
		return NULL;
	while (http->transfers)
		transfer_free(http->transfers);
	if (http->multi)
		(void)curl_multi_cleanup(http->multi);
	(void)sd_event_source_disable_unref(http->timer);
	(void)sd_event_source_disable_unref(http->finished);
	(void)sd_event_unref(http->loop);
	free(http);
	curl_global_cleanup();
	return NULL;
}

int http_open(sd_event *loop, struct http **ret_http, struct error *err)
{
	struct http *http;
	int r;

	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return error_set(err, -ENOSYS, "libcurl cannot be used here");
	http = xcalloc(1, sizeof(*http));
	http->loop = sd_event_ref(loop);
	http->multi = curl_multi_init();
	r = http->multi ? 0 : -ENOMEM;
	if (r >= 0)
		r = sd_event_add_time(loop, &http->timer, CLOCK_BOOTTIME, 0, 1, timer_due, http);
	if (r >= 0)
		r = sd_event_source_set_enabled(http->timer, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_defer(loop, &http->finished, finished_due, http);
	if (r < 0) {
		(void)http_close(http);
		return error_set(err, r, "cannot serve HTTP from the event loop: %m");
	}
	(void)curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	(void)curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
	(void)curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, on_timer);
	(void)curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
	*ret_http = http;
	return 0;
}
