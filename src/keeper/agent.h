/* SPDX-License-Identifier: Apache-2.0 */
/* The guest agent's port: whether it is open, whether the agent answers, and the commands of users
 * that wait for it. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

struct keeper;
struct request;
struct agent;

struct agent *agent_new(struct keeper *keeper);
struct agent *agent_free(struct agent *agent);
/* The guest opened or closed the port (VSERPORT_CHANGE, query-chardev). */
void agent_port(struct agent *agent, bool open);
/* Looks whether it answers: it may hang while its port stays open. */
void agent_ping(struct agent *agent);
/* Asks the guest to shut down, when its agent answers; nothing is heard back. */
void agent_shutdown(struct agent *agent);
/* The copy is gone. */
void agent_reset(struct agent *agent);
bool agent_busy(const struct agent *agent);	    /* somebody waits for an answer */
const char *agent_state(const struct agent *agent); /* "answering", "silent", "absent" */

/* Takes the request and answers it, waiting for the agent to appear within its timeout_ms. */
void agent_guest(struct agent *agent, struct request *request);
void agent_exec(struct agent *agent, struct request *request);
