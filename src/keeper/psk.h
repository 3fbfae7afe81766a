/* SPDX-License-Identifier: Apache-2.0 */
/* The one-time key under which two QEMUs encrypt what flows between them.  QEMU reads keys from a
 * file only (docs/system/tls.rst, tls-creds-psk); that file lies in the private /run of its own
 * mount namespace, readable by its user alone, and goes with the migration. */
#pragma once
#include <stdbool.h>

struct error;
struct keeper;

#define PSK_SIZE 65	    /* 256 bits as hex, and NUL */
#define PSK_DIR "/run/keys" /* as QEMU sees it */
#define PSK_USER "drover"   /* the name of the key in the file */
#define PSK_ID "drover-tls" /* of QEMU's object */

int psk_make(char key[PSK_SIZE], struct error *err);
/* Into the namespace of keeper->copy; `server`: with what the answering side needs besides. */
int psk_place(const struct keeper *keeper, const char *key, bool server, struct error *err);
void psk_remove(const struct keeper *keeper);
