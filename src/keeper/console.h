/* SPDX-License-Identifier: Apache-2.0 */
/* The serial console.  QEMU writes serial.log itself (it must outlive us) and serves one client;
 * here any number of clients at console.sock share that one.  Its log, and the others that somebody
 * appends to without us, are kept short from here. */
#pragma once

struct console;
struct error;
struct keeper;

int console_open(struct keeper *keeper, struct console **ret_console, struct error *err);
struct console *console_close(struct console *console);
/* The next QEMU runs: who is attached goes on with it. */
void console_next(struct console *console);
