/* SPDX-License-Identifier: Apache-2.0 */
#include "serial.h"

#include "port.h"

enum {
	COM1 = 0x3f8,
	DATA = COM1 + 0,
	DIVISOR_LOW = COM1 + 0,
	DIVISOR_HIGH = COM1 + 1,
	INTERRUPT_ENABLE = COM1 + 1,
	FIFO_CONTROL = COM1 + 2,
	LINE_CONTROL = COM1 + 3,
	LINE_STATUS = COM1 + 5,

	FIFO_SIZE = 16,
	FIFO_ON_AND_EMPTY = 0x07,
	DIVISOR_ACCESS = 0x80,
	EIGHT_BITS = 0x03,
	FIFO_TAKES_MORE = 0x20,
};

void serial_init(struct serial *serial)
{
	serial->written = serial->sent = 0;
	port_out8(INTERRUPT_ENABLE, 0);
	port_out8(LINE_CONTROL, DIVISOR_ACCESS | EIGHT_BITS);
	port_out8(DIVISOR_LOW, 1);
	port_out8(DIVISOR_HIGH, 0);
	port_out8(LINE_CONTROL, EIGHT_BITS);
	port_out8(FIFO_CONTROL, FIFO_ON_AND_EMPTY);
}

bool serial_write(struct serial *serial, const char *text, size_t len)
{
	uint32_t at = serial->written % SERIAL_QUEUE;
	uint32_t first = SERIAL_QUEUE - at;

	if (len > SERIAL_QUEUE - (serial->written - serial->sent))
		return false;
	if (first > len)
		first = len;
	__builtin_memcpy(serial->queue + at, text, first);
	__builtin_memcpy(serial->queue, text + first, len - first);
	serial->written += len;
	return true;
}

void serial_flush(struct serial *serial)
{
	/* QEMU delivers at once, so the FIFO is full only if its reader is slow. */
	while (serial->sent != serial->written && (port_in8(LINE_STATUS) & FIFO_TAKES_MORE)) {
		uint32_t at = serial->sent % SERIAL_QUEUE;
		uint32_t len = serial->written - serial->sent;

		if (len > FIFO_SIZE)
			len = FIFO_SIZE;
		if (len > SERIAL_QUEUE - at)
			len = SERIAL_QUEUE - at;
		port_out_bytes(DATA, serial->queue + at, len);
		serial->sent += len;
	}
}
