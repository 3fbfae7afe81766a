/* SPDX-License-Identifier: Apache-2.0 */
/* A token of Consul's: in a file that is ours alone, and nowhere else but in a header of HTTP. */
#pragma once
struct error;

/* "X-Consul-Token: ..." of the token in this file; owned by the caller, who ends it with
 * token_forget(). */
int token_header(const char *path, char **ret_header, struct error *err);
void token_forget(char *header); /* NULL is allowed */
