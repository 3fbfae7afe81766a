/* SPDX-License-Identifier: Apache-2.0 */
/* An HTTP client in our loop: libcurl's multi interface and sd-event.  Every request has a deadline
 * and a greatest size of its answer; redirects, proxies and other protocols are off. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

struct error;
struct http;
struct http_transfer;

int http_open(sd_event *loop, struct http **ret_http, struct error *err);
/* Ends all transfers; nobody is answered.  Not from inside an answer. */
struct http *http_close(struct http *http);

struct http_answer {
	int status;	  /* 0: none came; `trouble` says why */
	bool unsent;	  /* no connection was made: the server has not heard of it */
	uint64_t index;	  /* X-Consul-Index, 0: none */
	const char *body; /* terminated; borrowed */
	size_t length;
	const char *trouble; /* libcurl's words */
};
typedef void (*http_answer_fn)(void *ctx, const struct http_answer *answer);

struct http_request {	    /* all borrowed for the call only */
	const char *method; /* "GET", "PUT" */
	const char *url;
	const char *header; /* one more, or NULL */
	const char *body;   /* or NULL */
	size_t length;
	const char *ca_file; /* instead of the system's, or NULL */
	uint64_t timeout_usec;
	size_t limit; /* greatest body of an answer; 0: thrown away, whatever its size */
};

/* A request with a body is never repeated by itself once it was sent.
 * `answer` is called once, from the loop, never from inside the call; the transfer is gone then. */
int http_send(struct http *http, const struct http_request *request, http_answer_fn answer,
	      void *ctx, struct http_transfer **ret_transfer, struct error *err);
struct http_transfer *http_cancel(struct http_transfer *transfer); /* NULL is allowed */
